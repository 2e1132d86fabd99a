"""Metrics as sums of per-dialogue statistics: one object serves training (on any number of processes), evaluation and intervals.

A dialogue gives a vector of S numbers. Vectors add up over dialogues and processes, and `value` computes the figure from a sum. Items
whose target is `None` (not annotated) change nothing. Without a labelled item the value is NaN, never 0.0.
"""

from __future__ import annotations

import zlib
from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Collection, Hashable, Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torchmetrics import Metric

from labelgen.dialogue import Dialogue, Label

Floats = NDArray[np.float64]
Pred = TypeVar("Pred")
Target = TypeVar("Target")

BOOTSTRAP_CELLS = 2**22  # numbers that a chunk of resamples may hold at once (32 MiB as float64)


class Prediction(NamedTuple):
    """The output of a model for one task on one dialogue."""

    labels: list[Label]
    probabilities: NDArray[np.floating[Any]]  # [rows, K], as the task decodes them


class Compared(NamedTuple):
    """What a metric compares on one dialogue, item by item; a target of None is not annotated."""

    preds: Sequence[Any]
    target: Sequence[Any]


@dataclass(frozen=True)
class Interval:
    """A figure with its bootstrap interval; None where it is undefined (JSON has no NaN)."""

    value: float | None
    low: float | None
    high: float | None
    count: int  # labelled items
    positives: int  # those that the figure stands on: annotated positives, or all labelled items where they count alike


class DialogueMetric(Metric):
    """A torchmetrics metric that depends on dialogues only through the sum of their statistics ([S] float64 each).

    `update(preds, target)` takes the items of one dialogue, as sequences or as tensors [N]; a target of None is not annotated. The state is
    one vector, summed over processes. Its name is the metric's own, so that a MetricCollection never merges two different metrics whose
    states happen to be equal.
    """

    full_state_update = False
    higher_is_better = True

    def __init__(self, size: int, variant: str = "") -> None:
        """`size`: S. `variant` distinguishes instances of one class that read different figures from equal sums."""
        super().__init__()
        self._state = f"{type(self).__name__}_{zlib.crc32(variant.encode()):x}_sums"
        self.add_state(self._state, torch.zeros(size, dtype=torch.float64), dist_reduce_fx="sum")

    @property
    def sums(self) -> torch.Tensor:
        """The summed statistics so far, [S] float64."""
        sums: torch.Tensor = getattr(self, self._state)
        return sums

    @abstractmethod
    def statistics(self, preds: Sequence[Any], target: Sequence[Any]) -> Floats:
        """The statistics [S] of one dialogue.

        Raises:
            ValueError: `preds` and `target` differ in length, or hold something that the metric cannot compare.
        """

    @abstractmethod
    def value(self, sums: Floats) -> Floats:
        """Summed statistics [..., S] -> the figure [...]; NaN where it is undefined."""

    @abstractmethod
    def items(self, sums: Floats) -> Floats:
        """Summed statistics [..., S] -> number of labelled items [...]."""

    @abstractmethod
    def positives(self, sums: Floats) -> Floats:
        """Summed statistics [..., S] -> number of annotated positives [...], whatever was predicted.

        Where every labelled item counts alike (accuracy) these are the labelled items. Without one the figure says nothing about a model.
        """

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], exclude_state: Sequence[str] = "") -> torch.nn.Module:
        """Follows a module to another device but not to another dtype: `module.to(torch.bfloat16)` would round the counts above 256."""
        return super()._apply(lambda tensor: tensor.to(fn(tensor).device), exclude_state)

    def update(self, preds: Sequence[Any] | torch.Tensor, target: Sequence[Any] | torch.Tensor) -> None:
        """Adds one dialogue."""
        statistics = self.statistics(_plain(preds), _plain(target))
        setattr(self, self._state, self.sums + torch.as_tensor(statistics, dtype=torch.float64, device=self.sums.device))

    def compute(self) -> torch.Tensor:
        """The figure so far (0-dim float64), NaN where nothing was labelled."""
        return torch.as_tensor(self.value(self.sums.numpy(force=True)), dtype=torch.float64, device=self.sums.device)

    def result(self) -> Result:
        """The figure so far over all processes, and the number of positives that it stands on. Every process must call it."""
        with self.sync_context():
            sums = self.sums.numpy(force=True)
            return Result(float(self.value(sums)), int(self.positives(sums)), self.higher_is_better)


class Result(NamedTuple):
    """A figure, the number of annotated positives behind it, and its direction."""

    value: float  # NaN where undefined
    positives: int
    higher_is_better: bool


class Figure(NamedTuple):
    """A metric, and how its preds and targets are read from a dialogue and its prediction."""

    metric: DialogueMetric
    read: Callable[[Dialogue, Prediction], Compared]

    def observe(self, dialogue: Dialogue, prediction: Prediction) -> None:
        """Adds one dialogue to the metric.

        Raises:
            ValueError: prediction and annotation do not fit together; names the dialogue.
        """
        try:
            self.metric.update(*self.read(dialogue, prediction))
        except ValueError as error:
            raise ValueError(f"dialogue {dialogue.id!r}: {error}") from error

    def statistics(self, dialogue: Dialogue, prediction: Prediction) -> Floats:
        """What one dialogue would add to the metric, [S]; errors as of `observe`."""
        try:
            return self.metric.statistics(*self.read(dialogue, prediction))
        except ValueError as error:
            raise ValueError(f"dialogue {dialogue.id!r}: {error}") from error


def selection_score(results: Iterable[Result]) -> float:
    """The mean by which models are selected, over the scores of several tasks; 0.0 without a scored task.

    A score takes part if it has an annotated positive. Annotations alone decide that, so all models are compared on the same tasks. Where
    lower is better, 1 - value enters. An undefined value of a score that takes part counts as 0.
    """
    scored = [result.value if result.higher_is_better else 1.0 - result.value for result in results if result.positives]
    return float(np.mean(np.nan_to_num(scored, nan=0.0))) if scored else 0.0


class F1(DialogueMetric):
    """Abstract: F1 = 2 tp / (2 tp + fp + fn) over all dialogues; statistics [tp, fp, fn, labelled items].

    Without a true and without a predicted positive F1 is 0/0: NaN, as scikit-learn's `zero_division=nan`. A model that rightly stays
    silent earns neither 0.0 nor 1.0. Predicted positives alone are false positives: 0.0.
    """

    def __init__(self) -> None:
        super().__init__(size=4)

    def value(self, sums: Floats) -> Floats:
        return _f1(sums[..., 0], sums[..., 1], sums[..., 2])

    def items(self, sums: Floats) -> Floats:
        return sums[..., 3]

    def positives(self, sums: Floats) -> Floats:
        positives: Floats = sums[..., 0] + sums[..., 2]
        return positives


class BinaryF1(F1):
    """F1 of True."""

    def statistics(self, preds: Sequence[bool], target: Sequence[bool | None]) -> Floats:
        """Raises ValueError where one is neither True nor False, such as a probability."""
        pairs = _labelled(preds, target)
        if wrong := [item for pair in pairs for item in pair if item not in (False, True)]:
            raise ValueError(f"{wrong[0]!r} is neither True nor False; give decisions, not probabilities")
        return _confusion([(bool(truth), bool(guess)) for truth, guess in pairs])


class BoundaryF1(F1):
    """F1 of goal boundaries; an item is a pair of consecutive labelled turns, a positive one whose goals differ.

    Turns without gold are dropped from both. A predicted `None` is a goal of its own. Interleaved goals: every change counts.
    """

    def statistics(self, preds: Sequence[int | None], target: Sequence[int | None]) -> Floats:
        return _confusion(_changes(preds, target))


class PairwiseF1(F1):
    """F1 of "these two turns serve one goal" over the pairs of labelled turns of a dialogue: boundaries cannot tell of interleaved goals.

    A predicted `None` is alone.
    """

    def statistics(self, preds: Sequence[int | None], target: Sequence[int | None]) -> Floats:
        turns = _labelled(preds, target)
        return _confusion([(a[0] == b[0], a[1] == b[1] and a[1] is not None) for a, b in combinations(turns, 2)])


class SpanF1(F1):
    """Micro-F1 of collections of hashable items, compared as multisets within a unit (an utterance of a turn); an item is a gold one.

    With (name, start, end) it is strict span F1 (CoNLL-2000; seqeval's strict mode), with (name, value) the F1 of values.
    `None` is a unit that nobody annotated; an empty collection says that there is nothing in it, so what is predicted there is wrong.
    """

    def statistics(self, preds: Sequence[Collection[Hashable]], target: Sequence[Collection[Hashable] | None]) -> Floats:
        found = guessed = wanted = 0
        for truth, guess in _labelled(preds, target):
            found += (Counter(truth) & Counter(guess)).total()
            guessed += len(guess)
            wanted += len(truth)
        return np.array([found, guessed - found, wanted - found, wanted], dtype=np.float64)


class WindowError(DialogueMetric):
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
        changes = np.array(_changes(preds, target), dtype=np.int64)  # [gaps, 2]
        gaps = len(changes)
        if gaps == 0:
            return np.zeros(2)
        segments = 1 + int(changes[:, 0].sum())
        k = min(max(2, round((gaps + 1) / segments / 2)), gaps)
        before = np.concatenate([np.zeros((1, 2), dtype=np.int64), changes.cumsum(0)])  # boundaries before each turn
        inside = before[k:] - before[:-k]
        return np.array([self.disagreements(inside[:, 0], inside[:, 1]).mean(), 1.0])

    def value(self, sums: Floats) -> Floats:
        return _ratio(sums[..., 0], sums[..., 1])

    def items(self, sums: Floats) -> Floats:
        return sums[..., 1]

    def positives(self, sums: Floats) -> Floats:
        return self.items(sums)


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


class AveragePrecision(DialogueMetric):
    """Area under the precision-recall steps, sum of (R_n - R_{n-1}) P_n, from histograms of scores: [positives per bin, negatives per bin].

    Equal to scikit-learn's `average_precision_score` on `score_bins(score, bins)`; the same in any order and on any number of processes.
    NaN without positives.
    """

    def __init__(self, bins: int = 1000) -> None:
        super().__init__(size=2 * bins, variant=str(bins))
        self.bins = bins

    def statistics(self, preds: Sequence[float], target: Sequence[bool | None]) -> Floats:
        """`score`: the probability of True, in [0, 1].

        Raises:
            ValueError: a score of a labelled item is outside [0, 1] or NaN.
        """
        pairs = _labelled(preds, target)
        truth = np.array([bool(pair[0]) for pair in pairs], dtype=bool)
        at = score_bins([float(pair[1]) for pair in pairs], self.bins)
        counts = [np.bincount(at[truth == positive], minlength=self.bins) for positive in (True, False)]
        return np.concatenate(counts).astype(np.float64)

    def value(self, sums: Floats) -> Floats:
        falling = sums[..., self.bins - 1 :: -1], sums[..., : self.bins - 1 : -1]  # highest score first
        found, wrong = falling[0].cumsum(-1), falling[1].cumsum(-1)
        precision = found / np.maximum(found + wrong, 1.0)
        return _ratio((falling[0] * precision).sum(-1), found[..., -1])

    def items(self, sums: Floats) -> Floats:
        number: Floats = sums.sum(-1)
        return number

    def positives(self, sums: Floats) -> Floats:
        number: Floats = sums[..., : self.bins].sum(-1)
        return number


class Accuracy(DialogueMetric):
    """Share of labelled items that are right; statistics [right, labelled items]."""

    def __init__(self) -> None:
        super().__init__(size=2)

    def statistics(self, preds: Sequence[Hashable], target: Sequence[Hashable | None]) -> Floats:
        pairs = _labelled(preds, target)
        return np.array([sum(truth == guess for truth, guess in pairs), len(pairs)], dtype=np.float64)

    def value(self, sums: Floats) -> Floats:
        return _ratio(sums[..., 0], sums[..., 1])

    def items(self, sums: Floats) -> Floats:
        return sums[..., 1]

    def positives(self, sums: Floats) -> Floats:
        return self.items(sums)


class Correlation(DialogueMetric):
    """Pearson's correlation of a score with a number that annotators gave; statistics [n, sums of x, y, x x, y y, x y].

    NaN where one of the two does not vary.
    """

    def __init__(self) -> None:
        super().__init__(size=6)

    def statistics(self, preds: Sequence[float], target: Sequence[float | None]) -> Floats:
        pairs = np.array(_labelled(preds, target), dtype=np.float64).reshape(-1, 2)
        x, y = pairs[:, 0], pairs[:, 1]
        return np.array([len(pairs), x.sum(), y.sum(), x @ x, y @ y, x @ y])

    def value(self, sums: Floats) -> Floats:
        n, x, y, xx, yy, xy = np.moveaxis(sums, -1, 0)
        spreads = [np.where(n * ss - s * s > 1e-13 * n * ss, n * ss - s * s, 0.0) for s, ss in ((x, xx), (y, yy))]  # less is rounding
        return _ratio(n * xy - x * y, np.sqrt(spreads[0] * spreads[1]))

    def items(self, sums: Floats) -> Floats:
        return sums[..., 0]

    def positives(self, sums: Floats) -> Floats:
        return self.items(sums)


class MacroF1(DialogueMetric):
    """Mean F1 over the classes that occur in gold, scikit-learn's `f1_score(average="macro", labels=present)` over all dialogues at once.

    Gold outside `labels` (unseen at training) is one class more, "other", which no prediction can hit: its F1 is 0 and what is predicted
    there is wrong. A prediction outside `labels` is wrong too. Statistics: per class and other [hits, gold, predicted], K + 1 each.
    """

    def __init__(self, labels: Sequence[Hashable]) -> None:
        super().__init__(size=3 * (len(labels) + 1), variant=repr(list(labels)))
        self.classes = {label: k for k, label in enumerate(labels)}
        if len(self.classes) != len(labels):
            twice = [label for label, times in Counter(labels).items() if times > 1]
            raise ValueError(f"labels {twice} occur more than once; give each class once")

    def statistics(self, preds: Sequence[Hashable], target: Sequence[Hashable | None]) -> Floats:
        other = len(self.classes)
        counts = np.zeros((3, other + 1))
        for truth, guess in _labelled(preds, target):
            row, column = self.classes.get(truth, other), self.classes.get(guess, other)
            counts[0, row] += row == column != other
            counts[1, row] += 1
            counts[2, column] += 1
        return np.concatenate(counts)

    def value(self, sums: Floats) -> Floats:
        hits, gold, predicted = np.split(sums, 3, axis=-1)
        present = gold > 0
        f1 = np.where(present, _f1(hits, predicted - hits, gold - hits), 0.0)
        return _ratio(f1.sum(-1), present.sum(-1).astype(np.float64))

    def items(self, sums: Floats) -> Floats:
        number: Floats = np.split(sums, 3, axis=-1)[1].sum(-1)
        return number

    def positives(self, sums: Floats) -> Floats:
        return self.items(sums)


def score_bins(scores: ArrayLike, bins: int) -> NDArray[np.int64]:
    """Probabilities [N] -> bins [N], 0 to bins - 1, higher for higher; equally wide in the logistic function of a third of the log-odds.

    Scores of rare events crowd near 0, those of a sure model near 1: there these bins are far finer than equal ones (with 1,000 bins
    1e-6 and 2e-6 differ, and so do 0.500 and 0.505).

    Raises:
        ValueError: a score outside [0, 1] or NaN.
    """
    score = np.asarray(scores, dtype=np.float64)
    wrong = score[~((score >= 0) & (score <= 1))]
    if wrong.size:
        raise ValueError(f"score {wrong[0]} is no probability; give numbers from 0 to 1")
    odds = np.cbrt(score), np.cbrt(1.0 - score)
    at: NDArray[np.int64] = np.floor(bins * odds[0] / (odds[0] + odds[1])).astype(np.int64).clip(max=bins - 1)
    return at


def bootstrap(metric: DialogueMetric, statistics: Floats, resamples: int = 1000, level: float = 0.95, seed: int = 0) -> Interval:
    """Percentile bootstrap by dialogue: items of one dialogue depend on each other, so dialogues are drawn, not items (Efron 1979).

    Args:
        metric: reads figures off sums; its state is neither read nor changed.
        statistics: [N, S], one row a dialogue.
        resamples: number of resamples; those in which the figure is undefined are dropped.
        level: share of the resampled figures that the interval holds.
        seed: of the draws; the same seed on the same number of dialogues draws the same dialogues, so that metrics are comparable.
    """
    total = statistics.sum(0)
    value, number = float(metric.value(total)), len(statistics)
    count, positives = int(metric.items(total)), int(metric.positives(total))
    if np.isnan(value):
        return Interval(None, None, None, count, positives)
    draws, figures = np.random.default_rng(seed), []
    rows = max(1, BOOTSTRAP_CELLS // (number + statistics.shape[1]))
    for start in range(0, resamples, rows):
        chunk = range(start, min(start + rows, resamples))
        times = [np.bincount(draws.integers(number, size=number), minlength=number) for _ in chunk]
        figures.append(metric.value(np.stack(times).astype(np.float64) @ statistics))
    defined = np.concatenate(figures)
    defined = defined[~np.isnan(defined)]
    if not defined.size:
        return Interval(value, None, None, count, positives)
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return Interval(value, float(low), float(high), count, positives)


def _labelled(preds: Sequence[Pred], target: Sequence[Target | None]) -> list[tuple[Target, Pred]]:
    """The pairs that count, (target, pred): those with a target."""
    if len(preds) != len(target):
        raise ValueError(f"{len(preds)} preds, {len(target)} targets; give one pred an item, also where the target is None")
    return [(truth, guess) for guess, truth in zip(preds, target, strict=True) if truth is not None]


def _changes(preds: Sequence[int | None], target: Sequence[int | None]) -> list[tuple[bool, bool]]:
    """For each pair of consecutive labelled turns: does the goal change, in target and preds? A predicted None is a goal of its own."""
    turns = pairwise(_labelled(preds, target))
    return [(old[0] != new[0], old[1] is None or old[1] != new[1]) for old, new in turns]


def _plain(items: Sequence[Any] | torch.Tensor) -> Sequence[Any]:
    return items.tolist() if isinstance(items, torch.Tensor) else items


def _confusion(pairs: list[tuple[bool, bool]]) -> Floats:
    """(target, pred) -> [tp, fp, fn, number]."""
    times = Counter(pairs)
    return np.array([times[True, True], times[False, True], times[True, False], len(pairs)], dtype=np.float64)


def _f1(hits: Floats, false: Floats, missed: Floats) -> Floats:
    return _ratio(2 * hits, 2 * hits + false + missed)


def _ratio(part: Floats, whole: Floats) -> Floats:
    """part / whole, NaN where whole is 0."""
    ratio: Floats = np.divide(part, whole, out=np.full(np.shape(whole), np.nan), where=np.asarray(whole) > 0)
    return ratio
