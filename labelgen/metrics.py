"""Metrics of per-dialogue statistics: one object serves training (on any number of processes), evaluation and intervals.

A dialogue gives statistics, for most metrics a vector of counts that adds up over dialogues and processes; `value` computes the figure from
them. Items whose target is `None` (not annotated) change nothing. Without a labelled item the value is NaN, never 0.0.
"""

from __future__ import annotations

import math
import zlib
from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Collection, Hashable, Iterable, Sequence
from itertools import combinations, pairwise
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torchmetrics import Metric

from labelgen.dialogue import Dialogue, Label

Floats = NDArray[np.float64]
Pred = TypeVar("Pred")
Target = TypeVar("Target")


class Prediction(NamedTuple):
    """The output of a model for one task on one dialogue."""

    labels: list[Label]
    probabilities: NDArray[np.floating[Any]]  # [rows, K], as the task decodes them


class Compared(NamedTuple):
    """What a metric compares on one dialogue, item by item; a target of None is not annotated."""

    preds: Sequence[Any]
    target: Sequence[Any]


class Parts(NamedTuple):
    """The estimates that a figure is composed of, K of them, with what their uncertainty is computed from, over N dialogues."""

    values: Floats  # [K]
    trials: Floats  # [K] number of trials of which each value is the proportion of successes
    influences: Floats  # [N, K] what each dialogue adds to each value, to first order (the infinitesimal jackknife); sums to 0
    dialogues: Floats  # [K] number of dialogues with a trial


class DialogueMetric(Metric):
    """A torchmetrics metric over dialogues, whose items depend on each other within a dialogue and not beyond it.

    `update(preds, target)` takes the items of one dialogue, as sequences or as tensors [N]; a target of None is not annotated. A dialogue
    enters the figure only through its `statistics`, which `merge` puts together. The state carries the name of the class, so that a
    MetricCollection never merges two different metrics whose states happen to be equal.
    """

    full_state_update = False
    higher_is_better = True

    def __init__(self, variant: str = "") -> None:
        """`variant` distinguishes instances of one class that read different figures from equal statistics."""
        super().__init__()
        self._state = f"{type(self).__name__}_{zlib.crc32(variant.encode()):x}"

    @abstractmethod
    def statistics(self, preds: Sequence[Any], target: Sequence[Any]) -> Floats:
        """The statistics of one dialogue, float64.

        Raises:
            ValueError: `preds` and `target` differ in length, or hold something that the metric cannot compare.
        """

    @abstractmethod
    def merge(self, statistics: Sequence[Floats]) -> Floats:
        """The statistics of several dialogues together."""

    @abstractmethod
    def value(self, merged: Floats) -> Floats:
        """Merged statistics -> the figure; NaN where it is undefined."""

    @abstractmethod
    def items(self, merged: Floats) -> Floats:
        """Merged statistics -> number of labelled items."""

    @abstractmethod
    def positives(self, merged: Floats) -> Floats:
        """Merged statistics -> number of annotated positives, whatever was predicted.

        Where every labelled item counts alike (accuracy) these are the labelled items. Without one the figure says nothing about a model.
        """

    @abstractmethod
    def parts(self, statistics: Sequence[Floats]) -> Parts:
        """The statistics of each dialogue -> what an interval is computed from. The figure must be defined."""

    def compose(self, values: Floats) -> Floats:
        """Values of the parts [..., K] -> the figure [...], which grows with each part."""
        composed: Floats = values[..., 0]
        return composed

    def slopes(self, values: Floats) -> Floats:
        """Derivatives of `compose` with respect to each part, [K]."""
        return np.ones(1)

    @property
    @abstractmethod
    def merged(self) -> torch.Tensor:
        """The merged statistics so far, float64."""

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], exclude_state: Sequence[str] = "") -> torch.nn.Module:
        """Follows a module to another device but not to another dtype: `module.to(torch.bfloat16)` would round the counts above 256."""
        return super()._apply(lambda tensor: tensor.to(fn(tensor).device), exclude_state)

    def compute(self) -> torch.Tensor:
        """The figure so far (0-dim float64), NaN where nothing was labelled."""
        return torch.as_tensor(self.value(self.merged.numpy(force=True)), dtype=torch.float64, device=self.merged.device)

    def result(self) -> Result:
        """The figure so far over all processes, and the number of positives that it stands on. Every process must call it."""
        with self.sync_context():
            merged = self.merged.numpy(force=True)
            return Result(float(self.value(merged)), int(self.positives(merged)), self.higher_is_better)


class SumMetric(DialogueMetric):
    """Abstract: statistics are vectors [S] that add up; the state is their sum, also over processes. `merged` is [..., S]."""

    def __init__(self, size: int, variant: str = "") -> None:
        """`size`: S."""
        super().__init__(variant)
        self.add_state(self._state, torch.zeros(size, dtype=torch.float64), dist_reduce_fx="sum")

    @property
    def merged(self) -> torch.Tensor:
        sums: torch.Tensor = getattr(self, self._state)
        return sums

    def update(self, preds: Sequence[Any] | torch.Tensor, target: Sequence[Any] | torch.Tensor) -> None:
        """Adds one dialogue."""
        statistics = self.statistics(_plain(preds), _plain(target))
        setattr(self, self._state, self.merged + torch.as_tensor(statistics, device=self.merged.device))

    def merge(self, statistics: Sequence[Floats]) -> Floats:
        merged: Floats = np.sum(statistics, axis=0)
        return merged


class RatioMetric(SumMetric):
    """Abstract: each part is a ratio of two sums, successes by trials."""

    @abstractmethod
    def successes(self, merged: Floats) -> Floats:
        """Sums [..., S] -> number of successes [..., K]."""

    @abstractmethod
    def trials(self, merged: Floats) -> Floats:
        """Sums [..., S] -> number of trials [..., K]."""

    def value(self, merged: Floats) -> Floats:
        return self.compose(_ratio(self.successes(merged), self.trials(merged)))

    def parts(self, statistics: Sequence[Floats]) -> Parts:
        rows = np.stack(statistics)
        successes, trials = self.successes(rows), self.trials(rows)
        values, number = _ratio(successes.sum(0), trials.sum(0)), trials.sum(0)
        dialogues = np.asarray((trials > 0).sum(0), dtype=np.float64)
        return Parts(values, number, (successes - values * trials) / number, dialogues)


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
        """What one dialogue would add to the metric; errors as of `observe`."""
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


class F1(RatioMetric):
    """Abstract: F1 = 2 tp / (2 tp + fp + fn) over all dialogues; statistics [tp, fp, fn, labelled items].

    Without a true and without a predicted positive F1 is 0/0: NaN, as scikit-learn's `zero_division=nan`. A model that rightly stays
    silent earns neither 0.0 nor 1.0. Predicted positives alone are false positives: 0.0. F1 = 2 J / (1 + J) of Jaccard's index
    J = tp / (tp + fp + fn), a proportion of the items that are positive in the target or in the prediction.
    """

    def __init__(self) -> None:
        super().__init__(size=4)

    def successes(self, merged: Floats) -> Floats:
        return merged[..., :1]

    def trials(self, merged: Floats) -> Floats:
        trials: Floats = merged[..., :3].sum(-1, keepdims=True)
        return trials

    def compose(self, values: Floats) -> Floats:
        return _f1_of_jaccard(values[..., 0])

    def slopes(self, values: Floats) -> Floats:
        return 2.0 / (1.0 + values) ** 2

    def items(self, merged: Floats) -> Floats:
        return merged[..., 3]

    def positives(self, merged: Floats) -> Floats:
        positives: Floats = merged[..., 0] + merged[..., 2]
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
        changes = np.array(_changes(preds, target), dtype=np.int64)  # [gaps, 2]
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


class AveragePrecision(DialogueMetric):
    """Area under the precision-recall steps, sum of (R_n - R_{n-1}) P_n, as scikit-learn has it; NaN without positives.

    It is the mean over the positives of the precision at each one's score. It ranks the items of all dialogues, so that a dialogue's
    statistics are its items, [n, 2] (score, whether positive), and the state is the list of all, gathered over processes.
    """

    def __init__(self) -> None:
        super().__init__()
        self.add_state(self._state, [], dist_reduce_fx="cat")
        self._dtype = torch.float64  # torchmetrics stands this in for a process without items

    @property
    def merged(self) -> torch.Tensor:
        items = getattr(self, self._state)
        flat = items if isinstance(items, torch.Tensor) else torch.cat([torch.zeros(0, dtype=torch.float64, device=self.device), *items])
        return flat.reshape(-1, 2)

    def statistics(self, preds: Sequence[float], target: Sequence[bool | None]) -> Floats:
        """`preds`: scores, higher for what is more likely True.

        Raises:
            ValueError: the score of a labelled item is not finite, or a target is neither True nor False.
        """
        pairs = _labelled(preds, target)
        if wrong := [pred for _, pred in pairs if not math.isfinite(pred)]:
            raise ValueError(f"score {wrong[0]} cannot be ranked; give finite numbers")
        if odd := [truth for truth, _ in pairs if truth not in (False, True)]:
            raise ValueError(f"target {odd[0]!r} is neither True nor False")
        return np.array([(pred, truth) for truth, pred in pairs], dtype=np.float64).reshape(-1, 2)

    def update(self, preds: Sequence[float] | torch.Tensor, target: Sequence[bool | None] | torch.Tensor) -> None:
        """Adds one dialogue."""
        items = torch.as_tensor(self.statistics(_plain(preds), _plain(target)).ravel(), device=self.device)
        getattr(self, self._state).append(items)

    def merge(self, statistics: Sequence[Floats]) -> Floats:
        return np.concatenate([np.zeros((0, 2)), *statistics])

    def value(self, merged: Floats) -> Floats:
        found = merged[:, 1]
        return _ratio((found * _precisions(merged)).sum(), found.sum())

    def items(self, merged: Floats) -> Floats:
        return np.asarray(float(len(merged)))

    def positives(self, merged: Floats) -> Floats:
        number: Floats = merged[:, 1].sum()
        return number

    def parts(self, statistics: Sequence[Floats]) -> Parts:
        """Trials are the positives. An item moves the precision at each score that is not above its own."""
        merged, number = self.merge(statistics), self.positives(self.merge(statistics))
        value = self.value(merged)
        score, found = merged.T
        precision, ranked = _precisions(merged), _at_or_above(score, np.ones_like(score))
        gain, loss = (_at_or_above(-score, found * change) for change in (1.0 / ranked, precision / ranked))
        each = (found * (precision - value + gain) - loss) / number
        of = np.repeat(np.arange(len(statistics)), [len(items) for items in statistics])
        influences = np.bincount(of, each, minlength=len(statistics)).astype(np.float64)[:, None]
        dialogues = np.array([sum(bool(items[:, 1].any()) for items in statistics)], dtype=np.float64)
        return Parts(np.array([value]), np.array([number]), influences, dialogues)


class Accuracy(RatioMetric):
    """Share of labelled items that are right; statistics [right, labelled items]."""

    def __init__(self) -> None:
        super().__init__(size=2)

    def statistics(self, preds: Sequence[Hashable], target: Sequence[Hashable | None]) -> Floats:
        pairs = _labelled(preds, target)
        return np.array([sum(truth == guess for truth, guess in pairs), len(pairs)], dtype=np.float64)

    def successes(self, merged: Floats) -> Floats:
        return merged[..., :1]

    def trials(self, merged: Floats) -> Floats:
        return merged[..., 1:2]

    def items(self, merged: Floats) -> Floats:
        return merged[..., 1]

    def positives(self, merged: Floats) -> Floats:
        return self.items(merged)


class Correlation(SumMetric):
    """Pearson's correlation of a score with a number that annotators gave; statistics [n, sums of x, y, x x, y y, x y].

    NaN where one of the two does not vary.
    """

    def __init__(self) -> None:
        super().__init__(size=6)

    def statistics(self, preds: Sequence[float], target: Sequence[float | None]) -> Floats:
        pairs = np.array(_labelled(preds, target), dtype=np.float64).reshape(-1, 2)
        x, y = pairs[:, 0], pairs[:, 1]
        return np.array([len(pairs), x.sum(), y.sum(), x @ x, y @ y, x @ y])

    def value(self, merged: Floats) -> Floats:
        n, x, y, xx, yy, xy = np.moveaxis(merged, -1, 0)
        spreads = [np.where(n * ss - s * s > 1e-13 * n * ss, n * ss - s * s, 0.0) for s, ss in ((x, xx), (y, yy))]  # less is rounding
        return _ratio(n * xy - x * y, np.sqrt(spreads[0] * spreads[1]))

    def parts(self, statistics: Sequence[Floats]) -> Parts:
        """A correlation is no proportion: the trials are the items, which its interval does not use."""
        rows = np.stack(statistics)
        merged = rows.sum(0)
        number, means = merged[0], merged[1:3] / merged[0]
        n, x, y, xx, yy, xy = rows.T
        spreads = np.sqrt(merged[3:5] / number - means**2)
        product = (xy - means[1] * x - means[0] * y + n * means.prod()) / spreads.prod()  # sums of standardised x y, x x, y y
        squares = [
            (ss - 2 * mean * s + n * mean**2) / spread**2 for s, ss, mean, spread in zip((x, y), (xx, yy), means, spreads, strict=True)
        ]
        value = self.value(merged)
        influences = (product - value * (squares[0] + squares[1]) / 2) / number
        return Parts(np.array([value]), np.array([number]), influences[:, None], np.array([float((n > 0).sum())]))

    def items(self, merged: Floats) -> Floats:
        return merged[..., 0]

    def positives(self, merged: Floats) -> Floats:
        return self.items(merged)


class MacroF1(RatioMetric):
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

    def successes(self, merged: Floats) -> Floats:
        return np.split(merged, 3, axis=-1)[0]

    def trials(self, merged: Floats) -> Floats:
        hits, gold, predicted = np.split(merged, 3, axis=-1)
        return gold + predicted - hits

    def value(self, merged: Floats) -> Floats:
        """Classes without a target do not count, whatever was predicted."""
        present = np.split(merged, 3, axis=-1)[1] > 0
        jaccard = _ratio(self.successes(merged), self.trials(merged))
        return _ratio(np.where(present, _f1_of_jaccard(jaccard), 0.0).sum(-1), present.sum(-1).astype(np.float64))

    def parts(self, statistics: Sequence[Floats]) -> Parts:
        """The classes that occur among the targets of all dialogues; the set is the same for each."""
        rows = np.stack(statistics)
        present = np.split(rows.sum(0), 3)[1] > 0
        return super().parts([np.concatenate([part[present] for part in np.split(row, 3)]) for row in rows])

    def compose(self, values: Floats) -> Floats:
        composed: Floats = _f1_of_jaccard(values).mean(-1)
        return composed

    def slopes(self, values: Floats) -> Floats:
        return 2.0 / (1.0 + values) ** 2 / len(values)

    def items(self, merged: Floats) -> Floats:
        number: Floats = np.split(merged, 3, axis=-1)[1].sum(-1)
        return number

    def positives(self, merged: Floats) -> Floats:
        return self.items(merged)


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


def _f1_of_jaccard(jaccard: Floats) -> Floats:
    return 2.0 * jaccard / (1.0 + jaccard)


def _at_or_above(score: Floats, amount: Floats) -> Floats:
    """For each item the sum of `amount` over the items whose score is at least its own, [n]."""
    order = np.argsort(-score, kind="stable")
    falling = -score[order]
    last = np.searchsorted(falling, falling, side="right") - 1  # ties count together
    sums = np.empty_like(score)
    sums[order] = amount[order].cumsum()[last]
    return sums


def _precisions(items: Floats) -> Floats:
    """The precision at the score of each item (score, whether positive), [n]."""
    precisions: Floats = _at_or_above(items[:, 0], items[:, 1]) / _at_or_above(items[:, 0], np.ones(len(items)))
    return precisions


def _ratio(part: Floats, whole: Floats) -> Floats:
    """part / whole, NaN where whole is 0."""
    ratio: Floats = np.divide(part, whole, out=np.full(np.shape(whole), np.nan), where=np.asarray(whole) > 0)
    return ratio
