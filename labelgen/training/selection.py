"""How long a run trains, and which of its checkpoints counts, if there are few dialogues."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import ceil, isnan
from typing import Literal, NamedTuple

from pytorch_lightning.callbacks import ModelCheckpoint

from labelgen.dialogue import Dialogue
from labelgen.io.wording import counted
from labelgen.tasks import Task
from labelgen.training.data import annotated

EPOCHS = 3  # of a run without a configured budget, if they make enough steps
VALIDATIONS = 10  # of a run of many short epochs


class Budget(NamedTuple):
    """Epochs of a run, and how many of them each validation follows."""

    max_epochs: int
    check_val_every_n_epoch: int


def default_budget(steps_per_epoch: int, min_steps: int) -> Budget:
    """EPOCHS epochs, or more if they would make fewer than `min_steps` steps.

    The last epoch ends with a validation. Many short epochs share one, because validating and writing would take longer than training.
    """
    epochs = max(EPOCHS, ceil(min_steps / max(steps_per_epoch, 1)))
    every = max(1, epochs // VALIDATIONS)
    return Budget(every * ceil(epochs / every), every)


def count_annotated(tasks: Mapping[str, Task], dialogues: Iterable[Dialogue]) -> int:
    """The number of dialogues that are annotated for a task. Without tasks (pretraining) all dialogues count."""
    return sum(not tasks or any(annotated(task, dialogue) for task in tasks.values()) for dialogue in dialogues)


def never_right(scored: Mapping[str, str], rows: Iterable[Mapping[str, str]]) -> Iterator[str]:
    """A message for each task whose score was 0 in all validations. `scored`: task -> its column in metrics.csv, which has the `rows`."""
    held = list(rows)
    for task, column in scored.items():
        values = [float(row[column]) for row in held if column in row]
        if values and not any(values):
            yield f"{task}: {column} was 0 in all validations ({len(values)}); the model got nothing right for this task"


class Validation(NamedTuple):
    """What the choice of a checkpoint can rest on."""

    held_out: int  # dialogues
    annotated: int  # of them, for a task of the run
    minimum: int  # annotated dialogues below which nothing is chosen by them

    @property
    def decides(self) -> bool:
        """Whether there are enough dialogues to choose a checkpoint and to stop early."""
        return self.held_out > 0 and self.annotated >= self.minimum


class Choice(NamedTuple):
    """The checkpoint that an export takes."""

    name: Literal["best", "last"]
    step: int
    score: float | None  # None: it was not validated
    validations: int  # by which the best one was chosen
    monitor: str = "valid/score"

    @classmethod
    def of(cls, rows: Sequence[Mapping[str, str]], steps: int, best: ModelCheckpoint | None) -> Choice:
        """The choice of a finished run of so many steps. `rows`: those of metrics.csv. `best`: the callback that wrote best.ckpt."""
        monitor = (best and best.monitor) or cls._field_defaults["monitor"]
        scores = {int(row["step"]) + 1: float(row[monitor]) for row in rows if monitor in row and not isnan(float(row[monitor]))}
        if best is None or not scores:
            return cls("last", steps, scores.get(steps), len(scores))
        sign = 1.0 if best.mode == "max" else -1.0
        step = max(scores, key=lambda step: (sign * scores[step], step))
        return cls("best", step, scores[step], len(scores), monitor)

    def describe(self, validation: Validation) -> str:
        """One line: the checkpoint, its score, and how many dialogues that rests on."""
        what = f"checkpoint: {self.name}.ckpt (step {self.step})"
        if not validation.held_out:
            return f"{what}, without a score: no dialogue was held out (data.valid_fraction)"
        if not validation.annotated:
            return f"{what}, without a score: none of the {validation.held_out} dialogues held out is annotated"
        dialogues = counted(validation.annotated, "validation dialogue")
        score = "not validated" if self.score is None else f"{self.monitor} {self.score:.4f} on {dialogues}"
        if self.name == "best":
            return f"{what}, {score}, the best of {counted(self.validations, 'validation')}"
        few = f", too few to choose by (min_valid_dialogues={validation.minimum})"
        return f"{what}, {score}{'' if validation.decides else few}"
