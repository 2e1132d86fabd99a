"""Confidence intervals of figures over dialogues, made to keep their coverage with few positives too.

The items of a dialogue depend on each other, so dialogues are the units. Figures are proportions, or composed of proportions: accuracy of
items, F1 by Jaccard's index of what is positive in target or prediction, average precision of positives. A proportion of dependent trials
is as certain as one of fewer independent trials. Their effective number is the one that gives the same variance (Korn and Graubard 1998,
"Confidence intervals for proportions with small expected number of positive counts estimated from survey data"). The limits are those of
Clopper and Pearson (1934), which keep their coverage for any number of independent trials, even for 0 of n and n of n. Those of several
proportions (macro-F1), and of the difference of two figures on the same dialogues, are combined by their correlations (MOVER: Zou and
Donner 2008, "Construction of confidence limits about effect measures"; Newcombe 1998 for paired proportions). A correlation has Fisher's z
interval. experiments/intervals/README.md compares the coverage with that of bootstraps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.special import betaincinv
from scipy.stats import t as student

from labelgen.metrics import Components, Correlation, DialogueMetric, Floats


@dataclass(frozen=True)
class Interval:
    """A figure with its confidence interval. None if it is undefined (JSON has no NaN)."""

    value: float | None
    low: float | None
    high: float | None
    count: int  # labelled items
    positives: int  # annotated positives, or all labelled items if they count alike


class Limits(NamedTuple):
    """A figure, its limits, and the influence of each dialogue on it."""

    value: float
    low: float
    high: float
    influences: Floats  # [N]


class Difference(NamedTuple):
    """The difference of two figures, first minus second."""

    value: float
    low: float
    high: float


def interval(metric: DialogueMetric, statistics: Sequence[Floats], level: float = 0.95) -> Interval:
    """The figure of some dialogues with its interval.

    Args:
        metric: its state is neither read nor changed.
        statistics: of each dialogue, as `metric.statistics` gives them.
        level: the share of samples of dialogues whose interval holds the figure of all dialogues.
    """
    if not len(statistics):
        return Interval(None, None, None, 0, 0)
    merged = metric.merge(statistics)
    value, count, positives = float(metric.value(merged)), int(metric.items(merged)), int(metric.positives(merged))
    if np.isnan(value):
        return Interval(None, None, None, count, positives)
    found = limits(metric, statistics, level)
    return Interval(value, found.low, found.high, count, positives)


def difference(metric: DialogueMetric, first: Sequence[Floats], second: Sequence[Floats], level: float = 0.95) -> Difference | None:
    """The paired difference of a figure between two sets of predictions on the same dialogues, in the same order. None: undefined.

    Raises:
        ValueError: the numbers of dialogues differ.
    """
    if len(first) != len(second):
        raise ValueError(f"{len(first)} and {len(second)} dialogues; a paired difference needs the same ones")
    if not len(first) or any(np.isnan(metric.value(metric.merge(statistics))) for statistics in (first, second)):
        return None
    a, b = limits(metric, first, level), limits(metric, second, level)
    correlation = _correlation(a.influences, b.influences)
    return Difference(
        a.value - b.value,
        a.value - b.value - _of_difference(a.value - a.low, b.high - b.value, correlation),
        a.value - b.value + _of_difference(a.high - a.value, b.value - b.low, correlation),
    )


def limits(metric: DialogueMetric, statistics: Sequence[Floats], level: float) -> Limits:
    """Limits of a figure that is defined."""
    components = metric.components(statistics)
    value = float(metric.compose(components.values))
    slopes = metric.slopes(components.values)
    influences = components.influences @ slopes
    if isinstance(metric, Correlation):
        return _fisher(value, influences, float(components.dialogues[0]), level)
    low, high = proportion_limits(components, level)
    if len(components.values) == 1:
        return Limits(value, float(metric.compose(low)), float(metric.compose(high)), influences)
    # how far the limit of each component alone moves the figure
    below, above = (np.abs(_with_one_replaced(metric, components.values, limit) - value) for limit in (low, high))
    return Limits(value, value - _combined(below, components.influences), value + _combined(above, components.influences), influences)


class ComponentLimits(NamedTuple):
    """The limits of each component, [K]."""

    low: Floats
    high: Floats


def proportion_limits(components: Components, level: float) -> ComponentLimits:
    """Clopper and Pearson's limits of each component with its effective number of trials.

    That number is at most the number of trials. If nothing or everything succeeded, the variance cannot be estimated, and the number is
    that of the dialogues with a trial. Few such dialogues make the variance uncertain, so Student's t replaces the normal quantile.
    """
    p, trials, dialogues = components.values, components.trials, components.dialogues
    variance = (components.influences**2).sum(0) * dialogues / np.maximum(dialogues - 1.0, 1.0)
    effective = np.where(variance > 0, np.minimum(trials, p * (1 - p) / np.where(variance > 0, variance, 1.0)), dialogues)
    of_trials, of_dialogues = (student_t(number - 1.0, level) for number in (trials, dialogues))
    effective = effective * np.divide(of_trials, of_dialogues, out=np.zeros_like(p), where=np.isfinite(of_dialogues)) ** 2
    effective = np.where(trials <= 1, trials, effective)
    tail = (1.0 - level) / 2
    hits, misses = p * effective, (1 - p) * effective
    low = np.where(hits > 0, betaincinv(np.where(hits > 0, hits, 1.0), misses + 1.0, tail), 0.0)
    high = np.where(misses > 0, betaincinv(hits + 1.0, np.where(misses > 0, misses, 1.0), 1.0 - tail), 1.0)
    return ComponentLimits(low, high)


def student_t(freedom: Floats, level: float) -> Floats:
    """Quantiles of Student's t. Infinite without a degree of freedom."""
    quantiles: Floats = np.where(freedom > 0, student.ppf((1 + level) / 2, np.maximum(freedom, 1.0)), np.inf)
    return quantiles


def _fisher(value: float, influences: Floats, dialogues: float, level: float) -> Limits:
    """Limits of a correlation by Fisher's z, its inverse hyperbolic tangent, with the variance between dialogues."""
    if dialogues < 3 or abs(value) >= 1.0:
        return Limits(value, -1.0, 1.0, influences)
    deviation = float(np.sqrt((influences**2).sum() * dialogues / (dialogues - 1))) / (1.0 - value**2)
    half = float(student.ppf((1 + level) / 2, dialogues - 2)) * deviation
    return Limits(value, float(np.tanh(np.arctanh(value) - half)), float(np.tanh(np.arctanh(value) + half)), influences)


def _with_one_replaced(metric: DialogueMetric, values: Floats, other: Floats) -> Floats:
    """The figure after each component alone is replaced, [K]."""
    return metric.compose(np.where(np.eye(len(values), dtype=bool), other, values))


def _combined(distances: Floats, influences: Floats) -> float:
    """The distance to the limit of a sum, from those of its components, [K]. Those without variance count as independent of the others."""
    norms = np.sqrt((influences**2).sum(0))
    varies = norms > 0
    common = (influences[:, varies] / norms[varies]) @ distances[varies]
    return float(np.sqrt(common @ common + (distances[~varies] ** 2).sum()))


def _of_difference(first: float, second: float, correlation: float) -> float:
    """The distance to the limit of a difference, from those of its two terms."""
    return float(np.sqrt(max(first**2 + second**2 - 2 * correlation * first * second, 0.0)))


def _correlation(first: Floats, second: Floats) -> float:
    """The correlation of the influences on two figures. 0 if one has no variance."""
    norm = float(np.sqrt((first @ first) * (second @ second)))
    return float(first @ second) / norm if norm > 0 else 0.0
