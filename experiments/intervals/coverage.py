"""How often does a nominal 95% interval hold the truth? Samples of dialogues from a population whose figures are known.

    python experiments/intervals/coverage.py --samples 400

A dialogue has one or two items, as of goals, or one to twelve, as of turns (five on average). A random effect of the dialogue shifts, on
the logit scale, both how likely its items are positive and how likely they are predicted right, so that items of one dialogue depend on
each other. Methods: the interval of labelgen (`interval`), and what else was considered: the percentile bootstrap over dialogues, its
bias-corrected and accelerated form (BCa), the bootstrap of Student's t, and the Bayesian bootstrap with half a success and half a failure
added (Jeffreys' prior).
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from scipy.stats import norm

from labelgen.evaluation.intervals import difference, interval
from labelgen.metrics import Accuracy, AveragePrecision, BinaryF1, DialogueMetric, Floats, MacroF1, RatioMetric

LEVEL = 0.95
RESAMPLES = 300
POPULATION = 100_000  # dialogues that stand for all
CLASSES = 12  # of the macro-F1, the k-th with a frequency of 1 / k
SPREAD = 1.0  # standard deviation of the dialogues' effects


class Sample(NamedTuple):
    """Some dialogues: the items of all, and the dialogue of each."""

    dialogue: np.ndarray  # [n]
    positive: np.ndarray  # [n] bool
    score: Floats  # [n] in [0, 1]
    kind: np.ndarray  # [n] class of the macro-F1
    guess: np.ndarray  # [n] predicted class


def logistic(x: Floats) -> Floats:
    return 1.0 / (1.0 + np.exp(-x))


def draw(rng: np.random.Generator, dialogues: int, share: float, longest: int = 12) -> Sample:
    """`share` of the items are positive, about. A dialogue has 1 to `longest` items."""
    sizes = 1 + rng.binomial(longest - 1, 4 / 11, dialogues)
    dialogue = np.repeat(np.arange(dialogues), sizes)
    rarity, ease = SPREAD * rng.normal(size=(2, dialogues))
    positive = rng.random(len(dialogue)) < logistic(np.log(share / (1 - share)) - 0.5 * SPREAD**2 + rarity[dialogue])
    score = logistic(rng.logistic(size=len(dialogue)) - 3.0 + np.where(positive, 3.0 + ease[dialogue], -0.5 * ease[dialogue]))
    frequency = 1.0 / np.arange(1, CLASSES + 1)
    kind = rng.choice(CLASSES, len(dialogue), p=frequency / frequency.sum())
    right = rng.random(len(dialogue)) < logistic(1.0 + ease[dialogue] - 0.1 * kind)
    return Sample(dialogue, positive, score, kind, np.where(right, kind, rng.choice(CLASSES, len(dialogue), p=frequency / frequency.sum())))


def statistics(sample: Sample) -> dict[str, list[Floats]]:
    """Figure -> statistics of each dialogue, as the metrics give them."""
    count = int(sample.dialogue[-1]) + 1
    predicted = sample.score > 0.5
    masks = (sample.positive & predicted, ~sample.positive & predicted, sample.positive & ~predicted, np.ones_like(predicted))
    right = (sample.guess == sample.kind, np.ones_like(predicted))

    def per_dialogue(amounts: Sequence[np.ndarray]) -> Floats:
        return np.stack([np.bincount(sample.dialogue, amount, minlength=count) for amount in amounts], axis=1)

    table = np.zeros((3, CLASSES + 1, count))
    for row, (of, weight) in enumerate(((sample.kind, right[0]), (sample.kind, right[1]), (sample.guess, right[1]))):
        np.add.at(table[row], (of, sample.dialogue), weight)
    cuts = np.flatnonzero(np.diff(sample.dialogue)) + 1
    items = np.split(np.stack([sample.score, sample.positive.astype(float)], axis=1), cuts)
    macro = table.reshape(-1, count).T
    return {"F1": list(per_dialogue(masks)), "accuracy": list(per_dialogue(right)), "macro-F1": list(macro), "AP": items}


METRICS: dict[str, DialogueMetric] = {
    "F1": BinaryF1(),
    "accuracy": Accuracy(),
    "macro-F1": MacroF1(range(CLASSES)),
    "AP": AveragePrecision(),
}


class Weighted(NamedTuple):
    """A figure as a function of weights of dialogues, [R, N] -> [R]."""

    metric: DialogueMetric
    rows: list[Floats]

    def values(self, weights: Floats) -> Floats:
        if isinstance(self.metric, RatioMetric):
            return self.metric.value(weights @ np.stack(self.rows))
        items = np.concatenate(self.rows)
        of = np.repeat(np.arange(len(self.rows)), [len(row) for row in self.rows])
        order = np.argsort(-items[:, 0], kind="stable")  # scores are continuous: no ties
        weight = weights[:, of[order]]
        found = weight * items[order, 1]
        hits, number = found.cumsum(1), weight.cumsum(1)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(number > 0, found * hits / number, 0.0).sum(1) / hits[:, -1]


Bounds = tuple[float, float]


def ours(figure: Weighted, rng: np.random.Generator) -> Bounds:
    found = interval(figure.metric, figure.rows, LEVEL)
    return (np.nan, np.nan) if found.low is None or found.high is None else (found.low, found.high)


def resampled(rng: np.random.Generator, count: int) -> Floats:
    return rng.multinomial(count, np.full(count, 1 / count), RESAMPLES).astype(float)


def quantiles(values: Floats, low: float, high: float) -> Bounds:
    known = values[~np.isnan(values)]
    return (np.nan, np.nan) if not known.size else tuple(np.quantile(known, [low, high]))


def percentile(figure: Weighted, rng: np.random.Generator) -> Bounds:
    return quantiles(figure.values(resampled(rng, len(figure.rows))), 0.025, 0.975)


def influences(figure: Weighted) -> Floats:
    components = figure.metric.components(figure.rows)
    return components.influences @ figure.metric.slopes(components.values)


def bca(figure: Weighted, rng: np.random.Generator) -> Bounds:
    value = figure.values(np.ones((1, len(figure.rows))))[0]
    values = figure.values(resampled(rng, len(figure.rows)))
    known = values[~np.isnan(values)]
    if np.isnan(value) or not known.size:
        return np.nan, np.nan
    moved = influences(figure)
    skewed = (moved**3).sum() / (6 * (moved**2).sum() ** 1.5) if moved.any() else 0.0
    bias = norm.ppf(np.clip(((known < value).sum() + 0.5 * (known == value).sum()) / known.size, 1e-3, 1 - 1e-3))
    shift = bias + norm.ppf([0.025, 0.975])
    return quantiles(known, *norm.cdf(bias + shift / (1 - skewed * shift)))


def studentised(figure: Weighted, rng: np.random.Generator) -> Bounds:
    """For ratios alone: the deviation of a resample is that of its influences."""
    if not isinstance(figure.metric, RatioMetric) or isinstance(figure.metric, MacroF1):
        return np.nan, np.nan
    rows = np.stack(figure.rows)
    whole, part = figure.metric.trials(rows)[:, 0], figure.metric.successes(rows)[:, 0]
    weights = np.concatenate([np.ones((1, len(rows))), resampled(rng, len(rows))])
    with np.errstate(invalid="ignore", divide="ignore"):
        ratios = (weights @ part) / (weights @ whole)
        deviations = np.sqrt(weights @ part**2 - 2 * ratios * (weights @ (part * whole)) + ratios**2 * (weights @ whole**2)) / (
            weights @ whole
        )
        t = (ratios[1:] - ratios[0]) / deviations[1:]
    t = t[np.isfinite(t)]
    if not t.size:
        return np.nan, np.nan
    low, high = np.clip(ratios[0] - np.quantile(t, [0.975, 0.025]) * deviations[0], 0, 1)
    return float(figure.metric.compose(np.array([low]))), float(figure.metric.compose(np.array([high])))


def bayesian(figure: Weighted, rng: np.random.Generator) -> Bounds:
    """For ratios with one part alone."""
    if not isinstance(figure.metric, RatioMetric) or isinstance(figure.metric, MacroF1):
        return np.nan, np.nan
    rows = np.stack(figure.rows)
    weights = rng.exponential(size=(RESAMPLES, len(rows)))
    success, failure = rng.gamma(0.5, size=(2, RESAMPLES))
    part, whole = weights @ figure.metric.successes(rows)[:, 0] + success, weights @ figure.metric.trials(rows)[:, 0] + success + failure
    return quantiles(figure.metric.compose((part / whole)[:, None]), 0.025, 0.975)


METHODS: dict[str, Callable[[Weighted, np.random.Generator], Bounds]] = {
    "interval": ours,
    "percentile": percentile,
    "BCa": bca,
    "bootstrap t": studentised,
    "Jeffreys": bayesian,
}


class Coverage(NamedTuple):
    """Of one figure and method over the samples in which the figure is defined."""

    figure: str
    method: str
    held: float  # share of the intervals that hold the truth
    width: float  # mean
    empty: float  # share of zero width
    positives: float  # mean number
    samples: int


def measure(
    dialogues: int, share: float, longest: int, samples: int, figures: Sequence[str], methods: Sequence[str], seed: int = 0
) -> Iterator[Coverage]:
    """The coverage of each figure and method in samples of so many dialogues."""
    whole = statistics(draw(np.random.default_rng(1), POPULATION, share, longest))
    truth = {name: float(METRICS[name].value(METRICS[name].merge(whole[name]))) for name in figures}
    rng = np.random.default_rng(seed)
    bounds: dict[tuple[str, str], list[Bounds]] = {(name, method): [] for name in figures for method in methods}
    positives: dict[str, list[float]] = {name: [] for name in figures}
    for _ in range(samples):
        sample = statistics(draw(rng, dialogues, share, longest))
        for name in figures:
            figure = Weighted(METRICS[name], sample[name])
            positives[name].append(float(figure.metric.positives(figure.metric.merge(figure.rows))))
            for method in methods:
                bounds[name, method].append(METHODS[method](figure, rng))
    for (name, method), found in bounds.items():
        low, high = np.array([pair for pair in found if not np.isnan(pair[0])]).reshape(-1, 2).T
        if len(low):
            held = np.mean((low <= truth[name] + 1e-12) & (truth[name] <= high + 1e-12))
            yield Coverage(
                name, method, float(held), float((high - low).mean()), float((high <= low).mean()), np.mean(positives[name]), len(low)
            )


DIFFERENCES = ("interval", "percentile")


def other_system(rng: np.random.Generator, sample: Sample) -> Sample:
    """The same dialogues with the predictions of a second system, which resembles the first."""
    odds = np.log(sample.score / (1 - sample.score)) + 0.4 + rng.normal(size=len(sample.score))
    guess = np.where(rng.random(len(sample.guess)) < 0.1, sample.kind, sample.guess)
    return sample._replace(score=logistic(odds), guess=guess)


def measure_differences(
    dialogues: int, share: float, longest: int, samples: int, figures: Sequence[str], methods: Sequence[str] = DIFFERENCES, seed: int = 0
) -> Iterator[Coverage]:
    """The coverage of the paired difference between two systems, by labelgen and by the percentile bootstrap."""
    rng = np.random.default_rng(1)
    whole = draw(rng, POPULATION, share, longest)
    pair = [statistics(one) for one in (whole, other_system(rng, whole))]
    truth = {name: float(np.subtract(*(METRICS[name].value(METRICS[name].merge(one[name])) for one in pair))) for name in figures}
    rng = np.random.default_rng(seed)
    bounds: dict[tuple[str, str], list[Bounds]] = {(name, method): [] for name in figures for method in methods}
    for _ in range(samples):
        sample = draw(rng, dialogues, share, longest)
        pair = [statistics(one) for one in (sample, other_system(rng, sample))]
        for name in figures:
            first, second = (Weighted(METRICS[name], one[name]) for one in pair)
            found = difference(METRICS[name], first.rows, second.rows)
            if found and "interval" in methods:
                bounds[name, "interval"].append((found.low, found.high))
            if found and "percentile" in methods:
                weights = resampled(rng, dialogues)
                bounds[name, "percentile"].append(quantiles(first.values(weights) - second.values(weights), 0.025, 0.975))
    for (name, method), pairs in bounds.items():
        low, high = np.array(pairs).T
        held = float(np.mean((low <= truth[name]) & (truth[name] <= high)))
        yield Coverage(name, method, held, float((high - low).mean()), float((high <= low).mean()), np.nan, len(low))


def print_differences(sizes: Sequence[int], shares: Sequence[float], samples: int, methods: Sequence[str]) -> None:
    """A table of the coverage of paired differences."""
    print(f"\n| dialogues | items | positive | difference of | {' | '.join(methods)} |\n|{'---|' * (4 + len(methods))}")
    for dialogues, longest, share in itertools.product(sizes, (2, 12), shares):
        once = longest == 12 and share == shares[0]
        found = list(measure_differences(dialogues, share, longest, samples, list(METRICS) if once else ["F1", "AP"], methods))
        for name in dict.fromkeys(one.figure for one in found):
            cells = [f"{100 * one.held:.1f} ({one.width:.3f})" for one in found if one.figure == name]
            of = f"{100 * share:.0f}%" if name in ("F1", "AP") else ""
            print(f"| {dialogues} | 1 to {longest} | {of} | {name} | {' | '.join(cells)} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--dialogues", type=int, nargs="+", default=[100, 300, 600])
    parser.add_argument("--shares", type=float, nargs="+", default=[0.02, 0.05, 0.2])
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    given = parser.parse_args()
    start = time.perf_counter()
    print(f"| dialogues | items | positive | figure | positives | {' | '.join(given.methods)} |\n|{'---|' * (5 + len(given.methods))}")
    for dialogues, longest, share in itertools.product(given.dialogues, (2, 12), given.shares):
        once = longest == 12 and share == given.shares[0]  # accuracy and macro-F1 do not depend on the share of positives
        rows: dict[str, dict[str, Coverage]] = {}
        for found in measure(dialogues, share, longest, given.samples, list(METRICS) if once else ["F1", "AP"], given.methods):
            rows.setdefault(found.figure, {})[found.method] = found
        for name, row in rows.items():
            cells = [f"{100 * row[m].held:.1f} ({row[m].width:.3f})" if m in row else "" for m in given.methods]
            of = f"{100 * share:.0f}%" if name in ("F1", "AP") else ""
            start_of_row = f"{dialogues} | 1 to {longest} | {of} | {name} | {row[given.methods[0]].positives:.0f}"
            print(f"| {start_of_row} | {' | '.join(cells)} |", flush=True)
    print_differences(given.dialogues, given.shares, given.samples, [method for method in DIFFERENCES if method in given.methods])
    print(f"\n{given.samples} samples each, {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
