"""SGD: each rule on a folder made here in the publisher's format, and equality with a reference conversion where it is at hand."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from labelgen.corpora.sgd import SGD
from labelgen.dialogue import Dialogue, RecordError, Slot, Turn

Json = dict[str, Any]

DATA = os.environ.get("LABELGEN_DATA")
SCHEMA = [
    {"service_name": "Cafes_1", "slots": [], "intents": [
        {"name": "FindCafe", "is_transactional": False}, {"name": "BookTable", "is_transactional": True},
    ]},
    {"service_name": "Trains_12", "slots": [], "intents": [{"name": "BuyTicket", "is_transactional": True}]},
]  # fmt: skip
FIND, BOOK, TICKET = ("Cafes_1", "FindCafe"), ("Cafes_1", "BookTable"), ("Trains_12", "BuyTicket")
NONE = ("Cafes_1", "NONE")


def act(name: str, slot: str = "", value: str | None = None, canonical: str | None = None) -> Json:
    values = [] if value is None else [value]
    return {"act": name, "slot": slot, "values": values, "canonical_values": values if canonical is None else [canonical]}


def user(text: str, *intents: tuple[str, str], actions: tuple[Json, ...] = (), slots: tuple[Json, ...] = ()) -> Json:
    """A user's turn; acts and spans are those of the first frame."""
    frames: list[Json] = [
        {"service": service, "slots": [], "actions": [], "state": {"active_intent": name, "requested_slots": [], "slot_values": {}}}
        for service, name in intents
    ]
    frames[0] |= {"slots": list(slots), "actions": list(actions)}
    return {"speaker": "USER", "utterance": text, "frames": frames}


def system(text: str, *acts: str, service: str = "Cafes_1", actions: tuple[Json, ...] = (), slots: tuple[Json, ...] = ()) -> Json:
    frame = {"service": service, "slots": list(slots), "actions": [*(act(name) for name in acts), *actions]}
    return {"speaker": "SYSTEM", "utterance": text, "frames": [frame]}


def span(text: str, words: str, slot: str) -> Json:
    return {"slot": slot, "start": text.index(words), "exclusive_end": text.index(words) + len(words)}


def published(root: Path, *talks: list[Json], services: tuple[str, ...] = ("Cafes_1",), split: str = "train") -> SGD:
    """Writes dialogues 1_00000, 1_00001, ... as the publisher does."""
    for name in {"train", split}:
        (root / name).mkdir(parents=True, exist_ok=True)
        (root / name / "schema.json").write_text(json.dumps(SCHEMA), encoding="utf-8")
    rows = [{"dialogue_id": f"1_{k:05}", "services": list(services), "turns": turns} for k, turns in enumerate(talks)]
    (root / split / "dialogues_001.json").write_text(json.dumps(rows), encoding="utf-8")
    return SGD(str(root), split)


def only(root: Path, turns: list[Json], **kwargs: Any) -> Dialogue:
    (dialogue,) = published(root, turns, **kwargs).read()
    return dialogue


def goals(dialogue: Dialogue) -> list[tuple[list[int], str | None, str | None]]:
    return [(goal.turns, goal.name, goal.outcome) for goal in dialogue.goals or ()]


def test_a_goal_starts_where_the_active_intent_changes(tmp_path: Path) -> None:
    dialogue = only(tmp_path, [
        user("A café nearby?", FIND), system("Try Luna.", "OFFER"),
        user("No, another.", FIND), system("Then Sol.", "OFFER"),
        user("Book it.", BOOK), system("Done.", "NOTIFY_SUCCESS"),
        user("Any other café?", FIND), system("Mar is open.", "OFFER"),
    ])  # fmt: skip
    assert dialogue.id == "sgd:train/1_00000"
    assert goals(dialogue) == [
        ([0, 1], "Cafes/FindCafe", "success"),
        ([2], "Cafes/BookTable", "success"),
        ([3], "Cafes/FindCafe", "success"),
    ]
    assert [turn.intent for turn in dialogue.turns] == ["Cafes/FindCafe", "Cafes/FindCafe", "Cafes/BookTable", "Cafes/FindCafe"]


def test_none_inherits_the_goal_but_not_the_intent(tmp_path: Path) -> None:
    dialogue = only(tmp_path, [
        user("Hello!", NONE), system("How can I help?", "REQ_MORE"),
        user("Book a table.", BOOK), system("It is full.", "NOTIFY_FAILURE"),
        user("Never mind, thanks.", NONE), system("Bye.", "GOODBYE"),
    ])  # fmt: skip
    assert goals(dialogue) == [([1, 2], "Cafes/BookTable", "failure")]
    assert [turn.intent for turn in dialogue.turns] == ["NONE", "Cafes/BookTable", "NONE"]


@pytest.mark.parametrize("order", [(FIND, TICKET), (TICKET, FIND)])
def test_where_two_frames_are_active_the_turn_belongs_to_the_new_goal(tmp_path: Path, order: tuple[tuple[str, str], ...]) -> None:
    dialogue = only(tmp_path, [
        user("A café?", FIND), system("Luna.", "OFFER"),
        user("Nice. And a train ticket there.", *order), system("Bought.", "NOTIFY_SUCCESS", service="Trains_12"),
    ])  # fmt: skip
    assert goals(dialogue) == [([0], "Cafes/FindCafe", "success"), ([1], "Trains/BuyTicket", "success")]
    assert dialogue.turns[1].intent == "Trains/BuyTicket"


@pytest.mark.parametrize(
    ("intent", "acts", "expected"),
    [
        (BOOK, ["NOTIFY_SUCCESS"], "success"),
        (BOOK, ["NOTIFY_FAILURE"], "failure"),
        (BOOK, ["NOTIFY_FAILURE", "NOTIFY_SUCCESS"], "recovered"),
        (BOOK, ["NOTIFY_SUCCESS", "NOTIFY_FAILURE"], "failure"),
        (BOOK, ["OFFER", "CONFIRM"], None),
        (FIND, ["OFFER"], "success"),
        (FIND, ["NOTIFY_FAILURE"], "failure"),
        (FIND, ["NOTIFY_FAILURE", "OFFER"], "recovered"),
        (FIND, ["NOTIFY_SUCCESS"], None),
    ],
)
def test_outcome_is_the_last_decisive_act(tmp_path: Path, intent: tuple[str, str], acts: list[str], expected: str | None) -> None:
    turns = [turn for name in acts for turn in (user("Please.", intent), system("Well.", name))]
    assert [goal.outcome for goal in only(tmp_path, turns).goals or ()] == [expected]


def test_another_services_act_decides_nothing(tmp_path: Path) -> None:
    dialogue = only(tmp_path, [user("Book.", BOOK), system("A ticket is bought.", "NOTIFY_SUCCESS", service="Trains_12")])
    assert [goal.outcome for goal in dialogue.goals or ()] == [None]


def test_retries_are_marked_and_stay_in_their_goal(tmp_path: Path) -> None:
    again = (act("INFORM_INTENT", "intent", "BookTable"),)
    dialogue = only(tmp_path, [
        user("Book a table.", BOOK, actions=again), system("It failed.", "NOTIFY_FAILURE"),
        user("Book one again.", BOOK, actions=again), system("Done.", "NOTIFY_SUCCESS"),
        user("And another.", BOOK, actions=again), system("Done.", "NOTIFY_SUCCESS"),
    ])  # fmt: skip
    assert [turn.retry for turn in dialogue.turns] == [False, True, False]
    assert len(dialogue.goals or ()) == 1


def test_slots_are_spans_as_marked_and_values_as_found(tmp_path: Path) -> None:
    request, response = "🚲 Quiet café in Åbo at half past 6, for four", "Luna in Åbo at 18:30, quiet."
    acts = (
        act("INFORM", "city", "Åbo"), act("INFORM", "time", "half past 6", "18:30"),
        act("INFORM", "mood", "quiet"), act("INFORM", "seats", "4"), act("REQUEST", "terrace", "café"),
    )  # fmt: skip
    dialogue = only(tmp_path, [
        user(request, FIND, actions=acts, slots=(span(request, "Åbo", "city"), span(request, "half past 6", "time"))),
        system(response, actions=(act("INFORM", "mood", "quiet"),), slots=(span(response, "18:30", "time"),)),
        user("Thanks.", NONE), system("Bye.", "GOODBYE"),
    ])  # fmt: skip
    assert dialogue.turns[0].request_slots == [
        Slot(name="city", start=16, end=19, value="Åbo", normalised="Åbo"),
        Slot(name="time", start=23, end=34, value="half past 6", normalised="18:30"),
        Slot(name="mood", start=2, end=7, value="Quiet", normalised="quiet", categorical=True),
    ]
    assert [(slot.name, slot.value, slot.normalised) for slot in dialogue.turns[0].response_slots or ()] == [("time", "18:30", None)]
    assert (dialogue.turns[1].request_slots, dialogue.turns[1].response_slots) == ([], [])


def test_what_the_publisher_did_not_annotate_is_missing(tmp_path: Path) -> None:
    bare = only(tmp_path, [{"speaker": "USER", "utterance": "Hi."}, {"speaker": "SYSTEM", "utterance": "Hello.", "frames": []}])
    assert bare.goals is None
    assert bare.turns == [Turn(request="Hi.", response="Hello.")]


def test_the_service_of_the_answer_is_logged(tmp_path: Path) -> None:
    dialogue = only(
        tmp_path, [user("Hi.", FIND), system("Hello."), user("A ticket.", TICKET), system("Sure.", service="Trains_12"), user("Bye.", NONE)]
    )
    assert [turn.categorical.get("service") for turn in dialogue.turns] == ["Cafes_1", "Trains_12", None]


def test_turns_without_a_partner_stand_alone(tmp_path: Path) -> None:
    dialogue = only(tmp_path, [
        system("Welcome."), user("A café?", FIND), user("Are you there?", FIND), system("Luna.", "OFFER"), system("Or Sol.", "OFFER"),
        user("Thanks.", NONE),
    ])  # fmt: skip
    assert [(turn.request, turn.response) for turn in dialogue.turns] == [
        (None, "Welcome."), ("A café?", None), ("Are you there?", "Luna."), (None, "Or Sol."), ("Thanks.", None),
    ]  # fmt: skip
    assert goals(dialogue) == [([1, 2, 3, 4], "Cafes/FindCafe", "success")]
    assert [turn.intent for turn in dialogue.turns] == [None, "Cafes/FindCafe", "Cafes/FindCafe", None, "NONE"]


def test_acts_are_the_publishers_over_all_frames(tmp_path: Path) -> None:
    asked = user("A café in Åbo, what is it called?", FIND, actions=(act("INFORM", "city", "Åbo"), act("INFORM", "x", "y"), act("REQUEST")))
    asked["frames"].append({**asked["frames"][0], "actions": [act("REQUEST"), act("AFFIRM")]})
    bare = {"speaker": "USER", "utterance": "Hm."}
    dialogue = only(tmp_path, [asked, system("Luna.", "OFFER"), user("Thanks.", NONE), bare])
    assert [turn.request_acts for turn in dialogue.turns] == [["INFORM", "REQUEST", "AFFIRM"], [], None]
    assert [turn.response_acts for turn in dialogue.turns] == [["OFFER"], None, None]
    assert [turn.retry for turn in dialogue.turns] == [False, False, None]


@pytest.mark.parametrize(
    ("services", "name"), [(("Cafes_1",), "seen"), (("Cafes_1", "Cafes_2"), "mixed"), (("Cafes_2", "Boats_1"), "unseen")]
)
def test_slices_follow_the_services_of_train(tmp_path: Path, services: tuple[str, ...], name: str) -> None:
    dialogue = only(tmp_path, [user("Hi.", NONE), system("Bye.")], services=services, split="dev")
    assert dialogue.id == "sgd:dev/1_00000"
    assert (dialogue.slices, dialogue.metadata) == ([name], {"services": list(services)})


@pytest.mark.parametrize(
    ("broken", "field"),
    [
        ([{"speaker": "USER", "frames": []}], "utterance"),
        ([{"utterance": "Hi.", "frames": []}], "speaker"),
        ([{"speaker": "ROBOT", "utterance": "Hi."}], "record"),
        ([user("Hi.", ("Cafes_1", "Fly")), system("Bye.")], "record"),
        ([user("Hi.", FIND, slots=({"slot": "city", "start": 0, "exclusive_end": 9},))], "turns.0"),
        ([], "turns"),
        ("Hi.", "record"),
    ],
)
def test_malformed_dialogues_are_rejected_and_reading_continues(tmp_path: Path, broken: Any, field: str) -> None:
    good = [user("A café?", FIND), system("Luna.", "OFFER")]
    corpus = published(tmp_path, broken, good)
    (tmp_path / "train" / "dialogues_000.json").write_text("[{", encoding="utf-8")
    errors: list[RecordError] = []
    assert [dialogue.id for dialogue in corpus.read(errors.append)] == ["sgd:train/1_00001"]
    assert [(error.dialogue_id, error.field) for error in errors] == [(None, "file"), ("sgd:train/1_00000", field)]
    with pytest.raises(RecordError):
        list(corpus.read())


def test_a_missing_folder_says_where_to_get_the_corpus(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"github\.com/google-research-datasets.*CC BY-SA 4\.0"):
        list(SGD(str(tmp_path)).read())


def reference(*names: str) -> Iterator[Json]:
    for name in names:
        with (Path(DATA or "") / "dlog" / name).open(encoding="utf-8") as lines:
            yield from map(json.loads, lines)


def as_reference(dialogue: Dialogue) -> Json:
    """What both conversions say of a dialogue, turn by turn in ours (a categorical slot's value is there the canonical one)."""
    slots = [[s for utterance in (turn.request_slots, turn.response_slots) for s in utterance or ()] for turn in dialogue.turns]
    return {
        "texts": [(turn.request, turn.response) for turn in dialogue.turns],
        "goals": [(goal.name, goal.outcome) for goal in dialogue.goals or ()],
        "goal of turns": dialogue.goal_of_turns(),
        "intents": [turn.intent for turn in dialogue.turns],
        "slots": [sorted((s.name, s.start, s.end, (s.normalised if s.categorical else s.value) or "") for s in turn) for turn in slots],
        "retries": [k for k, turn in enumerate(dialogue.turns) if turn.retry],
        "slices": dialogue.slices,
    }


def as_ours(row: Json) -> Json:
    """The same of a row of the reference; categorical values that it could not find in the text have no offsets and are no spans."""
    turns, unseen, services = row["turns"], set(row["meta"]["unseen"]), set(row["meta"]["services"])
    pairs = list(zip(turns[::2], turns[1::2], strict=True))

    def name(versioned: str) -> str:
        return re.sub(r"_\d+(?=/)", "", versioned)

    def spans(turn: Json) -> list[tuple[str, int, int, str]]:
        return [(s["slot"], s["start"], s["end"], s["value"]) for s in turn.get("slots", ()) if s["start"] is not None]

    return {
        "texts": [(user["text"], system["text"]) for user, system in pairs],
        "goals": [(name(goal["name"]), goal["outcome"]) for goal in row["goals"]],
        "goal of turns": [user["goal"] for user, _ in pairs],
        "intents": [name(user["intent"]) for user, _ in pairs],
        "slots": [sorted(spans(user) + spans(system)) for user, system in pairs],
        "retries": [k for k, (user, _) in enumerate(pairs) if user.get("retry_after_failure")],
        "slices": ["unseen" if unseen == services else "mixed" if unseen else "seen"],
    }


@pytest.mark.skipif(DATA is None, reason="LABELGEN_DATA is not set")
@pytest.mark.parametrize(("split", "most", "whole"), [("dev", None, 2098), ("train", 1000, 1000)])
def test_each_dialogue_equals_the_reference(split: str, most: int | None, whole: int) -> None:
    ours = {dialogue.id: dialogue for dialogue in islice(SGD(str(Path(DATA or "") / "sgd"), split).read(), most)}
    assert len(ours) == whole
    names = ("sgd_dev.jsonl",) if split == "dev" else ("uss_sgd.jsonl", "sgd_train.jsonl")  # its train lacks the rated dialogues
    compared = 0
    for row in reference(*names):
        dialogue = ours.get(re.sub("^uss-sgd:", "sgd:train/", row["id"]))
        if dialogue is not None:
            assert as_reference(dialogue) == as_ours(row), row["id"]
            compared += 1
        if compared == whole:
            break
    assert compared == whole
