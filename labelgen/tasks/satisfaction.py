"""Satisfaction: annotators' ratings of how satisfied the user is, at a request and with the dialogue as a whole.

The mean rating gives three classes: below, at or above the middle (Sun et al. 2021). Annotators disagree (Krippendorff's alpha is about 0.2
on USS), so the target may instead be the shares of their votes.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from torch import Tensor

from labelgen.dialogue import Dialogue, Vote
from labelgen.inputs.batch import Batch
from labelgen.metrics import Compared, Correlation, Figure, Prediction
from labelgen.model.losses import Loss, masked_cross_entropy, ranked_probability
from labelgen.tasks import Classification, Utterances

QUESTION = "satisfaction"
SCALE, MIDDLE = (1.0, 5.0), 3.0  # of ratings
CLASSES = ("dissatisfied", "neutral", "satisfied")


@dataclass(frozen=True)
class Rated(Classification):
    """Abstract: ratings of turns or dialogues. `target` says what is learned from several votes, and `distance` names the loss.

    The target "mean" is the class of the mean rating, which the figures score. The target "votes" is the share of the votes of each class.
    Of the votes 3, 3 and 4 most are neutral, but their mean is not, so a model of the votes predicts "neutral" too often for the figures.
    """

    labels = CLASSES

    target: str = "mean"
    distance: str = "cross_entropy"

    def __post_init__(self) -> None:
        super().__post_init__()
        for key, options in (("target", TARGETS), ("distance", DISTANCES)):
            if (value := getattr(self, key)) not in options:
                raise ValueError(f"tasks.{self.name}.{key}={value}: give one of {', '.join(options)}")

    @abstractmethod
    def ratings(self, dialogue: Dialogue) -> list[list[float]]:
        """The ratings of each turn, or at level "dialogue" those of the dialogue."""

    def annotated(self, dialogue: Dialogue) -> list[str | None]:
        return [self.labels[int(of_mean(votes).argmax())] if votes else None for votes in self.ratings(dialogue)]

    def encode(self, dialogue: Dialogue, utterances: Utterances) -> np.ndarray:
        """Distributions over the classes, [rows, 3]. Rows without a rating are NaN."""
        unrated = np.full(len(CLASSES), np.nan)
        return np.stack([TARGETS[self.target](votes) if votes else unrated for votes in self.ratings(dialogue)])

    def loss(self, logits: Tensor, batch: Batch) -> Loss:
        return DISTANCES[self.distance](logits, batch.targets[self.name])

    def metrics(self) -> dict[str, Figure]:
        """The correlation is that of P(satisfied) - P(dissatisfied) with the mean rating. Labels do not hold these probabilities."""
        return {**super().metrics(), "correlation": Figure(Correlation(), self._compare_means)}

    def _compare_means(self, dialogue: Dialogue, prediction: Prediction) -> Compared:
        means = [float(np.mean(votes)) if votes else None for votes in self.ratings(dialogue)]
        return Compared((prediction.probabilities[:, 2] - prediction.probabilities[:, 0]).tolist(), means)


@dataclass(frozen=True)
class Satisfaction(Rated):
    """One class per request: how satisfied the user is when making it, that is, with the responses before it."""

    name: ClassVar[str] = "satisfaction"

    def ratings(self, dialogue: Dialogue) -> list[list[float]]:
        return [_ratings(turn.votes, dialogue.id) for turn in dialogue.turns]


@dataclass(frozen=True)
class DialogueSatisfaction(Rated):
    """One class per dialogue, read at its last response, which is the last thing that the raters read."""

    name: ClassVar[str] = "dialogue_satisfaction"
    level: ClassVar = "dialogue"
    utterance: ClassVar = "response"

    def ratings(self, dialogue: Dialogue) -> list[list[float]]:
        return [_ratings(dialogue.votes, dialogue.id)]


def _ratings(votes: Iterable[Vote], dialogue_id: str) -> list[float]:
    """The ratings among the votes. ValueError: one is not on the scale."""
    given = [vote.value for vote in votes if vote.question == QUESTION and not isinstance(vote.value, str)]
    if wrong := [value for value in given if not SCALE[0] <= value <= SCALE[1]]:
        raise ValueError(
            f"dialogue {dialogue_id!r}: a vote on {QUESTION} is {wrong[0]:g}; map ratings to 1 (worst) to 5 (best), 3 the middle"
        )
    return given


def of_mean(ratings: Sequence[float]) -> np.ndarray:
    """All weight on the class of the mean, [3]."""
    chosen: np.ndarray = np.eye(3)[int(np.sign(np.mean(ratings) - MIDDLE)) + 1]
    return chosen


def of_votes(ratings: Sequence[float]) -> np.ndarray:
    """The share of the votes of each class, [3]."""
    shares: np.ndarray = np.mean([of_mean([rating]) for rating in ratings], axis=0)
    return shares


TARGETS = {"mean": of_mean, "votes": of_votes}
DISTANCES = {"cross_entropy": masked_cross_entropy, "ranked_probability": ranked_probability}
