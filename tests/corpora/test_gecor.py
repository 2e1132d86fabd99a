"""GECOR: each rule on a file made here in the publisher's format, and agreement with a reference conversion put back into that format."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from labelgen.corpora.gecor import FILE, FOLDER, GECOR
from labelgen.dialogue import Dialogue, RecordError

Json = dict[str, Any]

DATA = os.environ.get("LABELGEN_DATA")


def published_turn(request: str, response: str, complete: str | None = None, ellipsis: str = "", coreference: str = "") -> Json:
    """A turn as published; without `complete` the request is complete."""
    user = {"transcript": request, "slu": [], "transcript_complete": request if complete is None else complete}
    user |= {"transcript_with_ellipsis": ellipsis, "transcript_with_coreference": coreference}
    return {"turn": 0, "usr": user, "sys": {"sent": response, "DA": []}}


def published(root: Path, *talks: Any) -> GECOR:
    """Writes dialogues 0, 1, ... as the publisher does."""
    (root / FOLDER).mkdir(exist_ok=True)
    rows = [{"dial": talk, "dialogue_id": k, "finished": True, "goal": {}} for k, talk in enumerate(talks)]
    (root / FOLDER / FILE).write_text(json.dumps(rows), encoding="utf-8")
    return GECOR(str(root))


def test_the_complete_version_is_the_rewrite(tmp_path: Path) -> None:
    talk = [
        published_turn("A café in the north.", "Luna."),
        published_turn("Its phone?", "It is 5.", "Luna's phone?", "Phone?", "Its phone?"),
        published_turn("Bye!", "Bye.", ""),
    ]
    (dialogue,) = published(tmp_path, talk).read()
    assert dialogue.id == "gecor:0"
    assert [(turn.request, turn.response, turn.rewrites) for turn in dialogue.turns] == [
        ("A café in the north.", "Luna.", ["A café in the north."]),
        ("Its phone?", "It is 5.", ["Luna's phone?"]),
        ("Bye!", "Bye.", None),
    ]
    assert [turn.paraphrases for turn in dialogue.turns] == [{}, {"ellipsis": "Phone?", "coreference": "Its phone?"}, {}]
    assert (dialogue.goals, dialogue.turns[0].intent, dialogue.turns[0].request_slots) == (None, None, None)


def test_root_may_be_the_folder_of_the_file(tmp_path: Path) -> None:
    published(tmp_path, [published_turn("Hi.", "Hello.")])
    assert list(GECOR(str(tmp_path / FOLDER)).read()) == list(GECOR(str(tmp_path)).read())


def test_folds_part_the_dialogues(tmp_path: Path) -> None:
    root = published(tmp_path, *([published_turn(f"{k}?", "Yes.")] for k in range(60))).root

    def ids(*fold: Any) -> list[str]:
        return [dialogue.id for dialogue in GECOR(root, *fold).read()]

    assert len(ids()) == 60
    assert sorted(identity for fold in range(10) for identity in ids("test", fold)) == sorted(ids())
    assert 0 < len(ids("test", 1)) < 60
    assert sorted(ids("train", 1) + ids("test", 1)) == sorted(ids())


@pytest.mark.parametrize(
    ("talk", "field"),
    [
        ([{"usr": {"transcript": "Hi."}, "sys": {"sent": "Hello."}}], "transcript_complete"),
        ([{"usr": published_turn("Hi.", "")["usr"]}], "sys"),
        ([published_turn("Hi.", "Hello.") | {"usr": None}], "record"),
        ([published_turn(["Hi."], "Hello.")], "turns.0.request"),  # type: ignore[arg-type]
        ([], "turns"),
        (None, "record"),
    ],
)
def test_malformed_dialogues_are_rejected_and_reading_continues(tmp_path: Path, talk: Any, field: str) -> None:
    corpus = published(tmp_path, talk, [published_turn("Hi.", "Hello.")])
    errors: list[RecordError] = []
    assert [dialogue.id for dialogue in corpus.read(errors.append)] == ["gecor:1"]
    assert [(error.dialogue_id, error.row, error.field) for error in errors] == [("gecor:0", 0, field)]
    with pytest.raises(RecordError):
        list(corpus.read())


def test_what_is_not_the_corpus_says_where_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no CamRest676.*github\.com/terryqj0107/GECOR"):
        list(GECOR(str(tmp_path)).read())
    for content, message in [("[{", "not UTF-8 JSON"), ("{}", "a JSON object, not a list")]:
        (tmp_path / FILE).write_text(content, encoding="utf-8")
        with pytest.raises(ValueError, match=message):
            list(GECOR(str(tmp_path)).read())


def as_reference(dialogue: Dialogue) -> list[Json]:
    """What both conversions say of each turn."""
    return [
        {
            "texts": (turn.request, turn.response),
            "gold": turn.rewrites and turn.rewrites[0],
            **{kind: turn.paraphrases.get(kind) for kind in ("ellipsis", "coreference")},
        }
        for turn in dialogue.turns
    ]


@pytest.mark.skipif(DATA is None, reason="LABELGEN_DATA is not set")
def test_the_reference_put_back_into_the_publishers_format_reads_the_same(tmp_path: Path) -> None:
    with (Path(DATA or "") / "dlog" / "gecor.jsonl").open(encoding="utf-8") as lines:
        talks = [json.loads(line)["turns"] for line in lines]
    pairs = [list(zip(talk[::2], talk[1::2], strict=True)) for talk in talks]
    rewrites = [[(user["text"], system["text"], user["rewrite"]) for user, system in talk] for talk in pairs]
    corpus = published(
        tmp_path,
        *(
            [published_turn(request, response, r["gold"], r["ellipsis"] or "", r["coreference"] or "") for request, response, r in talk]
            for talk in rewrites
        ),
    )
    read = list(corpus.read())
    assert (len(read), sum(len(dialogue.turns) for dialogue in read)) == (528, 2123)
    for dialogue, talk in zip(read, rewrites, strict=True):
        assert as_reference(dialogue) == [
            {"texts": (request, response), **{key: r[key] for key in ("gold", "ellipsis", "coreference")}} for request, response, r in talk
        ]
    needed = [[turn.rewrites != [turn.request] for turn in dialogue.turns] for dialogue in read]
    differ = sum(
        ours != r["needed"] for mine, talk in zip(needed, rewrites, strict=True) for ours, (_, _, r) in zip(mine, talk, strict=True)
    )
    assert differ == 1, "one request differs from its rewrite in the blanks at its end alone"
