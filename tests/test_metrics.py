"""Each metric equals an independent library; what is not annotated changes nothing; sums may be split over dialogues and processes."""

import math
import random
import sys
import warnings
from collections import Counter
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
import torchmetrics
from hypothesis import given, settings
from hypothesis import strategies as st

from labelgen.dialogue import Dialogue, Label, Turn
from labelgen.evaluation.intervals import Interval, interval
from labelgen.metrics import (
    Accuracy,
    AveragePrecision,
    BinaryF1,
    BoundaryF1,
    Compared,
    Correlation,
    DialogueMetric,
    Figure,
    MacroF1,
    PairwiseF1,
    Pk,
    Prediction,
    Result,
    SpanF1,
    SubsetF1,
    SumMetric,
    WindowDiff,
    selection_score,
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
Example = tuple[list[Any], list[Any]]  # the annotated and the predicted items of one dialogue


def read(dialogue: Dialogue, prediction: Prediction) -> Compared:
    return Compared([label.value for label in prediction.labels], [turn.intent for turn in dialogue.turns])


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


def subsets(rng: random.Random, turns: int) -> Example:
    gold = [{item: rng.random() < 0.4 for item in range(rng.randint(0, 3))} for _ in range(turns)]
    return gold, [[item for item in range(4) if rng.random() < (0.7 if judged.get(item) else 0.2)] for judged in gold]


METRICS: dict[str, tuple[Callable[[], DialogueMetric], Callable[[random.Random, int], Example]]] = {
    "boundary_f1": (BoundaryF1, goals),
    "pairwise_f1": (PairwiseF1, goals),
    "pk": (Pk, goals),
    "window_diff": (WindowDiff, goals),
    "binary_f1": (BinaryF1, flags),
    "average_precision": (AveragePrecision, scores),
    "accuracy": (Accuracy, classes),
    "macro_f1": (lambda: MacroF1(CLASSES), classes),
    "span_f1": (SpanF1, spans),
    "subset_f1": (SubsetF1, subsets),
    "correlation": (Correlation, ratings),
}
every_metric = pytest.mark.parametrize("name", METRICS)
seeds = st.integers(0, 2**32)


def corpus(name: str, seed: int, dialogues: int = 12, longest: int = 14) -> list[Example]:
    rng = random.Random(seed)
    return [METRICS[name][1](rng, rng.randint(1, longest)) for _ in range(dialogues)]


def rows(metric: DialogueMetric, examples: Sequence[Example]) -> list[np.ndarray]:
    return [metric.statistics(predicted, gold) for gold, predicted in examples]


def merged(metric: DialogueMetric, examples: Sequence[Example]) -> np.ndarray:
    return metric.merge(rows(metric, examples))


def figure(metric: DialogueMetric, examples: Sequence[Example]) -> float:
    return float(metric.value(merged(metric, examples)))


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
    for metric, oracle in ((Pk(), segeval.pk), (WindowDiff(), segeval.window_diff)):
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
        assert figure(Pk(), [(gold, predicted)]) == pytest.approx(nltk_pk(truth, guess, k=k))
        assert figure(WindowDiff(), [(gold, predicted)]) == pytest.approx(nltk_windowdiff(truth, guess, k=k))


@settings(max_examples=40)
@given(seeds)
def test_boundary_f1_equals_scikit_learn_and_segeval(seed: int) -> None:
    examples = corpus("boundary_f1", seed)
    truth = [change for gold, _ in examples for change in changes(gold)]
    guess = [change for _, predicted in examples for change in changes(predicted)]
    value = figure(BoundaryF1(), examples)
    assert value == pytest.approx(sklearn.metrics.f1_score(truth, guess, zero_division=np.nan), nan_ok=True)
    for gold, predicted in examples:  # segeval has no micro-average, and fails where there is no boundary at all
        if not any(changes(gold) + changes(predicted)):
            continue
        counts = segeval.boundary_statistics(masses(gold), masses(predicted), n_t=1)
        hits, false, missed, _ = BoundaryF1().statistics(predicted, gold)
        assert (hits, false + missed) == (len(counts["matches"]), len(counts["additions"]))


@settings(max_examples=40)
@given(seeds)
def test_pairwise_f1_equals_scikit_learn(seed: int) -> None:
    examples = corpus("pairwise_f1", seed)
    total = sum((sklearn.metrics.cluster.pair_confusion_matrix(*example) for example in examples), np.zeros((2, 2)))
    (_, false), (missed, hits) = total / 2  # scikit-learn counts each pair in both orders
    expected = 2 * hits / (2 * hits + false + missed) if hits + false + missed else np.nan
    assert figure(PairwiseF1(), examples) == pytest.approx(expected, nan_ok=True)


def test_turns_without_a_predicted_goal_are_in_no_pair() -> None:
    assert figure(PairwiseF1(), [([0, 0, 0], [None, None, 1])]) == 0.0


@settings(max_examples=40)
@given(seeds)
def test_correlation_equals_scipy(seed: int) -> None:
    gold, predicted = flat(examples := corpus("correlation", seed))
    assert figure(Correlation(), examples) == pytest.approx(scipy.stats.pearsonr(gold, predicted).statistic)


def test_correlation_of_scores_that_hardly_vary() -> None:
    ratings = [1.0, 2.0, 2.5, 4.0]
    assert figure(Correlation(), [(ratings, [0.6 + 1e-4 * rating for rating in ratings])]) == pytest.approx(1.0, abs=1e-4)


def test_correlation_with_what_does_not_vary_is_undefined() -> None:
    assert np.isnan(figure(Correlation(), [([3.1, 3.1, 3.1], [0.2, 0.5, 0.7])]))
    assert np.isnan(figure(Correlation(), [([1.0, 2.0, 3.0], [0.7, 0.7, 0.7])]))


@settings(max_examples=40)
@given(seeds)
def test_binary_f1_equals_scikit_learn(seed: int) -> None:
    examples = corpus("binary_f1", seed, dialogues=3, longest=6)
    assert figure(BinaryF1(), examples) == pytest.approx(sklearn.metrics.f1_score(*flat(examples), zero_division=np.nan), nan_ok=True)


@settings(max_examples=40)
@given(seeds, st.sampled_from([1, 2, 20, 17]))
def test_average_precision_is_that_of_scikit_learn_ties_included(seed: int, digits: int) -> None:
    examples = [([True, False], [1.0, 0.0]), *corpus("average_precision", seed)]
    examples = [(target, [round(score, digits) for score in preds]) for target, preds in examples]
    target, score = flat(examples)
    assert figure(AveragePrecision(), examples) == pytest.approx(sklearn.metrics.average_precision_score(target, score), abs=1e-12)


def test_average_precision_ranks_any_finite_scores() -> None:
    rng = np.random.default_rng(0)
    target = rng.random(500) < 0.05
    score = np.concatenate([rng.normal(size=250) * 1e-9, rng.normal(size=250) * 1e6])
    value = figure(AveragePrecision(), [(list(target), list(score))])
    assert value == pytest.approx(sklearn.metrics.average_precision_score(target, score), abs=1e-12)


@settings(max_examples=40)
@given(seeds)
def test_accuracy_and_macro_f1_equal_scikit_learn(seed: int) -> None:
    examples = corpus("macro_f1", seed, dialogues=4)
    gold, predicted = flat(examples)
    assert figure(Accuracy(), examples) == pytest.approx(sklearn.metrics.accuracy_score(gold, predicted))
    known = [label if label in CLASSES else "other" for label in gold]
    expected = sklearn.metrics.f1_score(known, predicted, labels=sorted(set(known)), average="macro", zero_division=0.0)
    assert figure(MacroF1(CLASSES), examples) == pytest.approx(expected)


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
    value = figure(SpanF1(), examples)
    assert value == pytest.approx(seqeval.metrics.f1_score(truth, guess, mode="strict", scheme=seqeval.scheme.IOB2))
    assert value == pytest.approx(nervaluate.Evaluator(truth, guess, tags=["X", "Y"], loader="list").evaluate()["overall"]["strict"].f1)


def test_items_of_a_subset_are_all_judged_ones() -> None:
    judged = {"a": True, "b": False, "c": True}
    assert SubsetF1().statistics([["a", "b", "not judged"]], [judged]).tolist() == [1, 2, 1, 3]
    truth, guess = list(judged.values()), [True, True, False]
    assert figure(SubsetF1(), [([judged], [["a", "b"]])]) == pytest.approx(sklearn.metrics.f1_score(truth, guess))


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
    statistics = metric.statistics(predicted, hidden)
    np.testing.assert_array_equal(statistics, metric.statistics(changed, hidden))
    np.testing.assert_array_equal(statistics, metric.statistics(kept[1], kept[0]))


@every_metric
@pytest.mark.parametrize("length", [0, 3])
def test_without_labels_there_is_no_figure(name: str, length: int) -> None:
    make, example = METRICS[name]
    metric, predicted = make(), example(random.Random(0), length)[1]
    statistics = metric.statistics(predicted, [None] * length)
    assert not statistics.any() and metric.items(metric.merge([statistics])) == metric.positives(metric.merge([statistics])) == 0
    metric.update(predicted, [None] * length)
    assert metric.compute().isnan() and metric.compute().ndim == 0
    assert interval(metric, [statistics] * 3) == interval(metric, []) == Interval(None, None, None, 0, 0)


def test_one_labelled_turn_has_no_boundary_to_find() -> None:
    for metric in (BoundaryF1(), Pk(), WindowDiff()):
        statistics = metric.statistics([1, 2, 3], [None, 4, None])
        assert metric.items(statistics) == 0 and np.isnan(metric.value(statistics))


@pytest.mark.parametrize("wrong", [False, True])
def test_two_turns_are_one_window(wrong: bool) -> None:
    for metric in (Pk(), WindowDiff()):
        assert figure(metric, [([0, 1], [0, 0 if wrong else 5])]) == float(wrong)


def test_names_of_goals_do_not_matter_and_interleaving_does() -> None:
    gold = [7, 7, 3, 7, 7, 3]
    for metric in (Pk(), WindowDiff()):
        assert figure(metric, [(gold, [1, 1, 2, 1, 1, 2])]) == 0.0
        assert figure(metric, [(gold, [1, 1, 2, 2, 2, 2])]) > 0.0
    assert figure(BoundaryF1(), [(gold, [1, 1, 2, 1, 1, 2])]) == 1.0
    assert figure(BoundaryF1(), [(gold, [1, 1, 2, 2, 2, 2])]) == pytest.approx(0.5)  # two of three are missed


def test_silence_where_nothing_is_to_be_found_is_undefined_and_a_false_alarm_is_zero() -> None:
    cases: list[tuple[DialogueMetric, Example, list[Any]]] = [
        (BoundaryF1(), ([1, 1], [2, 2]), [1, 2]),
        (BinaryF1(), ([False], [False]), [True]),
        (SpanF1(), ([[]], [[]]), [[("X", 0, 1)]]),
    ]
    for metric, (gold, silent), loud in cases:
        assert np.isnan(figure(metric, [(gold, silent)]))
        assert figure(metric, [(gold, loud)]) == 0.0


def test_a_value_named_twice_must_be_found_twice() -> None:
    twice = [("city", "Bern"), ("city", "Bern")]
    assert figure(SpanF1(), [([twice], [twice])]) == 1.0
    for example in (([twice], [twice[:1]]), ([twice[:1]], [twice])):
        assert figure(SpanF1(), [example]) == pytest.approx(2 / 3)


def test_unseen_classes_are_errors_even_when_named() -> None:
    assert figure(MacroF1(["a"]), [(["a", "unseen"], ["a", "unseen"])]) == 0.5


@pytest.mark.parametrize("score", [float("inf"), float("-inf"), float("nan")])
def test_a_score_that_cannot_be_ranked_is_refused_where_it_counts(score: float) -> None:
    metric = AveragePrecision()
    with pytest.raises(ValueError, match="cannot be ranked"):
        metric.statistics([score], [True])
    assert not metric.statistics([score], [None]).size


def test_classes_given_twice_are_refused() -> None:
    with pytest.raises(ValueError, match="'a'"):
        MacroF1(["a", "b", "a"])


# --- sums -------------------------------------------------------------------------------------------------------------------------


@every_metric
def test_parts_merge_to_the_whole(name: str) -> None:
    metric = METRICS[name][0]()
    examples = corpus(name, seed=1, dialogues=30)
    table = rows(metric, examples)
    halves, whole = [metric.merge(table[:7]), metric.merge(table[7:])], metric.merge(table)
    assert whole.dtype == np.float64
    assert float(metric.value(metric.merge(halves))) == pytest.approx(float(metric.value(whole)))
    assert metric.items(halves[0]) + metric.items(halves[1]) == metric.items(whole) > 0
    for target, preds in examples:
        metric.update(preds, target)
    assert metric.merged.dtype == torch.float64
    assert metric.compute().item() == pytest.approx(float(metric.value(whole)))
    metric.reset()
    assert not metric.merged.any()


SUMS = [name for name in METRICS if isinstance(METRICS[name][0](), SumMetric)]


@pytest.mark.parametrize("name", SUMS)
def test_values_of_sums_take_leading_axes(name: str) -> None:
    metric = METRICS[name][0]()
    sums = np.stack(rows(metric, corpus(name, seed=1, dialogues=30)))
    pair = np.stack([sums[:7].sum(0), sums[7:].sum(0)])
    np.testing.assert_allclose(metric.value(pair[None]), [[metric.value(part) for part in pair]])


@every_metric
def test_influences_are_the_derivatives_of_the_components(name: str) -> None:
    """A dialogue adds to a value what the value gains with the weight of the dialogue."""
    metric = METRICS[name][0]()
    table = rows(metric, corpus(name, seed=4, dialogues=40))
    components = metric.components(table)
    assert float(metric.compose(components.values)) == pytest.approx(float(metric.value(metric.merge(table))))
    np.testing.assert_allclose(components.influences.sum(0), 0.0, atol=1e-12)
    many = 200  # so that one dialogue more is little
    for k in (0, 5, 17):
        more = metric.merge([*table * many, table[k]])
        gain = (float(metric.value(more)) - float(metric.value(metric.merge(table)))) * many
        assert gain == pytest.approx(float(components.influences[k] @ metric.slopes(components.values)), rel=0.05, abs=2e-4)


def test_a_figure_reads_dialogues_and_names_the_one_that_does_not_fit() -> None:
    accuracy = Figure(Accuracy(), read)
    turns = [Turn(request="x", intent=intent) for intent in ("a", None, "b")]
    labels = [Label(task="intent", value=value, turns=[k], confidence=0.5, source="test") for k, value in enumerate("aac")]
    good, bad = Prediction(labels, np.zeros((0, 1))), Prediction(labels[:1], np.zeros((0, 1)))
    np.testing.assert_array_equal(accuracy.statistics(Dialogue(id="d", turns=turns), good), [1, 2])
    assert not accuracy.metric.merged.any(), "statistics are not added"
    accuracy.observe(Dialogue(id="d", turns=turns), good)
    for reads in (accuracy.observe, accuracy.statistics):
        with pytest.raises(ValueError, match="dialogue 'short': 1 preds, 3 targets"):
            reads(Dialogue(id="short", turns=turns), bad)
    assert accuracy.metric.compute() == 0.5


POSITIVES: dict[str, Callable[[list[Any]], int]] = {
    "boundary_f1": lambda target: sum(changes(target)),
    "pairwise_f1": lambda target: sum(count * (count - 1) // 2 for count in Counter(target).values()),
    "pk": lambda target: int(len(target) > 1),
    "window_diff": lambda target: int(len(target) > 1),
    "binary_f1": sum,
    "average_precision": sum,
    "accuracy": len,
    "macro_f1": len,
    "span_f1": lambda target: sum(map(len, target)),
    "subset_f1": lambda target: sum(sum(judged.values()) for judged in target),
    "correlation": len,
}


@every_metric
def test_positives_are_those_of_the_annotations_whatever_is_predicted(name: str) -> None:
    metric, examples = METRICS[name][0](), corpus(name, seed=2)
    wanted = sum(POSITIVES[name](target) for target, _ in examples)
    assert metric.positives(merged(metric, examples)) == wanted
    rng = random.Random(9)
    shuffled = [(target, METRICS[name][1](rng, len(target))[1]) for target, _ in examples]
    assert metric.positives(merged(metric, shuffled)) == wanted


# --- as torchmetrics has them -----------------------------------------------------------------------------------------------------


def test_metrics_equal_those_of_torchmetrics() -> None:
    rng = np.random.default_rng(0)
    target = torch.tensor(rng.integers(0, 3, 200))
    preds = torch.where(torch.tensor(rng.random(200) < 0.7), target, torch.tensor(rng.integers(0, 3, 200)))
    scores = torch.tensor(rng.random(200) * 0.5) + 0.4 * (target == 1)
    pairs: list[tuple[DialogueMetric, torchmetrics.Metric, torch.Tensor, torch.Tensor]] = [
        (Accuracy(), torchmetrics.Accuracy("multiclass", num_classes=3, average="micro"), preds, target),
        (MacroF1([0, 1, 2]), torchmetrics.F1Score("multiclass", num_classes=3, average="macro"), preds, target),
        (BinaryF1(), torchmetrics.F1Score("binary"), preds == 1, target == 1),
        (AveragePrecision(), torchmetrics.AveragePrecision("binary"), scores, target == 1),
        (Correlation(), torchmetrics.PearsonCorrCoef(), scores, target.double()),
    ]
    for ours, theirs, guess, truth in pairs:
        truth = truth.long() if truth.dtype == torch.bool else truth
        for start in range(0, 200, 50):
            ours.update(guess[start : start + 50], truth[start : start + 50])
            theirs.update(guess[start : start + 50], truth[start : start + 50])
        assert ours.compute().item() == pytest.approx(theirs.compute().item(), abs=1e-5), type(ours)
        assert ours(guess, truth).item() == pytest.approx(theirs(guess, truth).item(), abs=1e-5), "forward gives the batch's"


def test_a_collection_keeps_different_metrics_apart() -> None:
    """torchmetrics merges metrics whose states are equal after the first update, so that only the first is updated from then on."""
    target, preds = [0, 0, 1, 1], [0, 0, 1, 1]
    collection = torchmetrics.MetricCollection(
        {
            "boundary": BoundaryF1(),
            "pairwise": PairwiseF1(),
            "pk": Pk(),
            "window_diff": WindowDiff(),
            "accuracy": Accuracy(),
            "one": MacroF1([0, 1]),
            "two": MacroF1([0, 2]),
        }
    )
    alone = {name: metric.clone() for name, metric in collection.items(keep_base=True, copy_state=False)}
    for guess, truth in ((preds[:1], target[:1]), (preds, target), ([0, 1, 1, 1], target), ([0, 1, 0, 1], [2, 2, 2, 0])):
        collection.update(guess, truth)
        for metric in alone.values():
            metric.update(guess, truth)
    assert {name: value.item() for name, value in collection.compute().items()} == pytest.approx(
        {name: metric.compute().item() for name, metric in alone.items()}, nan_ok=True
    )


def test_probabilities_are_no_decisions() -> None:
    with pytest.raises(ValueError, match=r"0\.7 is neither True nor False; give decisions"):
        BinaryF1().update([0.7, 0.0], [True, False])


def test_consecutive_turns_without_a_predicted_goal_are_goals_of_their_own() -> None:
    assert BoundaryF1().statistics([None, None, None], [0, 1, 2]).tolist() == [2, 0, 0, 2]
    assert figure(Pk(), [([0, 1, 2], [None, None, None])]) == figure(WindowDiff(), [([0, 1, 2], [None, None, None])]) == 0.0


def test_models_are_selected_on_a_fixed_set_of_tasks() -> None:
    good, silent = Result(0.8, 10, True), Result(math.nan, 3, True)
    assert selection_score([good]) == 0.8
    assert selection_score([good, silent]) == 0.4, "undefined although there are positives: a miss"
    assert selection_score([good, Result(0.0, 0, True)]) == 0.8, "a false alarm where nothing is to be found"
    assert selection_score([good, Result(0.3, 7, False)]) == pytest.approx(0.75), "of an error 1 - .3 counts"
    assert selection_score([Result(math.nan, 0, False)]) == selection_score([]) == 0.0


@pytest.mark.parametrize("convert", [lambda module: module.to(torch.bfloat16), torch.nn.Module.half, torch.nn.Module.float])
def test_a_model_in_few_bits_counts_exactly(convert: Callable[[torch.nn.Module], torch.nn.Module]) -> None:
    metric = Accuracy()
    convert(torch.nn.ModuleDict({"accuracy": metric}))
    for _ in range(2):
        metric.update(["a"] * 1001 + ["b"] * 2000, ["a"] * 3001)
        assert metric.compute().item() == 1001 / 3001
        metric.reset()


def half_of_the_work(rank: int, folder: str) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    figures = {}
    for name, (make, _) in METRICS.items():
        metric = make()
        for target, preds in corpus(name, seed=3)[rank * 5 : 5 if rank == 0 else None]:  # unequal halves
            metric.update(preds, target)
        figures[name] = metric.compute()
        figures[f"{name}/result"], figures[f"{name}/positives"] = map(torch.as_tensor, metric.result()[:2])
        with metric.sync_context():
            figures[f"{name}/count"] = torch.as_tensor(metric.items(metric.merged.numpy()))
    ranked = AveragePrecision()  # labels on one process only, and no dialogue on the other
    if rank:
        ranked.update([0.1, 0.7, 0.3], [False, True, True])
    figures["ranked"] = torch.tensor(ranked.result().value)
    lone = Accuracy()  # labels on one process only
    lone.update(["a", "b"], ["a", "a"] if rank else [None, None])
    torch.save({**figures, "lone": lone.compute()}, f"{folder}/{rank}")
    torch.distributed.destroy_process_group()


@pytest.mark.skipif(sys.platform == "win32", reason="processes are forked")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")  # fork spares ten seconds of imports
def test_two_processes_give_the_figures_of_one(tmp_path: Path) -> None:
    torch.multiprocessing.start_processes(half_of_the_work, args=(str(tmp_path),), nprocs=2, start_method="fork")
    expected = {"lone": 0.5, "ranked": 1.0}
    for name, (make, _) in METRICS.items():
        metric = make()
        total = merged(metric, corpus(name, seed=3))
        expected |= {name: float(metric.value(total)), f"{name}/result": float(metric.value(total))}
        expected |= {f"{name}/count": float(metric.items(total)), f"{name}/positives": float(metric.positives(total))}
    for rank in range(2):
        figures = {name: value.item() for name, value in torch.load(tmp_path / str(rank), weights_only=True).items()}
        assert figures == pytest.approx(expected)
