"""Simulated dialogues: exact annotations, varied words, failures that users react to, and features that carry evidence."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from itertools import pairwise
from statistics import mean

import pytest

from labelgen.corpora.simulated import Simulated
from labelgen.dialogue import PARTS, Dialogue, Turn
from labelgen.simulation.conversation import NO_INTENT
from labelgen.simulation.intents import INTENTS
from labelgen.simulation.splits import SPLITS, in_split
from labelgen.simulation.values import VALUES

MANY = 400


@cache
def corpus(split: str = "train", seed: int = 0) -> list[Dialogue]:
    return list(Simulated(MANY, seed=seed, split=split).read())


@pytest.fixture(scope="module")
def dialogues() -> list[Dialogue]:
    return corpus()


def turns(dialogues: Iterable[Dialogue]) -> list[Turn]:
    return [turn for dialogue in dialogues for turn in dialogue.turns]


@pytest.mark.parametrize("split", ["valid", "test"])
def test_each_split_has_templates_and_values_of_its_own(split: str) -> None:
    def slot_values(which: str) -> set[str]:
        slots = [slot for turn in turns(corpus(which)) for part in PARTS for slot in turn.slots(part) or ()]
        return {slot.normalised for slot in slots if slot.normalised and slot.name in VALUES}

    others = set().union(*(slot_values(other) for other in SPLITS if other != split))
    own = slot_values(split)
    assert own - others, "some values are new"
    assert own & others, "most are not"
    for intent in INTENTS:
        kept = set(in_split(intent.requests, split)) - set(in_split(intent.requests, "train"))
        assert kept
        assert set(in_split(intent.requests, "train")) < set(intent.requests)


def test_slots_and_goals_are_exact(dialogues: list[Dialogue]) -> None:
    names, intents = set(), set()
    for dialogue in dialogues:
        owned = sorted(turn for goal in dialogue.goals or () for turn in goal.turns)
        assert owned == list(range(len(dialogue.turns))), "each turn serves one goal"
        for goal in dialogue.goals or ():
            assert {dialogue.turns[t].intent for t in goal.turns} - {NO_INTENT} == {goal.name}
        for turn in dialogue.turns:
            intents.add(turn.intent)
            for part in PARTS:
                text, at = turn.text(part), 0
                for slot in turn.slots(part) or ():
                    assert text is not None
                    assert text[slot.start : slot.end] == slot.value
                    assert slot.start >= at, "in order and apart"
                    assert slot.value == slot.value.strip()
                    at, names = slot.end, names | {slot.name}
                assert text is None or ("  " not in text and text == text.strip() and not set("{}[]|@%") & set(text))
                if text is not None and turn.slots(part) == []:
                    known = {value.lower() for value in VALUES["hotel"] + VALUES["artist"]}
                    assert not any(value in text.lower() for value in known), "what is a slot is marked as one"
    assert 15 <= len(names) <= 25
    assert len(intents - {NO_INTENT}) == len(INTENTS)
    assert len({name.split("/")[0] for name in intents - {NO_INTENT}}) >= 6


def test_goals_interleave_fail_recover_and_get_rephrased(dialogues: list[Dialogue]) -> None:
    goals = [goal for dialogue in dialogues for goal in dialogue.goals or ()]
    assert {len(dialogue.goals or ()) for dialogue in dialogues} == {1, 2, 3, 4}
    outcomes = [goal.outcome for goal in goals]
    assert all(outcomes.count(outcome) > 0.05 * len(goals) for outcome in ("success", "recovered", "failure"))
    interleaved = [d for d in dialogues if any(b - a > 1 for goal in d.goals or () for a, b in pairwise(goal.turns))]
    assert len(interleaved) > 0.1 * MANY
    left_open = [
        goal
        for dialogue in dialogues
        for goal in dialogue.goals or ()
        for a, b in pairwise(goal.turns)
        if b - a > 1 and dialogue.turns[a].categorical["dialogue_status"] in ("awaiting_slot", "awaiting_confirmation")
    ]
    assert len(left_open) > 0.03 * MANY, "another goal cuts in while a question is open"
    rephrased = 0
    for dialogue in dialogues:
        for goal in dialogue.goals or ():
            served = [dialogue.turns[t] for t in goal.turns]
            wrong = [turn.defect for turn in served]
            if goal.outcome == "success":
                assert not any(wrong)
            rephrased += sum(bool(a.defect) and b.intent != NO_INTENT and a.request != b.request for a, b in pairwise(served))
    assert rephrased > 0.1 * MANY
    kept_on = [g for d in dialogues for g in d.goals or () if g.outcome == "failure" and not any(d.turns[t].defect for t in g.turns)]
    assert kept_on, "some goals fail though no response was wrong"


def test_confidences_are_lower_at_defects_and_missing_where_the_user_types(dialogues: list[Dialogue]) -> None:
    def confidences(name: str, defect: bool) -> list[float]:
        return [value for turn in turns(dialogues) if turn.defect is defect and (value := turn.numerical.get(name)) is not None]

    for name in ("recogniser_confidence", "understanding_confidence"):
        wrong, right = confidences(name, True), confidences(name, False)
        assert mean(wrong) < mean(right) - 0.1
        assert max(wrong) > min(right), "they overlap: no threshold separates them"
        assert all(0 <= value <= 1 for value in wrong + right)
    logged = [turn.numerical.get("understanding_confidence") for turn in turns(dialogues) if turn.request is not None]
    assert 0 < logged.count(None) < 0.2 * len(logged)
    typed = [turn for turn in turns(dialogues) if turn.categorical["device_type"] == "web"]
    assert typed
    assert all("recogniser_confidence" not in turn.numerical for turn in typed), "no recogniser where the user types"
    assert all(set(turn.categorical) == {"device_type", "locale", "dialogue_status"} for turn in turns(dialogues))


def test_misrecognised_requests_hold_words_that_nobody_said(dialogues: list[Dialogue]) -> None:
    common = {word for turn in turns(dialogues) if turn.defect is False for word in (turn.request or "").split()}

    def has_rare_word(turn: Turn) -> bool:
        return any(word not in common for word in (turn.request or "").split())

    heard = [t for t in turns(dialogues) if "recogniser_confidence" in t.numerical]
    misrecognised = [t for t in heard if t.defect and (t.numerical["recogniser_confidence"] or 1) < 0.6]
    otherwise = [t for t in heard if t.defect and (t.numerical["recogniser_confidence"] or 0) > 0.8]
    assert mean(map(has_rare_word, misrecognised)) > mean(map(has_rare_word, otherwise)) + 0.3


def test_votes_come_from_three_annotators_who_mostly_see_defects(dialogues: list[Dialogue]) -> None:
    voted = [turn for turn in turns(dialogues) if turn.votes]
    assert 0 < len(voted) < len(turns(dialogues))
    for turn in voted:
        assert len({vote.annotator for vote in turn.votes}) == 3
        assert all(vote.question == "satisfaction" and vote.value in (1, 2, 3, 4, 5) for vote in turn.votes)
    ratings = {defect: [float(v.value) for t in voted if t.defect is defect for v in t.votes] for defect in (True, False)}
    assert mean(ratings[True]) < 3 < mean(ratings[False])
    assert any(len({vote.value for vote in turn.votes}) > 1 for turn in voted), "they disagree at times"


def test_wordings_vary_and_time_advances(dialogues: list[Dialogue]) -> None:
    openings = [turn.request for turn in turns(dialogues) if turn.request and turn.intent != NO_INTENT]
    assert len(set(openings)) > 0.75 * len(openings)
    assert len({turn.response for turn in turns(dialogues)}) > 0.4 * len(turns(dialogues))
    assert any(turn.request is None for turn in turns(dialogues)), "some start with the assistant"
    assert any(turn.response is None for turn in turns(dialogues)), "some users hang up"
    for dialogue in dialogues:
        assert all(a.timestamp < b.timestamp for a, b in pairwise(dialogue.turns))  # type: ignore[operator]
