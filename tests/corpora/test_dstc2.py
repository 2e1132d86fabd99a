"""DSTC2: each rule on a file made here in the format of WCN-BERT, and agreement with a reference conversion put back into that format."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from labelgen.corpora.dstc2 import DSTC2
from labelgen.dialogue import RecordError, Turn

Arc = tuple[str, float]

DATA = os.environ.get("LABELGEN_DATA")
WELCOME = "welcome message"


def line(system: str, *network: list[Arc], semantics: str = "") -> str:
    """A request: the words of the acts before it, per position the words with their posteriors (between the sentence's ends)."""
    acts = " ".join(["<cls>:-1:0:1", *(f"{word}:0:0:2" for word in system.split())])
    positions = [[("<s>", 1.0)], *network, [("</s>", 1.0)]]
    arcs = " ".join(f"{word}:{k}:{posterior}" for k, position in enumerate(positions, 1) for word, posterior in position)
    return f"{acts}\t<=>\t{arcs}\t<=>\t{semantics}\n"


def sure(text: str) -> list[list[Arc]]:
    return [[(word, 1.0)] for word in text.split()]


def published(root: Path, *lines: str, split: str = "valid") -> DSTC2:
    (root / split).write_text("".join(lines), encoding="utf-8")
    return DSTC2(str(root), split)


def only(root: Path, *network: list[Arc]) -> Turn:
    """The turn of a request with this network."""
    (dialogue,) = published(root, line(WELCOME, *network)).read()
    return dialogue.turns[1]


def test_a_dialogue_begins_with_the_welcome(tmp_path: Path) -> None:
    first = [line(WELCOME, *sure("a café")), line("request area", *sure("in the north")), line("offer name luna", *sure("good bye"))]
    corpus = published(tmp_path, *first, line(WELCOME, *sure("hello")), line("", *sure("anyone")), line("request food", *sure("no")))
    one, two = corpus.read()
    assert (one.id, two.id) == ("dstc2:valid/0", "dstc2:valid/1")
    assert [(turn.request, turn.response) for turn in one.turns] == [
        (None, WELCOME), ("a café", "request area"), ("in the north", "offer name luna"), ("good bye", None),
    ]  # fmt: skip
    assert [(turn.request, turn.response) for turn in two.turns] == [
        (None, WELCOME), ("hello", None), ("anyone", "request food"), ("no", None),
    ]  # fmt: skip
    assert all(turn.intent is None and turn.request_slots is None for turn in one.turns)


def test_semantics_are_as_published_and_aligned_with_the_turns(tmp_path: Path) -> None:
    lines = [
        line(WELCOME, *sure("a café"), semantics="inform-food-asian oriental;inform-area-north"),
        line("request food", *sure("hm")),
        line("request food", *sure("bye"), semantics="bye"),
    ]
    (dialogue,) = published(tmp_path, *lines).read()
    assert [turn.request_acts for turn in dialogue.turns] == [None, ["inform-food-asian oriental", "inform-area-north"], [], ["bye"]]


def test_the_request_is_the_best_word_of_each_position(tmp_path: Path) -> None:
    turn = only(tmp_path, [("cheap", 0.1), ("sheep", 0.7), ("ship", 0.2)], [("food", 0.9)])
    assert turn.request == "sheep food"
    assert turn.numerical == {"recogniser_confidence": pytest.approx(0.8), "recogniser_alternatives": pytest.approx(1.0)}


def test_a_position_where_nothing_is_likelier_has_no_word(tmp_path: Path) -> None:
    assert only(tmp_path, [("the", 0.3), ("a", 0.15)], [("boat", 1.0)]).request == "boat"  # nothing: .55
    assert only(tmp_path, [("the", 0.3), ("a", 0.45)], [("boat", 1.0)]).request == "a boat"  # nothing: .25
    assert only(tmp_path, [("!null", 0.7), ("a", 0.3)], [("boat", 1.0)]).request == "boat"  # nulls that were kept


def test_marks_of_the_ends_are_no_words(tmp_path: Path) -> None:
    turn = only(tmp_path, [("boat", 0.5)], [("</s>", 0.96), ("please", 0.04)])
    assert (turn.request, turn.numerical["recogniser_confidence"]) == ("boat", 0.5)


def test_the_recogniser_may_have_heard_nothing(tmp_path: Path) -> None:
    turn = only(tmp_path, [("a", 0.2)])
    assert turn.request == ""
    assert turn.numerical == {"recogniser_confidence": None, "recogniser_alternatives": None}


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ("<cls>:-1:0:1\t<=>\t<s>:1:1.0\n", "line 2: not enough values"),
        (line("request area", *sure("north")).replace("north:2:1.0", "north:2"), "line 2: "),
        (line("request area", *sure("north")).replace("north:2:1.0", "north:two:1.0"), "line 2: "),
        (line("request area", [("north", 1.5)]), "line 2: 'north:2:1.5': 1.5 is not a probability"),
        (line("request area", [("north", float("nan"))]), "line 2: 'north:2:nan': nan is not a probability"),
    ],
)
def test_dialogues_with_a_malformed_line_are_rejected_and_reading_continues(tmp_path: Path, broken: str, message: str) -> None:
    corpus = published(tmp_path, line(WELCOME, *sure("hi")), broken, line(WELCOME, *sure("hello")))
    errors: list[RecordError] = []
    assert [dialogue.id for dialogue in corpus.read(errors.append)] == ["dstc2:valid/1"]
    assert [error.dialogue_id for error in errors] == ["dstc2:valid/0"]
    assert message in errors[0].problem
    with pytest.raises(RecordError):
        list(corpus.read())


def test_what_is_not_the_corpus_says_how_to_make_it(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no such file; make it from github\.com/matthen/dstc"):
        list(DSTC2(str(tmp_path)).read())
    corpus = published(tmp_path)
    assert list(corpus.read()) == []
    (tmp_path / "valid").write_bytes(b"\xff")
    with pytest.raises(ValueError, match="not UTF-8"):
        list(corpus.read())


def position(word: str, posterior: float) -> list[Arc]:
    """A position whose best word this is: what is left goes to others, each less likely, and little of it to nothing."""
    others = int((1 - posterior) / posterior) + 1
    return [(word, posterior), *((f"other{k}", (1 - posterior) / others * 0.999) for k in range(others))]


@pytest.mark.skipif(DATA is None, reason="LABELGEN_DATA is not set")
def test_the_reference_put_back_into_the_publishers_format_reads_the_same(tmp_path: Path) -> None:
    with (Path(DATA or "") / "dlog" / "dstc2_wcn.jsonl").open(encoding="utf-8") as rows:
        talks: list[list[dict[str, Any]]] = [json.loads(row)["turns"] for row in rows]
    pairs = [list(zip(talk[::2], talk[1::2], strict=True)) for talk in talks]
    lines = [
        line(system["text"], *(position(*word) for word in user["asr"]["words"]), semantics=";".join(user.get("acts", ())))
        for talk in pairs
        for system, user in talk
    ]
    read = list(published(tmp_path, *lines).read())
    assert (len(read), len(lines)) == (506, 3934)
    for dialogue, talk in zip(read, pairs, strict=True):
        assert [turn.response for turn in dialogue.turns] == [*(system["text"] for system, _ in talk), None]
        assert [turn.request_acts for turn in dialogue.turns] == [None, *(user.get("acts", []) for _, user in talk)]
        for turn, (_, user) in zip(dialogue.turns[1:], talk, strict=True):
            words = [word for word in user["asr"]["words"] if word[0] not in ("<s>", "</s>")]  # it takes these for words at times
            assert turn.request == " ".join(word for word, _ in words)
            confidence = turn.numerical["recogniser_confidence"]
            assert (confidence is None) == (not words)
            if confidence is not None and len(words) == len(user["asr"]["words"]):
                assert confidence == pytest.approx(user["asr"]["conf"], abs=1e-3)
