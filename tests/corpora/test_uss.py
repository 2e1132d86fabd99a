"""USS: each rule on files made here in the publisher's format, and equality with a reference conversion where it is at hand."""

from __future__ import annotations

import json
import logging
import os
import re
from pathlib import Path
from typing import Any

import pytest

from labelgen.corpora.uss import USS, is_defect
from labelgen.dialogue import Dialogue, RecordError, Turn

Json = dict[str, Any]

DATA = os.environ.get("LABELGEN_DATA")


def user(text: str, ratings: str = "3,3,3", act: str = "") -> str:
    return f"USER\t{text}\t{act}\t{ratings}"


def system(text: str, act: str = "") -> str:
    return f"SYSTEM\t{text}\t{act}\t"


def session(*lines: str, overall: str = "3,4,3") -> str:
    return "".join(f"{line}\n" for line in [*lines, user("OVERALL", overall)])


def published(root: Path, *sessions: str, name: str = "CCPE", **fields: Any) -> USS:
    root.mkdir(exist_ok=True)
    (root / f"{name}.txt").write_text("\n" + "\n".join(sessions), encoding="utf-8")
    return USS(str(root), name, **fields)


def only(root: Path, *lines: str, **kwargs: Any) -> Dialogue:
    (dialogue,) = published(root, session(*lines, **kwargs)).read()
    return dialogue


def ratings(holder: Dialogue | Turn) -> list[float | str]:
    assert {(vote.question, vote.annotator) for vote in holder.votes} <= {("satisfaction", None)}
    return [vote.value for vote in holder.votes]


def test_ratings_stand_where_the_user_speaks(tmp_path: Path) -> None:
    first = session(user("A café?", "3,4,5"), system("Luna."), user("Too far.", "2,2,3"), system("Sol, then."), overall="4,3,1")
    second = session(system("Hello."), user("Hi.", "3,3"), overall="5,5")
    one, two = published(tmp_path, first, second).read()
    assert (one.id, two.id) == ("uss:CCPE/0", "uss:CCPE/1")
    assert [(turn.request, turn.response) for turn in one.turns] == [("A café?", "Luna."), ("Too far.", "Sol, then.")]
    assert [ratings(turn) for turn in one.turns] == [[3, 4, 5], [2, 2, 3]]
    assert ratings(one) == [4, 3, 1]
    assert [(turn.request, turn.response) for turn in two.turns] == [(None, "Hello."), ("Hi.", None)]
    assert [ratings(turn) for turn in two.turns] == [[], [3, 3]]
    assert one.goals is None
    assert one.turns[0].request_slots is None


@pytest.mark.parametrize(
    ("given", "defect"),
    [([2, 2, 3], True), ([1, 3, 3], None), ([3, 3, 3], False), ([2, 4], None), ([2, 3, 3, 3], False), ([1], True), ([2, 2, 3, 3, 3], None)],
)
def test_a_defect_needs_a_majority_and_its_absence_two_thirds(given: list[float], defect: bool | None) -> None:
    assert is_defect(given) is defect


def test_a_response_is_judged_by_the_first_rating_after_it(tmp_path: Path) -> None:
    dialogue = only(
        tmp_path,
        user("A café?", "1,1,1"), system("Luna."),  # judged by the next request, not by its own
        user("Thanks!", "5,5,5"), user("But where?", "1,1,1"), system("There."), system("On the left."),  # only the nearest is judged
        user("Hm.", ""), user("No.", "2,2,2"), system("Bye."),  # skips a request without ratings; OVERALL judges nothing
        overall="1,1,1",
    )  # fmt: skip
    assert [(turn.response, turn.defect) for turn in dialogue.turns] == [
        ("Luna.", False), (None, None), ("There.", None), ("On the left.", True), (None, None), ("Bye.", None),
    ]  # fmt: skip


def test_requests_carry_their_acts(tmp_path: Path) -> None:
    dialogue = only(tmp_path, system("Hello.", "GREET"), user("A café?", act="ASK+PLACE"), system("Luna.", "OFFER"), user("Hm."))
    assert [turn.request_acts for turn in dialogue.turns] == [None, ["ASK+PLACE"], None]


def test_explanations_of_the_overall_ratings_are_kept(tmp_path: Path) -> None:
    text = session(user("A café?") + "\t", overall="1,2\ttoo slow;rude")
    (dialogue,) = published(tmp_path, text, name="JDDC").read()
    assert [(vote.question, vote.value) for vote in dialogue.votes] == [
        *(("satisfaction", rating) for rating in (1, 2)),
        *(("satisfaction_explanation", words) for words in ("too slow", "rude")),
    ]


def test_a_session_without_overall_has_no_rating_of_its_own(tmp_path: Path) -> None:
    (dialogue,) = published(tmp_path, user("A café?") + "\n").read()
    assert dialogue.votes == []
    assert len(dialogue.turns) == 1


def test_line_ends_and_byte_order_marks_change_nothing(tmp_path: Path) -> None:
    unix = published(tmp_path / "unix", session(user("Hi\u2028there."), system("Hello.")), session(user("Bye.")))
    text = (tmp_path / "unix" / "CCPE.txt").read_bytes().replace(b"\n", b"\r\n").lstrip(b"\r\n")
    (tmp_path / "CCPE.txt").write_bytes(b"\xef\xbb\xbf" + text)
    assert list(USS(str(tmp_path), "CCPE").read()) == list(unix.read())


def test_folds_share_the_dialogues_out(tmp_path: Path) -> None:
    corpus = published(tmp_path, *(session(user(f"Request {k}.")) for k in range(100)))
    whole = [dialogue.id for dialogue in corpus.read()]
    tested = [[d.id for d in USS(corpus.root, "CCPE", split="test", fold=fold).read()] for fold in range(10)]
    assert sorted(name for fold in tested for name in fold) == sorted(whole)
    assert [d.id for d in USS(corpus.root, "CCPE", split="train", fold=3).read()] == [name for name in whole if name not in tested[3]]


@pytest.mark.parametrize(
    ("broken", "problem"),
    [
        ("USER\tHi.\t3,3", "line 2: 3 columns"),
        ("ROBOT\tHi.\t\t3", "line 2: speaker 'ROBOT'"),
        ("USER\tHi.\t\t3,,3", "line 2: ratings '3,,3'"),
        ("USER\tHi.\t\t3,6", "line 2: ratings '3,6'"),
        ("USER\tHi.\t\tnan", "line 2: ratings 'nan'"),
        ("SYSTEM\tHi.\t\t3", "line 2: ratings '3' of a SYSTEM line"),
        ("USER\tHi.\tthere\t\t3", "line 2: a fifth column"),
        (user("OVERALL"), "line 2: OVERALL is not the session's last line"),
    ],
)
def test_malformed_sessions_are_rejected_and_reading_continues(tmp_path: Path, broken: str, problem: str) -> None:
    corpus = published(tmp_path, session(broken, system("Hello.")), session(user("A café?")))
    errors: list[RecordError] = []
    assert [dialogue.id for dialogue in corpus.read(errors.append)] == ["uss:CCPE/1"]
    assert [(error.row, error.dialogue_id) for error in errors] == [(0, "uss:CCPE/0")]
    assert problem in errors[0].problem
    with pytest.raises(RecordError, match=re.escape(problem)):
        list(corpus.read())


def test_a_session_without_messages_or_in_another_encoding_is_reported(tmp_path: Path) -> None:
    corpus = published(tmp_path, session(), "?\n", session(user("A café?")))
    file = tmp_path / "CCPE.txt"
    file.write_bytes(file.read_bytes().replace(b"?\n", "USER\tÅ\t\t3\n".encode("latin-1"), 1))
    errors: list[RecordError] = []
    assert [dialogue.turns[0].request for dialogue in corpus.read(errors.append)] == ["A café?"]
    assert [(error.row, error.field) for error in errors] == [(0, "turns"), (1, "record")]
    assert "utf-8" in errors[1].problem


def test_what_is_not_there_says_where_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="give one of SGD, ReDial, CCPE, MWOZ, JDDC"):
        list(USS(str(tmp_path), "sgd").read())
    with pytest.raises(ValueError, match=r"MWOZ\.txt: no such file; get github\.com/sunnweiwei"):
        list(USS(str(tmp_path), "MWOZ").read())
    with pytest.raises(ValueError, match="the file is empty"):
        list(published(tmp_path).read())
    with pytest.raises(ValueError, match="give all, train or test"):
        list(published(tmp_path, session(user("Hi.")), split="valid").read())
    with pytest.raises(ValueError, match="google-research-datasets"):
        list(published(tmp_path, session(user("Hi.")), name="SGD", sgd=str(tmp_path)).read())


def schema_guided(root: Path, *talks: list[tuple[str, str]]) -> str:
    """Writes SGD's train split: each talk finds and is offered cafés, with a slot in the first word of each request."""
    (root / "train").mkdir(parents=True)
    intents = [{"name": "FindCafe", "is_transactional": False}]
    (root / "train" / "schema.json").write_text(json.dumps([{"service_name": "Cafes_1", "slots": [], "intents": intents}]))
    rows = []
    for k, talk in enumerate(talks):
        turns: list[Json] = []
        for request, response in talk:
            span = {"slot": "mood", "start": 0, "exclusive_end": len(request.split()[0])}
            frame = {"service": "Cafes_1", "slots": [span], "actions": [], "state": {"active_intent": "FindCafe"}}
            turns.append({"speaker": "USER", "utterance": request, "frames": [frame]})
            offer = {"act": "OFFER", "slot": "", "values": [], "canonical_values": []}
            turns.append({"speaker": "SYSTEM", "utterance": response, "frames": [{"service": "Cafes_1", "slots": [], "actions": [offer]}]})
        rows.append({"dialogue_id": f"1_{k:05}", "services": ["Cafes_1"], "turns": turns})
    (root / "train" / "dialogues_001.json").write_text(json.dumps(rows), encoding="utf-8")
    return str(root)


def test_sessions_carry_what_sgd_says_of_the_same_words(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    sgd = schema_guided(tmp_path / "sgd", [("Quiet cafés?", "Luna.")], [("Quiet  cafés?", "Luna."), ("Loud ones?", "Sol.")])
    caplog.set_level(logging.INFO)
    known = session(user("Quiet cafés?", "3,3", "ASK"), system("Luna."), user("Loud ones?", "2,2", "ASK"), system("Sol."), overall="2,4")
    longer = session(user("Quiet cafés?"), system("Luna."), user("Loud ones?"))
    swapped = session(system("Quiet cafés?"), user("Luna."))
    joined, *others = published(tmp_path / "uss", known, longer, swapped, name="SGD", sgd=sgd).read()
    assert joined.id == "uss:SGD/0"
    assert [turn.request_acts for turn in joined.turns] == [["ASK"], ["ASK"]]
    assert (joined.slices, joined.metadata) == (["seen"], {"sgd": "sgd:train/1_00001", "services": ["Cafes_1"]})
    assert [(goal.turns, goal.name, goal.outcome) for goal in joined.goals or ()] == [([0, 1], "Cafes/FindCafe", "success")]
    assert [[slot.value for slot in turn.request_slots or ()] for turn in joined.turns] == [["Quiet"], ["Loud"]]
    assert [turn.intent for turn in joined.turns] == ["Cafes/FindCafe"] * 2
    assert [ratings(turn) for turn in joined.turns] == [[3, 3], [2, 2]]
    assert [turn.defect for turn in joined.turns] == [True, None]
    assert ratings(joined) == [2, 4]
    assert [(other.goals, "sgd" in other.metadata, len(other.votes)) for other in others] == [(None, False, 3)] * 2
    (message,) = caplog.messages
    assert message.startswith("2 of 3 sessions have no dialogue")


def test_sgd_is_not_read_for_other_corpora(tmp_path: Path) -> None:
    (dialogue,) = published(tmp_path, session(user("Hi.")), name="ReDial", sgd="nowhere").read()
    assert dialogue.goals is None


def test_broken_dialogues_of_sgd_and_broken_sessions_are_reported_once(tmp_path: Path) -> None:
    sgd = schema_guided(tmp_path / "sgd", [], [("Quiet cafés?", "Luna.")])
    corpus = published(tmp_path / "uss", "nonsense\n", session(user("Quiet cafés?"), system("Luna.")), name="SGD", sgd=sgd)
    errors: list[RecordError] = []
    assert [dialogue.metadata["sgd"] for dialogue in corpus.read(errors.append)] == ["sgd:train/1_00001"]
    assert [error.dialogue_id for error in errors] == ["sgd:train/1_00000", "uss:SGD/0"]


def texts(dialogue: Dialogue) -> tuple[tuple[str, str], ...]:
    utterances = (("user", turn.request, "system", turn.response) for turn in dialogue.turns)
    return tuple(
        (who, utterances) for utterance in utterances for who, utterances in (utterance[:2], utterance[2:]) if utterances is not None
    )


def reference(name: str) -> dict[tuple[tuple[str, str], ...], Json]:
    """Rows by their messages."""
    with (Path(DATA or "") / "dlog" / f"uss_{name.lower()}.jsonl").open(encoding="utf-8") as lines:
        return {tuple((turn["speaker"], turn["text"]) for turn in row["turns"]): row for row in map(json.loads, lines)}


def rated(dialogue: Dialogue) -> Json:
    return {
        "dialogue": ratings(dialogue),
        "ratings": [ratings(turn) for turn in dialogue.turns if turn.request is not None],
        "defects": [turn.defect for turn in dialogue.turns if turn.response is not None],
    }


def rated_there(row: Json) -> Json:
    return {
        "dialogue": row["dialogue"]["ratings"],
        "ratings": [turn["ratings"] for turn in row["turns"] if turn["speaker"] == "user"],
        "defects": [turn.get("defect", {}).get("label") for turn in row["turns"] if turn["speaker"] == "system"],
    }


def annotated(dialogue: Dialogue) -> Json:
    slots = [[slot for utterance in (turn.request_slots, turn.response_slots) for slot in utterance or ()] for turn in dialogue.turns]
    return {
        "goals": [(goal.name, goal.outcome) for goal in dialogue.goals or ()],
        "goal of turns": dialogue.goal_of_turns(),
        "intents": [turn.intent for turn in dialogue.turns],
        "slots": [sorted((slot.name, slot.start, slot.end) for slot in turn) for turn in slots],
    }


def annotated_there(row: Json) -> Json:
    """The same of a row of the reference, whose user's and system's turns alternate; a slot without offsets is not a span."""
    pairs = list(zip(row["turns"][::2], row["turns"][1::2], strict=True))
    slots = [[slot for utterance in both for slot in utterance.get("slots", ()) if slot["start"] is not None] for both in pairs]
    return {
        "goals": [(re.sub(r"_\d+(?=/)", "", goal["name"]), goal["outcome"]) for goal in row["goals"]],
        "goal of turns": [user["goal"] for user, _ in pairs],
        "intents": [re.sub(r"_\d+(?=/)", "", user["intent"]) for user, _ in pairs],
        "slots": [sorted((slot["slot"], slot["start"], slot["end"]) for slot in turn) for turn in slots],
    }


@pytest.mark.skipif(DATA is None, reason="LABELGEN_DATA is not set")
@pytest.mark.parametrize("name", ["SGD", "ReDial", "CCPE"])
def test_ratings_and_defects_of_each_dialogue_equal_the_reference(name: str) -> None:
    there = reference(name)
    for dialogue in USS(str(Path(DATA or "") / "uss"), name).read():
        assert rated(dialogue) == rated_there(there.pop(texts(dialogue))), dialogue.id
    assert not there


@pytest.mark.skipif(DATA is None, reason="LABELGEN_DATA is not set")
def test_joined_dialogues_equal_the_reference_where_it_has_the_same_release(tmp_path: Path) -> None:
    files = sorted((Path(DATA or "") / "sgd" / "train").glob("dialogues_*.json"))[::8]  # an eighth: the whole takes half a minute
    (tmp_path / "train").mkdir()
    for file in (files[0].with_name("schema.json"), *files):
        (tmp_path / "train" / file.name).symlink_to(file)
    numbers = {int(file.stem.removeprefix("dialogues_")) for file in files}
    there = reference("SGD")
    joined = 0
    for dialogue in USS(str(Path(DATA or "") / "uss"), "SGD", sgd=str(tmp_path)).read():
        row = there.pop(texts(dialogue))
        identity = row["id"].removeprefix("uss-sgd:")
        assert rated(dialogue) == rated_there(row), dialogue.id
        if row["meta"]["annotations"] == "head" and int(identity.split("_")[0]) in numbers:  # the others come from an older release
            assert dialogue.metadata["sgd"] == f"sgd:train/{identity}"
            assert annotated(dialogue) == annotated_there(row), dialogue.id
            joined += 1
        else:
            assert (dialogue.goals, "sgd" in dialogue.metadata) == (None, False)
    assert not there
    assert joined > 20
