"""MultiDoGO: each rule on files made here in the publisher's format, and a reference conversion put back into that format."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from labelgen.corpora.multidogo import COLUMNS, DOMAINS, FOLDER, MultiDoGO
from labelgen.dialogue import Dialogue, RecordError, Turn

Json = dict[str, Any]

DATA = os.environ.get("LABELGEN_DATA")


def row(text: str, labels: str | None = None, intent: str = "contentonly", turn: Any = 0, talk: str = "a") -> list[Any]:
    """A row as published; without `labels` no word is in a slot."""
    labels = " ".join("O" for _ in text.split(" ")) if labels is None else labels
    return [talk, turn, f"<CONV>{talk}<TURN>{turn}", text, labels, intent]


def published(root: Path, *rows: list[Any], domain: str = "airline", split: str = "train") -> MultiDoGO:
    file = root / FOLDER / domain / f"{split}.tsv"
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", encoding="utf-8", newline="") as out:
        csv.writer(out, dialect="excel-tab", lineterminator="\n").writerows([COLUMNS, *rows])
    return MultiDoGO(str(root), domain, split)


def slots(turn: Turn) -> list[tuple[str, str | None]]:
    assert turn.request_slots is not None
    return [(slot.name, slot.value) for slot in turn.request_slots]


def test_consecutive_rows_are_a_dialogue_of_requests(tmp_path: Path) -> None:
    corpus = published(
        tmp_path,
        row("hi", intent="openinggreeting", turn=1), row("bonn to köln", "departure_city O arrival_city", turn=4),
        row("bye", intent="closinggreeting", talk="b"),
    )  # fmt: skip
    one, two = corpus.read()
    assert (one.id, two.id) == ("multidogo:airline/train/a", "multidogo:airline/train/b")
    assert [(turn.request, turn.response, turn.intent) for turn in one.turns] == [
        ("hi", None, "openinggreeting"),
        ("bonn to köln", None, "contentonly"),
    ]
    assert [slots(turn) for turn in one.turns] == [[], [("departure_city", "bonn"), ("arrival_city", "köln")]]
    assert (one.metadata, one.goals) == ({"domain": "airline", "turn_numbers": [1, 4]}, None)
    assert [turn.request for turn in two.turns] == ["bye"]


def test_neighbours_with_the_same_label_are_one_span(tmp_path: Path) -> None:
    (dialogue,) = published(tmp_path, row("2 red pies or red tea", "quantity food food O food drink")).read()
    assert slots(dialogue.turns[0]) == [("quantity", "2"), ("food", "red pies"), ("food", "red"), ("drink", "tea")]


def test_the_first_of_several_intents_holds(tmp_path: Path) -> None:
    corpus = published(tmp_path, row("seat", intent="getseatinfo<div>bookflight"), row("book", intent="bookflight <div> getseatinfo"))
    (dialogue,) = corpus.read()
    assert [turn.intent for turn in dialogue.turns] == ["getseatinfo", "bookflight"]


def test_tabs_and_line_breaks_within_quotes_are_words(tmp_path: Path) -> None:
    corpus = published(tmp_path, row("one \t red pie", "quantity O O food"), row("5 \n bay ave", "phone O address address"))
    assert '"one \t red pie"' in (tmp_path / FOLDER / "airline" / "train.tsv").read_text("utf-8")
    (dialogue,) = corpus.read()
    assert [turn.request for turn in dialogue.turns] == ["one \t red pie", "5 \n bay ave"]
    assert [slots(turn) for turn in dialogue.turns] == [[("quantity", "one"), ("food", "pie")], [("phone", "5"), ("address", "bay ave")]]


def test_domain_and_split_choose_the_files(tmp_path: Path) -> None:
    for domain in DOMAINS:
        for split in ("train", "test"):
            published(tmp_path, row(f"{domain} {split}"), domain=domain, split=split)
    everything = list(MultiDoGO(str(tmp_path), split="test").read())
    assert [dialogue.turns[0].request for dialogue in everything] == [f"{domain} test" for domain in DOMAINS]
    assert [dialogue.id for dialogue in MultiDoGO(str(tmp_path), "media").read()] == ["multidogo:media/train/a"]


@pytest.mark.parametrize(
    ("broken", "problem"),
    [
        (row("two words", "O"), "turn 0: 2 words, 1 slot labels"),
        (row("hi", intent=""), "turn 0: no intent"),
        (row("hi", intent=" <div>bookflight"), "turn 0: no intent"),
        (row("hi", turn="x"), "invalid literal for int"),
        (row("hi")[:5], "AttributeError"),
        ([*row("hi"), "more"], "turn 0: cells beyond the columns"),
    ],
)
def test_malformed_dialogues_are_rejected_and_reading_continues(tmp_path: Path, broken: list[Any], problem: str) -> None:
    corpus = published(tmp_path, broken, row("hi", talk="b"))
    errors: list[RecordError] = []
    assert [dialogue.id for dialogue in corpus.read(errors.append)] == ["multidogo:airline/train/b"]
    assert [(error.dialogue_id, error.row) for error in errors] == [("multidogo:airline/train/a", 0)]
    assert problem in errors[0].problem
    with pytest.raises(RecordError):
        list(corpus.read())


def test_what_is_not_the_corpus_says_where_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"give one of airline, .*, or null for all"):
        list(MultiDoGO(str(tmp_path), "trains").read())
    with pytest.raises(ValueError, match="give one of train, dev, test"):
        list(MultiDoGO(str(tmp_path), split="val").read())
    with pytest.raises(ValueError, match=r"train\.tsv: no such file; clone github\.com/awslabs"):
        list(MultiDoGO(str(tmp_path)).read())
    corpus = published(tmp_path, row("hi"))
    for content, message in [(b"a\tb\n", "the columns are not conversationId"), (b"\xff\n", "not UTF-8")]:
        (tmp_path / FOLDER / "airline" / "train.tsv").write_bytes(content)
        with pytest.raises(ValueError, match=message):
            list(corpus.read())


def raw_rows(talk: Json) -> Iterable[list[Any]]:
    """The turns of a dialogue of the reference as published."""
    for turn in talk["turns"]:
        words, position = [], 0
        for word in turn["text"].split(" "):
            inside = (slot["slot"] for slot in turn.get("slots", ()) if slot["start"] <= position < slot["end"])
            words.append(next(inside, "O"))
            position += len(word) + 1
        intent = "<div>".join(turn.get("intents", [turn["intent"]]))
        yield row(turn["text"], " ".join(words), intent, turn["src_turn"], talk["id"].rsplit("/", 1)[1])


def annotated(dialogue: Dialogue) -> list[Any]:
    spans = [[(slot.name, slot.start, slot.end) for slot in turn.request_slots or ()] for turn in dialogue.turns]
    return [(turn.request, turn.intent, found) for turn, found in zip(dialogue.turns, spans, strict=True)]


def annotated_there(talk: Json) -> list[Any]:
    return [
        (turn["text"], turn["intent"], [(slot["slot"], slot["start"], slot["end"]) for slot in turn.get("slots", ())])
        for turn in talk["turns"]
    ]


@pytest.mark.skipif(DATA is None, reason="LABELGEN_DATA is not set")
@pytest.mark.parametrize(("domain", "sound"), [("airline", 240), ("fastfood", 218), ("finance", 240), ("insurance", 231)])
def test_the_reference_put_back_into_the_publishers_format_reads_the_same(tmp_path: Path, domain: str, sound: int) -> None:
    with (Path(DATA or "") / "dlog" / "multidogo.jsonl").open(encoding="utf-8") as lines:
        talks = [json.loads(line) for line in lines if f'"multidogo:{domain}/dev/' in line]
    talks = [talk for talk in talks if not any('"' in turn["text"] for turn in talk["turns"])]  # quoted fields are cut at their tabs
    assert len(talks) == sound
    read = list(published(tmp_path, *(line for talk in talks for line in raw_rows(talk)), domain=domain, split="dev").read())
    assert [dialogue.id for dialogue in read] == [talk["id"] for talk in talks]
    for dialogue, talk in zip(read, talks, strict=True):
        assert annotated(dialogue) == annotated_there(talk), dialogue.id
