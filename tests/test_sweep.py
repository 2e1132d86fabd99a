"""Sweeps: a folder for each job, the exit status of the whole, and settings that Hydra cannot parse."""

import json
import re
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from labelgen.config import main
from labelgen.corpora.simulated import Simulated
from labelgen.io.files import read, write
from labelgen.sweep import NAME_LENGTH, checked_words, job_name

TINY = [
    "encoder=tiny",
    "data.valid_fraction=0.4",
    "data.cache=null",
    "features=none",
    "trainer.max_epochs=1",
    "trainer.limit_train_batches=1",
]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory: a.jsonl, b.jsonl and, with a bad row, c.jsonl."""
    monkeypatch.chdir(tmp_path)
    for seed, name in enumerate("abc"):
        write(Simulated(num_dialogues=8, seed=seed).read(), tmp_path / f"{name}.jsonl")
    with (tmp_path / "c.jsonl").open("a", encoding="utf-8") as file:
        file.write("broken\n")
    return tmp_path


def command(monkeypatch: pytest.MonkeyPatch, *words: str) -> int | str | None:
    """Runs a command, and returns the exit status or message."""
    monkeypatch.setattr("sys.argv", ["labelgen", *words])
    try:
        main()
    except SystemExit as end:
        return end.code
    return 0


def test_each_job_of_any_verb_has_a_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs, exports, scores = folder / "runs", folder / "exports", folder / "scores"
    assert command(monkeypatch, "train", "corpus=jsonl", "corpus.path=a.jsonl,b.jsonl", *TINY, "output=runs", "-m") == 0
    assert {file.parent.name for file in runs.glob("*/config.yaml")} == {"corpus.path-a_jsonl", "corpus.path-b_jsonl"}
    assert OmegaConf.load(runs / "corpus.path-b_jsonl" / "config.yaml").data.corpus.path == "b.jsonl"
    assert command(monkeypatch, "export", "checkpoint=runs/corpus.path-a_jsonl,runs/corpus.path-b_jsonl", "output=exports", "-m") == 0
    made = sorted(file.parent.name for file in exports.glob("*/model.safetensors"))
    assert [name[:-7] for name in made] == ["checkpoint-runs-corpus.path-a_jsonl", "checkpoint-runs-corpus.path-b_jsonl"], "and a hash"
    export = f"export={exports / made[0]}"
    assert command(monkeypatch, "evaluate", export, "corpus=jsonl", "corpus.path=a.jsonl", "limit=2,3", "output=scores", "-m") == 0
    assert {json.loads((scores / f"limit-{k}" / "metrics.json").read_text())["dialogues"] for k in (2, 3)} == {2, 3}
    assert command(monkeypatch, "backfill", export, "input=a.jsonl,b.jsonl", "output=labelled", "-m") == 0
    assert len(list((folder / "labelled").glob("input-?_jsonl/_backfill.json"))) == 2


def test_files_keep_their_names(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert command(monkeypatch, "convert", "-m", "corpus=jsonl", "corpus.path=a.jsonl,b.jsonl", "output=all.parquet") == 0
    assert [d.id for d in read(folder / "all" / "corpus.path-b_jsonl" / "all.parquet")] == [d.id for d in read(folder / "b.jsonl")]


def test_a_failed_job_fails_the_sweep_after_the_others(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ("convert", "corpus=jsonl", "corpus.path=missing.jsonl,a.jsonl", "output=out.jsonl", "-m")
    assert command(monkeypatch, *words) == 1
    assert "no such file" in (folder / "out" / "corpus.path-missing_jsonl" / "failed.txt").read_text()
    assert (folder / "out" / "corpus.path-a_jsonl" / "out.jsonl").exists()
    assert command(monkeypatch, "convert", "corpus=jsonl", "corpus.path=a.jsonl,b.jsonl", "output=out.jsonl", "-m") == 0, "an old failure"
    (folder / "b.jsonl").rename(folder / "missing.jsonl")
    assert command(monkeypatch, *words) == 0
    assert not list(folder.glob("out/*/failed.txt"))


def test_rejected_rows_do_not_stop_a_sweep(folder: Path, monkeypatch: pytest.MonkeyPatch, exported: Path) -> None:
    assert command(monkeypatch, "backfill", f"export={exported}", "input=c.jsonl,a.jsonl", "output=labelled", "-m") == 3
    assert len(list((folder / "labelled").glob("*/_backfill.json"))) == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["convert", "corpus=simulated", "corpus.seed=1,2", "-m"], "output is needed"),
        (["convert", "corpus=simulated", "corpus.seed=1,2", "output=s3://a/b.jsonl", "-m"], "a sweep .* local folder"),
        (["convert", "corpus=jsonl", "corpus.path=a,b.jsonl", "output=x.jsonl"], r"add -m .* 'corpus.path=\"a,b.jsonl\"'"),
        (["convert", "corpus=jsonl", "corpus.path=a=b.jsonl(", "output=x.jsonl"], r"quote the value: 'corpus.path=\"a=b.jsonl\(\"'"),
        (
            ["convert", "corpus=table", "corpus.columns={dialogue: Gespräch, text: wörter hier}", "corpus.path=a.csv"],
            r"quote the names inside the braces .*'corpus.columns={dialogue: \"Gespräch\", text: \"wörter hier\"}'$",
        ),
        (["convert", "corpus=table", "corpus.numerical=[Länge, b]", "x=1"], r".*inside .* 'corpus.numerical=\[\"Länge\", b\]'$"),
    ],
)
def test_what_cannot_run_is_said_in_one_sentence(words: list[str], message: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert re.match(f"labelgen: .*{message}", str(command(monkeypatch, *words)))
    assert {file.name for file in folder.iterdir()} == {"a.jsonl", "b.jsonl", "c.jsonl"}


def test_the_home_folder_is_expanded_in_values(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    words = ["corpus.path=~/a.jsonl", "output=~", "~logger", "x='a~b'", "--config-dir=~/c"]
    assert checked_words(words) == ["corpus.path=/home/me/a.jsonl", "output=/home/me", "~logger", "x='a~b'", "--config-dir=/home/me/c"]


def test_a_sweep_over_corpora_takes_settings_of_a_corpus(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`output` may be a folder, and the settings of the group that varies are accepted."""
    words = ("corpus=jsonl,chat_messages", "corpus.path=a.jsonl", "output=all", "-m")
    assert command(monkeypatch, "convert", *words) == 1, "the records are no chats"
    assert len(list(read(folder / "all" / "corpus-jsonl" / "records.jsonl"))) == 8
    assert "a.jsonl" in (folder / "all" / "corpus-chat_messages" / "failed.txt").read_text()


def test_names_of_jobs_are_short_and_distinct() -> None:
    names = ["lr-1e-3", "corpus.path-a.jsonl", "corpus.path-x/a.jsonl", "corpus.path-x-a.jsonl", *(f"x-{'y' * 300}{k}" for k in range(2))]
    found = [job_name(name) for name in names]
    assert found[:2] == ["lr-1e-3", "corpus.path-a_jsonl"]
    assert re.fullmatch(r"corpus\.path-x-a_jsonl-[0-9a-f]{6}", found[2])
    assert len(set(found)) == len(found)
    assert max(map(len, found)) == NAME_LENGTH + 7
    assert not any("/" in name for name in found)
