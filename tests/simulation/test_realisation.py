"""Surface realisation and noise: templates parse, spans are exact, errors change what they should and nothing else."""

from __future__ import annotations

import random

import pytest

from labelgen.simulation.intents import INTENTS
from labelgen.simulation.noise import add_typo, misrecognise, transcribe
from labelgen.simulation.realisation import Segment, join_segments, parse_template, realise
from labelgen.simulation.splits import SPLITS, in_split
from labelgen.simulation.templates import SLOT_QUESTIONS
from labelgen.simulation.values import VALUES, sample_value

CITY = Segment("São Paulo", "city", "São Paulo")


def test_templates_parse_and_name_known_slots() -> None:
    texts = [text for intent in INTENTS for text in (*intent.requests, *intent.success_responses, *intent.no_result_responses)]
    for text in texts:
        assert parse_template(text)
        assert text.count("[") == text.count("]")
    for intent in INTENTS:
        assert set(intent.required_slots) <= set(SLOT_QUESTIONS), "each required slot can be asked for"
        for split in SPLITS:  # the words of every split can report each required slot
            assert any(f"{{{slot}}}" in text for slot in intent.required_slots for text in in_split(intent.success_responses, split))


def test_alternatives_nest_and_values_are_kept() -> None:
    template, values = "[fly|go [now|]] to {city}[ {date}|]", {"city": CITY}
    texts = {join_segments(realise((template,), random.Random(seed), values.copy(), "train")).text for seed in range(40)}
    texts = {text.partition(" to")[0] for text in texts}
    assert texts == {"fly", "go now", "go"}
    realise(("{date}, {city}",), random.Random(0), values, "train")
    assert values["city"] == CITY
    assert values["date"].slot == "date", "a value that was missing is kept for the rest of the goal"


@pytest.mark.parametrize("text", ["a]", "a|b"])
def test_templates_with_stray_brackets_are_refused(text: str) -> None:
    with pytest.raises(AssertionError, match="bracket"):
        parse_template(text)


def test_spans_are_exact_where_alternatives_leave_double_spaces() -> None:
    text, (slot,) = join_segments([Segment("fly  "), Segment(" to "), Segment(""), CITY, Segment(" ")])
    assert text == "fly  to São Paulo"
    assert (text[slot.start : slot.end], slot.normalised) == ("São Paulo", "São Paulo")


def test_a_transcript_has_no_punctuation_but_in_times() -> None:
    (first, second) = transcribe([Segment("Wake me, please: "), Segment("7:30 AM", "time", "07:30")])
    assert (first.words, second) == ("wake me please ", Segment("7:30 am", "time", "07:30"))


def test_a_misrecognised_slot_loses_its_normalised_value() -> None:
    request = [Segment("to "), Segment("boston", "city", "Boston"), Segment(" please")]
    changed = 0
    for seed in range(20):
        before, city, after = misrecognise(request, random.Random(seed))
        assert (before.slot, city.slot, after.slot) == (None, "city", None)
        assert city.normalised == ("Boston" if city.words == "boston" else None)
        changed += city.words != "boston"
    assert changed > 10, "most draws change the word that was chosen"


def test_a_typo_swaps_letters_outside_slots() -> None:
    request = [Segment("fly to "), Segment("Oslo", "city", "Oslo")]
    for seed in range(20):
        typed, city = add_typo(request, random.Random(seed))
        assert city == request[1]
        assert typed.words != "fly to "
        assert sorted(typed.words) == sorted("fly to ")
    assert add_typo(request[1:], random.Random(0)) == request[1:]


@pytest.mark.parametrize("split", SPLITS)
def test_a_split_samples_its_own_values_alone(split: str) -> None:
    rng = random.Random(0)
    words = {sample_value("city", rng, split).words for _ in range(600)}
    assert words == set(in_split(VALUES["city"], split)) < set(VALUES["city"])
