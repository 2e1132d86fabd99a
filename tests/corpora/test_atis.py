"""ATIS: each rule on a folder made here in the publisher's layout, and equality with a reference conversion where it is at hand."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from labelgen.corpora.atis import SlotFilling
from labelgen.dialogue import Dialogue, RecordError, Turn

DATA = os.environ.get("LABELGEN_DATA")
Row = tuple[str, str, str]
GOOD: Row = ("a boat to capri", "O O O B-port", "sail")


def published(root: Path, *rows: Row, split: str = "train") -> SlotFilling:
    """Writes words, tags and intents as the publisher does."""
    folder = root / "boats" / split
    folder.mkdir(parents=True)
    for k, name in enumerate(("seq.in", "seq.out", "label")):
        (folder / name).write_text("".join(row[k] + "\n" for row in rows), encoding="utf-8")
    return SlotFilling(str(root / "boats"), split)


def only(root: Path, *row: str) -> Turn:
    words, tags, intent = row
    ((turn,),) = [dialogue.turns for dialogue in published(root, (words, tags, intent)).read()]
    return turn


def slots(turn: Turn) -> list[tuple[str, str | None]]:
    return [(slot.name, slot.value) for slot in turn.request_slots or ()]


def test_a_request_is_a_dialogue_of_one_turn(tmp_path: Path) -> None:
    corpus = published(tmp_path, GOOD, ("näher zum hafen", "O O O", "route#time"), split="dev")
    boat, harbour = corpus.read()
    assert (boat.id, harbour.id) == ("boats:dev/0", "boats:dev/1")
    assert boat.goals is None
    assert boat.turns[0].response is None
    assert (boat.turns[0].request, boat.turns[0].intent, slots(boat.turns[0])) == ("a boat to capri", "sail", [("port", "capri")])
    assert (harbour.turns[0].intent, harbour.turns[0].request_slots) == ("route#time", [])


def test_a_relative_root_still_names_the_dialogues(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    published(tmp_path, GOOD)
    monkeypatch.chdir(tmp_path / "boats")
    assert [dialogue.id for dialogue in SlotFilling(".").read()] == ["boats:train/0"]


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ("B-a I-a O O", [("a", "one two")]),
        ("B-a B-a O O", [("a", "one"), ("a", "two")]),
        ("B-a I-b I-b O", [("a", "one"), ("b", "two three")]),
        ("O I-a I-a B-a", [("a", "two three"), ("a", "four")]),
        ("I-a O I-a O", [("a", "one"), ("a", "three")]),
        ("O O O B-from.name-x", [("from.name-x", "four")]),
        ("O O O O", []),
    ],
)
def test_tags_become_spans_as_in_conlleval(tmp_path: Path, tags: str, expected: list[tuple[str, str]]) -> None:
    assert slots(only(tmp_path, "one two three four", tags, "count")) == expected


def test_words_are_joined_by_one_space_and_lines_end_at_line_feeds(tmp_path: Path) -> None:
    turn = only(tmp_path, "play  one\u0085day ", "O  B-song I-song ", "play ")
    assert (turn.request, turn.intent, slots(turn)) == ("play one day", "play", [("song", "one day")])


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (("a boat", "O", "sail"), "seq.in has 2 words, seq.out 1 tags"),
        (("a boat", "O X-port", "sail"), "tag 'X-port' is neither"),
        (("a boat", "O B-", "sail"), "tag 'B-' is neither"),
        (("a boat", "O O", " "), "no intent in label"),
        (("", "", "sail"), "no words in seq.in"),
    ],
)
def test_malformed_lines_are_rejected_and_reading_continues(tmp_path: Path, row: Row, message: str) -> None:
    corpus = published(tmp_path, GOOD, row, GOOD)
    errors: list[RecordError] = []
    assert [dialogue.id for dialogue in corpus.read(errors.append)] == ["boats:train/0", "boats:train/2"]
    assert [(error.dialogue_id, error.row) for error in errors] == [("boats:train/1", 1)]
    assert message in errors[0].problem
    with pytest.raises(RecordError, match="boats:train/1"):
        list(corpus.read())


def test_a_missing_folder_says_where_to_get_the_corpus(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no seq\.in and no seq\.out and no label there; .*github\.com/monologg/JointBERT"):
        list(SlotFilling(str(tmp_path)).read())


def test_files_that_cannot_be_aligned_are_refused(tmp_path: Path) -> None:
    corpus = published(tmp_path, GOOD, GOOD)
    label = tmp_path / "boats" / "train" / "label"
    label.write_text("sail\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"number of lines \(seq\.in 2, seq\.out 2, label 1\)"):
        list(corpus.read())
    label.write_bytes(b"sail\n\xff\n")
    with pytest.raises(ValueError, match="label: not UTF-8"):
        list(corpus.read())


def as_reference(dialogue: Dialogue) -> dict[str, Any]:
    (turn,) = dialogue.turns
    found = [{"slot": slot.name, "start": slot.start, "end": slot.end, "value": slot.value} for slot in turn.request_slots or ()]
    return {"text": turn.request, "intent": turn.intent, "slots": found}


@pytest.mark.skipif(DATA is None, reason="LABELGEN_DATA is not set")
def test_each_request_equals_the_reference() -> None:
    data = Path(DATA or "")
    ours = {
        dialogue.id: as_reference(dialogue)
        for split in ("train", "dev", "test")
        for dialogue in SlotFilling(str(data / "atis"), split).read()
    }
    with (data / "dlog" / "atis.jsonl").open(encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    theirs = {row["id"]: {key: row["turns"][0].get(key, []) for key in ("text", "intent", "slots")} for row in rows}
    assert len(theirs) == len(rows) == 5871
    assert ours == theirs
