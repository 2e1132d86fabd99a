"""Predictions without a model, fitted on annotated dialogues and scored by the same metrics as a model.

A figure means little without them: 90% accuracy is nothing if 90% of the requests have the same intent. Each task defines its trivial
predictions (`Task.majority`, `Task.eager`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from labelgen.dialogue import Dialogue
from labelgen.metrics import Prediction
from labelgen.tasks import Baseline, Decoded, Task

log = logging.getLogger(__name__)
BASELINES: dict[str, Callable[[Task, Iterable[Dialogue]], Baseline | None]] = {
    "majority": lambda task, dialogues: task.majority(dialogues),
    "eager": lambda task, dialogues: task.eager(dialogues),
}


class Baselines:
    """The baselines of one kind, a key of BASELINES. The attribute `tasks` holds the tasks that have one."""

    def __init__(self, kind: str, tasks: Mapping[str, Task], dialogues: Sequence[Dialogue]) -> None:
        found = {name: BASELINES[kind](task, dialogues) for name, task in tasks.items()}
        self.baselines = {name: baseline for name, baseline in found.items() if baseline is not None}
        self.tasks = {name: tasks[name] for name in self.baselines}
        if missing := sorted(tasks.keys() - self.tasks.keys()):
            log.warning("no %s baseline of %s: the task does not define one", kind, ", ".join(missing))

    def predict(self, dialogues: Iterable[Dialogue]) -> Iterator[tuple[Dialogue, dict[str, Prediction]]]:
        """Each dialogue with its predictions by task, as `Annotator.predict` gives it."""
        for dialogue in dialogues:
            decoded: dict[str, list[Decoded]] = {}
            predictions: dict[str, Prediction] = {}
            for name, baseline in self.baselines.items():
                guess = baseline.guess(dialogue, decoded)
                decoded[name] = guess.decoded
                predictions[name] = Prediction([item.label(name, "baseline") for item in guess.decoded], guess.probabilities)
            yield dialogue, predictions
