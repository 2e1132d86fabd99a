"""The exit statuses that docs/guides/your_logs.md lists, of every verb that reads rows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from labelgen.config import load_config, main, run
from labelgen.corpora.simulated import Simulated
from labelgen.io.files import write

TINY = ["encoder=tiny", "data.cache=null", "features=none", "trainer.max_epochs=1", "trainer.limit_train_batches=1"]
CORPUS = ["corpus=jsonl", "corpus.path={rows}.jsonl"]
COMMANDS = {
    "convert": [*CORPUS, "output=out.jsonl"],
    "train": [*CORPUS, *TINY, "output=out"],
    "pretrain": [*CORPUS, *TINY, "output=out"],
    "evaluate": [*CORPUS, "export={export}", "output=out"],
    "backfill": ["export={export}", "input={rows}.jsonl", "output=out"],
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory: files of good rows, of good rows and a bad one, and of a bad one alone."""
    monkeypatch.chdir(tmp_path)
    write(Simulated(num_dialogues=8, seed=1).read(), tmp_path / "good.jsonl")
    (tmp_path / "bad.jsonl").write_text("broken\n", "utf-8")
    (tmp_path / "mixed.jsonl").write_text((tmp_path / "good.jsonl").read_text("utf-8") + "broken\n", "utf-8")
    return tmp_path


def status_of(monkeypatch: pytest.MonkeyPatch, verb: str, rows: str, export: Path, *more: str) -> int:
    """Runs a command. Returns its exit status: 1 if it ends with a message."""
    words = [word.format(rows=rows, export=export) for word in COMMANDS[verb]]
    monkeypatch.setattr("sys.argv", ["labelgen", verb, *words, *more])
    try:
        main()
    except SystemExit as end:
        return 1 if isinstance(end.code, str) else end.code or 0
    return 0


@pytest.mark.parametrize("verb", COMMANDS)
def test_a_rejected_row_is_reported_last_and_gives_status_3(
    verb: str, folder: Path, exported: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each time, until the row is repaired; without a usable row the status is 1."""
    for _ in range(2):
        assert status_of(monkeypatch, verb, "mixed", exported) == 3
        *_, report, reason = capsys.readouterr().out.splitlines()
        assert report.startswith("1 r") and "; reasons in " in report
        assert reason.startswith("  ") and "mixed.jsonl, row 9, field 'record': not JSON" in reason
        (rejected,) = folder.glob("out*/**/*rejected.jsonl") if verb != "convert" else folder.glob("out.jsonl.rejected.jsonl")
        assert [json.loads(line)["row"] for line in rejected.read_text("utf-8").splitlines()] == [9]
    (folder / "mixed.jsonl").write_text((folder / "good.jsonl").read_text("utf-8"), "utf-8")
    assert status_of(monkeypatch, verb, "mixed", exported) == 0
    assert "reasons in" not in capsys.readouterr().out
    assert status_of(monkeypatch, verb, "bad", exported) == 1


def test_a_sweep_ends_with_3_if_rows_of_a_job_were_rejected(folder: Path, exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for rows, status in (("mixed.jsonl,good", 3), ("mixed.jsonl,bad", 1)):
        assert status_of(monkeypatch, "evaluate", rows, exported, "-m") == status
    assert {file.parent.name for file in folder.glob("out/*/metrics.json")} == {"corpus.path-mixed_jsonl", "corpus.path-good_jsonl"}
    assert {file.parent.name for file in folder.glob("out/*/failed.txt")} == {"corpus.path-mixed_jsonl", "corpus.path-bad_jsonl"}


def test_from_python_the_result_is_the_score(folder: Path, exported: Path) -> None:
    words = [word.format(rows="mixed", export=exported) for word in COMMANDS["evaluate"]]
    assert isinstance(run(load_config("evaluate", *words)), float)


@pytest.mark.parametrize(("rank", "status"), [("0", 3), ("1", 0)])
def test_only_the_first_rank_exits_with_3(rank: str, status: int, folder: Path, exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_PROCID", rank)
    assert status_of(monkeypatch, "evaluate", "mixed", exported) == status
