"""Each metric equals an independent library; what is not annotated changes nothing; sums may be split over dialogues and processes."""

import random
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats
import sklearn.metrics
import torch
import torch.distributed
import torch.multiprocessing
from hypothesis import given, settings
from hypothesis import strategies as st

from labelgen import metrics
from labelgen.dialogue import Dialogue, Label, Turn
from labelgen.metrics import (
    Accuracy,
    AveragePrecision,
    BinaryF1,
    BoundaryF1,
    Correlation,
    DialogueMetric,
    Interval,
    MacroF1,
    PairwiseF1,
    Pk,
    Prediction,
    SpanF1,
    WindowDiff,
    bootstrap,
    score_bins,
)

with warnings.catch_warnings():
    warnings.simplefilter("ignore", (SyntaxWarning, DeprecationWarning))  # old packages, at import only
    import nervaluate
    import segeval
    import seqeval.metrics
    import seqeval.scheme
    from nltk.metrics.segmentation import pk as nltk_pk
    from nltk.metrics.segmentation import windowdiff as nltk_windowdiff

CLASSES = ["hotel", "bus", "music", "never predicted"]
Example = tuple[list[Any], list[Any]]  # the gold and the predicted items of one dialogue


def read(dialogue: Dialogue, prediction: Prediction) -> tuple[list[str | None], list[str]]:
    return [turn.intent for turn in dialogue.turns], [label.value for label in prediction.labels]


def goals(rng: random.Random, turns: int) -> Example:
    gold, current = [], 0
    for _ in range(turns):
        current = rng.randrange(3) if rng.random() < 0.3 else current
        gold.append(current)
    return gold, [goal if rng.random() < 0.8 else rng.randrange(3) for goal in gold]


def flags(rng: random.Random, turns: int) -> Example:
    gold = [rng.random() < 0.3 for _ in range(turns)]
    return gold, [rng.random() < (0.7 if flag else 0.2) for flag in gold]


def scores(rng: random.Random, turns: int) -> Example:
    gold = [rng.random() < 0.2 for _ in range(turns)]
    return gold, [rng.random() ** (1 if flag else 4) for flag in gold]


def ratings(rng: random.Random, turns: int) -> Example:
    gold = [rng.choice([1.0, 2.0, 2.5, 4.0]) for _ in range(turns)]
    return gold, [rating / 4 + rng.random() for rating in gold]


def classes(rng: random.Random, turns: int) -> Example:
    gold = [rng.choice([*CLASSES, "unseen", "unseen too"]) for _ in range(turns)]
    return gold, [rng.choice([label, *CLASSES[:3]]) if label in CLASSES[:3] else rng.choice(CLASSES[:3]) for label in gold]


def spans(rng: random.Random, turns: int) -> Example:
    def some() -> list[tuple[str, int, int]]:
        cuts = sorted(rng.sample(range(8), rng.choice([0, 2, 4])))
        return [(rng.choice("XY"), *cuts[k : k + 2]) for k in range(0, len(cuts), 2)]

    gold = [some() for _ in range(turns)]
    return gold, [unit if rng.random() < 0.4 else some() for unit in gold]


METRICS: dict[str, tuple[Callable[[], DialogueMetric], Callable[[random.Random, int], Example]]] = {
    "boundary_f1": (lambda: BoundaryF1(read), goals),
    "pairwise_f1": (lambda: PairwiseF1(read), goals),
    "pk": (lambda: Pk(read), goals),
    "window_diff": (lambda: WindowDiff(read), goals),
    "binary_f1": (lambda: BinaryF1(read), flags),
    "average_precision": (lambda: AveragePrecision(read), scores),
    "accuracy": (lambda: Accuracy(read), classes),
    "macro_f1": (lambda: MacroF1(read, CLASSES), classes),
    "span_f1": (lambda: SpanF1(read), spans),
    "correlation": (lambda: Correlation(read), ratings),
}
every_metric = pytest.mark.parametrize("name", METRICS)
seeds = st.integers(0, 2**32)


def corpus(name: str, seed: int, dialogues: int = 12, longest: int = 14) -> list[Example]:
    rng = random.Random(seed)
    return [METRICS[name][1](rng, rng.randint(1, longest)) for _ in range(dialogues)]


def rows(metric: DialogueMetric, examples: Sequence[Example]) -> np.ndarray:
    return np.stack([metric.statistics(*example) for example in examples])


def figure(metric: DialogueMetric, examples: Sequence[Example]) -> float:
    return float(metric.value(rows(metric, examples).sum(0)))


def flat(examples: Sequence[Example]) -> tuple[list[Any], list[Any]]:
    return [item for gold, _ in examples for item in gold], [item for _, predicted in examples for item in predicted]


def changes(labels: Sequence[int]) -> list[int]:
    return [int(labels[k] != labels[k - 1]) for k in range(1, len(labels))]


def masses(labels: Sequence[int]) -> tuple[int, ...]:
    ends = [k + 1 for k, change in enumerate(changes(labels)) if change] + [len(labels)]
    return tuple(end - start for start, end in zip([0, *ends], ends, strict=False))


# --- equal to independent libraries -----------------------------------------------------------------------------------------------


@settings(max_examples=40)
@given(seeds)
def test_window_errors_equal_segeval(seed: int) -> None:
    examples = [example for example in corpus("pk", seed) if len(example[0]) > 2]  # segeval divides by zero on two turns
    if not examples:
        return
    for metric, oracle in ((Pk(read), segeval.pk), (WindowDiff(read), segeval.window_diff)):
        expected = [float(oracle(masses(predicted), masses(gold))) for gold, predicted in examples]
        assert figure(metric, examples) == pytest.approx(np.mean(expected))


@settings(max_examples=40)
@given(seeds)
def test_window_errors_equal_nltk_on_gaps(seed: int) -> None:
    for gold, predicted in corpus("pk", seed):
        if len(gold) < 2:
            continue
        k = min(max(2, round(np.mean(masses(gold)) / 2)), len(gold) - 1)
        truth, guess = ("".join(map(str, changes(labels))) for labels in (gold, predicted))
        assert figure(Pk(read), [(gold, predicted)]) == pytest.approx(nltk_pk(truth, guess, k=k))
        assert figure(WindowDiff(read), [(gold, predicted)]) == pytest.approx(nltk_windowdiff(truth, guess, k=k))


@settings(max_examples=40)
@given(seeds)
def test_boundary_f1_equals_scikit_learn_and_segeval(seed: int) -> None:
    examples = corpus("boundary_f1", seed)
    truth = [change for gold, _ in examples for change in changes(gold)]
    guess = [change for _, predicted in examples for change in changes(predicted)]
    value = figure(BoundaryF1(read), examples)
    assert value == pytest.approx(sklearn.metrics.f1_score(truth, guess, zero_division=np.nan), nan_ok=True)
    for gold, predicted in examples:  # segeval has no micro-average, and fails where there is no boundary at all
        if not any(changes(gold) + changes(predicted)):
            continue
        counts = segeval.boundary_statistics(masses(gold), masses(predicted), n_t=1)
        hits, false, missed, _ = BoundaryF1(read).statistics(gold, predicted)
        assert (hits, false + missed) == (len(counts["matches"]), len(counts["additions"]))


@settings(max_examples=40)
@given(seeds)
def test_pairwise_f1_equals_scikit_learn(seed: int) -> None:
    examples = corpus("pairwise_f1", seed)
    total = sum((sklearn.metrics.cluster.pair_confusion_matrix(*example) for example in examples), np.zeros((2, 2)))
    (_, false), (missed, hits) = total / 2  # scikit-learn counts each pair in both orders
    expected = 2 * hits / (2 * hits + false + missed) if hits + false + missed else np.nan
    assert figure(PairwiseF1(read), examples) == pytest.approx(expected, nan_ok=True)


def test_turns_without_a_predicted_goal_are_in_no_pair() -> None:
    assert figure(PairwiseF1(read), [([0, 0, 0], [None, None, 1])]) == 0.0


@settings(max_examples=40)
@given(seeds)
def test_correlation_equals_scipy(seed: int) -> None:
    gold, predicted = flat(examples := corpus("correlation", seed))
    assert figure(Correlation(read), examples) == pytest.approx(scipy.stats.pearsonr(gold, predicted).statistic)


def test_correlation_of_scores_that_hardly_vary() -> None:
    ratings = [1.0, 2.0, 2.5, 4.0]
    assert figure(Correlation(read), [(ratings, [0.6 + 1e-4 * rating for rating in ratings])]) == pytest.approx(1.0, abs=1e-4)


def test_correlation_with_what_does_not_vary_is_undefined() -> None:
    assert np.isnan(figure(Correlation(read), [([3.1, 3.1, 3.1], [0.2, 0.5, 0.7])]))
    assert np.isnan(figure(Correlation(read), [([1.0, 2.0, 3.0], [0.7, 0.7, 0.7])]))


@settings(max_examples=40)
@given(seeds)
def test_binary_f1_equals_scikit_learn(seed: int) -> None:
    examples = corpus("binary_f1", seed, dialogues=3, longest=6)
    assert figure(BinaryF1(read), examples) == pytest.approx(sklearn.metrics.f1_score(*flat(examples), zero_division=np.nan), nan_ok=True)


@settings(max_examples=40)
@given(seeds, st.sampled_from([1, 7, 1000]))
def test_average_precision_equals_scikit_learn_on_the_bins(seed: int, bins: int) -> None:
    examples = [([True, False], [1.0, 0.0]), *corpus("average_precision", seed)]
    truth, score = flat(examples)
    value = figure(AveragePrecision(read, bins), examples)
    assert value == pytest.approx(sklearn.metrics.average_precision_score(truth, score_bins(score, bins)))


@pytest.mark.parametrize("shift", [-8.0, -4.0, 0.0, 6.0])
def test_bins_hardly_change_average_precision_of_rare_or_sure_scores(shift: float) -> None:
    rng = np.random.default_rng(0)
    truth = rng.random(4000) < 0.05
    score = 1 / (1 + np.exp(-(rng.normal(size=4000) + np.where(truth, 2.0, 0.0) + shift)))
    value = figure(AveragePrecision(read), [(list(truth), list(score))])
    assert value == pytest.approx(sklearn.metrics.average_precision_score(truth, score), abs=0.01)


@settings(max_examples=40)
@given(seeds)
def test_accuracy_and_macro_f1_equal_scikit_learn(seed: int) -> None:
    examples = corpus("macro_f1", seed, dialogues=4)
    gold, predicted = flat(examples)
    assert figure(Accuracy(read), examples) == pytest.approx(sklearn.metrics.accuracy_score(gold, predicted))
    known = [label if label in CLASSES else "other" for label in gold]
    expected = sklearn.metrics.f1_score(known, predicted, labels=sorted(set(known)), average="macro", zero_division=0.0)
    assert figure(MacroF1(read, CLASSES), examples) == pytest.approx(expected)


def bio(units: Sequence[Sequence[tuple[str, int, int]]]) -> list[list[str]]:
    sentences = []
    for unit in units:
        tags = ["O"] * 8
        for name, start, end in unit:
            tags[start:end] = [f"B-{name}", *[f"I-{name}"] * (end - start - 1)]
        sentences.append(tags)
    return sentences


@settings(max_examples=40)
@given(seeds)
def test_span_f1_equals_seqeval_strict_and_nervaluate_strict(seed: int) -> None:
    examples = [([[("X", 0, 2)]], [[("X", 0, 2)]]), *corpus("span_f1", seed)]
    truth, guess = (bio(units) for units in flat(examples))
    value = figure(SpanF1(read), examples)
    assert value == pytest.approx(seqeval.metrics.f1_score(truth, guess, mode="strict", scheme=seqeval.scheme.IOB2))
    assert value == pytest.approx(nervaluate.Evaluator(truth, guess, tags=["X", "Y"], loader="list").evaluate()["overall"]["strict"].f1)


# --- what the libraries leave open ------------------------------------------------------------------------------------------------


@every_metric
@settings(max_examples=25)
@given(data=st.data())
def test_what_is_not_annotated_changes_nothing(name: str, data: st.DataObject) -> None:
    metric, (gold, predicted) = METRICS[name][0](), corpus(name, data.draw(seeds), dialogues=1)[0]
    mask = data.draw(st.lists(st.booleans(), min_size=len(gold), max_size=len(gold)))
    other = METRICS[name][1](random.Random(data.draw(seeds)), len(gold))[1]  # predictions that have nothing to do with gold
    hidden = [None if off else item for off, item in zip(mask, gold, strict=True)]
    changed = [new if off else old for off, old, new in zip(mask, predicted, other, strict=True)]
    kept = [[item for off, item in zip(mask, items, strict=True) if not off] for items in (gold, predicted)]
    statistics = metric.statistics(hidden, predicted)
    np.testing.assert_array_equal(statistics, metric.statistics(hidden, changed))
    np.testing.assert_array_equal(statistics, metric.statistics(*kept))


@every_metric
@pytest.mark.parametrize("length", [0, 3])
def test_without_labels_there_is_no_figure(name: str, length: int) -> None:
    make, example = METRICS[name]
    metric, predicted = make(), example(random.Random(0), length)[1]
    statistics = metric.statistics([None] * length, predicted)
    assert not statistics.any() and metric.items(statistics) == 0
    metric.update(statistics)
    assert metric.compute().isnan() and metric.compute().ndim == 0
    for no_figure in (bootstrap(metric, np.stack([statistics] * 3)), bootstrap(metric, np.zeros((0, len(statistics))))):
        assert no_figure == Interval(None, None, None, 0)


def test_one_labelled_turn_has_no_boundary_to_find() -> None:
    for metric in (BoundaryF1(read), Pk(read), WindowDiff(read)):
        statistics = metric.statistics([None, 4, None], [1, 2, 3])
        assert metric.items(statistics) == 0 and np.isnan(metric.value(statistics))


@pytest.mark.parametrize("wrong", [False, True])
def test_two_turns_are_one_window(wrong: bool) -> None:
    for metric in (Pk(read), WindowDiff(read)):
        assert figure(metric, [([0, 1], [0, 0 if wrong else 5])]) == float(wrong)


def test_names_of_goals_do_not_matter_and_interleaving_does() -> None:
    gold = [7, 7, 3, 7, 7, 3]
    for metric in (Pk(read), WindowDiff(read)):
        assert figure(metric, [(gold, [1, 1, 2, 1, 1, 2])]) == 0.0
        assert figure(metric, [(gold, [1, 1, 2, 2, 2, 2])]) > 0.0
    assert figure(BoundaryF1(read), [(gold, [1, 1, 2, 1, 1, 2])]) == 1.0
    assert figure(BoundaryF1(read), [(gold, [1, 1, 2, 2, 2, 2])]) == pytest.approx(0.5)  # two of three are missed


def test_silence_where_nothing_is_to_be_found_is_undefined_and_a_false_alarm_is_zero() -> None:
    cases: list[tuple[DialogueMetric, Example, list[Any]]] = [
        (BoundaryF1(read), ([1, 1], [2, 2]), [1, 2]),
        (BinaryF1(read), ([False], [False]), [True]),
        (SpanF1(read), ([[]], [[]]), [[("X", 0, 1)]]),
    ]
    for metric, (gold, silent), loud in cases:
        assert np.isnan(figure(metric, [(gold, silent)]))
        assert figure(metric, [(gold, loud)]) == 0.0


def test_a_value_named_twice_must_be_found_twice() -> None:
    twice = [("city", "Bern"), ("city", "Bern")]
    assert figure(SpanF1(read), [([twice], [twice])]) == 1.0
    for example in (([twice], [twice[:1]]), ([twice[:1]], [twice])):
        assert figure(SpanF1(read), [example]) == pytest.approx(2 / 3)


def test_unseen_classes_are_errors_even_when_named() -> None:
    assert figure(MacroF1(read, ["a"]), [(["a", "unseen"], ["a", "unseen"])]) == 0.5


@pytest.mark.parametrize("score", [-0.1, 1.1, float("nan")])
def test_a_score_that_is_no_probability_is_refused_where_it_counts(score: float) -> None:
    metric = AveragePrecision(read)
    with pytest.raises(ValueError, match="no probability"):
        metric.statistics([True], [score])
    assert not metric.statistics([None], [score]).any()


def test_scores_keep_their_order_in_the_bins() -> None:
    order = score_bins(np.linspace(0, 1, 500), 1000)
    assert order[0] == 0 and order[-1] == 999 and (np.diff(order) >= 0).all()


def test_classes_given_twice_are_refused() -> None:
    with pytest.raises(ValueError, match="'a'"):
        MacroF1(read, ["a", "b", "a"])


# --- sums -------------------------------------------------------------------------------------------------------------------------


@every_metric
def test_parts_sum_to_the_whole_and_value_takes_leading_axes(name: str) -> None:
    metric = METRICS[name][0]()
    table = rows(metric, corpus(name, seed=1, dialogues=30))
    parts = np.stack([table[:7].sum(0), table[7:].sum(0)])
    assert table.dtype == np.float64
    assert float(metric.value(parts.sum(0))) == pytest.approx(float(metric.value(table.sum(0))))
    assert metric.items(parts).sum() == metric.items(table.sum(0)) > 0
    np.testing.assert_allclose(metric.value(parts[None]), [[metric.value(part) for part in parts]])
    for row in table:
        metric.update(row)
    assert metric.sums.dtype == torch.float64
    assert metric.compute().item() == pytest.approx(float(metric.value(table.sum(0))))


def test_observing_a_dialogue_returns_its_statistics_and_adds_them() -> None:
    metric = Accuracy(read)
    turns = [Turn(request="x", intent=intent) for intent in ("a", None, "b")]
    labels = [Label(task="intent", value=value, turns=[k], confidence=0.5, source="test") for k, value in enumerate("aac")]
    np.testing.assert_array_equal(metric.observe(Dialogue(id="d", turns=turns), Prediction(labels, None)), [1, 2])
    assert metric.compute() == 0.5
    with pytest.raises(ValueError, match="dialogue 'short': 3 gold items, 1 predicted"):
        metric.observe(Dialogue(id="short", turns=turns), Prediction(labels[:1], None))
    assert metric.compute() == 0.5


@pytest.mark.parametrize("convert", [lambda module: module.to(torch.bfloat16), torch.nn.Module.half, torch.nn.Module.float])
def test_a_model_in_few_bits_counts_exactly(convert: Callable[[torch.nn.Module], torch.nn.Module]) -> None:
    metric = Accuracy(read)
    convert(torch.nn.ModuleDict({"accuracy": metric}))
    for _ in range(2):
        metric.update(np.array([1001.0, 3001.0]))
        assert metric.compute().item() == 1001 / 3001
        metric.reset()


def half_of_the_work(rank: int, folder: str) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    figures = {}
    for name, (make, _) in METRICS.items():
        metric = make()
        for row in rows(metric, corpus(name, seed=3))[rank * 5 : 5 if rank == 0 else None]:  # unequal halves
            metric.update(row)
        figures[name] = metric.compute()
        with metric.sync_context():
            figures[f"{name}/count"] = torch.as_tensor(metric.items(metric.sums.numpy()))
    lone = Accuracy(read)  # labels on one process only
    lone.update(np.array([1.0, 2.0]) if rank else np.zeros(2))
    torch.save({**figures, "lone": lone.compute()}, f"{folder}/{rank}")
    torch.distributed.destroy_process_group()


@pytest.mark.skipif(sys.platform == "win32", reason="processes are forked")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")  # fork spares ten seconds of imports
def test_two_processes_give_the_figures_of_one(tmp_path: Path) -> None:
    torch.multiprocessing.start_processes(half_of_the_work, args=(str(tmp_path),), nprocs=2, start_method="fork")
    expected = {"lone": 0.5}
    for name, (make, _) in METRICS.items():
        metric, total = make(), rows(make(), corpus(name, seed=3)).sum(0)
        expected |= {name: float(metric.value(total)), f"{name}/count": float(metric.items(total))}
    for rank in range(2):
        figures = {name: value.item() for name, value in torch.load(tmp_path / str(rank), weights_only=True).items()}
        assert figures == pytest.approx(expected)


# --- bootstrap --------------------------------------------------------------------------------------------------------------------


@every_metric
def test_interval_covers_the_figure_and_repeats_under_a_seed(name: str) -> None:
    metric = METRICS[name][0]()
    table = rows(metric, corpus(name, seed=5, dialogues=150))
    interval = bootstrap(metric, table, resamples=300)
    assert interval.low < interval.value < interval.high  # type: ignore[operator]
    assert interval.value == pytest.approx(float(metric.value(table.sum(0))))
    assert interval.count == metric.items(table.sum(0))
    assert interval == bootstrap(metric, table, resamples=300)
    assert interval != bootstrap(metric, table, resamples=300, seed=1)


def test_interval_shrinks_with_dialogues_and_widens_with_level() -> None:
    metric = SpanF1(read)
    widths = []
    for dialogues, level in ((40, 0.95), (640, 0.95), (640, 0.5)):
        interval = bootstrap(metric, rows(metric, corpus("span_f1", seed=6, dialogues=dialogues)), level=level)
        widths.append(interval.high - interval.low)  # type: ignore[operator]
    assert widths[0] / 4 == pytest.approx(widths[1], rel=0.4)  # as the square root of the number
    assert widths[2] < widths[1] / 2


def test_bootstrap_of_a_mean_equals_scipy() -> None:
    right = np.random.default_rng(0).random(300) < 0.8
    interval = bootstrap(Accuracy(read), np.stack([right, np.ones(300)], axis=1).astype(float), resamples=4000)
    expected = scipy.stats.bootstrap((right,), np.mean, n_resamples=4000, method="percentile", rng=0).confidence_interval
    assert (interval.low, interval.high) == pytest.approx(tuple(expected), abs=0.005)


def test_more_items_of_the_same_dialogues_are_no_more_evidence() -> None:
    metric = Accuracy(read)
    table = rows(metric, corpus("accuracy", seed=7, dialogues=40))
    once, tenfold = bootstrap(metric, table), bootstrap(metric, 10 * table)
    assert (once.value, once.low, once.high) == pytest.approx((tenfold.value, tenfold.low, tenfold.high))
    assert tenfold.count == 10 * once.count


def test_resamples_without_labels_are_dropped() -> None:
    table = np.zeros((5, 2))
    table[2] = [3, 4]  # a third of the resamples miss it
    assert bootstrap(Accuracy(read), table) == Interval(0.75, 0.75, 0.75, 4)


def test_memory_of_the_bootstrap_is_bounded_and_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    metric = Accuracy(read)
    table = rows(metric, corpus("accuracy", seed=8, dialogues=50))
    whole, sizes, value = bootstrap(metric, table), [], metric.value
    monkeypatch.setattr(metrics, "BOOTSTRAP_CELLS", 1000)
    monkeypatch.setattr(metric, "value", lambda sums: (sizes.append(sums.size), value(sums))[1])
    assert bootstrap(metric, table) == whole
    assert max(sizes) <= 1000 < sum(sizes)
