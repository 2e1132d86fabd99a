"""CQR: each rule on a file made here in the publisher's format, and agreement with a reference conversion put back into that format."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from labelgen.corpora.cqr import CQR
from labelgen.dialogue import Dialogue, Goal, RecordError

Json = dict[str, Any]

DATA = os.environ.get("LABELGEN_DATA")


def driver(text: str) -> Json:
    return {"turn": "driver", "data": {"end_dialogue": False, "utterance": text}}


def assistant(text: str, base: int | None = None, gold: str | None = None, crowd: tuple[str, ...] = ()) -> Json:
    """An assistant's utterance; with `base`, a reformulation of that utterance. Without `gold` the publisher writes null, and no crowd."""
    event: Json = {"turn": "assistant", "data": {"end_dialogue": False, "requested": {}, "slots": {}, "utterance": text}}
    if base is not None:
        event["reformulation"] = {"base_utt_idx": base, "reformulated_utt": gold, "slots": {}}
        if gold is not None:
            event["reformulation"] |= {"flag": "zero", "gold_slots": [], "mturk_reformulations": list(crowd)}
    return event


def published(root: Path, *talks: Any, split: str = "dev", intent: str = "navigate") -> CQR:
    """Writes dialogues with the uuids u0, u1, ... as the publisher does."""
    rows = [{"dialogue": talk, "scenario": {"kb": {}, "task": {"intent": intent}, "uuid": f"u{k}"}} for k, talk in enumerate(talks)]
    (root / f"modified_kvret_{split}_public.no_mturk_ids").write_text(json.dumps(rows, indent=2), encoding="utf-8")
    return CQR(str(root), split)


def only(root: Path, *utterances: Json) -> Dialogue:
    (dialogue,) = published(root, list(utterances)).read()
    return dialogue


def test_utterances_become_turns_of_one_task(tmp_path: Path) -> None:
    dialogue = only(
        tmp_path, assistant("Hello."), driver("A café?"), driver("Any?"), assistant("Luna."), assistant("Or Sol."), driver("No.")
    )
    assert dialogue.id == "cqr:dev/u0"
    assert [(turn.request, turn.response, turn.intent) for turn in dialogue.turns] == [
        (None, "Hello.", None), ("A café?", None, "navigate"), ("Any?", "Luna.", "navigate"), (None, "Or Sol.", None),
        ("No.", None, "navigate"),
    ]  # fmt: skip
    assert dialogue.goals == [Goal(turns=[0, 1, 2, 3, 4], name="navigate", outcome=None)]
    assert all(turn.rewrites is None and turn.request_slots is None for turn in dialogue.turns)


def test_the_publishers_rewrite_comes_before_the_crowds(tmp_path: Path) -> None:
    crowd = ("Route to Luna, please.", "Way to Luna.", "The route to Luna.", "Way to Luna.")
    dialogue = only(
        tmp_path, driver("A café?"), assistant("Luna."), driver("The route."), assistant("Done.", 2, "The route to Luna.", crowd)
    )
    assert [turn.rewrites for turn in dialogue.turns] == [None, ["The route to Luna.", "Route to Luna, please.", "Way to Luna."]]
    assert [turn.rewritten_with_hindsight for turn in dialogue.turns] == [None, False]


def test_no_rewrite_is_no_annotation(tmp_path: Path) -> None:
    dialogue = only(tmp_path, driver("A café?"), assistant("Luna?"), driver("Yes."), assistant("Done.", 2))
    assert [turn.rewrites for turn in dialogue.turns] == [None, None]


def test_rewrites_that_know_what_came_later_are_marked(tmp_path: Path) -> None:
    utterances = [driver("Rain?"), assistant("Where?"), driver("Bath."), assistant("No.", 0, "Rain in Bath?"), driver("And snow?")]
    dialogue = only(tmp_path, *utterances, assistant("No.", 4, "And snow in Bath?"))
    assert [turn.rewrites for turn in dialogue.turns] == [["Rain in Bath?"], None, ["And snow in Bath?"]]
    assert [turn.rewritten_with_hindsight for turn in dialogue.turns] == [True, None, False]


def test_the_later_of_two_rewrites_holds(tmp_path: Path) -> None:
    dialogue = only(tmp_path, driver("Rain?"), assistant("Where?", 0, "Rain here?"), driver("Bath."), assistant("No.", 0, "Rain in Bath?"))
    assert dialogue.turns[0].rewrites == ["Rain in Bath?"]
    assert dialogue.turns[0].rewritten_with_hindsight
    talk = [driver("Rain?"), assistant("Where?"), driver("Bath."), assistant("No.", 0, "Rain in Bath?"), assistant("No.", 2, "Bath, rain?")]
    assert [turn.rewritten_with_hindsight for turn in only(tmp_path, *talk).turns] == [True, False, None]


@pytest.mark.parametrize(
    ("talk", "field"),
    [
        ([{"turn": "driver", "data": {}}], "utterance"),
        ([{"data": {"utterance": "Hi."}}], "turn"),
        ([{"turn": "robot", "data": {"utterance": "Hi."}}], "record"),
        ([driver("Hi."), assistant("Hello.", 1, "Hi there.")], "record"),
        ([driver("Hi."), assistant("Hello.", -2, "Hi there.")], "record"),
        ([driver("Hi."), assistant("Hello.", 2, "Hi there."), driver("Bye.")], "record"),
        ([], "turns"),
        (None, "record"),
    ],
)
def test_malformed_dialogues_are_rejected_and_reading_continues(tmp_path: Path, talk: Any, field: str) -> None:
    corpus = published(tmp_path, talk, [driver("Hi."), assistant("Hello.")])
    errors: list[RecordError] = []
    assert [dialogue.id for dialogue in corpus.read(errors.append)] == ["cqr:dev/u1"]
    assert [(error.dialogue_id, error.row, error.field) for error in errors] == [("cqr:dev/u0", 0, field)]
    with pytest.raises(RecordError):
        list(corpus.read())


def test_what_is_not_the_corpus_says_where_to_get_it(tmp_path: Path) -> None:
    published(tmp_path)
    for split in ("train", "test"):
        with pytest.raises(ValueError, match=r"0 files named .*github\.com/alexa/.*MIT-0"):
            list(CQR(str(tmp_path), split).read())
    for content, message in [("[{", "not UTF-8 JSON"), ("{}", "a JSON object, not a list")]:
        (tmp_path / "modified_kvret_dev_public.no_mturk_ids").write_text(content, encoding="utf-8")
        with pytest.raises(ValueError, match=message):
            list(CQR(str(tmp_path), "dev").read())


def as_published(row: Json) -> list[Json]:
    """The utterances of a row of the reference, with its rewrites where the publisher has them: at the assistant's utterance."""
    talk = [driver(turn["text"]) if turn["speaker"] == "user" else assistant(turn["text"]) for turn in row["turns"]]
    for turn in row["turns"]:
        if rewrite := turn.get("rewrite"):
            talk[rewrite["context_until"]] = assistant(
                row["turns"][rewrite["context_until"]]["text"], turn["i"], rewrite["gold"], tuple(rewrite["paraphrases"])
            )
    return talk


@pytest.mark.skipif(DATA is None, reason="LABELGEN_DATA is not set")
def test_the_reference_put_back_into_the_publishers_format_reads_the_same(tmp_path: Path) -> None:
    with (Path(DATA or "") / "dlog" / "cqr.jsonl").open(encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    rewritten = hindsight = 0
    for intent in ("navigate", "schedule", "weather"):
        chosen = [row for row in rows if row["goals"][0]["name"] == intent]
        read = list(published(tmp_path, *map(as_published, chosen), intent=intent).read())
        for row, dialogue in zip(chosen, read, strict=True):
            users = [turn for turn in row["turns"] if turn["speaker"] == "user"]
            assert [turn.request for turn in dialogue.turns] == [turn["text"] for turn in users]
            assert [turn.response for turn in dialogue.turns if turn.response is not None] == [
                turn["text"] for turn in row["turns"] if turn["speaker"] == "system"
            ]
            assert [turn.intent for turn in dialogue.turns] == [turn["intent"] for turn in users]
            assert [goal.name for goal in dialogue.goals or ()] == [goal["name"] for goal in row["goals"]]
            for ours, theirs in zip(dialogue.turns, (turn.get("rewrite") for turn in users), strict=True):
                assert (ours.rewrites is None) == (theirs is None)
                if ours.rewrites and theirs:
                    assert ours.rewrites[0] == theirs["gold"] != ours.request
                    assert set(ours.rewrites[1:]) == set(theirs["paraphrases"]) - {theirs["gold"]}
                    rewritten += 1
            hindsight += sum(bool(turn.rewritten_with_hindsight) for turn in dialogue.turns)
    late = [turn for row in rows for turn in row["turns"] if "rewrite" in turn and turn["rewrite"]["context_until"] > turn["i"] + 1]
    assert (len(rows), rewritten, hindsight) == (271, 206, len(late))
