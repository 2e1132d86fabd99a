"""Metrics of goal segmentation: boundaries, pairs of turns, and windows over the turns."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from itertools import combinations, pairwise

import numpy as np
from numpy.typing import NDArray

from labelgen.metrics.classification import F1, confusion
from labelgen.metrics.dialogue_metric import Floats, MeanMetric, Pair, labelled


class BoundaryF1(F1):
    """F1 of goal boundaries. An item is a pair of consecutive labelled turns. It is positive if their goals differ.

    Turns without a target are left out first. A predicted None is a goal of its own. Of interleaved goals every change counts.
    """

    def statistics(self, preds: Sequence[int | None], target: Sequence[int | None]) -> Floats:
        return confusion(goal_changes(preds, target))


class PairwiseF1(F1):
    """F1 of "these two turns serve the same goal" over all pairs of labelled turns of a dialogue, so that returns to a goal count too.

    A turn whose prediction is None shares its goal with no other turn.
    """

    def statistics(self, preds: Sequence[int | None], target: Sequence[int | None]) -> Floats:
        turns = labelled(preds, target)
        return confusion([Pair(a.pred == b.pred and a.pred is not None, a.target == b.target) for a, b in combinations(turns, 2)])


class WindowError(MeanMetric):
    """Abstract: the share of windows in which two segmentations disagree, as a mean over dialogues. Statistics: [sum of shares, dialogues].

    A segment is a maximal run of labelled turns of one goal. A window spans k gaps between turns; k is half the mean length of the gold
    segments, rounded half to even, and at least 2. This is segeval's convention, and nltk's if it gets the gaps and k. A dialogue of two
    labelled turns has one gap, so k is 1. A dialogue of fewer labelled turns has no gap and is not scored.
    """

    higher_is_better = False

    @abstractmethod
    def disagreements(self, gold: NDArray[np.int64], predicted: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Numbers of boundaries inside each window -> whether the two segmentations disagree there."""

    def statistics(self, preds: Sequence[int | None], target: Sequence[int | None]) -> Floats:
        changes = np.array(goal_changes(preds, target), dtype=np.int64)  # [gaps, 2]: predicted, gold
        gaps = len(changes)
        if gaps == 0:
            return np.zeros(2)
        segments = 1 + int(changes[:, 1].sum())
        k = min(max(2, round((gaps + 1) / segments / 2)), gaps)
        before = np.concatenate([np.zeros((1, 2), dtype=np.int64), changes.cumsum(0)])  # boundaries before each turn
        inside = before[k:] - before[:-k]
        return np.array([self.disagreements(gold=inside[:, 1], predicted=inside[:, 0]).mean(), 1.0])


class Pk(WindowError):
    """Gold and prediction disagree if only one has both ends of the window in one segment (Beeferman, Berger and Lafferty 1999)."""

    def disagreements(self, gold: NDArray[np.int64], predicted: NDArray[np.int64]) -> NDArray[np.bool_]:
        wrong: NDArray[np.bool_] = (gold > 0) != (predicted > 0)
        return wrong


class WindowDiff(WindowError):
    """Gold and prediction disagree if their numbers of boundaries in the window differ (Pevzner and Hearst 2002)."""

    def disagreements(self, gold: NDArray[np.int64], predicted: NDArray[np.int64]) -> NDArray[np.bool_]:
        wrong: NDArray[np.bool_] = gold != predicted
        return wrong


def goal_changes(preds: Sequence[int | None], target: Sequence[int | None]) -> list[Pair[bool, bool]]:
    """For each two consecutive labelled turns, whether the goal changes in the prediction and in the target."""
    turns = pairwise(labelled(preds, target))
    return [Pair(old.pred is None or old.pred != new.pred, old.target != new.target) for old, new in turns]
