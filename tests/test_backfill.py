"""The same dialogues come out, with labels; bad records go aside and nothing half-written stays."""

import json
from pathlib import Path

import pytest

import labelgen
from labelgen.backfill import backfill
from labelgen.dialogue import Dialogue
from labelgen.files import read, write


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_labels_are_those_of_the_annotator(kind: str, exported: Path, dialogues: list[Dialogue], tmp_path: Path) -> None:
    write(dialogues, tmp_path / f"logs.{kind}")
    backfill(str(exported), str(tmp_path / f"logs.{kind}"), str(tmp_path / f"out.{kind}"))
    annotator = labelgen.load(exported)
    wanted = annotator(dialogues)
    assert list(read(tmp_path / f"out.{kind}")) == wanted
    labels = [label for dialogue in wanted for label in dialogue.labels or ()]
    assert labels and {label.source for label in labels} == {annotator.source}


def test_bad_records_go_aside(exported: Path, dialogues: list[Dialogue], tmp_path: Path) -> None:
    write(dialogues[:2], tmp_path / "logs.jsonl")
    with (tmp_path / "logs.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"id": "x", "turns": []}\n{"id": "' + dialogues[0].id + '", "turns": [{}]}\n')
    backfill(str(exported), str(tmp_path / "logs.jsonl"), str(tmp_path / "out.jsonl"))
    assert [dialogue.id for dialogue in read(tmp_path / "out.jsonl")] == [dialogue.id for dialogue in dialogues[:2]]
    aside = [json.loads(line) for line in (tmp_path / "out.jsonl.rejected.jsonl").read_text("utf-8").splitlines()]
    assert [(row["row"], row["id"], row["field"]) for row in aside] == [(3, "x", "turns"), (4, dialogues[0].id, "id")]


def test_nothing_usable_is_an_error_and_writes_no_output(exported: Path, tmp_path: Path) -> None:
    (tmp_path / "logs.jsonl").write_text("[1]\n", "utf-8")
    with pytest.raises(ValueError, match=r"no usable dialogue; reasons in .*rejected.jsonl"):
        backfill(str(exported), str(tmp_path / "logs.jsonl"), str(tmp_path / "out.jsonl"))
    assert {file.name for file in tmp_path.iterdir()} == {"logs.jsonl", "out.jsonl.rejected.jsonl"}


def test_the_input_is_never_overwritten(exported: Path, dialogues: list[Dialogue], tmp_path: Path) -> None:
    write(dialogues[:1], tmp_path / "logs.jsonl")
    with pytest.raises(ValueError, match="overwrite"):
        backfill(str(exported), str(tmp_path / "logs.jsonl"), str(tmp_path / "logs.jsonl"))


def test_the_output_is_never_the_next_input(exported: Path, dialogues: list[Dialogue], tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    write(dialogues[:1], tmp_path / "logs" / "a.jsonl")
    with pytest.raises(ValueError, match="read as input the next time"):
        backfill(str(exported), str(tmp_path / "logs"), str(tmp_path / "logs" / "out.jsonl"))
    assert [file.name for file in (tmp_path / "logs").iterdir()] == ["a.jsonl"]


def test_without_a_progress_bar(exported: Path, dialogues: list[Dialogue], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TQDM_DISABLE", "1")
    write(dialogues[:2], tmp_path / "logs.jsonl")
    backfill(str(exported), str(tmp_path / "logs.jsonl"), str(tmp_path / "out.jsonl"))
    assert len(list(read(tmp_path / "out.jsonl"))) == 2


def test_the_output_is_refused_before_any_work(dialogues: list[Dialogue], tmp_path: Path) -> None:
    (tmp_path / "folder.jsonl").mkdir()
    for name in ("out.csv", "folder.jsonl"):
        with pytest.raises(ValueError, match=r"ends in .jsonl or .parquet"):
            backfill(str(tmp_path / "no export"), str(tmp_path / "logs.jsonl"), str(tmp_path / name))
