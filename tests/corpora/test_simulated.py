"""The simulated corpus: reproducible, rightly annotated, varied, and with features that mean something."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable
from functools import cache
from itertools import pairwise
from statistics import mean

import pytest

from labelgen.corpora.simulated import SPLITS, Simulated
from labelgen.dialogue import PARTS, Dialogue, Turn
from labelgen.simulation import templates
from labelgen.simulation.conversation import NONE
from labelgen.simulation.realisation import compile_phrasing, share

MANY = 400


@cache
def corpus(split: str = "train", seed: int = 0) -> list[Dialogue]:
    return list(Simulated(MANY, seed=seed, split=split).read())


@pytest.fixture(scope="module")
def dialogues() -> list[Dialogue]:
    return corpus()


def turns(dialogues: Iterable[Dialogue]) -> list[Turn]:
    return [turn for dialogue in dialogues for turn in dialogue.turns]


def dump(dialogues: Iterable[Dialogue]) -> list[str]:
    return [dialogue.model_dump_json() for dialogue in dialogues]


def test_same_seed_same_dialogues_whatever_ran_before() -> None:
    """Also in another process, where hashes of strings differ."""
    here = dump(Simulated(20, seed=3, split="test", labelled=0.5).read())
    assert here == dump(Simulated(20, seed=3, split="test", labelled=0.5).read())
    code = (
        "from labelgen.corpora.simulated import Simulated\n"
        "list(Simulated(5).read())\n"
        "import sys; sys.stdout.reconfigure(encoding='utf-8')\n"
        "for d in Simulated(20, seed=3, split='test', labelled=0.5).read(): print(d.model_dump_json())\n"
        "assert 'torch' not in sys.modules\n"
    )
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, encoding="utf-8", check=True)
    assert there.stdout.split("\n")[:-1] == here


def test_fewer_dialogues_are_a_prefix_of_more(dialogues: list[Dialogue]) -> None:
    assert dump(Simulated(50).read()) == dump(dialogues[:50])


def test_seeds_and_splits_differ_and_ids_are_unique(dialogues: list[Dialogue]) -> None:
    corpora = [dialogues, corpus(seed=1), corpus("valid"), corpus("test")]
    ids = [dialogue.id for corpus in corpora for dialogue in corpus]
    assert len(set(ids)) == len(ids)
    assert ids[12] == "simulated:train/0/0000012"
    prints = [{dialogue.fingerprint() for dialogue in corpus} for corpus in corpora]
    assert all(not (a & b) for k, a in enumerate(prints) for b in prints[k + 1 :])
    users = [{dialogue.user for dialogue in corpus} for corpus in (corpora[0], corpora[2], corpora[3])]
    assert not (users[0] & users[1])
    assert not (users[0] & users[2])
    assert not (users[1] & users[2])
    assert any(count > 1 for count in map([d.user for d in dialogues].count, users[0])), "users come back"


@pytest.mark.parametrize("split", ["valid", "test"])
def test_a_split_has_phrasings_and_values_of_its_own(split: str) -> None:
    def said(which: str) -> set[str]:
        slots = [slot for turn in turns(corpus(which)) for part in PARTS for slot in turn.slots(part) or ()]
        return {slot.normalised for slot in slots if slot.normalised and slot.name in templates.VALUES}

    others = set().union(*(said(other) for other in SPLITS if other != split))
    own = said(split)
    assert own - others, "some values are new"
    assert own & others, "most are not"
    for intent in templates.INTENTS:
        kept = set(share(intent.requests, split)) - set(share(intent.requests, "train"))
        assert kept
        assert set(share(intent.requests, "train")) < set(intent.requests)


def test_slots_and_goals_are_exact(dialogues: list[Dialogue]) -> None:
    names, intents = set(), set()
    for dialogue in dialogues:
        owned = sorted(turn for goal in dialogue.goals or () for turn in goal.turns)
        assert owned == list(range(len(dialogue.turns))), "each turn serves one goal"
        for goal in dialogue.goals or ():
            assert {dialogue.turns[t].intent for t in goal.turns} - {NONE} == {goal.name}
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
                    known = {value.lower() for value in templates.VALUES["hotel"] + templates.VALUES["artist"]}
                    assert not any(value in text.lower() for value in known), "what is a slot is marked as one"
    assert 15 <= len(names) <= 25
    assert len(intents - {NONE}) == len(templates.INTENTS)
    assert len({name.split("/")[0] for name in intents - {NONE}}) >= 6


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
            told = [dialogue.turns[t] for t in goal.turns]
            wrong = [turn.defect for turn in told]
            if goal.outcome == "success":
                assert not any(wrong)
            rephrased += sum(bool(a.defect) and b.intent != NONE and a.request != b.request for a, b in pairwise(told))
    assert rephrased > 0.1 * MANY
    kept_on = [g for d in dialogues for g in d.goals or () if g.outcome == "failure" and not any(d.turns[t].defect for t in g.turns)]
    assert kept_on, "some goals fail though no response was wrong"


def test_confidences_tell_of_defects_and_of_what_was_heard(dialogues: list[Dialogue]) -> None:
    def confidences(name: str, defect: bool) -> list[float]:
        return [value for turn in turns(dialogues) if turn.defect is defect and (value := turn.numerical.get(name)) is not None]

    for name in ("recogniser_confidence", "understanding_confidence"):
        wrong, right = confidences(name, True), confidences(name, False)
        assert mean(wrong) < mean(right) - 0.1
        assert max(wrong) > min(right), "they overlap: no threshold tells all"
        assert all(0 <= value <= 1 for value in wrong + right)
    logged = [turn.numerical.get("understanding_confidence") for turn in turns(dialogues) if turn.request is not None]
    assert 0 < logged.count(None) < 0.2 * len(logged)
    typed = [turn for turn in turns(dialogues) if turn.categorical["device_type"] == "web"]
    assert typed
    assert all("recogniser_confidence" not in turn.numerical for turn in typed), "no recogniser where the user types"
    assert all(set(turn.categorical) == {"device_type", "locale", "dialogue_status"} for turn in turns(dialogues))


def test_misheard_requests_hold_words_that_nobody_said(dialogues: list[Dialogue]) -> None:
    common = {word for turn in turns(dialogues) if turn.defect is False for word in (turn.request or "").split()}

    def strange(turn: Turn) -> bool:
        return any(word not in common for word in (turn.request or "").split())

    heard = [t for t in turns(dialogues) if "recogniser_confidence" in t.numerical]
    misheard = [t for t in heard if t.defect and (t.numerical["recogniser_confidence"] or 1) < 0.6]
    otherwise = [t for t in heard if t.defect and (t.numerical["recogniser_confidence"] or 0) > 0.8]
    assert mean(map(strange, misheard)) > mean(map(strange, otherwise)) + 0.3


def test_votes_come_from_three_annotators_who_mostly_see_defects(dialogues: list[Dialogue]) -> None:
    voted = [turn for turn in turns(dialogues) if turn.votes]
    assert 0 < len(voted) < len(turns(dialogues))
    for turn in voted:
        assert len({vote.annotator for vote in turn.votes}) == 3
        assert all(vote.question == "satisfaction" and vote.value in (1, 2, 3, 4, 5) for vote in turn.votes)
    ratings = {defect: [float(v.value) for t in voted if t.defect is defect for v in t.votes] for defect in (True, False)}
    assert mean(ratings[True]) < 3 < mean(ratings[False])
    assert any(len({vote.value for vote in turn.votes}) > 1 for turn in voted), "they disagree at times"


def test_phrasings_are_many_and_time_runs_on(dialogues: list[Dialogue]) -> None:
    openings = [turn.request for turn in turns(dialogues) if turn.request and turn.intent != NONE]
    assert len(set(openings)) > 0.75 * len(openings)
    assert len({turn.response for turn in turns(dialogues)}) > 0.4 * len(turns(dialogues))
    assert any(turn.request is None for turn in turns(dialogues)), "some start with the assistant"
    assert any(turn.response is None for turn in turns(dialogues)), "some users hang up"
    for dialogue in dialogues:
        assert all(a.timestamp < b.timestamp for a, b in pairwise(dialogue.turns))  # type: ignore[operator]


def test_labelled_drops_annotations_and_nothing_else(dialogues: list[Dialogue]) -> None:
    part = list(Simulated(MANY, labelled=0.3).read())
    assert [d.fingerprint() for d in part] == [d.fingerprint() for d in dialogues]
    kept = [
        [d.goals is not None for d in part],
        [any(t.intent is not None for t in d.turns) for d in part],
        [any(t.request_slots is not None for t in d.turns) for d in part],
        [any(t.defect is not None for t in d.turns) for d in part],
    ]
    for kind in kept:
        assert 0.2 * MANY < sum(kind) < 0.4 * MANY
    assert len(set(zip(*kept, strict=True))) == 16, "label types go missing on their own"
    assert any(goal.outcome is None for dialogue in part for goal in dialogue.goals or ()), "a goal without its outcome"
    bare = list(Simulated(20, labelled=0.0).read())
    assert dump(bare) == dump(d.content() for d in bare)


@pytest.mark.parametrize(
    ("wrong", "told"), [({"split": "dev"}, "valid"), ({"labelled": 1.5}, "0 to 1"), ({"num_dialogues": -1}, "negative")]
)
def test_wrong_settings_are_refused_with_the_remedy(wrong: dict[str, object], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        Simulated(**wrong)  # type: ignore[arg-type]


def test_phrasings_compile_and_name_known_slots() -> None:
    said = [text for intent in templates.INTENTS for text in (*intent.requests, *intent.done, *intent.none)]
    for text in said:
        assert compile_phrasing(text)
        assert text.count("[") == text.count("]")
    for intent in templates.INTENTS:
        assert set(intent.required) <= set(templates.ASKS), "what is required can be asked for"
        for split in SPLITS:  # the words of every split can report each required slot
            assert any(f"{{{slot}}}" in text for slot in intent.required for text in share(intent.done, split))
