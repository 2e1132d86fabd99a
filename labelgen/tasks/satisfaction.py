"""Satisfaction: what annotators say of how satisfied the user is at a request, and with the dialogue as a whole.

Three classes by the sign of the mean rating above or below the middle (Sun et al. 2021). Annotators disagree (Krippendorff's alpha about
0.2 on USS), so that the target may keep their doubt: the shares of their votes.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from torch import Tensor, nn

from labelgen.dialogue import Dialogue, Label, Vote
from labelgen.inputs.batch import Batch, Encoding
from labelgen.metrics import Accuracy, Compared, Correlation, Figure, MacroF1, Prediction
from labelgen.model.losses import Loss, masked_cross_entropy, ranked_probability
from labelgen.tasks import ClassHead, Decoded, Task

QUESTION = "satisfaction"
SCALE, MIDDLE = (1.0, 5.0), 3.0  # of ratings
CLASSES = ("dissatisfied", "neutral", "satisfied")


@dataclass(frozen=True)
class Rated(Task):
    """Abstract: ratings of turns. `target` is what is learned of several votes, `distance` how the distance from it is measured.

    mean: the class of the mean rating, which the figures score. votes: the share of the votes of each class; of 3, 3 and 4 most are
    neutral while the mean is not, so that a model of the votes says "neutral" more often than the scored class is.
    """

    score: ClassVar[str] = "accuracy"
    utterance: ClassVar[Literal["request", "response"]]  # the last thing that the raters had read

    labels: Sequence[str] = CLASSES
    target: str = "mean"
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

    def encode(self, dialogue: Dialogue, utterances: Sequence[Encoding | None]) -> np.ndarray:
        nothing = np.full(len(CLASSES), np.nan)
        return np.stack([TARGETS[self.target](votes) if votes else nothing for votes in self.ratings(dialogue)])

    def head(self, width: int) -> nn.Module:
        return ClassHead(width, len(self.labels), self.utterance)

    def loss(self, logits: Tensor, batch: Batch) -> Loss:
        return DISTANCES[self.distance](logits, batch.targets[self.name])

    def metrics(self) -> dict[str, Figure]:
        """The correlation is that of P(satisfied) - P(dissatisfied) with the mean rating."""
        return {
            "accuracy": Figure(Accuracy(), self._read),
            "macro_f1": Figure(MacroF1(self.labels), self._read),
            "correlation": Figure(Correlation(), self._scores),
        }

    def _gold(self, dialogue: Dialogue) -> list[str | None]:
        return [self.labels[int(np.sign(np.mean(votes) - MIDDLE)) + 1] if votes else None for votes in self.ratings(dialogue)]

    def _read(self, dialogue: Dialogue, prediction: Prediction) -> Compared:
        return Compared([self.labels[k] for k in prediction.probabilities.argmax(1)], self._gold(dialogue))

    def _scores(self, dialogue: Dialogue, prediction: Prediction) -> Compared:
        means = [float(np.mean(votes)) if votes else None for votes in self.ratings(dialogue)]
        return Compared((prediction.probabilities[:, 2] - prediction.probabilities[:, 0]).tolist(), means)


@dataclass(frozen=True)
class Satisfaction(Rated):
    """A class a request: how satisfied the user is once the request is made, that is, with the responses before it."""

    name: ClassVar[str] = "satisfaction"
    utterance: ClassVar = "request"

    def ratings(self, dialogue: Dialogue) -> list[list[float]]:
        return [_ratings(turn.votes, dialogue.id) for turn in dialogue.turns]

    def decode(self, probabilities: np.ndarray, dialogue: Dialogue, utterances: Sequence[Encoding | None], decoded: Decoded) -> list[Label]:
        return [
            Label(task=self.name, value=self.labels[row.argmax()], turns=[t], confidence=row.max(), source="")
            for t, (turn, row) in enumerate(zip(dialogue.turns, probabilities, strict=True))
            if turn.request is not None
        ]


@dataclass(frozen=True)
class DialogueSatisfaction(Rated):
    """One class a dialogue, read at its last turn."""

    name: ClassVar[str] = "dialogue_satisfaction"
    utterance: ClassVar = "response"

    def ratings(self, dialogue: Dialogue) -> list[list[float]]:
        return [*([] for _ in dialogue.turns[1:]), _ratings(dialogue.votes, dialogue.id)]

    def decode(self, probabilities: np.ndarray, dialogue: Dialogue, utterances: Sequence[Encoding | None], decoded: Decoded) -> list[Label]:
        row = probabilities[-1]
        turns = list(range(len(dialogue.turns)))
        return [Label(task=self.name, value=self.labels[row.argmax()], turns=turns, confidence=row.max(), source="")]


def _ratings(votes: Iterable[Vote], dialogue_id: str) -> list[float]:
    """The ratings among the votes. ValueError: one is not on the scale."""
    given = [vote.value for vote in votes if vote.question == QUESTION and not isinstance(vote.value, str)]
    if wrong := [value for value in given if not SCALE[0] <= value <= SCALE[1]]:
        raise ValueError(
            f"dialogue {dialogue_id!r}: a vote on {QUESTION} is {wrong[0]:g}; map ratings to 1 (worst) to 5 (best), 3 the middle"
        )
    return given


def of_mean(ratings: Sequence[float]) -> np.ndarray:
    """All on the class of the mean, [3]."""
    chosen: np.ndarray = np.eye(3)[int(np.sign(np.mean(ratings) - MIDDLE)) + 1]
    return chosen


def of_votes(ratings: Sequence[float]) -> np.ndarray:
    """The share of the votes of each class, [3]."""
    shares: np.ndarray = np.mean([of_mean([rating]) for rating in ratings], axis=0)
    return shares


TARGETS = {"mean": of_mean, "votes": of_votes}
DISTANCES = {"cross_entropy": masked_cross_entropy, "ranked_probability": ranked_probability}
