"""Conversion: what a corpus gives is what the file holds; bad rows stand aside; nothing usable is an error."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from labelgen.config import main
from labelgen.convert import convert
from labelgen.corpora import Corpus
from labelgen.corpora.records import Records
from labelgen.corpora.sgd import SGD
from labelgen.corpora.simulated import Simulated
from labelgen.dialogue import Dialogue, Reject, Turn
from labelgen.io.files import read


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_the_file_holds_what_the_corpus_gives(ending: str, tmp_path: Path) -> None:
    corpus = Simulated(num_dialogues=3, seed=2)
    convert(corpus, str(tmp_path / f"records.{ending}"))
    assert list(Records(str(tmp_path / f"records.{ending}")).read()) == list(corpus.read())


def test_bad_rows_stand_aside_and_nothing_usable_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "mixed.jsonl").write_text('{"id": "a", "turns": [{}]}\n{"id": "b"}\n', "utf-8")
    convert(Records(str(tmp_path / "mixed.jsonl")), str(tmp_path / "out.jsonl"))
    assert [dialogue.id for dialogue in Records(str(tmp_path / "out.jsonl")).read()] == ["a"]
    assert '"id": "b"' in (tmp_path / "out.jsonl.rejected.jsonl").read_text("utf-8")
    (tmp_path / "bad.jsonl").write_text('{"id": "b"}\n', "utf-8")
    with pytest.raises(ValueError, match="no usable dialogue; reasons in"):
        convert(Records(str(tmp_path / "bad.jsonl")), str(tmp_path / "none.jsonl"))
    assert not (tmp_path / "none.jsonl").exists()
    with pytest.raises(ValueError, match=r"ends in \.jsonl or \.parquet"):
        convert(Simulated(num_dialogues=1), str(tmp_path / "out.csv"))


def test_a_label_beyond_the_columns_is_rejected_by_row_and_field(tmp_path: Path) -> None:
    label = {"task": "slot", "value": "city", "turns": [0], "confidence": 1, "source": "rule", "start": 0, "end": 2**32}
    lines = [{"id": "a", "turns": [{}]}, {"id": "b", "turns": [{}], "labels": [label]}, {"id": "c", "turns": [{}]}]
    (tmp_path / "in.jsonl").write_text("\n".join(map(json.dumps, lines)), "utf-8")
    convert(Records(str(tmp_path / "in.jsonl")), str(tmp_path / "out.parquet"))
    assert [dialogue.id for dialogue in read(tmp_path / "out.parquet")] == ["a", "c"]
    (row,) = map(json.loads, (tmp_path / "out.parquet.rejected.jsonl").read_text("utf-8").splitlines())
    assert (row["row"], row["id"], row["field"]) == (2, "b", "labels.0.end")
    assert "2147483647" in row["problem"]


@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")
def test_what_arrow_refuses_is_rejected_by_id(tmp_path: Path) -> None:
    """As from a corpus in somebody's Python that skips validation."""

    class Unvalidated:
        def read(self, reject: Reject | None = None) -> Iterator[Dialogue]:
            for name in ("a", "b", "c"):
                yield Dialogue(id=name, turns=[Turn()]).model_copy(update={"user": 3 if name == "b" else None})

    convert(Unvalidated(), str(tmp_path / "out.parquet"))
    assert [dialogue.id for dialogue in read(tmp_path / "out.parquet")] == ["a", "c"]
    assert '"id": "b"' in (tmp_path / "out.parquet.rejected.jsonl").read_text("utf-8")


def test_a_corpus_is_never_overwritten_nor_joined_by_its_output(tmp_path: Path) -> None:
    file, folder = tmp_path / "logs" / "a.jsonl", tmp_path / "logs"
    convert(Simulated(num_dialogues=2), str(file))
    (tmp_path / "link").symlink_to(folder)
    before = file.read_bytes()
    refused: list[tuple[Corpus, Path]] = [
        (Records(str(file)), file), (Records(str(file)), tmp_path / "link" / "a.jsonl"), (Records(str(folder)), folder / "b.parquet"),
        (SGD(str(folder)), folder / "below" / "b.jsonl"), (Records(f"{folder}/*.jsonl"), file),
        (Records(f"{folder}/*.jsonl"), folder / "b.jsonl"),
        (Records(file.as_uri()), file), (Records(f"{tmp_path}/l*"), folder / "below" / "b.jsonl"),
    ]  # fmt: skip
    for corpus, output in refused:
        with pytest.raises(ValueError, match=r"overwrite the input, or be read as input the next time; write it elsewhere"):
            convert(corpus, str(output))
    assert [one.name for one in folder.iterdir()] == ["a.jsonl"]
    assert file.read_bytes() == before
    for source in (str(file), f"{folder}/a*.jsonl"):
        convert(Records(source), str(folder / "b.jsonl"))  # in another file nothing is lost


def test_tenths_of_annotated_records_are_apart_and_complete(tmp_path: Path) -> None:
    file = str(tmp_path / "records.jsonl")
    convert(Simulated(num_dialogues=40, seed=2), file)
    every = [dialogue.id for dialogue in Records(file).read()]
    tests = [[dialogue.id for dialogue in Records(file, "test", fold).read()] for fold in range(10)]
    assert sorted(one for tenth in tests for one in tenth) == sorted(every)
    for fold in (0, 9):
        rest = [dialogue.id for dialogue in Records(file, "train", fold).read()]
        assert set(rest) == set(every) - set(tests[fold])
    for wrong in (Records(file, "valid", 0), Records(file, "test", 10)):  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="give"):
            list(wrong.read())


@pytest.mark.parametrize(("rows", "status"), [([1, 1], None), ([1, 0], 3), ([0] * 5, "no usable dialogue")])
def test_the_exit_status_and_the_first_reasons(
    rows: list[int], status: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [json.dumps({"id": f"{k}", "turns": [{"request": "x"}] if usable else []}) for k, usable in enumerate(rows)]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    arguments = ["convert", "corpus=jsonl", f"corpus.path={tmp_path}/a.jsonl", f"output={tmp_path}/b.jsonl"]
    monkeypatch.setattr(sys, "argv", ["labelgen", *arguments])
    monkeypatch.chdir(tmp_path)
    code: Any = None
    try:
        main()
    except SystemExit as ended:
        code = ended.code
    assert code == status or str(status) in str(code)
    shown = capsys.readouterr().out + str(code)
    assert shown.count("it must hold at least one item") == min(rows.count(0), 3), "the first three"
    assert ("b.jsonl.rejected.jsonl" in shown) == (0 in rows)
