"""Satisfaction: what annotators say of how satisfied the user is at a request, and with the dialogue as a whole.

Three classes by the sign of the mean rating above or below the middle (Sun et al. 2021). Annotators disagree (Krippendorff's alpha about
0.2 on USS), so that the target may keep their doubt: the shares of their votes, or how another panel of as many would decide.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate, repeat
from typing import ClassVar

import numpy as np
from torch import Tensor, nn

from labelgen.batch import Batch, Encoded
from labelgen.dialogue import Dialogue, Label, Vote
from labelgen.losses import Loss, masked_cross_entropy, ranked_probability
from labelgen.metrics import Accuracy, Correlation, DialogueMetric, MacroF1, Prediction
from labelgen.tasks import ClassHead, Decoded, Task

QUESTION = "satisfaction"
MIDDLE = 3.0  # of ratings from 1 to 5
CLASSES = ("dissatisfied", "neutral", "satisfied")


@dataclass(frozen=True)
class Rated(Task):
    """Abstract: ratings of turns. `target` is what is learned of several votes, `distance` how the distance from it is measured.

    mean: the class of the mean rating. votes: the share of the votes of each class. panel: the probability of each class of the mean
    when as many annotators are drawn again from these (the bootstrap distribution of the label).
    """

    labels: Sequence[str] = CLASSES
    target: str = "panel"
    distance: str = "cross_entropy"

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.labels) != len(CLASSES) or self.target not in TARGETS or self.distance not in DISTANCES:
            raise ValueError(
                f"tasks.{self.name}: three labels, a target of {', '.join(TARGETS)} and a distance of {', '.join(DISTANCES)} are needed"
            )

    @abstractmethod
    def ratings(self, dialogue: Dialogue) -> list[list[float]]:
        """The ratings that speak of each turn."""

    def values(self, dialogue: Dialogue) -> Iterable[str]:
        return (value for value in self._gold(dialogue) if value is not None)

    def encode(self, dialogue: Dialogue, sides: Sequence[Encoded | None]) -> np.ndarray:
        nothing = np.full(len(CLASSES), np.nan)
        return np.stack([TARGETS[self.target](votes) if votes else nothing for votes in self.ratings(dialogue)])

    def head(self, width: int) -> nn.Module:
        return ClassHead(width, len(self.labels), "request")

    def loss(self, logits: Tensor, batch: Batch) -> Loss:
        return DISTANCES[self.distance](logits, batch.targets[self.name])

    def metrics(self) -> dict[str, DialogueMetric]:
        """The correlation is that of P(satisfied) - P(dissatisfied) with the mean rating."""
        macro = MacroF1(self._read, self.labels)
        return {"accuracy": Accuracy(self._read), "macro_f1": macro, "correlation": Correlation(self._scores)}

    def _gold(self, dialogue: Dialogue) -> list[str | None]:
        return [self.labels[int(np.sign(np.mean(votes) - MIDDLE)) + 1] if votes else None for votes in self.ratings(dialogue)]

    def _read(self, dialogue: Dialogue, prediction: Prediction) -> tuple[list[str | None], list[str]]:
        return self._gold(dialogue), [self.labels[k] for k in prediction.probabilities.argmax(1)]

    def _scores(self, dialogue: Dialogue, prediction: Prediction) -> tuple[list[float | None], list[float]]:
        means = [float(np.mean(votes)) if votes else None for votes in self.ratings(dialogue)]
        return means, (prediction.probabilities[:, 2] - prediction.probabilities[:, 0]).tolist()


@dataclass(frozen=True)
class Satisfaction(Rated):
    """A class a request: how satisfied the user is once the request is made, that is, with the responses before it."""

    name: ClassVar[str] = "satisfaction"

    def ratings(self, dialogue: Dialogue) -> list[list[float]]:
        return [_ratings(turn.votes) for turn in dialogue.turns]

    def decode(self, probabilities: np.ndarray, dialogue: Dialogue, sides: Sequence[Encoded | None], decoded: Decoded) -> list[Label]:
        return [
            Label(task=self.name, value=self.labels[row.argmax()], turns=[t], confidence=row.max(), source="")
            for t, (turn, row) in enumerate(zip(dialogue.turns, probabilities, strict=True))
            if turn.request is not None
        ]


@dataclass(frozen=True)
class DialogueSatisfaction(Rated):
    """One class a dialogue, read at its last turn."""

    name: ClassVar[str] = "dialogue_satisfaction"

    def ratings(self, dialogue: Dialogue) -> list[list[float]]:
        return [*([] for _ in dialogue.turns[1:]), _ratings(dialogue.votes)]

    def decode(self, probabilities: np.ndarray, dialogue: Dialogue, sides: Sequence[Encoded | None], decoded: Decoded) -> list[Label]:
        row = probabilities[-1]
        turns = list(range(len(dialogue.turns)))
        return [Label(task=self.name, value=self.labels[row.argmax()], turns=turns, confidence=row.max(), source="")]


def _ratings(votes: Iterable[Vote]) -> list[float]:
    return [float(vote.value) for vote in votes if vote.question == QUESTION and not isinstance(vote.value, str)]


def of_mean(ratings: Sequence[float]) -> np.ndarray:
    """All on the class of the mean, [3]."""
    chosen: np.ndarray = np.eye(3)[int(np.sign(np.mean(ratings) - MIDDLE)) + 1]
    return chosen


def of_votes(ratings: Sequence[float]) -> np.ndarray:
    """The share of the votes of each class, [3]."""
    return np.mean([of_mean([rating]) for rating in ratings], axis=0)


def of_panel(ratings: Sequence[float]) -> np.ndarray:
    """The distribution [3] of the class of the mean over panels of as many, drawn with replacement (exact, by convolution of sums)."""
    one = {rating - MIDDLE: count / len(ratings) for rating, count in zip(*np.unique(ratings, return_counts=True), strict=True)}
    *_, sums = accumulate(repeat(one, len(ratings)), _plus)
    shares = np.zeros(3)
    for total, probability in sums.items():
        shares[int(np.sign(round(total, 6))) + 1] += probability
    return shares


def _plus(a: dict[float, float], b: dict[float, float]) -> dict[float, float]:
    total: dict[float, float] = {}
    for x, p in a.items():
        for y, q in b.items():
            total[x + y] = total.get(x + y, 0.0) + p * q
    return total


TARGETS = {"mean": of_mean, "votes": of_votes, "panel": of_panel}
DISTANCES = {"cross_entropy": masked_cross_entropy, "ranked_probability": ranked_probability}
