"""Intent: what the user wants done, Domain/Intent, at each request."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from torch import Tensor, nn

from labelgen.dialogue import Dialogue, Label
from labelgen.inputs.batch import IGNORE, Batch, Encoding
from labelgen.metrics import Accuracy, Compared, Figure, MacroF1, Prediction
from labelgen.model.losses import Loss, masked_cross_entropy
from labelgen.tasks import ClassHead, Decoded, Task, classes


@dataclass(frozen=True)
class RequestClass(Task):
    """One class a request. Classes that training never saw are not learned, and count as errors when scored."""

    score: ClassVar[str] = "accuracy"

    @abstractmethod
    def annotated(self, dialogue: Dialogue) -> list[str | None]:
        """The class of each turn's request; None: not annotated."""

    def values(self, dialogue: Dialogue) -> Iterable[str]:
        return (value for value in self.annotated(dialogue) if value is not None)

    def encode(self, dialogue: Dialogue, utterances: Sequence[Encoding | None]) -> np.ndarray:
        return classes(self.annotated(dialogue), self.labels, IGNORE)

    def head(self, width: int) -> nn.Module:
        return ClassHead(width, len(self.labels), "request")

    def loss(self, logits: Tensor, batch: Batch) -> Loss:
        return masked_cross_entropy(logits, batch.targets[self.name])

    def metrics(self) -> dict[str, Figure]:
        return {"accuracy": Figure(Accuracy(), self._read), "macro_f1": Figure(MacroF1(self.labels), self._read)}

    def _read(self, dialogue: Dialogue, prediction: Prediction) -> Compared:
        return Compared([self.labels[k] for k in prediction.probabilities.argmax(1)], self.annotated(dialogue))

    def decode(self, probabilities: np.ndarray, dialogue: Dialogue, utterances: Sequence[Encoding | None], decoded: Decoded) -> list[Label]:
        return [
            Label(task=self.name, value=self.labels[row.argmax()], turns=[t], confidence=row.max(), source="")
            for t, (turn, row) in enumerate(zip(dialogue.turns, probabilities, strict=True))
            if turn.request is not None
        ]


@dataclass(frozen=True)
class Intent(RequestClass):
    """What the user wants done, from the record's `intent`."""

    name: ClassVar[str] = "intent"

    def annotated(self, dialogue: Dialogue) -> list[str | None]:
        return [turn.intent for turn in dialogue.turns]
