"""DBDC3: each rule on files made here in the publisher's format, and a reference conversion put back into that format."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from labelgen.corpora.dbdc3 import DBDC3, is_defect
from labelgen.dialogue import Dialogue, RecordError, Turn

Json = dict[str, Any]

DATA = os.environ.get("LABELGEN_DATA")


def user(text: str) -> Json:
    return {"speaker": "U", "utterance": text, "time": "", "annotations": []}


def system(text: str, breakdowns: str = "") -> Json:
    """A system's utterance as published, with one annotator per letter."""
    annotations = [
        {"breakdown": letter, "annotator-id": f"w{k}", "comment": "", "ungrammatical-sentence": "O"} for k, letter in enumerate(breakdowns)
    ]
    return {"speaker": "S", "utterance": text, "time": "", "annotations": annotations}


def write(root: Path, content: Any, name: str = "iris_1", source: str = "IRIS_100", split: str = "dev") -> Path:
    file = root / "en" / split / source / f"{name}.log.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content), encoding="utf-8")
    return file


def talk(*turns: Json, speaker: Any = "p1") -> Json:
    numbered = [{**turn, "turn-index": k} for k, turn in enumerate(turns)]
    return {"dialogue-id": "1", "group-id": "", "speaker-id": speaker, "turns": numbered}


def only(root: Path, *turns: Json, **fields: Any) -> Dialogue:
    write(root, talk(*turns, **fields))
    (dialogue,) = DBDC3(str(root)).read()
    return dialogue


def votes(turn: Turn) -> str:
    assert {vote.question for vote in turn.votes} <= {"breakdown"}
    assert [vote.annotator for vote in turn.votes] == [f"w{k}" for k in range(len(turn.votes))]
    return "".join(str(vote.value) for vote in turn.votes)


def test_votes_and_defects_judge_the_response_of_their_turn(tmp_path: Path) -> None:
    dialogue = only(
        tmp_path, user("A café?"), system("Luna.", "OOOTX"), user("Far?"), system("Yes, no.", "XXXTO"), user("Hm."), user("Bye.")
    )
    assert (dialogue.id, dialogue.user) == ("dbdc3:dev/IRIS_100/iris_1", "p1")
    assert [(turn.request, turn.response, votes(turn), turn.defect) for turn in dialogue.turns] == [
        ("A café?", "Luna.", "OOOTX", False), ("Far?", "Yes, no.", "XXXTO", True), ("Hm.", None, "", None), ("Bye.", None, "", None),
    ]  # fmt: skip
    assert (dialogue.goals, dialogue.votes, dialogue.turns[0].intent, dialogue.turns[0].request_slots) == (None, [], None, None)


def test_an_opening_of_the_system_is_not_judged(tmp_path: Path) -> None:
    opening = {"speaker": "S", "utterance": "Hello.", "turn-index": 0}
    dialogue = only(tmp_path, opening, user("Hi."), system("Hi!", "OO"), speaker="")
    assert [(turn.request, turn.response, votes(turn), turn.defect) for turn in dialogue.turns] == [
        (None, "Hello.", "", None),
        ("Hi.", "Hi!", "OO", False),
    ]
    assert dialogue.user is None


@pytest.mark.parametrize(
    ("breakdowns", "defect"),
    [("XXO", True), ("XO", None), ("OOX", False), ("OT", None), ("TTX", None), ("TXXOO", None), ("", None), ("X", True), ("OOTTX", None)],
)
def test_a_defect_and_its_absence_need_more_than_half_of_the_votes(breakdowns: str, defect: bool | None) -> None:
    assert is_defect(breakdowns) is defect


def test_split_chooses_the_folder(tmp_path: Path) -> None:
    write(tmp_path, talk(user("a")), "1", "YI_100")
    write(tmp_path, talk(user("b")), "2", "CIC_115")
    write(tmp_path, talk(user("c")), "3", "YI_50", "test")
    (tmp_path / "en" / "dev" / "CIC_115" / "2.log.context").write_text("A paragraph.", encoding="utf-8")
    assert [dialogue.id for dialogue in DBDC3(str(tmp_path)).read()] == ["dbdc3:dev/CIC_115/2", "dbdc3:dev/YI_100/1"]
    assert [dialogue.id for dialogue in DBDC3(str(tmp_path), "test").read()] == ["dbdc3:test/YI_50/3"]


@pytest.mark.parametrize(
    ("content", "field", "problem"),
    [
        (talk(user("Hi."), system("Hm.", "OY")), "record", "breakdown 'Y' is none of O, T, X"),
        (talk({"speaker": "A", "utterance": "Hi."}), "record", "speaker 'A' is neither U nor S"),
        (talk({"speaker": "U"}), "utterance", "KeyError"),
        (talk(user(None)), "record", "utterance None is not a text"),  # type: ignore[arg-type]
        (talk(), "turns", "at least one"),
        ({"turns": [user("Hi.")]}, "speaker-id", "KeyError"),
        ([], "record", "TypeError"),
    ],
)
def test_malformed_dialogues_are_rejected_and_reading_continues(tmp_path: Path, content: Any, field: str, problem: str) -> None:
    write(tmp_path, content)
    write(tmp_path, talk(user("Hi.")), "iris_2")
    errors: list[RecordError] = []
    assert [dialogue.id for dialogue in DBDC3(str(tmp_path)).read(errors.append)] == ["dbdc3:dev/IRIS_100/iris_2"]
    assert [(error.dialogue_id, error.field) for error in errors] == [("dbdc3:dev/IRIS_100/iris_1", field)]
    assert problem in errors[0].problem
    with pytest.raises(RecordError):
        list(DBDC3(str(tmp_path)).read())


def test_a_file_that_is_not_json_is_rejected(tmp_path: Path) -> None:
    write(tmp_path, {}).write_bytes(b"\xff")
    write(tmp_path, talk(user("Hi.")), "iris_2")
    errors: list[RecordError] = []
    assert len(list(DBDC3(str(tmp_path)).read(errors.append))) == 1
    assert [(error.dialogue_id, error.field) for error in errors] == [("dbdc3:dev/IRIS_100/iris_1", "file")]
    with pytest.raises(RecordError, match="not UTF-8 JSON"):
        list(DBDC3(str(tmp_path)).read())


def test_what_is_not_the_corpus_says_where_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no SOURCE/\*\.log\.json there; unzip https://dbd-challenge\.github\.io"):
        list(DBDC3(str(tmp_path)).read())
    with pytest.raises(ValueError, match="give one of dev, test"):
        list(DBDC3(str(tmp_path), "train").read())


def raw_turn(turn: Json) -> Json:
    """A turn of the reference as published."""
    counts = turn.get("defect", {}).get("votes", {})
    breakdowns = "".join(letter * number for letter, number in counts.items())
    return user(turn["text"]) if turn["speaker"] == "user" else system(turn["text"], breakdowns)


@pytest.mark.skipif(DATA is None, reason="LABELGEN_DATA is not set")
def test_the_reference_put_back_into_the_publishers_format_reads_the_same(tmp_path: Path) -> None:
    with (Path(DATA or "") / "dlog" / "dbdc3.jsonl").open(encoding="utf-8") as lines:
        there = {row["id"].replace("dbdc3:", "dbdc3:dev/"): row["turns"] for row in map(json.loads, lines)}
    for identity, turns in there.items():
        _, source, name = identity.split("/")
        write(tmp_path, talk(*map(raw_turn, turns)), name, source)
    read = {dialogue.id: dialogue for dialogue in DBDC3(str(tmp_path)).read()}
    assert read.keys() == there.keys()
    judged: Counter[bool | None] = Counter()
    for identity, turns in there.items():
        responses = [turn for turn in read[identity].turns if turn.response is not None]
        others = [turn for turn in turns if turn["speaker"] == "system"]
        assert [turn.response for turn in responses] == [turn["text"] for turn in others]
        assert [turn.defect for turn in responses] == [turn.get("defect", {}).get("label") for turn in others], identity
        assert [Counter(votes(turn)) for turn in responses] == [+Counter(turn.get("defect", {}).get("votes", {})) for turn in others]
        judged.update(turn.defect for turn in responses if turn.votes)
    assert judged == {True: 568, False: 560, None: 3022}
