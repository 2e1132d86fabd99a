"""Metrics of single decisions and scores: F1, accuracy, macro-F1, average precision, correlation, and F1 of spans and subsets."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Hashable, Mapping, Sequence

import numpy as np
import torch

from labelgen.metrics.dialogue_metric import (
    Components,
    DialogueMetric,
    Floats,
    MeanMetric,
    Pair,
    RatioMetric,
    SumMetric,
    as_list,
    labelled,
    ratio,
)


class F1(RatioMetric):
    """Abstract: F1 = 2 tp / (2 tp + fp + fn) over all dialogues. Statistics: [tp, fp, fn, labelled items].

    Without any positive, true or predicted, F1 is 0/0 and the value NaN, as with scikit-learn's `zero_division=nan`: a model that rightly
    predicts nothing gets neither 0.0 nor 1.0. If all positives are false positives, F1 is 0.0. The only component is Jaccard's index
    J = tp / (tp + fp + fn), the proportion of hits among the items that are positive in target or prediction; F1 = 2 J / (1 + J).
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
        """Raises ValueError if an item is neither True nor False, such as a probability."""
        pairs = labelled(preds, target)
        if wrong := [item for pair in pairs for item in pair if item not in (False, True)]:
            raise ValueError(f"{wrong[0]!r} is neither True nor False; give decisions, not probabilities")
        return confusion([Pair(bool(pair.pred), bool(pair.target)) for pair in pairs])


class SpanF1(F1):
    """Micro-F1 of collections of hashable items, compared as multisets within a unit (an utterance of a turn).

    With (name, start, end) it is strict span F1 (CoNLL-2000; seqeval's strict mode), with (name, value) the F1 of values. A target of None
    means that nobody annotated the unit. An empty target means that the unit holds nothing, so every prediction there is wrong.
    Labelled items are the gold ones.
    """

    def statistics(self, preds: Sequence[Collection[Hashable]], target: Sequence[Collection[Hashable] | None]) -> Floats:
        hits = predicted = gold = 0
        for guess, truth in labelled(preds, target):
            hits += (Counter(truth) & Counter(guess)).total()
            predicted += len(guess)
            gold += len(truth)
        return np.array([hits, predicted - hits, gold - hits, gold], dtype=np.float64)


class SubsetF1(F1):
    """SpanF1 of the positive items, where a target holds all judged items of a unit and whether each is positive.

    A predicted item that is not among the judged ones is a false positive. Labelled items are the judged ones.
    """

    def statistics(self, preds: Sequence[Collection[Hashable]], target: Sequence[Mapping[Hashable, bool] | None]) -> Floats:
        hits = predicted = positive = judged = 0
        for guess, truth in labelled(preds, target):
            hits += (Counter(item for item, is_positive in truth.items() if is_positive) & Counter(guess)).total()
            predicted += len(guess)
            positive += sum(truth.values())
            judged += len(truth)
        return np.array([hits, predicted - hits, positive - hits, judged], dtype=np.float64)


class Accuracy(MeanMetric):
    """Share of labelled items that are right. Statistics: [right, labelled items]."""

    def statistics(self, preds: Sequence[Hashable], target: Sequence[Hashable | None]) -> Floats:
        pairs = labelled(preds, target)
        return np.array([sum(pair.pred == pair.target for pair in pairs), len(pairs)], dtype=np.float64)


class MacroF1(RatioMetric):
    """Mean F1 over the classes that occur in gold, scikit-learn's `f1_score(average="macro", labels=present)` over all dialogues at once.

    Gold outside `labels` (unseen in training) forms one more class, "other". No prediction can hit it, so its F1 is 0. Predictions outside
    `labels` are wrong too. Statistics: the numbers of hits, of gold and of predicted items, each for the K classes and "other".
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
        for guess, truth in labelled(preds, target):
            gold, predicted = self.classes.get(truth, other), self.classes.get(guess, other)
            counts[0, gold] += gold == predicted != other
            counts[1, gold] += 1
            counts[2, predicted] += 1
        return np.concatenate(counts)

    def successes(self, merged: Floats) -> Floats:
        return np.split(merged, 3, axis=-1)[0]

    def trials(self, merged: Floats) -> Floats:
        hits, gold, predicted = np.split(merged, 3, axis=-1)
        return gold + predicted - hits

    def value(self, merged: Floats) -> Floats:
        """Classes that never occur as a target do not count, whatever was predicted."""
        present = np.split(merged, 3, axis=-1)[1] > 0
        jaccard = ratio(self.successes(merged), self.trials(merged))
        return ratio(np.where(present, _f1_of_jaccard(jaccard), 0.0).sum(-1), present.sum(-1).astype(np.float64))

    def components(self, statistics: Sequence[Floats]) -> Components:
        """One component for each class that occurs among the targets of all dialogues."""
        rows = np.stack(statistics)
        present = np.split(rows.sum(0), 3)[1] > 0
        return super().components([np.concatenate([counts[present] for counts in np.split(row, 3)]) for row in rows])

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


class AveragePrecision(DialogueMetric):
    """Area under the precision-recall steps, sum of (R_n - R_{n-1}) P_n, as in scikit-learn. NaN without positives.

    It is the mean, over the positives, of the precision at their scores. The items of all dialogues are ranked together. A dialogue's
    statistics are therefore its items, [n, 2] (score, whether positive), and the state is the list of all items, gathered over processes.
    """

    def __init__(self) -> None:
        super().__init__()
        self.add_state(self._state, [], dist_reduce_fx="cat")
        self._dtype = torch.float64  # torchmetrics gives it to the empty state of a process without items

    @property
    def merged(self) -> torch.Tensor:
        items = getattr(self, self._state)
        flat = items if isinstance(items, torch.Tensor) else torch.cat([torch.zeros(0, dtype=torch.float64, device=self.device), *items])
        return flat.reshape(-1, 2)

    def statistics(self, preds: Sequence[float], target: Sequence[bool | None]) -> Floats:
        """`preds` are scores: the higher, the more likely True.

        Raises:
            ValueError: the score of a labelled item is not finite, or a target is neither True nor False.
        """
        pairs = labelled(preds, target)
        if wrong := [pair.pred for pair in pairs if not math.isfinite(pair.pred)]:
            raise ValueError(f"score {wrong[0]} cannot be ranked; give finite numbers")
        if odd := [pair.target for pair in pairs if pair.target not in (False, True)]:
            raise ValueError(f"target {odd[0]!r} is neither True nor False")
        return np.array(pairs, dtype=np.float64).reshape(-1, 2)

    def update(self, preds: Sequence[float] | torch.Tensor, target: Sequence[bool | None] | torch.Tensor) -> None:
        """Adds one dialogue."""
        items = torch.as_tensor(self.statistics(as_list(preds), as_list(target)).ravel(), device=self.device)
        getattr(self, self._state).append(items)

    def merge(self, statistics: Sequence[Floats]) -> Floats:
        return np.concatenate([np.zeros((0, 2)), *statistics])

    def value(self, merged: Floats) -> Floats:
        positive = merged[:, 1]
        return ratio((positive * _precisions(merged)).sum(), positive.sum())

    def items(self, merged: Floats) -> Floats:
        return np.asarray(float(len(merged)))

    def positives(self, merged: Floats) -> Floats:
        number: Floats = merged[:, 1].sum()
        return number

    def components(self, statistics: Sequence[Floats]) -> Components:
        """The trials are the positives. An item changes the precision at its own score and at all lower ones."""
        merged, number = self.merge(statistics), self.positives(self.merge(statistics))
        value = self.value(merged)
        score, positive = merged.T
        precision, ranked = _precisions(merged), _at_or_above(score, np.ones_like(score))
        gain, loss = (_at_or_above(-score, positive * change) for change in (1.0 / ranked, precision / ranked))
        of_items = (positive * (precision - value + gain) - loss) / number
        dialogue_of_items = np.repeat(np.arange(len(statistics)), [len(items) for items in statistics])
        influences = np.bincount(dialogue_of_items, of_items, minlength=len(statistics)).astype(np.float64)[:, None]
        dialogues = np.array([sum(bool(items[:, 1].any()) for items in statistics)], dtype=np.float64)
        return Components(np.array([value]), np.array([number]), influences, dialogues)


class Correlation(SumMetric):
    """Pearson's correlation of a score with a number that annotators gave. Statistics: [n, sums of x, y, x x, y y, x y].

    NaN if one of the two does not vary.
    """

    def __init__(self) -> None:
        super().__init__(size=6)

    def statistics(self, preds: Sequence[float], target: Sequence[float | None]) -> Floats:
        pairs = np.array(labelled(preds, target), dtype=np.float64).reshape(-1, 2)
        x, y = pairs[:, 0], pairs[:, 1]
        return np.array([len(pairs), x.sum(), y.sum(), x @ x, y @ y, x @ y])

    def value(self, merged: Floats) -> Floats:
        n, x, y, xx, yy, xy = np.moveaxis(merged, -1, 0)
        spreads = [np.where(n * ss - s * s > 1e-13 * n * ss, n * ss - s * s, 0.0) for s, ss in ((x, xx), (y, yy))]  # else a rounding error
        return ratio(n * xy - x * y, np.sqrt(spreads[0] * spreads[1]))

    def components(self, statistics: Sequence[Floats]) -> Components:
        """The trials are the items. The interval of a correlation, which is not a proportion, does not use them."""
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
        return Components(np.array([value]), np.array([number]), influences[:, None], np.array([float((n > 0).sum())]))

    def items(self, merged: Floats) -> Floats:
        return merged[..., 0]

    def positives(self, merged: Floats) -> Floats:
        return self.items(merged)


def confusion(pairs: Sequence[Pair[bool, bool]]) -> Floats:
    """Pairs -> [tp, fp, fn, number of pairs]."""
    times = Counter(pairs)
    tp, fp, fn = times[Pair(True, True)], times[Pair(pred=True, target=False)], times[Pair(pred=False, target=True)]
    return np.array([tp, fp, fn, len(pairs)], dtype=np.float64)


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
