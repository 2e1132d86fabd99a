"""CLINC150: each rule on a file made here in the publisher's format, and a reference conversion put back into that format."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from labelgen.corpora.clinc import CLINC150
from labelgen.dialogue import RecordError

DATA = os.environ.get("LABELGEN_DATA")


def published(root: Path, name: str = "full", split: str = "train", **lists: Any) -> CLINC150:
    (root / "data").mkdir(exist_ok=True)
    content = {**{kind: [] for kind in ("train", "val", "test", "oos_train", "oos_val", "oos_test")}, **lists}
    (root / "data" / f"data_{name}.json").write_text(json.dumps(content), encoding="utf-8")
    return CLINC150(str(root), name, split)


def test_requests_out_of_scope_have_no_intent_but_a_slice(tmp_path: Path) -> None:
    train = [["pay the café", "transfer"], ["say hello in french", "translate"]]
    corpus = published(tmp_path, train=train, oos_train=[["is the flu contagious", "oos"]], val=[["no", "no"]], oos_test=[["suo2", "oos"]])
    read = list(corpus.read())
    assert [dialogue.id for dialogue in read] == ["clinc150:full/train/0", "clinc150:full/train/1", "clinc150:full/oos_train/0"]
    assert [(dialogue.turns[0].request, dialogue.turns[0].intent, dialogue.slices) for dialogue in read] == [
        ("pay the café", "transfer", []),
        ("say hello in french", "translate", []),
        ("is the flu contagious", None, ["out_of_scope"]),
    ]
    assert {(len(dialogue.turns), dialogue.turns[0].response, dialogue.turns[0].request_slots, dialogue.goals) for dialogue in read} == {
        (1, None, None, None)
    }


def test_split_and_name_choose_the_lists_and_the_file(tmp_path: Path) -> None:
    published(tmp_path, "small", train=[["a", "yes"]])
    corpus = published(tmp_path, "full", "test", train=[["b", "yes"]], test=[["c", "no"]], oos_test=[["d", "oos"]])
    assert [dialogue.turns[0].request for dialogue in corpus.read()] == ["c", "d"]
    assert [dialogue.id for dialogue in CLINC150(str(tmp_path), "small").read()] == ["clinc150:small/train/0"]


@pytest.mark.parametrize(
    ("row", "field", "problem"),
    [
        (["a"], "record", "IndexError"),
        (["a", "oos"], "record", "intent 'oos' in the list 'train'"),
        (["a", ""], "record", "intent '' in the list 'train'"),
        (["a", None], "record", "1 None is not a text"),
        ([7, "yes"], "record", "0 7 is not a text"),
        (None, "record", "TypeError"),
    ],
)
def test_malformed_requests_are_rejected_and_reading_continues(tmp_path: Path, row: Any, field: str, problem: str) -> None:
    corpus = published(tmp_path, train=[row, ["b", "yes"]], oos_train=[["c", "yes"]])
    errors: list[RecordError] = []
    assert [dialogue.id for dialogue in corpus.read(errors.append)] == ["clinc150:full/train/1"]
    assert [(error.dialogue_id, error.row) for error in errors] == [("clinc150:full/train/0", 0), ("clinc150:full/oos_train/0", 2)]
    assert errors[0].field == field
    assert problem in errors[0].problem
    assert "intent 'yes' in the list 'oos_train'" in errors[1].problem
    with pytest.raises(RecordError):
        list(corpus.read())


def test_what_is_not_the_corpus_says_where_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"data_full\.json: no such file; clone github\.com/clinc/oos-eval"):
        list(CLINC150(str(tmp_path)).read())
    with pytest.raises(ValueError, match="give one of full, small, imbalanced, oos_plus"):
        list(CLINC150(str(tmp_path), "big").read())
    with pytest.raises(ValueError, match="give one of train, val, test"):
        list(CLINC150(str(tmp_path), split="dev").read())
    published(tmp_path)
    for content, message in [("[{", "not UTF-8 JSON"), ("[]", "no list 'train'"), ('{"train": []}', "no list 'oos_train'")]:
        (tmp_path / "data" / "data_full.json").write_text(content, encoding="utf-8")
        with pytest.raises(ValueError, match=message):
            list(CLINC150(str(tmp_path)).read())


@pytest.mark.skipif(DATA is None, reason="LABELGEN_DATA is not set")
def test_the_reference_put_back_into_the_publishers_format_reads_the_same(tmp_path: Path) -> None:
    lists: dict[str, list[list[str]]] = {}
    with (Path(DATA or "") / "dlog" / "clinc150.jsonl").open(encoding="utf-8") as lines:
        for row in map(json.loads, lines):
            (turn,) = row["turns"]
            lists.setdefault(row["id"].removeprefix("clinc:").split("/")[0], []).append([turn["text"], turn["intent"]])
    published(tmp_path, **lists)
    for split, counts in {"train": (15000, 100), "val": (3000, 100), "test": (4500, 1000)}.items():
        read = list(CLINC150(str(tmp_path), split=split).read())
        there = lists[split] + lists[f"oos_{split}"]
        assert Counter(tuple(dialogue.slices) for dialogue in read) == dict(zip([(), ("out_of_scope",)], counts, strict=True))
        assert [[dialogue.turns[0].request, dialogue.turns[0].intent or "oos"] for dialogue in read] == there
        assert len({dialogue.turns[0].intent for dialogue in read} - {None}) == 150
