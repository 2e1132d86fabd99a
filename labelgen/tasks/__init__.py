"""Tasks: one file a label type. This one says what a Task is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from torch import Tensor, nn

from labelgen.dialogue import Dialogue, Label
from labelgen.inputs.batch import Batch, Encoding
from labelgen.metrics import Figure
from labelgen.model.encoder import States
from labelgen.model.losses import Loss

__all__ = ["ClassHead", "Decoded", "Task", "classes"]

Decoded = Mapping[str, Sequence[Label]]  # what the tasks before this one said of the dialogue


@dataclass(frozen=True)
class Task(ABC):
    """A label type: how it is read from a record, predicted, scored and written. Holds no weights and no data.

    `labels` is the label space (empty: learned, as the set of `values` over the training dialogues); `weight` scales its loss.
    """

    name: ClassVar[str]
    score: ClassVar[str]  # name of the figure by which models are selected
    level: ClassVar[Literal["turn", "token"]] = "turn"  # what one row of the logits stands for: [T, K] or [M, K]

    labels: Sequence[str] = ()  # kept as a tuple
    weight: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "labels", tuple(self.labels))

    @abstractmethod
    def values(self, dialogue: Dialogue) -> Iterable[str]:
        """The label values that the annotations of a dialogue hold."""

    @abstractmethod
    def encode(self, dialogue: Dialogue, utterances: Sequence[Encoding | None]) -> np.ndarray:
        """Annotations -> integer targets of the dialogue, a turn or a token of its utterances each; IGNORE where not annotated."""

    @abstractmethod
    def head(self, width: int) -> nn.Module:
        """The module that maps (States, Batch) to logits, [T, K] or [M, K]."""

    @abstractmethod
    def loss(self, logits: Tensor, batch: Batch) -> Loss:
        """Loss over what is labelled in `batch.targets[name]`."""

    @abstractmethod
    def metrics(self) -> dict[str, Figure]:
        """Name -> figure, the one that a user needs first standing first; one of the names is `score`."""

    @abstractmethod
    def decode(self, probabilities: np.ndarray, dialogue: Dialogue, utterances: Sequence[Encoding | None], decoded: Decoded) -> list[Label]:
        """Probabilities of one dialogue, [turns, K] or [tokens, K] -> labels. The source is filled in by the caller."""


class ClassHead(nn.Module):
    """A linear classifier of the request's or the response's state: [T, K]."""

    def __init__(self, width: int, num_classes: int, utterance: Literal["request", "response"]) -> None:
        super().__init__()
        self.utterance = utterance
        self.dropout = nn.Dropout(0.1)
        self.linear = nn.Linear(width, num_classes)

    def forward(self, states: States, batch: Batch) -> Tensor:
        logits: Tensor = self.linear(self.dropout(states.request if self.utterance == "request" else states.response))
        return logits


def classes(values: Iterable[str | None], labels: Sequence[str], ignore: int) -> np.ndarray:
    """Label values -> class numbers; `ignore` for None and for values outside the label space."""
    place = {label: k for k, label in enumerate(labels)}
    return np.array([ignore if value is None else place.get(value, ignore) for value in values], np.int64)
