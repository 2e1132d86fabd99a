"""DSTC10: each rule on a file made here in the publisher's format, and agreement with a reference conversion put back into that format."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import pytest

from labelgen.corpora.dstc10 import DSTC10
from labelgen.dialogue import RecordError, Turn

Json = dict[str, Any]

DATA = os.environ.get("LABELGEN_DATA")


def heard(text: str, *nbest: tuple[str, float]) -> Json:
    """A user's turn; without `nbest`, recognised without a doubt."""
    return {"speaker": "U", "text": text, "nbest": [{"hyp": hyp, "score": score} for hyp, score in nbest or ((text, -1.0),)]}


def answer(text: str) -> Json:
    return {"speaker": "S", "text": text}


def published(root: Path, *instances: Any, split: str = "val") -> DSTC10:
    (root / split).mkdir(exist_ok=True)
    (root / split / "logs.json").write_text(json.dumps(instances, indent=2), encoding="utf-8")
    return DSTC10(str(root), split)


def only(root: Path, *utterances: Json) -> list[Turn]:
    (dialogue,) = published(root, list(utterances)).read()
    return dialogue.turns


def numbers(turn: Turn) -> list[float | None]:
    return [turn.numerical["recogniser_confidence"], turn.numerical["recogniser_alternatives"]]


def test_utterances_become_turns(tmp_path: Path) -> None:
    turns = only(tmp_path, answer("Hello."), heard("a café"), heard("hello"), answer("Luna."), answer("Or Sol."), heard("no"))
    assert [(turn.request, turn.response) for turn in turns] == [
        (None, "Hello."), ("a café", None), ("hello", "Luna."), (None, "Or Sol."), ("no", None),
    ]  # fmt: skip
    assert [bool(turn.numerical) for turn in turns] == [False, True, True, False, True]


def test_confidence_is_the_share_of_the_best_hypothesis(tmp_path: Path) -> None:
    (turn,) = only(tmp_path, heard("a boat", ("a boat", -700.0), ("a goat", -700.0 - math.log(3)), ("a coat", -700.0 - math.log(3))))
    assert numbers(turn) == [pytest.approx(0.6), 2]
    (turn,) = only(tmp_path, heard("a boat", ("a boat", 9000.0), ("a goat", -9000.0)))  # no overflow
    assert numbers(turn) == [1, 1]


def test_confidence_is_missing_where_the_hypothesis_is(tmp_path: Path) -> None:
    (turn,) = only(tmp_path, heard("a boat", ("a goat", -1.0), ("a coat", -2.0)))
    assert numbers(turn) == [None, 2]
    (turn,) = only(tmp_path, {"speaker": "U", "text": "a boat"})
    assert numbers(turn) == [None, None]


def test_the_beginning_of_a_dialogue_is_left_out(tmp_path: Path) -> None:
    first, second = [heard("a"), answer("b"), heard("c")], [heard("a"), answer("x"), heard("c")]
    corpus = published(tmp_path, first[:1], first, second, first, [heard("c")])
    assert [(dialogue.id, len(dialogue.turns)) for dialogue in corpus.read()] == [
        ("dstc10:val/1", 2), ("dstc10:val/2", 2), ("dstc10:val/4", 1),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("instance", "field"),
    [
        ([{"speaker": "U"}], "text"),
        ([{"text": "hi"}], "speaker"),
        ([{"speaker": "X", "text": "hi"}], "record"),
        ([heard("hi") | {"nbest": [{"hyp": "hi"}]}], "score"),
        ([heard("hi") | {"nbest": [{"hyp": "hi", "score": "high"}]}], "record"),
        ([answer(["hi"])], "turns.0.response"),  # type: ignore[arg-type]
        (["hi"], "record"),
        ([], "turns"),
        (5, "record"),
    ],
)
def test_malformed_instances_are_rejected_and_reading_continues(tmp_path: Path, instance: Any, field: str) -> None:
    corpus = published(tmp_path, instance, [heard("good day"), answer("hello")])
    errors: list[RecordError] = []
    assert [dialogue.id for dialogue in corpus.read(errors.append)] == ["dstc10:val/1"]
    assert [(error.dialogue_id, error.field) for error in errors] == [("dstc10:val/0", field)]
    with pytest.raises(RecordError):
        list(corpus.read())


def test_what_is_not_the_corpus_says_where_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no such file.*github\.com/alexa/alexa-with-dstc10-track2-dataset \(Apache-2\.0\)"):
        list(DSTC10(str(tmp_path)).read())
    corpus = published(tmp_path)
    for content, message in [("[{", "not UTF-8 JSON"), ("{}", "a JSON object, not a list")]:
        (tmp_path / "val" / "logs.json").write_text(content, encoding="utf-8")
        with pytest.raises(ValueError, match=message):
            list(corpus.read())


def as_published(turns: list[Json]) -> list[Json]:
    return [
        heard(turn["text"], *((hypothesis["text"], hypothesis["score"]) for hypothesis in turn["asr"]["nbest"]))
        if turn["speaker"] == "user"
        else answer(turn["text"])
        for turn in turns
    ]


@pytest.mark.skipif(DATA is None, reason="LABELGEN_DATA is not set")
def test_the_reference_put_back_into_the_publishers_format_reads_the_same(tmp_path: Path) -> None:
    with (Path(DATA or "") / "dlog" / "dstc10_asr.jsonl").open(encoding="utf-8") as lines:
        talks = {int(row["id"].split("/")[1]): row["turns"] for row in map(json.loads, lines)}
    beginning = as_published(next(iter(talks.values())))[:3]  # it left instances out that other ones continue
    corpus = published(tmp_path, *(as_published(talks[k]) if k in talks else beginning for k in range(max(talks) + 1)))
    read = {int(dialogue.id.split("/")[1]): dialogue for dialogue in corpus.read()}
    assert (len(read), list(read)) == (107, list(talks))
    compared = 0
    for k, dialogue in read.items():
        texts = [text for turn in dialogue.turns for text in (turn.request, turn.response) if text is not None]
        assert texts == [turn["text"] for turn in talks[k]]
        requests = [turn for turn in dialogue.turns if turn.request is not None]
        for ours, theirs in zip(requests, (turn["asr"] for turn in talks[k] if turn["speaker"] == "user"), strict=True):
            assert numbers(ours) == [pytest.approx(theirs["conf"], abs=1e-3), len(theirs["nbest"]) - 1]
            compared += 1
    assert compared == 689
