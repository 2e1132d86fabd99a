"""Users' own logs as a corpus: both formats, a folder of them, bad rows rejected."""

from __future__ import annotations

from pathlib import Path

import pytest

from labelgen.corpora import Corpus
from labelgen.corpora.records import Records
from labelgen.dialogue import Dialogue, RecordError, Turn
from labelgen.io.files import DUPLICATE_ID, write


def test_records_reads_files_and_folders_of_both_formats(tmp_path: Path) -> None:
    write([Dialogue(id="a", turns=[Turn(request="hi")])], tmp_path / "1.jsonl")
    write([Dialogue(id="b", turns=[Turn(response="hello")])], tmp_path / "below" / "2.parquet")
    read_from = {name: [dialogue.id for dialogue in Records(str(tmp_path / name)).read()] for name in (".", "1.jsonl", "below")}
    assert read_from == {".": ["a", "b"], "1.jsonl": ["a"], "below": ["b"]}


def test_bad_rows_go_to_reject(tmp_path: Path) -> None:
    file = tmp_path / "logs.jsonl"
    file.write_text('{"id": "a"}\n{"id": "b", "turns": [{}]}\n')
    errors: list[RecordError] = []
    corpus: Corpus = Records(str(file))
    assert [dialogue.id for dialogue in corpus.read(errors.append)] == ["b"]
    assert [(error.dialogue_id, error.field) for error in errors] == [("a", "turns")]
    with pytest.raises(RecordError):
        list(corpus.read())


def test_ids_are_compared_exactly(tmp_path: Path) -> None:
    """They are texts: a number is refused, and space counts."""
    file = tmp_path / "logs.jsonl"
    file.write_text("".join(f'{{"id": {name}, "turns": [{{}}]}}\n' for name in ('"1"', "1", '"1 "', '"1"')))
    errors: list[RecordError] = []
    assert [dialogue.id for dialogue in Records(str(file)).read(errors.append)] == ["1", "1 "]
    assert [(error.row, error.dialogue_id, error.problem) for error in errors] == [(2, "1", "it must be text"), (4, "1", DUPLICATE_ID)]
