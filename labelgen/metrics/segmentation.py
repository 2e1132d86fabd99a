"""Figures of goal segmentation: boundaries, pairs of turns, and windows over the turns."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from itertools import combinations, pairwise

import numpy as np
from numpy.typing import NDArray

from labelgen.metrics.classification import F1, confusion
from labelgen.metrics.dialogue_metric import Floats, RatioMetric, labelled


class BoundaryF1(F1):
    """F1 of goal boundaries; an item is a pair of consecutive labelled turns, a positive one whose goals differ.

    Turns without gold are dropped from both. A predicted `None` is a goal of its own. Interleaved goals: every change counts.
    """

    def statistics(self, preds: Sequence[int | None], target: Sequence[int | None]) -> Floats:
        return confusion(goal_changes(preds, target))


class PairwiseF1(F1):
    """F1 of "these two turns serve one goal" over the pairs of labelled turns of a dialogue, which interleaved goals change too.

    A predicted `None` is alone.
    """

    def statistics(self, preds: Sequence[int | None], target: Sequence[int | None]) -> Floats:
        turns = labelled(preds, target)
        return confusion([(a[0] == b[0], a[1] == b[1] and a[1] is not None) for a, b in combinations(turns, 2)])


class WindowError(RatioMetric):
    """Abstract: the mean over dialogues of the share of windows in which two segmentations disagree; statistics [sum of shares, dialogues].

    Segments are maximal runs of one goal over the labelled turns. A window spans k gaps between turns, k half the mean gold segment's
    length, rounded half to even, at least 2 (segeval's convention; nltk's on the gaps when given k). A dialogue of two labelled turns has
    one gap, so its k is 1; one of fewer has none, cannot be scored and is no item.
    """

    higher_is_better = False

    def __init__(self) -> None:
        super().__init__(size=2)

    @abstractmethod
    def disagreements(self, gold: NDArray[np.int64], predicted: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Numbers of boundaries inside each window -> whether the two segmentations disagree there."""

    def statistics(self, preds: Sequence[int | None], target: Sequence[int | None]) -> Floats:
        changes = np.array(goal_changes(preds, target), dtype=np.int64)  # [gaps, 2]
        gaps = len(changes)
        if gaps == 0:
            return np.zeros(2)
        segments = 1 + int(changes[:, 0].sum())
        k = min(max(2, round((gaps + 1) / segments / 2)), gaps)
        before = np.concatenate([np.zeros((1, 2), dtype=np.int64), changes.cumsum(0)])  # boundaries before each turn
        inside = before[k:] - before[:-k]
        return np.array([self.disagreements(inside[:, 0], inside[:, 1]).mean(), 1.0])

    def successes(self, merged: Floats) -> Floats:
        return merged[..., :1]

    def trials(self, merged: Floats) -> Floats:
        return merged[..., 1:2]

    def items(self, merged: Floats) -> Floats:
        return merged[..., 1]

    def positives(self, merged: Floats) -> Floats:
        return self.items(merged)


class Pk(WindowError):
    """Are a window's two ends in one segment? An error where gold and prediction differ (Beeferman, Berger and Lafferty 1999)."""

    def disagreements(self, gold: NDArray[np.int64], predicted: NDArray[np.int64]) -> NDArray[np.bool_]:
        wrong: NDArray[np.bool_] = (gold > 0) != (predicted > 0)
        return wrong


class WindowDiff(WindowError):
    """How many boundaries has a window? An error where gold and prediction differ (Pevzner and Hearst 2002)."""

    def disagreements(self, gold: NDArray[np.int64], predicted: NDArray[np.int64]) -> NDArray[np.bool_]:
        wrong: NDArray[np.bool_] = gold != predicted
        return wrong


def goal_changes(preds: Sequence[int | None], target: Sequence[int | None]) -> list[tuple[bool, bool]]:
    """For each pair of consecutive labelled turns: does the goal change, in target and preds? A predicted None is a goal of its own."""
    turns = pairwise(labelled(preds, target))
    return [(old[0] != new[0], old[1] is None or old[1] != new[1]) for old, new in turns]
