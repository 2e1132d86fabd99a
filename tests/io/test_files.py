"""Files of records: whole or not at all, as a stream; files, rows and ids that cannot be used are parsed and do not stop the run."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from upath import UPath

from labelgen.corpora.records import Records
from labelgen.dialogue import Dialogue, Label, RecordError, Turn
from labelgen.io.arrow import arrow_schema, to_arrow
from labelgen.io.files import RejectedFile, read, read_records, write
from labelgen.io.paths import list_files

ENDINGS = ("jsonl", "parquet")


def rejects(path: Path) -> tuple[list[Dialogue], list[RecordError]]:
    errors: list[RecordError] = []
    return list(read(path, errors.append)), errors


def test_rejected_counts_this_run_alone(tmp_path: Path) -> None:
    for _ in range(2):
        rejected = RejectedFile(tmp_path / "below" / "rejected.jsonl")
        rejected(RecordError("file", 1, None, "id", "gone"))
    assert rejected.count == len(rejected.path.read_text().splitlines()) == 1


@pytest.mark.parametrize(
    "line", [b"{", b"[1]", b"3", b'{"id": "x", "turns"', b"[" * 100_000, '{"id": "é", "turns": [{}]}'.encode("latin-1")]
)
def test_lines_that_are_no_json_object_or_not_utf8(tmp_path: Path, line: bytes) -> None:
    file = tmp_path / "logs.jsonl"
    file.write_bytes(b'{"id": "a", "turns": [{}]}\n' + line + b'\n{"id": "b", "turns": [{}]}')
    got, errors = rejects(file)
    assert [dialogue.id for dialogue in got] == ["a", "b"]
    assert [error.row for error in errors] == [2]


def test_byte_order_mark_and_windows_line_ends(tmp_path: Path) -> None:
    file = tmp_path / "logs.jsonl"
    file.write_bytes(b'\xef\xbb\xbf{"id": "a", "turns": [{"request": "\\u2028"}]}\r\n{"id": "b", "turns": [{}]}\r\n')
    assert [dialogue.id for dialogue in read(file)] == ["a", "b"]


@pytest.mark.parametrize("ending", ENDINGS)
def test_ids_are_unique_over_all_files(tmp_path: Path, ending: str) -> None:
    write([Dialogue(id="a", turns=[Turn()]), Dialogue(id="b", turns=[Turn()])], tmp_path / f"1.{ending}")
    write([Dialogue(id="b", turns=[Turn(request="again")]), Dialogue(id="c", turns=[Turn()])], tmp_path / f"2.{ending}")
    got, errors = rejects(tmp_path)
    assert [dialogue.id for dialogue in got] == ["a", "b", "c"]
    assert got[1].turns[0].request is None
    assert [(error.dialogue_id, error.field, Path(error.source).stem) for error in errors] == [("b", "id", "2")]
    assert "unique" in errors[0].problem


def test_parquet_that_is_cut_short_or_damaged(tmp_path: Path) -> None:
    records = [Dialogue(id=f"{k}", turns=[Turn(request=f"words {k} {k * 7919 % 1000}" * 20)]) for k in range(2000)]
    file = tmp_path / "a.parquet"
    write(records, file, rows_per_group=1000)
    whole = file.read_bytes()
    write(records[:1], tmp_path / "b.jsonl")
    for damaged in (whole[: len(whole) // 2], b"", whole[: len(whole) * 2 // 3] + b"\0" * 5000):
        file.write_bytes(damaged)
        got, errors = rejects(tmp_path)
        assert [dialogue.id for dialogue in got] == ["0"], "the file after it is read"
        assert [Path(error.source).name for error in errors] == ["a.parquet"]
    middle = len(whole) * 3 // 5  # in the second of two row groups
    file.write_bytes(whole[:middle] + b"\xff" * 2000 + whole[middle + 2000 :])
    got, errors = rejects(file)
    assert [error.row for error in errors] == [len(got) + 1], "a damaged page is parsed once"
    assert 0 < len(got) < 2000
    assert got == records[: len(got)], "what stands before it is read"


def test_parquet_text_that_is_not_utf8(tmp_path: Path) -> None:
    ids = pa.array([b"a", b"\xff\xfe", b"c"], pa.binary()).view(pa.string())
    columns = [pa.nulls(3, field.type) if field.name != "id" else ids for field in arrow_schema()]
    turn = pa.array([[{"request": "hi"}]] * 3, arrow_schema().field("turns").type)
    columns[1] = turn
    pq.write_table(pa.Table.from_arrays(columns, schema=arrow_schema()), tmp_path / "a.parquet")
    got, errors = rejects(tmp_path / "a.parquet")
    assert [dialogue.id for dialogue in got] == ["a", "c"]
    assert [error.row for error in errors] == [2]
    assert "UTF-8" in errors[0].problem


def test_parquet_with_other_columns(tmp_path: Path) -> None:
    pq.write_table(pa.table({"id": ["a"], "turns": [["hi"]]}), tmp_path / "a.parquet")
    got, errors = rejects(tmp_path / "a.parquet")
    assert not got
    assert "columns" in errors[0].problem


def test_parquet_columns_that_are_no_fields_are_named_and_cost_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Neither if Python cannot hold their values (2**62 microseconds)."""
    table = pa.Table.from_pylist([to_arrow(Dialogue(id=name, turns=[Turn(request="x")])) for name in "ab"], schema=arrow_schema())
    for name, values in (("lables", ["x", "y"]), ("expires", pa.array([2**62, 0], pa.timestamp("us"))), ("model", ["m", "m"])):
        table = table.append_column(name, [values])
    pq.write_table(table, tmp_path / "a.parquet")
    got, errors = rejects(tmp_path / "a.parquet")
    assert [dialogue.id for dialogue in got] == ["a", "b"]
    assert not errors
    (record,) = caplog.records
    words = "columns that are not read, because a record has no such fields: 2 ('lables' (did you mean 'labels'?), 'expires')"
    assert record.message == f"{tmp_path / 'a.parquet'}: {words}"
    caplog.clear()
    assert len(list(read_records(UPath(tmp_path / "a.parquet"), None, None, start=1))) == 1
    assert not caplog.records, "once for all fragments of a file"


def test_parquet_without_the_columns_of_a_record_is_refused_with_what_it_holds(tmp_path: Path) -> None:
    pq.write_table(pa.table({"id": ["a"], "messages": [[{"role": "user", "content": "hi"}]]}), tmp_path / "a.parquet")
    with pytest.raises(RecordError, match="corpus=chat_messages"):
        list(Records(str(tmp_path / "a.parquet")).read())
    turns = [[{"role": "user", "content": "hi"}]]
    pq.write_table(pa.table({"id": ["a"], "turns": turns}), tmp_path / "a.parquet")
    with pytest.raises(RecordError):
        list(read(tmp_path / "a.parquet"))


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path, ending: str) -> None:
    def broken() -> Any:
        yield Dialogue(id="new", turns=[Turn()])
        raise RuntimeError("power cut")

    file = tmp_path / f"a.{ending}"
    write([Dialogue(id="old", turns=[Turn()])], file)
    with pytest.raises(RuntimeError):
        write(broken(), file)
    assert [dialogue.id for dialogue in read(file)] == ["old"]
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("ending", ENDINGS)
def test_the_next_run_replaces_what_a_killed_one_left(tmp_path: Path, ending: str) -> None:
    def dying() -> Any:
        yield Dialogue(id="a", turns=[Turn()])
        os.kill(os.getpid(), signal.SIGKILL)

    file = tmp_path / f"a.{ending}"
    if not (child := os.fork()):
        write(dying(), file, rows_per_group=1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert [one.name for one in tmp_path.iterdir()] == [f".a.{ending}.partial"]
    write([Dialogue(id="b", turns=[Turn()])], file)
    assert [dialogue.id for dialogue in read(file)] == ["b"]
    assert list(tmp_path.iterdir()) == [file]


def test_two_processes_never_write_one_file(tmp_path: Path) -> None:
    def second() -> Any:
        with pytest.raises(ValueError, match=r"a\.jsonl: another process is writing it"):
            write([], tmp_path / "a.jsonl")
        yield Dialogue(id="a", turns=[Turn()])

    write(second(), tmp_path / "a.jsonl")
    assert [dialogue.id for dialogue in read(tmp_path / "a.jsonl")] == ["a"]


@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")
@pytest.mark.parametrize("ending", ENDINGS)
def test_what_cannot_be_written_is_named_and_the_rest_is_written(tmp_path: Path, ending: str) -> None:
    """Such values come from code that skips validation."""
    whole = [Dialogue(id=f"{k}", turns=[Turn(request="hi")]) for k in range(50)]
    label = Label.model_construct(task="t", value="v", turns=[0], confidence=1.0, source="s", end=2**32)
    unwritable: dict[str, Any] = {"labels": [label]} if ending == "parquet" else {"user": "\ud800"}
    bad = [whole[0].model_copy(update={"id": name, **unwritable}) for name in ("x", "y")]
    given = [*whole[:7], bad[0], *whole[7:], bad[1]]
    with pytest.raises(RecordError, match=r"row 8, dialogue 'x', .*cannot be written"):
        write(given, tmp_path / f"a.{ending}")
    assert not list(tmp_path.iterdir())
    errors: list[RecordError] = []
    assert write(given, tmp_path / f"a.{ending}", rows_per_group=20, reject=errors.append) == 50
    assert [(error.row, error.dialogue_id) for error in errors] == [(8, "x"), (52, "y")]
    assert list(read(tmp_path / f"a.{ending}")) == whole


def special_files(folder: Path) -> list[Path]:
    """A pipe, a socket and a device, named like records."""
    os.mkfifo(folder / "pipe.jsonl")
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(folder / "socket.parquet"))
    (folder / "device.jsonl").symlink_to("/dev/zero")
    return [folder / name for name in ("pipe.jsonl", "socket.parquet", "device.jsonl")]


def test_pipes_sockets_and_devices_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # the name of a socket is short
    for file in special_files(Path()):
        for path in (file, Path(f"{file.stem}*"), Path()):
            with pytest.raises(ValueError, match="a pipe, a socket or a device"):
                list(read(path))
        file.unlink()
    os.mkfifo("pipe.ctl")
    write([Dialogue(id="a", turns=[Turn()])], "a.jsonl")
    assert len(list(read("."))) == 1, "a pipe of another name is none of our business"


def test_paths_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id")
    for path, parsed in ((tmp_path / "a.csv", "labelgen inspect"), (tmp_path / "b.jsonl", "no such"), (tmp_path, "holds no")):
        with pytest.raises(ValueError, match=parsed):
            list(read(path))
    with pytest.raises(ValueError, match=r"\.parquet"):
        write([], tmp_path / "a.csv")


def test_a_folder_gives_the_files_with_the_wanted_endings(tmp_path: Path) -> None:
    for name in ("b.csv", "a.parquet", "c.jsonl", ".hidden.csv", "b.csv.rejected.jsonl"):
        (tmp_path / name).touch()
    assert [file.name for file in list_files(tmp_path, (".csv", ".parquet"), "")] == ["a.parquet", "b.csv"]
    with pytest.raises(ValueError, match="give a table"):
        list_files(tmp_path / "c.jsonl", (".csv", ".parquet"), "give a table")


@pytest.mark.parametrize("name", ["s3://bucket/a.jsonl", "memory://a.parquet"])
def test_what_is_written_lies_on_a_disk(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"(s3|memory) cannot be used here; give a path on a disk"):
        write([], name)
    assert write([Dialogue(id="a", turns=[Turn()])], f"file://{tmp_path}/b.jsonl") == 1
    assert [file.name for file in tmp_path.iterdir()] == ["b.jsonl"]


def test_hidden_folders_hide_their_files_unless_named(tmp_path: Path) -> None:
    for folder in (".ipynb_checkpoints", "_temporary/0", "date=2026-11-23"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "a.jsonl").touch()
    for path in (tmp_path, tmp_path / "*", f"{tmp_path}/**", f"{tmp_path}/*/a.jsonl", f"{tmp_path}/"):
        assert [file.parent.name for file in list_files(path, (".jsonl",), "")] == ["date=2026-11-23"], path
    assert len(list_files(tmp_path / "_temporary", (".jsonl",), "")) == 1
    assert len(list_files(tmp_path / "_temporary" / "0" / "a.jsonl", (".jsonl",), "")) == 1


def test_hidden_files_of_the_working_directory_are_hidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (".a.jsonl", "_a.jsonl", "a.jsonl"):
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    assert [file.name for file in list_files(".", (".jsonl",), "")] == ["a.jsonl"]


def test_a_pattern_that_names_a_folder_and_its_files_reads_them_once(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    write([Dialogue(id="a", turns=[Turn()])], tmp_path / "a" / "b" / "c.jsonl")
    assert len(list_files(f"{tmp_path}/**", (".jsonl",), "")) == 1
