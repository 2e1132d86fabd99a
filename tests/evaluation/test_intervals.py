"""Intervals hold their level with few positives too, never collapse, hold their own figure, and take dialogues as the units."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from labelgen.evaluation.intervals import Difference, Interval, _of_difference, difference, interval, proportion_limits
from labelgen.metrics import Accuracy, AveragePrecision, BinaryF1, Components, Correlation, DialogueMetric, MacroF1, Pk, SpanF1

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def coverage() -> ModuleType:
    """experiments/intervals/coverage.py, as a module."""
    spec = importlib.util.spec_from_file_location("coverage_of_intervals", ROOT / "experiments" / "intervals" / "coverage.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    module.POPULATION, module.RESAMPLES = 30_000, 200
    return module


def limits(found: Interval | Difference | None) -> tuple[float, float]:
    assert found is not None
    assert found.low is not None
    assert found.high is not None
    return found.low, found.high


def counts(*rows: list[float]) -> list[np.ndarray]:
    return [np.array(row, dtype=float) for row in rows]


# --- coverage ---------------------------------------------------------------------------------------------------------------------

SAMPLES = 250
ENOUGH = 0.95 - 2.33 * (0.95 * 0.05 / SAMPLES) ** 0.5  # an exact interval falls below it once in a hundred


@pytest.mark.parametrize(("dialogues", "share", "longest"), [(100, 0.02, 2), (100, 0.05, 12), (300, 0.02, 2)])
def test_intervals_keep_their_coverage_where_positives_are_few(coverage: ModuleType, dialogues: int, share: float, longest: int) -> None:
    for found in coverage.measure(dialogues, share, longest, SAMPLES, ["F1", "AP"], ["interval"]):
        assert found.held >= ENOUGH, found
        assert found.empty == 0.0, found
        assert found.samples > 0.9 * SAMPLES, found


def test_intervals_of_frequent_items_keep_their_coverage_and_are_hardly_wider(coverage: ModuleType) -> None:
    figures = list(coverage.METRICS)
    found = {one.figure: one for one in coverage.measure(100, 0.2, 12, 150, figures, ["interval"])}
    bootstrap = {one.figure: one for one in coverage.measure(100, 0.2, 12, 25, figures, ["percentile"])}
    for name in figures:
        assert found[name].held >= 0.95 - 2.33 * (0.95 * 0.05 / 150) ** 0.5, found[name]
        assert found[name].width < 1.2 * bootstrap[name].width, found[name]


def test_the_percentile_bootstrap_does_not_keep_its_coverage_there(coverage: ModuleType) -> None:
    """What this replaces: the simulation separates the two."""
    for found in coverage.measure(100, 0.02, 2, 100, ["F1", "AP"], ["percentile"]):
        assert found.held < ENOUGH - 0.03, found


@pytest.mark.parametrize(("share", "longest", "figures"), [(0.02, 2, ["F1", "AP"]), (0.2, 12, ["F1", "accuracy", "macro-F1"])])
def test_paired_differences_keep_their_coverage(coverage: ModuleType, share: float, longest: int, figures: list[str]) -> None:
    for found in coverage.measure_differences(100, share, longest, 150, figures, ["interval"]):
        assert found.held >= 0.95 - 2.33 * (0.95 * 0.05 / 150) ** 0.5, found
        assert found.empty == 0.0, found


# --- a single interval ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dialogues", [1, 3, 40])
@pytest.mark.parametrize("hit", [0, 1])
def test_all_right_or_all_wrong_is_the_exact_interval_of_a_proportion(dialogues: int, hit: int) -> None:
    low, high = limits(interval(Accuracy(), counts(*[[hit, 1]] * dialogues)))
    exact = scipy.stats.binomtest(hit * dialogues, dialogues).proportion_ci(0.95, "exact")
    assert (low, high) == pytest.approx((exact.low, exact.high))
    several = limits(interval(Accuracy(), counts(*[[5 * hit, 5]] * dialogues)))
    assert several == pytest.approx((exact.low, exact.high) if dialogues > 1 else (0.0, 1.0)) or several[1] - several[0] >= high - low


def test_of_independent_items_it_is_nearly_that_of_clopper_and_pearson() -> None:
    right = np.random.default_rng(0).random(300) < 0.8
    found = interval(Accuracy(), counts(*[[float(one), 1.0] for one in right]))
    exact = scipy.stats.binomtest(int(right.sum()), 300).proportion_ci(0.95, "exact")
    assert limits(found) == pytest.approx((exact.low, exact.high), abs=2e-4)
    assert (found.value, found.count, found.positives) == (right.mean(), 300, 300)


@pytest.mark.parametrize("right", [[8, 5, 9, 2, 7, 6], [5, 5, 6, 4, 5, 6]], ids=["overdispersed", "underdispersed"])
def test_dependent_items_count_as_fewer_independent_ones(right: list[int]) -> None:
    """Korn and Graubard (1998), written out: their effective number of trials, with Student's t, but never more trials than there are."""
    share, dialogues, items = np.array(right) / 10, len(right), 10 * len(right)
    p = share.mean()
    trials = min(items, p * (1 - p) / (share.var(ddof=1) / dialogues))
    trials *= (scipy.stats.t.ppf(0.975, items - 1) / scipy.stats.t.ppf(0.975, dialogues - 1)) ** 2
    hits, misses = p * trials, (1 - p) * trials
    expected = scipy.stats.beta.ppf(0.025, hits, misses + 1), scipy.stats.beta.ppf(0.975, hits + 1, misses)
    assert limits(interval(Accuracy(), counts(*[[one, 10] for one in right]))) == pytest.approx(expected)


@given(st.floats(1e-9, 1 - 1e-9) | st.sampled_from([0.0, 1.0]), st.floats(1e-6, 1e7), st.sampled_from([0.5, 0.8, 0.95, 0.99]))
def test_limits_of_a_proportion_lie_on_both_sides_of_it(p: float, trials: float, level: float) -> None:
    dialogues = np.full(1, max(2.0, trials))  # so that the effective number is the number of trials
    low, high = proportion_limits(Components(np.full(1, p), np.full(1, trials), np.zeros((1, 1)), dialogues), level)
    assert 0.0 <= low <= p <= high <= 1.0


@pytest.mark.parametrize("positives", [1, 2, 3, 5])
@pytest.mark.parametrize("found", [True, False])
def test_few_positives_give_wide_intervals(positives: int, found: bool) -> None:
    """`percentile` bootstraps of these are points."""
    rng = np.random.default_rng(positives)
    target = [True] * positives + [False] * (100 - positives)
    preds = [found and one for one in target]
    score = [0.9 if one else 0.1 * rng.random() for one in preds]
    width = 0.4 if positives < 5 else 0.3
    for metric, guess in ((BinaryF1(), preds), (AveragePrecision(), score)):
        each: list[np.ndarray] = [metric.statistics([a], [b]) for a, b in zip(guess, target, strict=True)]
        interval_of = interval(metric, each)
        assert interval_of.positives == positives
        low, high = limits(interval_of)
        assert high - low > width or not found, metric
        assert low < high


def test_dialogues_are_the_units_not_items() -> None:
    rng = np.random.default_rng(1)
    once = counts(*[[float(rng.integers(0, 5)), 4.0] for _ in range(40)])
    tenfold = [10 * row for row in once]
    assert limits(interval(Accuracy(), once)) == pytest.approx(limits(interval(Accuracy(), tenfold)), abs=0.01)
    assert interval(Accuracy(), tenfold).count == 10 * interval(Accuracy(), once).count


def test_one_dialogue_is_no_evidence_however_many_items_it_has() -> None:
    assert interval(Accuracy(), counts([0, 0], [30, 40], [0, 0])) == Interval(0.75, 0.0, 1.0, 40, 40)


def test_widths_shrink_as_the_square_root_and_grow_with_the_level() -> None:
    rng = np.random.default_rng(2)
    widths = []
    for dialogues, level in ((40, 0.95), (640, 0.95), (640, 0.5)):
        low, high = limits(interval(SpanF1(), [np.array([*rng.poisson([4, 1, 1]), 5.0]) for _ in range(dialogues)], level))
        widths.append(high - low)
    assert widths[0] / 4 == pytest.approx(widths[1], rel=0.3)
    assert widths[2] < widths[1] / 2


def test_the_interval_of_macro_f1_holds_its_figure_where_classes_are_rare() -> None:
    """Forty classes, most of them once: resamples without a class average over fewer classes, and so lie elsewhere than the figure."""
    rng = np.random.default_rng(0)
    labels = [str(k) for k in range(40)]
    metric = MacroF1(labels)
    each = [metric.statistics(["0"], ["0"]) for _ in range(60)]
    each += [metric.statistics([str(rng.integers(0, 3))], [label]) for label in labels[1:]]
    found = interval(metric, each)
    low, high = limits(found)
    assert found.value is not None
    assert low < found.value < high
    resamples = np.random.default_rng(0).multinomial(len(each), [1 / len(each)] * len(each), 500) @ np.stack(each)
    assert np.quantile(metric.value(resamples), 0.025) > found.value, "what a bootstrap over the classes of each resample makes of it"


def test_classes_that_are_never_found_keep_their_doubt() -> None:
    metric = MacroF1(["a", "b"])
    wrong = [metric.statistics(["a"], ["b"]) for _ in range(4)]
    right = [metric.statistics(["a"], ["a"]) for _ in range(400)]
    found = interval(metric, [*wrong, *right])
    assert found.value == pytest.approx(0.5, abs=0.01)
    assert limits(found)[1] - 0.5 > 0.2, "four of four may be wrong where a third is right"


def test_classes_without_a_target_do_not_count_and_others_always_do() -> None:
    metric = MacroF1(["a", "b", "c"])
    each = [metric.statistics(*pair) for pair in ((["a"], ["a"]), (["a"], ["b"]), (["c"], ["a"]), (["b"], ["b"])) for _ in range(5)]
    assert len(metric.components(each).values) == 2
    assert limits(interval(metric, each)) != limits(interval(metric, each[:-5] + each[:5]))


def test_intervals_of_correlations_are_fishers() -> None:
    rng = np.random.default_rng(3)
    x = rng.normal(size=400)
    y = 0.6 * x + rng.normal(size=400)
    metric = Correlation()
    found = interval(metric, [metric.statistics([a], [b]) for a, b in zip(x, y, strict=True)])
    exact = scipy.stats.pearsonr(x, y).confidence_interval(0.95)
    assert limits(found) == pytest.approx((exact.low, exact.high), abs=0.01)
    assert limits(interval(metric, [metric.statistics([0.0, 1.0], [0.0, 1.0])])) == (-1.0, 1.0)


def test_limits_of_a_correlation_are_those_of_the_influences_of_dialogues() -> None:
    """Fisher's z with the variance between dialogues, written out. Without three dialogues, or without an error, nothing is certain."""
    x, y = np.array([1.0, 2.0, 4.0, 5.0, 7.0, 8.0]), np.array([2.0, 1.0, 5.0, 3.0, 6.0, 9.0])
    metric = Correlation()
    r = float(np.corrcoef(x, y)[0, 1])
    a, b = ((values - values.mean()) / values.std() for values in (x, y))
    influences = (a * b - r * (a**2 + b**2) / 2) / 6
    half = scipy.stats.t.ppf(0.975, 6 - 2) * np.sqrt((influences**2).sum() * 6 / 5) / (1 - r**2)
    each = [metric.statistics([one], [other]) for one, other in zip(x, y, strict=True)]
    assert limits(interval(metric, each)) == pytest.approx((np.tanh(np.arctanh(r) - half), np.tanh(np.arctanh(r) + half)))
    assert limits(interval(metric, [*each[:1], metric.merge(each[1:])])) == (-1.0, 1.0), "two dialogues"
    three = limits(interval(metric, [*each[:2], metric.merge(each[2:])]))
    assert -1.0 < three[0] < r < three[1] < 1.0
    equal = [metric.statistics([one], [one]) for one in (0.0, 1.0, 0.0, 1.0)]
    assert limits(interval(metric, equal)) == (-1.0, 1.0)


def test_errors_of_windows_have_intervals_within_their_range() -> None:
    metric = Pk()
    wrong = [metric.statistics([0, 0, 0, 1], [0, 1, 1, 1]) for _ in range(3)]
    low, high = limits(interval(metric, [*wrong, *[metric.statistics([0, 0, 1, 1], [0, 0, 1, 1])] * 9]))
    assert 0 < low < high < 1


def test_undefined_figures_have_no_interval() -> None:
    assert interval(BinaryF1(), counts([0, 0, 0, 5], [0, 0, 0, 5])) == Interval(None, None, None, 10, 0)
    assert interval(AveragePrecision(), [np.array([[0.3, 0.0]])]) == Interval(None, None, None, 1, 0)


# --- differences ------------------------------------------------------------------------------------------------------------------


def metrics_and_pairs() -> list[tuple[DialogueMetric, list[np.ndarray], list[np.ndarray]]]:
    rng = np.random.default_rng(5)
    target = [[bool(one) for one in rng.random(5) < 0.3] for _ in range(60)]
    score = [[float(0.3 * one + 0.8 * rng.random()) for one in row] for row in target]
    other = [[float(one + 0.3 * rng.random()) for one in row] for row in score]
    decided = [[[one > 0.5 for one in row] for row in some] for some in (score, other)]
    return [
        (BinaryF1(), *([BinaryF1().statistics(*pair) for pair in zip(some, target, strict=True)] for some in decided)),
        (Accuracy(), *([Accuracy().statistics(*pair) for pair in zip(some, target, strict=True)] for some in decided)),
        (MacroF1([True, False]), *([MacroF1([True, False]).statistics(*p) for p in zip(some, target, strict=True)] for some in decided)),
        (AveragePrecision(), *([AveragePrecision().statistics(*p) for p in zip(some, target, strict=True)] for some in (score, other))),
        (Correlation(), *([Correlation().statistics(*p) for p in zip(some, target, strict=True)] for some in (score, other))),
    ]


@pytest.mark.parametrize("case", range(5))
def test_a_difference_is_paired_and_changes_its_sign_with_the_order(case: int) -> None:
    metric, first, second = metrics_and_pairs()[case]
    found, back = difference(metric, first, second), difference(metric, second, first)
    low, high = limits(found)
    assert found is not None
    assert back is not None
    assert low < found.value < high
    assert (-back.high, -back.low) == pytest.approx((low, high))
    unpaired = difference(metric, first, second[::-1])
    assert unpaired is not None
    assert high - low < unpaired.high - unpaired.low, "that the dialogues are the same makes it narrower"
    same = difference(metric, first, first)
    assert same is not None
    assert same.value == 0.0
    assert same.high - same.low < (high - low) / 2


def test_distances_that_cancel_are_zero_whatever_the_rounding() -> None:
    """Equal distances and a correlation of 1 cancel. Rounding makes the sum of their squares negative for some of them."""
    for distance in np.random.default_rng(0).random(20_000):
        assert 0.0 <= _of_difference(distance, distance, 1.0) < 1e-7


def test_differences_with_few_positives_are_no_points() -> None:
    silent, loud = counts(*[[0, 0, 1, 1]] * 3, *[[0, 0, 0, 1]] * 97), counts(*[[1, 0, 0, 1]] * 3, *[[0, 0, 0, 1]] * 97)
    low, high = limits(difference(BinaryF1(), loud, silent))
    assert low < 0.5
    assert high >= 1.0
    assert difference(BinaryF1(), loud, counts(*[[0, 0, 0, 1]] * 100)) is None, "undefined"
    with pytest.raises(ValueError, match="100 and 3 dialogues"):
        difference(BinaryF1(), loud, silent[:3])
