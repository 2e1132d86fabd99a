"""Tasks, one file per label type. This file holds the base classes: of all tasks, and of those that classify turns or dialogues."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from labelgen.dialogue import PARTS, Dialogue, Label, Part
from labelgen.inputs.batch import IGNORE, Batch, Encoding
from labelgen.io.display import LINE, Display
from labelgen.metrics import Accuracy, AveragePrecision, BinaryF1, Compared, Figure, MacroF1, Prediction
from labelgen.model.encoder import States
from labelgen.model.losses import Loss, masked_cross_entropy

log = logging.getLogger(__name__)
EXAMPLES = 3  # changed annotations in a message

Level = Literal["dialogue", "turn", "turn_pair", "token"]
"""What a row of a task's logits is about.

A whole dialogue; a turn; a pair of turns, each with each turn before it, in the order (1, 0), (2, 0), (2, 1), ...; or a token of any
utterance. The tokens of all utterances of a dialogue follow each other, so that a span may cover several utterances.
"""

Utterances = Sequence[Encoding | None]  # the tokens of a dialogue's utterances, two per turn; None: the utterance has no text


class Decoded(NamedTuple):
    """A decoded label. The network adds the name of the task and the fingerprint of the model."""

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


class Aligned(NamedTuple):
    """A dialogue with its annotations as the model can express them."""

    dialogue: Dialogue
    annotations: int  # of the task that might have needed a change
    changes: Sequence[str]  # a description of each change


class Alignment(NamedTuple):
    """Dialogues after the annotations of some were changed, and for each task that has such annotations how many, and how many changed."""

    dialogues: list[Dialogue]
    counts: dict[str, dict[str, int]]


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
    """A label type: how annotations become targets, and how labels are predicted, scored and written. Holds no weights and no data.

    The five abstract methods differ between label types. Other parts of labelgen ask the task for everything else that is particular to
    it: its label space, the rows of its logits, its score, its trivial baselines, and how its labels are drawn.
    """

    name: ClassVar[str]
    score: ClassVar[str]  # name of the figure by which models are selected
    level: ClassVar[Level] = "turn"
    display: ClassVar[Display] = LINE  # how its labels are drawn

    weight: float = 1.0  # of the loss

    @property
    @abstractmethod
    def labels(self) -> Sequence[str]:
        """The label space. A class attribute fixes it. A dataclass field can be configured, and is learned if it is empty."""

    @abstractmethod
    def encode(self, dialogue: Dialogue, utterances: Utterances) -> np.ndarray:
        """Annotations -> targets, one for each row of the dialogue's logits.

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
        """Name -> figure, in order of importance to users. `score` is one of the names."""

    @abstractmethod
    def decode(self, probabilities: np.ndarray, dialogue: Dialogue, utterances: Utterances, earlier: Earlier) -> list[Decoded]:
        """Probabilities of one dialogue, [rows, K] -> its labels."""

    def __post_init__(self) -> None:
        if self._is_configurable():
            object.__setattr__(self, "labels", tuple(self.labels))

    def values(self, dialogue: Dialogue) -> Iterable[str]:
        """The label values in a dialogue's annotations. A label space that is not configured is learned from them."""
        return ()

    def align(self, dialogue: Dialogue, utterances: Utterances) -> Aligned:
        """Changes annotations that no prediction could equal to the nearest that one can. Learned and scored are the changed ones."""
        return Aligned(dialogue, 0, [])

    def with_labels(self, labels: Iterable[str]) -> Task:
        """The task with this label space. ValueError if the task has a different, fixed one."""
        if self._is_configurable():
            changed: dict[str, Any] = {"labels": tuple(labels)}  # a field of subclasses
            return replace(self, **changed)
        if (other := tuple(labels)) != tuple(self.labels):
            raise ValueError(f"task {self.name!r} has the labels {list(self.labels)}, in this order; {list(other)} are another task's")
        return self

    def rows(self, batch: Batch) -> list[int]:
        """The number of rows of logits of each dialogue of a batch. A task whose rows fit none of the levels overrides this."""
        match self.level:
            case "dialogue":
                return [1] * len(batch.dialogues)
            case "turn":
                return batch.num_turns
            case "turn_pair":
                return [turns * (turns - 1) // 2 for turns in batch.num_turns]
            case "token":
                return batch.num_tokens

    def majority(self, dialogues: Iterable[Dialogue]) -> Baseline | None:
        """The baseline that always predicts the most frequent label of these dialogues. None: the task has none."""
        return None

    def eager(self, dialogues: Iterable[Dialogue]) -> Baseline | None:
        """The baseline that always predicts what users look for (a failure, a new goal, a known value). By default the majority's."""
        return self.majority(dialogues)

    def _is_configurable(self) -> bool:
        return any(field.name == "labels" for field in fields(self))


@dataclass(frozen=True)
class Classification(Task):
    """Abstract: one class per turn, or one per dialogue. A subclass needs a name, labels and `annotated`.

    With a `rare` class the figures are its F1 and average precision, and the eager baseline always predicts it. Otherwise they are accuracy
    and macro-F1. Values outside the label space are not learned, and count as errors when scored.
    """

    score: ClassVar[str] = "accuracy"  # with a rare class: f1
    utterance: ClassVar[Part] = "request"  # the head reads its state; a turn without it gets no label
    rare: ClassVar[str | None] = None

    @abstractmethod
    def annotated(self, dialogue: Dialogue) -> list[str | None]:
        """The class of each turn, or at level "dialogue" that of the dialogue. None: not annotated."""

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
        """Compares the labels that users get. A turn without the utterance gets no label, which is an error if it is annotated."""
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
        """Predicts the shares of the classes, so that the average precision is the base rate."""
        occurrences = Counter(value for dialogue in dialogues for value in self.values(dialogue))
        counts = np.array([float(occurrences[label]) for label in self.labels])
        return Constant(self, counts / counts.sum() if counts.any() else np.full(len(counts), 1.0 / max(len(counts), 1)))

    def eager(self, dialogues: Iterable[Dialogue]) -> Baseline | None:
        if self.rare is None:
            return self.majority(dialogues)
        return Constant(self, np.eye(len(self.labels))[self.labels.index(self.rare)])


@dataclass(frozen=True)
class Constant(Baseline):
    """Predicts the same probabilities [K] everywhere."""

    task: Classification
    probabilities: np.ndarray

    def guess(self, dialogue: Dialogue, earlier: Earlier) -> Guess:
        rows = np.tile(self.probabilities, (1 if self.task.level == "dialogue" else len(dialogue.turns), 1))
        return Guess(self.task.decode(rows, dialogue, [None] * (2 * len(dialogue.turns)), earlier), rows)


class ClassHead(nn.Module):
    """Classifies the state of an utterance linearly: that of each turn, [T, K], or at level "dialogue" that of the last turn, [B, K]."""

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


def align_annotations(
    tasks: Mapping[str, Task], dialogues: Iterable[Dialogue], texts: Callable[[Sequence[str]], Mapping[str, Encoding]]
) -> Alignment:
    """Aligns the annotations of each task with the tokens of the model. Logs how many had to change, with EXAMPLES of them."""
    aligned: list[Dialogue] = []
    counts: Counter[str] = Counter()
    changes: dict[str, list[str]] = {name: [] for name in tasks}
    for dialogue in dialogues:
        words = [turn.text(part) for turn in dialogue.turns for part in PARTS] if tasks else []
        encoded = texts([text for text in words if text is not None])
        utterances = [None if text is None else encoded[text] for text in words]
        for name, task in tasks.items():
            result = task.align(dialogue, utterances)
            dialogue = result.dialogue
            counts[name] += result.annotations
            changes[name] += result.changes
        aligned.append(dialogue)
    for name, found in changes.items():
        if found:
            effect = "learned and scored as what the model can express"
            log.warning("%s: %d of %d annotations are %s: %s", name, len(found), counts[name], effect, "; ".join(found[:EXAMPLES]))
    return Alignment(aligned, {name: {"annotations": counts[name], "changed": len(changes[name])} for name in tasks if counts[name]})


def classes(values: Iterable[str | None], labels: Sequence[str], ignore: int) -> np.ndarray:
    """Label values -> class numbers. None and values outside the label space become `ignore`."""
    index = {label: k for k, label in enumerate(labels)}
    return np.array([ignore if value is None else index.get(value, ignore) for value in values], np.int64)
