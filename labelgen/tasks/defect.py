"""Defect: was the response wrong, as the user would see it?"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from torch import Tensor, nn

from labelgen.dialogue import Dialogue, Label
from labelgen.inputs.batch import IGNORE, Batch, Encoding
from labelgen.metrics import AveragePrecision, BinaryF1, Compared, Figure, Prediction
from labelgen.model.losses import Loss, masked_cross_entropy
from labelgen.tasks import ClassHead, Decoded, Task, classes

VALUES = {False: "ok", True: "defect"}


@dataclass(frozen=True)
class Defect(Task):
    """Two classes a response."""

    name: ClassVar[str] = "defect"
    score: ClassVar[str] = "f1"

    labels: Sequence[str] = ("ok", "defect")

    def values(self, dialogue: Dialogue) -> Iterable[str]:
        return (VALUES[turn.defect] for turn in dialogue.turns if turn.defect is not None)

    def encode(self, dialogue: Dialogue, utterances: Sequence[Encoding | None]) -> np.ndarray:
        return classes((None if turn.defect is None else VALUES[turn.defect] for turn in dialogue.turns), self.labels, IGNORE)

    def head(self, width: int) -> nn.Module:
        return ClassHead(width, len(self.labels), "response")

    def loss(self, logits: Tensor, batch: Batch) -> Loss:
        return masked_cross_entropy(logits, batch.targets[self.name])

    def metrics(self) -> dict[str, Figure]:
        return {"f1": Figure(BinaryF1(), self._read), "ap": Figure(AveragePrecision(), self._scores)}

    def _read(self, dialogue: Dialogue, prediction: Prediction) -> Compared:
        return Compared([bool(k == 1) for k in prediction.probabilities.argmax(1)], [turn.defect for turn in dialogue.turns])

    def _scores(self, dialogue: Dialogue, prediction: Prediction) -> Compared:
        return Compared(prediction.probabilities[:, 1].tolist(), [turn.defect for turn in dialogue.turns])

    def decode(self, probabilities: np.ndarray, dialogue: Dialogue, utterances: Sequence[Encoding | None], decoded: Decoded) -> list[Label]:
        return [
            Label(task=self.name, value=self.labels[row.argmax()], turns=[t], confidence=row.max(), source="")
            for t, (turn, row) in enumerate(zip(dialogue.turns, probabilities, strict=True))
            if turn.response is not None
        ]
