"""Backfill loses nothing and does nothing twice: killed anywhere and started again, its output is that of a run that was left in peace."""

import base64
import errno
import gzip
import json
import os
import shutil
import signal
import struct
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import fsspec
import pandas as pd
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest
from upath import UPath

import labelgen
from labelgen.config import main
from labelgen.corpora.simulated import Simulated
from labelgen.dialogue import Dialogue, Turn
from labelgen.io.files import read, write
from labelgen.labelling import shards
from labelgen.labelling.annotator import Annotator
from labelgen.labelling.backfill import Counts, InProcess, Job, Progress, backfill
from labelgen.labelling.export import _fingerprint


@pytest.fixture(scope="session")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of two files, both formats: 60 dialogues, two unusable rows, one that no model labels and a second use of an id."""
    folder = tmp_path_factory.mktemp("logs")
    dialogues = list(Simulated(num_dialogues=60, seed=11).read())
    long = Dialogue(id="long", turns=[Turn()] * 4097)
    write((dialogue.content() for dialogue in [*dialogues[:10], long, *dialogues[10:30]]), folder / "1.jsonl")
    with (folder / "1.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"id": "x", "turns": []}\nnot json\n')
    write((d.content() for d in [*dialogues[30:], dialogues[3]]), folder / "2.parquet", rows_per_group=10)
    return folder


@pytest.fixture(scope="session")
def in_peace(exported: Path, logs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of a run that nothing stopped."""
    output = tmp_path_factory.mktemp("in_peace") / "out"
    assert backfill(str(exported), str(logs), str(output), shard_rows=7) == Counts(60, 0, 4, 0)
    return output


def test_labels_are_those_of_the_annotator(exported: Path, logs: Path, in_peace: Path) -> None:
    annotator = labelgen.load(exported)
    usable = read(logs, lambda error: None)
    wanted = {dialogue.id: dialogue for dialogue in annotator.stream(usable, lambda dialogue, error: None)}
    found = list(read(in_peace))
    assert [dialogue.id for dialogue in found] == list(wanted), "in order, once"
    for dialogue in found:
        other = wanted[dialogue.id]
        assert dialogue.model_copy(update={"labels": None}) == other.model_copy(update={"labels": None})
        for label, right in zip(dialogue.labels or (), other.labels or (), strict=True):
            assert label.model_copy(update={"confidence": 0.0}) == right.model_copy(update={"confidence": 0.0})
            assert label.confidence == pytest.approx(right.confidence, abs=1e-5)
    rows = [row for file in sorted(in_peace.glob("*.parquet")) for row in pq.read_table(file).to_pylist()]
    parsed = json.loads((in_peace / "_backfill.json").read_text())
    assert {row["model"] for row in rows} == {annotator.source} == {parsed["model"]}
    assert {row["config"] for row in rows} == {parsed["config"]}
    assert {row["version"] for row in rows} == {labelgen.__version__}
    assert [row["input"] for row in rows] == [dialogue.fingerprint() for dialogue in wanted.values()]
    assert all(row["time"].tzinfo for row in rows)


def test_rejected_rows_are_told_by_file_row_and_reason(logs: Path, in_peace: Path) -> None:
    rows = [json.loads(line) for file in sorted(in_peace.glob("_rejected/*")) for line in file.read_text("utf-8").splitlines()]
    assert sorted((Path(row["source"]).name, row["row"], row["id"], row["field"]) for row in rows) == [
        ("1.jsonl", 11, "long", "record"),
        ("1.jsonl", 32, "x", "turns"),
        ("1.jsonl", 33, None, "record"),
        ("2.parquet", 31, [d.id for d in read(in_peace)][3], "id"),
    ]
    assert all(row["problem"] for row in rows)


def test_again_does_nothing(exported: Path, logs: Path, in_peace: Path, caplog: pytest.LogCaptureFixture) -> None:
    before = {file: file.stat().st_mtime_ns for file in in_peace.glob("*.parquet")}
    with caplog.at_level("WARNING"):
        assert backfill(str(exported), str(logs), str(in_peace), shard_rows=7) == Counts(0, 60, 4, 0)
    assert {file: file.stat().st_mtime_ns for file in in_peace.glob("*.parquet")} == before
    (parsed, *reasons) = [record.message for record in caplog.records if record.name.endswith(("backfill", "files"))]
    assert parsed == f"4 rows were rejected (93.75% accepted); reasons in {in_peace}/_rejected, such as"
    assert [reason.split(", ")[1] for reason in reasons] == ["row 11", "row 32", "row 33"], "the first three"


def test_one_rejected_row_names_its_file(exported: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "logs.jsonl").write_text('{"id": "a", "turns": [{"request": "hi"}]}\nbroken\n', "utf-8")
    assert backfill(str(exported), str(tmp_path / "logs.jsonl"), str(tmp_path / "out")).exit_status == 3
    (file,) = (tmp_path / "out" / "_rejected").iterdir()
    assert f"1 row was rejected (50.00% accepted); reasons in {file}, such as" in caplog.text
    assert "logs.jsonl, row 2, field 'record': not JSON" in caplog.text


def test_new_rows_are_added_and_changed_ones_told(exported: Path, logs: Path, tmp_path: Path) -> None:
    dialogues = [d for d in read(logs / "1.jsonl", lambda error: None) if d.id != "long"]
    write(dialogues[5:], tmp_path / "logs.jsonl")
    backfill(str(exported), str(tmp_path / "logs.jsonl"), str(tmp_path / "out"), shard_rows=7)
    changed = dialogues[6].model_copy(deep=True)
    changed.turns[0].request = "something else"
    write([*dialogues[:6], changed, *dialogues[7:]], tmp_path / "logs.jsonl")
    (tmp_path / "moved").mkdir()
    (tmp_path / "logs.jsonl").rename(tmp_path / "moved" / "logs.jsonl")
    counts = backfill(str(exported), str(tmp_path / "moved"), str(tmp_path / "out"), shard_rows=7)
    assert counts == Counts(5, 24, 1, 0), "rows that moved, in another file, are known"
    assert sorted(dialogue.id for dialogue in read(tmp_path / "out")) == sorted(dialogue.id for dialogue in dialogues)
    (file,) = (tmp_path / "out" / "_rejected").iterdir()
    assert "other content" in file.read_text("utf-8")


def test_a_dialogue_that_has_grown_is_rejected_and_its_earlier_version_stays(exported: Path, logs: Path, tmp_path: Path) -> None:
    dialogues = [d for d in read(logs / "1.jsonl", lambda error: None) if d.id != "long"][:3]
    write(dialogues, tmp_path / "logs.jsonl")
    backfill(str(exported), str(tmp_path / "logs.jsonl"), str(tmp_path / "out"))
    grown = dialogues[1].model_copy(deep=True)
    grown.turns.append(Turn(request="one more thing"))
    write([dialogues[0], grown, dialogues[2]], tmp_path / "logs.jsonl")
    counts = backfill(str(exported), str(tmp_path / "logs.jsonl"), str(tmp_path / "out"))
    assert counts == Counts(0, 2, 1, 0)
    assert counts.exit_status == 3
    assert {dialogue.id: len(dialogue.turns) for dialogue in read(tmp_path / "out")} == {d.id: len(d.turns) for d in dialogues}
    (file,) = (tmp_path / "out" / "_rejected").iterdir()
    assert "has it grown since?" in file.read_text("utf-8")
    assert backfill(str(exported), str(tmp_path / "logs.jsonl"), str(tmp_path / "again")) == Counts(3, 0, 0, 0), "another folder takes it"


# a child for each attempt: killed by the kernel once it has had so much of the processor, however busy that is, or within a call
ATTEMPTS = """
import json, os, random, resource, signal, sys
import torch
torch.set_num_threads(1)
import labelgen.labelling.backfill as b, pyarrow.parquet
from pathlib import Path
export, logs, folder = sys.argv[1:]
model = b.load(export)
b.load = lambda *settings: model  # loaded once: it is the labelling that is killed

def run():
    b.backfill(export, logs, output, shard_rows=7)

def attempt(after=0, prepare=lambda: None):
    child = os.fork()
    if not child:
        sys.stderr = open(os.devnull, "w")
        try:
            prepare()
            signal.setitimer(signal.ITIMER_PROF, after)  # of SIGPROF a process dies as of SIGKILL
            run()
        except BaseException as error:
            os._exit(75 if isinstance(error, OSError) else 76)
        os._exit(0)
    _, status, used = os.wait4(child, 0)
    return status, used.ru_utime + used.ru_stime

def die_in(module, name, call):
    def prepare():
        real, calls = getattr(module, name), []
        def dying(*args, **settings):
            calls.append(1)
            if len(calls) == call:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*args, **settings)
        setattr(module, name, dying)
    return prepare

moment, output = random.Random(0), folder + "/warm"
run()  # what is done once in a process is done before the children start
output = folder + "/timed"
status, lasts = attempt()
assert status == 0

ends, parts = [], []
for number in range(4):
    output = f"{folder}/moments{number}"
    for _ in range(5):
        ends.append(attempt(after=moment.uniform(0.01, lasts / 3))[0])
        parts.append(len(list(Path(output).glob("*.parquet"))))
    assert attempt()[0] == 0
assert ends.count(signal.SIGPROF) >= 12, ends
assert len(set(parts)) >= 4, parts  # in various states of the output

output = folder + "/steps"
steps = ((os, "fsync", 1), (os, "replace", 1), (os, "fsync", 3), (os, "replace", 3), (os, "fsync", 1), (b, "read_fragment", 2))
for module, name, call in steps:
    assert attempt(prepare=die_in(module, name, call))[0] == signal.SIGKILL
assert attempt()[0] == 0

output = folder + "/disk"
limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (12_000, 12_000))
assert os.waitstatus_to_exitcode(attempt(prepare=limit)[0]) == 75, "an error of the system, not a crash"
assert attempt()[0] == 0
"""


def test_killed_and_started_again_it_ends_as_in_peace(
    exported: Path, logs: Path, in_peace: Path, tmp_path: Path, table: Callable[[Path], Any]
) -> None:
    """At 20 random moments; within the writing of parts and of rejected rows; by a file system that takes no more."""
    subprocess.run([sys.executable, "-c", ATTEMPTS, exported, logs, tmp_path], check=True)
    for how in (*(f"moments{number}" for number in range(4)), "steps", "disk"):
        assert table(tmp_path / how) == table(in_peace), how


def test_a_part_that_is_deleted_is_labelled_again(
    exported: Path, logs: Path, in_peace: Path, tmp_path: Path, table: Callable[[Path], Any]
) -> None:
    shutil.copytree(in_peace, tmp_path / "out")
    for part in sorted((tmp_path / "out").glob("*.parquet"))[1:3]:
        part.write_bytes(b"PAR1")
        with pytest.raises(ValueError, match=r"damaged .*delete it"):
            backfill(str(exported), str(logs), str(tmp_path / "out"), shard_rows=7)
        part.unlink()
        assert backfill(str(exported), str(logs), str(tmp_path / "out"), shard_rows=7).labelled in (6, 7)
    assert table(tmp_path / "out") == table(in_peace)


def test_the_usual_tools_read_the_output(in_peace: Path) -> None:
    assert len(pd.read_parquet(in_peace)) == 60
    assert pyarrow.dataset.dataset(in_peace).count_rows() == 60


def test_small_units_change_the_cut_alone(
    exported: Path, logs: Path, in_peace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards, "FRAGMENT_BYTES", 5000)
    monkeypatch.setattr(shards, "FRAGMENT_ROWS", 10)
    assert backfill(str(exported), str(logs), str(tmp_path / "out"), shard_rows=7) == Counts(60, 0, 4, 0)
    assert [dialogue.id for dialogue in read(tmp_path / "out")] == [dialogue.id for dialogue in read(in_peace)]
    assert len(list((tmp_path / "out").glob("*.parquet"))) > len(list(in_peace.glob("*.parquet")))
    texts = ["".join(sorted("".join(f.read_text() for f in output.glob("_rejected/*")))) for output in (in_peace, tmp_path / "out")]
    assert texts[0] == texts[1], "rows are counted through"


def test_object_stores(exported: Path, logs: Path, in_peace: Path) -> None:
    store = fsspec.filesystem("memory")
    store.put(f"{logs}/", "/bucket/logs/", recursive=True)
    counts = backfill(str(exported), "memory://bucket/logs/*", "memory://bucket/out", shard_rows=7)
    assert counts == Counts(60, 0, 4, 0)
    assert [d.id for d in read("memory://bucket/out")] == [d.id for d in read(in_peace)]
    assert backfill(str(exported), "memory://bucket/logs", "memory://bucket/out", shard_rows=7) == Counts(0, 60, 4, 0)
    store.rm("/bucket", recursive=True)


def test_a_store_that_refuses_is_told_of_by_name(exported: Path, logs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class NoCredentialsError(Exception):
        """As botocore's, which is no OSError."""

    def exists(*_: Any, **__: Any) -> None:
        raise NoCredentialsError("Unable to locate credentials")

    monkeypatch.setattr(fsspec.get_filesystem_class("memory"), "exists", exists)
    for paths in ((str(logs), "memory://bucket/out"), ("memory://bucket/logs", str(tmp_path / "out"))):
        with pytest.raises(ValueError, match=r"memory://bucket/\w+: Unable to locate credentials"):
            backfill(str(exported), *paths)


@pytest.mark.parametrize(
    ("path", "parsed"),
    [
        ("", "the path is empty"),
        ("nothing://a/b.jsonl", "nothing"),
        ("{tmp}/*.jsonl", "no such file"),
        ("{tmp}/a.csv", "no such file"),
        ("{tmp}", "holds no .jsonl"),
    ],
)
def test_inputs_that_are_not_there(path: str, parsed: str, exported: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=parsed):
        backfill(str(exported), path.format(tmp=tmp_path), str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_the_reasons_are_those_of_the_input(exported: Path, tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / f"{name}.jsonl").write_text("[1]\n", "utf-8")
        with pytest.raises(ValueError, match=rf"such as\n  .*{name}\.jsonl, row 1"):
            backfill(str(exported), str(tmp_path / f"{name}.jsonl"), str(tmp_path / "out"))


def test_nothing_usable_is_an_error(exported: Path, tmp_path: Path) -> None:
    (tmp_path / "logs.jsonl").write_text("[1]\n", "utf-8")
    with pytest.raises(
        ValueError, match=r"no usable dialogue; reasons in .*_rejected/logs.*\.jsonl, such as\n  .*logs\.jsonl, row 1, .*a JSON number"
    ):
        backfill(str(exported), str(tmp_path / "logs.jsonl"), str(tmp_path / "out"))
    (tmp_path / "logs.jsonl").write_text("", "utf-8")
    for path in (str(tmp_path / "logs.jsonl"), tmp_path / "logs.jsonl"):
        with pytest.raises(ValueError, match="holds no record"):
            backfill(str(exported), path, str(tmp_path / "out"))  # type: ignore[arg-type]  # a notebook gives Paths


def test_another_model_is_refused_with_both_fingerprints(exported: Path, in_peace: Path, logs: Path) -> None:
    parsed = json.loads((in_peace / "_backfill.json").read_text())
    other = partial(backfill, str(exported), str(logs), str(in_peace))
    with pytest.raises(ValueError, match=f"config {parsed['config']}; this run is model {parsed['model']}"):
        other(tasks={"intent": "labelgen.tasks.intent.Intent"})


def test_the_output_is_never_the_input(exported: Path, logs: Path, in_peace: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(logs)
    pairs = [(in_peace, in_peace), (logs, logs / "labelled"), (in_peace / "*", in_peace), (tmp_path / "link", logs / "labelled")]
    pairs += [(f"{logs}/*", logs / "labelled"), (f"{tmp_path}/link/*", logs / "a" / "labelled"), (f"{logs}/**", logs / "a" / "labelled")]
    for source, output in [*pairs, (f"file://{logs}", tmp_path / ".." / logs.name / "labelled")]:
        with pytest.raises(ValueError, match="would be read as input"):
            backfill(str(exported), str(source), str(output))
    with pytest.raises(ValueError, match="name a folder"):
        backfill(str(exported), str(logs), str(tmp_path / "out.parquet"))


@pytest.mark.parametrize(("rows", "status"), [("1.jsonl", 3), ("good.jsonl", None), ("bad.jsonl", "labelgen: ")])
def test_the_exit_status_tells(rows: str, status: Any, exported: Path, logs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(list(read(logs / "1.jsonl", lambda error: None))[:2], tmp_path / "good.jsonl")
    (tmp_path / "bad.jsonl").write_text("[]\n")
    file = (tmp_path if (tmp_path / rows).exists() else logs) / rows
    monkeypatch.setattr(sys, "argv", ["labelgen", "backfill", f"export={exported}", f"input={file}", f"output={tmp_path / 'out'}"])
    monkeypatch.chdir(tmp_path)
    try:
        main()
        code: Any = None
    except SystemExit as end:
        code = end.code
    assert code == status or (isinstance(status, str) and str(code).startswith(status))


@pytest.mark.parametrize(("name", "status"), [("SIGTERM", 143), ("SIGINT", 130)])
def test_a_run_that_a_signal_ends_says_how_to_resume(
    name: str, status: int, exported: Path, logs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    real, output = shards.Output.save, tmp_path / "out"

    def signalled(self: shards.Output, shard: str, content: bytes) -> None:
        real(self, shard, content)
        if shard.endswith(".parquet"):
            os.kill(os.getpid(), getattr(signal, name))

    arguments = [f"export={exported}", f"input={logs / '2.parquet'}", f"output={output}", "shard_rows=7"]
    monkeypatch.setattr(sys, "argv", ["labelgen", "backfill", *arguments])
    monkeypatch.setattr(shards.Output, "save", signalled)
    monkeypatch.chdir(tmp_path)
    handlers = signal.signal(signal.SIGINT, signal.default_int_handler), signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == status
        assert f"stopped by {name}; run the same command again to resume" in capfd.readouterr().out
        assert signal.getsignal(signal.SIGTERM) == handlers[1], "it is handled during the run alone"
    finally:
        signal.signal(signal.SIGINT, handlers[0])
    monkeypatch.undo()
    written = sum(pq.read_metadata(file).num_rows for file in output.glob("*.parquet"))
    assert written == 7, "the shard before the signal is whole"
    assert backfill(str(exported), str(logs / "2.parquet"), str(output), shard_rows=7).skipped == written


def test_a_dialogue_that_cannot_be_labelled_goes_aside(exported: Path, logs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real: Callable[..., Any] = labelgen.load(exported).network.tasks["intent"].__class__.decode
    victim = list(read(logs / "2.parquet"))[4].id

    def stumbling(self: Any, probabilities: Any, dialogue: Dialogue, *rest: Any) -> Any:
        if dialogue.id == victim:
            raise ZeroDivisionError("over this")
        return real(self, probabilities, dialogue, *rest)

    monkeypatch.setattr("labelgen.tasks.intent.Intent.decode", stumbling)
    assert backfill(str(exported), str(logs / "2.parquet"), str(tmp_path / "out"), InProcess(), shard_rows=7) == Counts(30, 0, 1, 0)
    (file,) = (tmp_path / "out" / "_rejected").iterdir()
    row = json.loads(file.read_text("utf-8"))
    assert (row["row"], row["id"]) == (5, victim)
    assert "over this" in row["problem"]


def panicking(exported: Path, folder: Path, letter: str) -> Path:
    """A copy of the export whose tokenizer panics on a letter: the trie of its normalizer is one entry short."""
    copy = shutil.copytree(exported, folder)
    trie = struct.pack("<255I", (ord(letter) ^ 0xFF) << 10, *[0] * 254)
    charsmap = base64.b64encode(struct.pack("<I", len(trie)) + trie + b"a\0").decode()
    tokenizer = json.loads((copy / "tokenizer.json").read_text("utf-8"))
    tokenizer["normalizer"] = {"type": "Precompiled", "precompiled_charsmap": charsmap}
    (copy / "tokenizer.json").write_text(json.dumps(tokenizer), "utf-8")
    config = json.loads((copy / "config.json").read_text("utf-8"))
    config["fingerprint"] = _fingerprint(copy, config)
    (copy / "config.json").write_text(json.dumps(config), "utf-8")
    return copy


def test_a_text_that_the_tokenizer_fails_on_is_rejected_by_id(exported: Path, logs: Path, tmp_path: Path) -> None:
    export = panicking(exported, tmp_path / "export", "Q")
    good = [d for d in read(logs / "2.parquet") if not any("Q" in f"{turn.request}{turn.response}" for turn in d.turns)]
    bad = [Dialogue(id=f"bad {k}", turns=[Turn(request="fine"), Turn(response=f"Q {k}")]) for k in range(2)]
    write([*good[:5], bad[0], *good[5:], bad[1]], tmp_path / "logs.jsonl")
    for counts in (Counts(len(good), 0, 2, 0), Counts(0, len(good), 2, 0)):
        assert backfill(str(export), str(tmp_path / "logs.jsonl"), str(tmp_path / "out"), shard_rows=9) == counts
    assert [dialogue.id for dialogue in read(tmp_path / "out")] == [dialogue.id for dialogue in good]
    (file,) = (tmp_path / "out" / "_rejected").iterdir()
    rows = [json.loads(line) for line in file.read_text("utf-8").splitlines()]
    assert [(row["row"], row["id"]) for row in rows] == [(6, "bad 0"), (len(good) + 2, "bad 1")]
    assert "tokenizer" in rows[0]["problem"]
    with pytest.raises(ValueError, match="the tokenizer fails on a text"):
        labelgen.load(export)(bad)


def test_a_tokenizer_that_fails_on_any_text_rejects_no_row(
    exported: Path, logs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(self: Any, texts: Any) -> Any:
        raise ValueError("no memory for tokens")

    annotator = labelgen.load(exported)
    monkeypatch.setattr("labelgen.inputs.batch.TextEncoder._encode", failing)
    with pytest.raises(ValueError, match="no memory for tokens"):
        list(annotator.stream(read(logs / "2.parquet"), lambda dialogue, error: None))


def test_file_names_need_not_be_text(exported: Path, logs: Path, tmp_path: Path) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    name = os.fsdecode(b"caf\xe9")
    write(list(read(logs / "2.parquet"))[:2], folder / f"{name}.jsonl")
    with (folder / f"{name}.jsonl").open("a", encoding="utf-8") as file:
        file.write("broken\n")
    assert backfill(str(exported), str(folder), str(tmp_path / "out")) == Counts(2, 0, 1, 0)
    assert backfill(str(exported), str(folder / f"{name}.jsonl"), str(tmp_path / "out")) == Counts(0, 2, 1, 0)
    (file,) = (tmp_path / "out" / "_rejected").iterdir()
    assert json.loads(file.read_text("utf-8"))["source"] == str(folder / f"{name}.jsonl")


def test_rejected_rows_of_input_that_is_gone_are_deleted(
    exported: Path, logs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards, "FRAGMENT_BYTES", 300)
    label = partial(backfill, str(exported), output=str(tmp_path / "out"))
    good = '{"id": "%s", "turns": [{"request": "hi"}]}\n'
    for name in ("moved", "shorter", "kept"):
        (tmp_path / f"{name}.jsonl").write_text(good % name + 40 * "broken line of a log\n", "utf-8")
        label(input=str(tmp_path / f"{name}.jsonl"))
    rejected = tmp_path / "out" / "_rejected"
    assert len(list(rejected.iterdir())) == 9
    (tmp_path / "moved.jsonl").unlink()
    (tmp_path / "shorter.jsonl").write_text(good % "shorter" + "broken\n", "utf-8")
    label(input=str(tmp_path / "shorter.jsonl"))
    assert sorted(file.name.partition("-")[0] for file in rejected.iterdir()) == ["kept"] * 3 + ["shorter"]


@pytest.mark.parametrize("last", [False, True])
def test_an_output_that_is_removed_during_the_run_is_an_error(
    exported: Path, logs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, last: bool
) -> None:
    real, output = shards.Output.save, tmp_path / "out"

    def removing(self: shards.Output, name: str, content: bytes) -> None:
        real(self, name, content)
        if name.endswith("04.parquet" if last else "01.parquet"):
            shutil.rmtree(output)

    monkeypatch.setattr(shards.Output, "save", removing)
    with pytest.raises(FileNotFoundError, match="the output was removed during the run; run the same command again to resume"):
        backfill(str(exported), str(logs / "2.parquet"), str(output), shard_rows=7)
    assert not output.exists(), "no folder without its manifest is left"


def test_what_could_steer_a_terminal_is_escaped(exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any) -> None:
    folder = tmp_path / "logs\x1b[2J"
    folder.mkdir()
    write([Dialogue(id="a", turns=[Turn(request="hi")])], folder / "a.jsonl")
    (folder / "b\x1b[2J\nforged.txt").touch()
    for source in (folder, folder / "none.jsonl"):
        arguments = [f"export={exported}", f'input="{source}"', f"output={tmp_path / 'out'}"]
        monkeypatch.setattr(sys, "argv", ["labelgen", "backfill", *arguments])
        monkeypatch.chdir(tmp_path)
        try:
            main()
        except SystemExit as end:
            print(end.code)
    shown = capfd.readouterr()
    assert "b\\x1b[2J\\nforged.txt" in shown.out
    assert "logs\\x1b[2J/none.jsonl: no such file" in shown.out
    assert "\x1b" not in shown.out + shown.err


def test_uris_and_patterns_are_read_everywhere(logs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = [d.id for d in read(logs / "2.parquet")]
    monkeypatch.chdir(logs)
    assert [d.id for d in read("*.parquet")] == [d.id for d in read("2*")] == [d.id for d in read("./2*")] == wanted
    for name in (f"{logs}/2*", f"{logs}*/*.parquet", f"file://{logs}/2.parquet"):
        assert [d.id for d in read(name)] == wanted


def test_eight_bits_are_used_where_labels_agree(exported: Path, logs: Path, in_peace: Path, tmp_path: Path) -> None:
    label = partial(backfill, str(exported), str(logs), precision="int8")
    with pytest.raises(ValueError, match=r"changes too many labels of .*use fp32, or least_agreement=0"):
        label(str(tmp_path / "out"), least_agreement=1.0)
    assert not list((tmp_path / "out").glob("*.parquet"))
    assert label(str(tmp_path / "out"), least_agreement=0.1).labelled == 60
    assert label(str(tmp_path / "out"), least_agreement=1.0).skipped == 60, "nothing new, nothing to compare"
    dialogues = list(read(logs, lambda error: None))
    write((d.model_copy(update={"id": f"new {d.id}"}) for d in dialogues), tmp_path / "later.jsonl")
    with pytest.raises(ValueError, match="changes too many labels"):
        backfill(str(exported), str(tmp_path / "later.jsonl"), str(tmp_path / "out"), precision="int8", least_agreement=1.0)
    assert not (tmp_path / "out" / "_passed.json").exists(), "the next run is judged again"
    with pytest.raises(ValueError, match="shard_rows 2000 there, 7 now"):
        label(str(tmp_path / "out"), least_agreement=0.1, shard_rows=7)
    with pytest.raises(ValueError, match="a number from 0 to 1"):
        label(str(tmp_path / "out"), least_agreement="x")
    with pytest.raises(ValueError, match="would mix the labels of two models"):
        label(str(in_peace), least_agreement=0.1)


def test_an_engine_that_labels_elsewhere_needs_no_device_here(exported: Path, logs: Path, tmp_path: Path) -> None:
    class Elsewhere(InProcess):
        in_process = False

        def run(self, job: Job, annotator: Annotator, *rest: Any) -> Counts:
            assert (job.device, annotator.device.type) == ("cuda:7", "cpu")
            return Counts(labelled=1)

    assert backfill(str(exported), str(logs), str(tmp_path / "out"), Elsewhere(), device="cuda:7").labelled == 1
    with pytest.raises(ValueError, match="device='cuda:7' cannot be used here"):
        backfill(str(exported), str(logs), str(tmp_path / "other"), device="cuda:7")


def test_a_stopped_run_in_eight_bits_is_not_judged_again(
    exported: Path, logs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    label = partial(backfill, str(exported), str(logs), str(tmp_path), precision="int8", least_agreement=0.1, shard_rows=7)
    with monkeypatch.context() as patched:
        patched.setattr(
            "labelgen.labelling.shards.Shard.content", lambda self: (_ for _ in ()).throw(OSError(errno.ENOSPC, "No space left on device"))
        )
        with pytest.raises(OSError, match="No space left"):
            label()
    monkeypatch.setattr("labelgen.labelling.backfill.agreement", lambda some, others: {"intent": 0.0})
    with pytest.raises(ValueError, match="changes too many labels"):
        label(least_agreement=0.2)
    assert label().labelled == 60


def test_what_was_refused_in_eight_bits_is_labelled_in_full_precision(exported: Path, logs: Path, tmp_path: Path) -> None:
    label = partial(backfill, str(exported), str(logs), str(tmp_path / "out"))
    with pytest.raises(ValueError, match="use fp32"):
        label(precision="int8", least_agreement=1.0)
    assert label().labelled == 60


@pytest.mark.parametrize("scheme", ["file://", "local://"])
def test_a_uri_of_a_disk_is_a_disk(scheme: str, exported: Path, logs: Path, in_peace: Path, tmp_path: Path) -> None:
    """With its lock, and files that appear whole."""
    counts = backfill(f"{scheme}{exported}", f"{scheme}{logs}", f"{scheme}{tmp_path}/out", shard_rows=7)
    assert counts == Counts(60, 0, 4, 0)
    assert [d.id for d in read(tmp_path / "out")] == [d.id for d in read(in_peace)]
    assert (tmp_path / "out" / "_lock").exists() and list((tmp_path / "out" / "_rejected").iterdir())


def test_a_part_ends_where_its_records_are_large(exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("labelgen.labelling.backfill.SHARD_CHARACTERS", 10_000)
    large = (Dialogue(id=f"{k}", turns=[Turn(request="hello")], metadata={"trace": "x" * 4_000}) for k in range(9))
    write(large, tmp_path / "logs.jsonl")
    backfill(str(exported), str(tmp_path / "logs.jsonl"), str(tmp_path / "out"))
    assert [pq.read_metadata(part).num_rows for part in sorted((tmp_path / "out").glob("*.parquet"))] == [3, 3, 3]


@pytest.mark.parametrize("name", ["logs.jsonl.gz", "logs.json"])
def test_files_that_cannot_be_cut_are_labelled_and_resumed(name: str, exported: Path, logs: Path, tmp_path: Path) -> None:
    """A run that stopped after some shards, and a file that has grown since."""
    records = [dialogue.model_dump_json(exclude_defaults=True) for dialogue in read(logs / "2.parquet", lambda error: None)]

    def put(lines: list[str]) -> None:
        content = ("\n".join(lines) if name.endswith(".gz") else f"[{','.join(lines)}]").encode()
        (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)

    label = partial(backfill, str(exported), str(tmp_path / name), str(tmp_path / "out"), shard_rows=7)
    put([*records[:20], "3"])
    assert label() == Counts(20, 0, 1, 0)
    whole = {file.name: file.read_bytes() for file in (tmp_path / "out").glob("*.parquet")}
    sorted((tmp_path / "out").glob("*.parquet"))[1].unlink()
    assert label() == Counts(7, 13, 1, 0)
    assert {file.name for file in (tmp_path / "out").glob("*.parquet")} == whole.keys(), "the same shards"
    (rejected,) = (tmp_path / "out" / "_rejected").iterdir()
    assert json.loads(rejected.read_text())["row"] == 21
    put(records)
    assert label() == Counts(len(records) - 20, 20, 0, 0)


# -- progress --------------------------------------------------------------------------------------------------------------------


class ReadsAhead:
    """Stands for an annotator: it reads all dialogues that it is given before it labels the first."""

    source, unusable_recordings, cache = "model", 0, {}  # type: ignore[var-annotated]

    def stream(self, dialogues: Iterable[Dialogue], reject: Any) -> Iterator[Dialogue]:
        return (dialogue.model_copy(update={"labels": []}) for dialogue in list(dialogues))


class Updates(Progress):
    """Keeps what is shown."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.shown: list[tuple[int, float]] = []  # dialogues that are done, and the share of the bytes

    def show(self, counts: Counts, byte: int) -> None:
        super().show(counts, byte)
        assert 0 <= byte <= self._size
        self.shown.append((counts.labelled + counts.skipped, byte / self._size))


@pytest.mark.parametrize("shard_rows", [7, 2000])
@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.jsonl.gz", "a.json.gz", "a.parquet"])
def test_the_bar_shows_what_is_labelled(name: str, shard_rows: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In every format, for several fragments, and if some or all dialogues have labels. It is full when the last shard is written."""
    monkeypatch.setattr(shards, "FRAGMENT_BYTES", 5000)
    monkeypatch.setattr(shards, "FRAGMENT_ROWS", 90)
    random = Random(0)
    dialogues = [Dialogue(id=f"{k:03}", turns=[Turn(request=random.randbytes(40).hex())]) for k in range(400)]
    for half, file in ((dialogues[:200], tmp_path / name), (dialogues[200:], tmp_path / f"b{name[1:]}")):
        lines = [dialogue.model_dump_json(exclude_defaults=True) for dialogue in half]
        content = (f"[{','.join(lines)}]" if ".json" in name and "jsonl" not in name else "\n".join(lines) + "\n").encode()
        file.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
        if name == "a.parquet":
            write(half, file)
    files, output = [UPath(tmp_path / f"{letter}{name[1:]}") for letter in "ab"], tmp_path / "out"
    output.mkdir()
    annotator: Any = ReadsAhead()
    job = Job("export", str(output), "cpu", {}, "fp32", shard_rows)
    for deleted in (False, True, False):
        for shard in sorted(output.glob("*.parquet"))[1 : 3 if deleted else 0]:
            shard.unlink()
        index = shards.Output(str(output)).index(output.glob("*.parquet"))  # type: ignore[arg-type]
        with Updates(sum(file.stat().st_size for file in files)) as progress, monkeypatch.context() as patched:
            real = shards.Output.save

            def save(self: shards.Output, shard: str, content: bytes, real: Any = real, progress: Updates = progress) -> None:
                assert max((share for _, share in progress.shown), default=0) < 1, "the bar is full before the last shard is written"
                real(self, shard, content)

            patched.setattr(shards.Output, "save", save)
            counts = InProcess().run(job, annotator, index, files, progress)
        assert counts.labelled + counts.skipped == 400
        assert progress.shown[-1] == (400, 1.0)
        before = [share for done, share in progress.shown if done < 400]
        assert all(share < 1 for share in before)
        assert all(abs(share - done / 400) < 0.03 for done, share in progress.shown), progress.shown
        assert [share for _, share in progress.shown] == sorted(share for _, share in progress.shown)


def test_the_log_says_how_much_is_done_and_what_remains(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Its rate is of this run alone, and its share never falls."""
    now = 1000.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    caplog.set_level("INFO")
    with Progress(1000) as progress:
        for after, counts, byte in ((60.0, Counts(30, 10, 10), 250), (1.0, Counts(31, 10, 10), 260), (40.0, Counts(101, 10, 10), 200)):
            now += after
            progress.show(counts, byte)
    assert caplog.messages == [
        "labelling 25.0%: 40 dialogues, 0.5/s, 80.00% accepted, about 3 minutes to go",
        "labelling 26.0%: 111 dialogues, 1.0/s, 91.74% accepted, about 5 minutes to go",
    ]
    monkeypatch.setattr("labelgen.labelling.backfill.on_terminal", lambda: True)
    with Progress(1000) as progress:
        now += 60
        progress.show(Counts(30, 10, 10), 250)
    assert len(caplog.messages) == 2, "a terminal has a bar"


def test_recordings_that_cannot_be_read_are_counted_once(
    logs: Path, exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """In a thread, too, where no signal can be handled."""

    class Deaf(ReadsAhead):
        def stream(self, dialogues: Iterable[Dialogue], reject: Any) -> Iterator[Dialogue]:
            for dialogue in super().stream(dialogues, reject):
                self.unusable_recordings += 1
                yield dialogue

    monkeypatch.setattr("labelgen.labelling.backfill.load", lambda *settings: Deaf())
    caplog.set_level("INFO")
    with ThreadPoolExecutor() as threads:
        counts = threads.submit(backfill, str(exported), str(logs), str(tmp_path / "out"), shard_rows=7).result()
    assert counts == Counts(61, 0, 3, 61)
    assert f"labelled 61 dialogues in {tmp_path / 'out'} with model model" in caplog.messages
    assert caplog.messages[-1] == "61 recordings could not be read; their turns were labelled from their words alone"
