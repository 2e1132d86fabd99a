"""Tasks: one file a label type. This one says what a task is, and has the base of those that classify turns or dialogues."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from labelgen.dialogue import Dialogue, Label, Part
from labelgen.inputs.batch import IGNORE, Batch, Encoding
from labelgen.io.display import LINE, Display
from labelgen.metrics import Accuracy, AveragePrecision, BinaryF1, Compared, Figure, MacroF1, Prediction
from labelgen.model.encoder import States
from labelgen.model.losses import Loss, masked_cross_entropy

Level = Literal["dialogue", "turn", "pair", "token"]
Utterances = Sequence[Encoding | None]  # the tokens of a dialogue's utterances, two a turn; None: the utterance has no text


class Decoded(NamedTuple):
    """A label as decoding gives it; the network adds the task's name and the model's fingerprint."""

    value: str
    turns: Sequence[int]
    confidence: float
    part: Part | None = None  # with start and end: the span that the label is about
    start: int | None = None
    end: int | None = None
    text: str | None = None

    def label(self, task: str, source: str) -> Label:
        """The label in a record."""
        return Label(task=task, source=source, **{**self._asdict(), "turns": list(self.turns)})


Earlier = Mapping[str, Sequence[Decoded]]  # the labels of the tasks before this one, by task


class Guess(NamedTuple):
    """A prediction made without a model."""

    decoded: list[Decoded]
    probabilities: np.ndarray  # as the metrics of the task read them


class Baseline(ABC):
    """Predicts one task without a model."""

    @abstractmethod
    def guess(self, dialogue: Dialogue, earlier: Earlier) -> Guess:
        """The prediction for a dialogue."""


@dataclass(frozen=True)
class Task(ABC):
    """A label type: how annotations become targets, how it is predicted, scored and written. Holds no weights and no data.

    Abstract are the five methods that differ between label types. What other parts of labelgen need to know of a task they ask the
    task: its label space, the rows of its logits, its score, its trivial baselines, how its labels are drawn.
    """

    name: ClassVar[str]
    score: ClassVar[str]  # name of the figure by which models are selected
    level: ClassVar[Level] = "turn"  # what a row of the logits is about
    display: ClassVar[Display] = LINE  # how its labels are drawn

    weight: float = 1.0  # of the loss

    @property
    @abstractmethod
    def labels(self) -> Sequence[str]:
        """The label space. A class attribute fixes it; a dataclass field can be configured, and is learned where it is empty."""

    @abstractmethod
    def encode(self, dialogue: Dialogue, utterances: Utterances) -> np.ndarray:
        """Annotations -> targets, a row for each row of the dialogue's logits.

        Integers (IGNORE: not annotated), or distributions over the classes (NaN: not annotated).
        """

    @abstractmethod
    def head(self, width: int, dropout: float) -> nn.Module:
        """The module that maps (States, Batch) to logits, [rows, K]."""

    @abstractmethod
    def loss(self, logits: Tensor, batch: Batch) -> Loss:
        """Loss over what is labelled in `batch.targets[name]`."""

    @abstractmethod
    def metrics(self) -> dict[str, Figure]:
        """Name -> figure, the one that a user needs first standing first; one of the names is `score`."""

    @abstractmethod
    def decode(self, probabilities: np.ndarray, dialogue: Dialogue, utterances: Utterances, earlier: Earlier) -> list[Decoded]:
        """Probabilities of one dialogue, [rows, K] -> its labels."""

    def __post_init__(self) -> None:
        if self._is_configurable():
            object.__setattr__(self, "labels", tuple(self.labels))

    def values(self, dialogue: Dialogue) -> Iterable[str]:
        """The label values in a dialogue's annotations; a label space that is not configured is the set of them."""
        return ()

    def with_labels(self, labels: Iterable[str]) -> Task:
        """The task with a label space. ValueError where the task has another one that is fixed."""
        if self._is_configurable():
            changed: dict[str, Any] = {"labels": tuple(labels)}  # a field of subclasses
            return replace(self, **changed)
        if (other := tuple(labels)) != tuple(self.labels):
            raise ValueError(f"task {self.name!r} has the labels {list(self.labels)}, in this order; {list(other)} are another task's")
        return self

    def rows(self, batch: Batch) -> list[int]:
        """How many rows of the logits each dialogue of a batch has. A task whose rows are none of the levels overrides this."""
        match self.level:
            case "dialogue":
                return [1] * len(batch.dialogues)
            case "turn":
                return batch.num_turns
            case "pair":  # each turn with each turn before it: (1, 0), (2, 0), (2, 1), ...
                return [turns * (turns - 1) // 2 for turns in batch.num_turns]
            case "token":  # of all utterances, one after another, so that a span may run over several
                return batch.num_tokens

    def majority(self, dialogues: Iterable[Dialogue]) -> Baseline | None:
        """The baseline that always gives the commonest label of these dialogues; None: the task has none."""
        return None

    def eager(self, dialogues: Iterable[Dialogue]) -> Baseline | None:
        """The baseline that always gives what one looks for (a failure, a new goal, a known value); as a rule the majority's."""
        return self.majority(dialogues)

    def _is_configurable(self) -> bool:
        return any(field.name == "labels" for field in fields(self))


@dataclass(frozen=True)
class Classification(Task):
    """Abstract: one class a turn, or one a dialogue. A label type of this kind needs a name, labels and `annotated`.

    With a `rare` class the figures are its F1 and average precision, and the eager baseline always says it. Otherwise they are accuracy
    and macro-F1. Values outside the label space are not learned, and count as errors when scored.
    """

    score: ClassVar[str] = "accuracy"  # with a rare class: f1
    utterance: ClassVar[Part] = "request"  # whose state is read, and without which a turn gets no label
    rare: ClassVar[str | None] = None

    @abstractmethod
    def annotated(self, dialogue: Dialogue) -> list[str | None]:
        """The class of each turn, or at level "dialogue" the one of the dialogue; None: not annotated."""

    def values(self, dialogue: Dialogue) -> Iterable[str]:
        return (value for value in self.annotated(dialogue) if value is not None)

    def encode(self, dialogue: Dialogue, utterances: Utterances) -> np.ndarray:
        return classes(self.annotated(dialogue), self.labels, IGNORE)

    def head(self, width: int, dropout: float) -> nn.Module:
        return ClassHead(width, len(self.labels), self.utterance, dropout, self.level)

    def loss(self, logits: Tensor, batch: Batch) -> Loss:
        return masked_cross_entropy(logits, batch.targets[self.name])

    def metrics(self) -> dict[str, Figure]:
        if self.rare is not None:
            return {"f1": Figure(BinaryF1(), self._compare_rare), "ap": Figure(AveragePrecision(), self._compare_scores)}
        return {"accuracy": Figure(Accuracy(), self._compare), "macro_f1": Figure(MacroF1(self.labels), self._compare)}

    def _compare(self, dialogue: Dialogue, prediction: Prediction) -> Compared:
        """What the labels say, as users get them: nothing of a turn without the utterance, which is an error where that is annotated."""
        target = self.annotated(dialogue)
        preds: list[str | None] = [None] * len(target)
        for label in prediction.labels:
            preds[0 if self.level == "dialogue" else label.turns[0]] = label.value
        return Compared(preds, target)

    def _compare_rare(self, dialogue: Dialogue, prediction: Prediction) -> Compared:
        preds, target = self._compare(dialogue, prediction)
        return Compared([value == self.rare for value in preds], [None if value is None else value == self.rare for value in target])

    def _compare_scores(self, dialogue: Dialogue, prediction: Prediction) -> Compared:
        """Turns without a label rank last."""
        preds = self._compare(dialogue, prediction).preds
        scores = prediction.probabilities[:, self.labels.index(str(self.rare))].tolist()
        ranked = [0.0 if pred is None else score for pred, score in zip(preds, scores, strict=True)]
        return Compared(ranked, self._compare_rare(dialogue, prediction).target)

    def decode(self, probabilities: np.ndarray, dialogue: Dialogue, utterances: Utterances, earlier: Earlier) -> list[Decoded]:
        if self.level == "dialogue":
            return [self.most_probable(probabilities[0], range(len(dialogue.turns)))]
        turns = [t for t, turn in enumerate(dialogue.turns) if turn.text(self.utterance) is not None]
        return [self.most_probable(probabilities[t], [t]) for t in turns]

    def most_probable(self, row: np.ndarray, turns: Sequence[int]) -> Decoded:
        """The label of the most probable class of a row of probabilities, [K]."""
        return Decoded(self.labels[int(row.argmax())], turns, float(row.max()))

    def majority(self, dialogues: Iterable[Dialogue]) -> Baseline | None:
        """Gives the classes their shares, so that the average precision is the base rate."""
        counts = Counter(value for dialogue in dialogues for value in self.values(dialogue))
        known = np.array([float(counts[label]) for label in self.labels])
        return Constant(self, known / known.sum() if known.any() else np.full(len(known), 1.0 / max(len(known), 1)))

    def eager(self, dialogues: Iterable[Dialogue]) -> Baseline | None:
        if self.rare is None:
            return self.majority(dialogues)
        return Constant(self, np.eye(len(self.labels))[self.labels.index(self.rare)])


@dataclass(frozen=True)
class Constant(Baseline):
    """The same probabilities [K] everywhere."""

    task: Classification
    probabilities: np.ndarray

    def guess(self, dialogue: Dialogue, earlier: Earlier) -> Guess:
        rows = np.tile(self.probabilities, (1 if self.task.level == "dialogue" else len(dialogue.turns), 1))
        return Guess(self.task.decode(rows, dialogue, [None] * (2 * len(dialogue.turns)), earlier), rows)


class ClassHead(nn.Module):
    """A linear classifier of the state of an utterance: of each turn's, [T, K], or at level "dialogue" of the last turn's, [B, K]."""

    def __init__(self, width: int, num_classes: int, utterance: Part, dropout: float, level: Level = "turn") -> None:
        super().__init__()
        self.utterance, self.level = utterance, level
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(width, num_classes)

    def forward(self, states: States, batch: Batch) -> Tensor:
        rows = states.request if self.utterance == "request" else states.response
        if self.level == "dialogue":
            rows = rows[torch.tensor(batch.num_turns, device=rows.device).cumsum(0) - 1]
        logits: Tensor = self.linear(self.dropout(rows))
        return logits


def classes(values: Iterable[str | None], labels: Sequence[str], ignore: int) -> np.ndarray:
    """Label values -> class numbers; `ignore` for None and for values outside the label space."""
    place = {label: k for k, label in enumerate(labels)}
    return np.array([ignore if value is None else place.get(value, ignore) for value in values], np.int64)
