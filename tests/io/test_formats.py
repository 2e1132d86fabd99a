"""The content of a file decides how it is read, whatever its name; arrays are streamed; nothing is left out without a word."""

from __future__ import annotations

import gzip
import io
import json
import logging
import tracemalloc
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from upath import UPath

from labelgen.dialogue import Dialogue, RecordError, Turn
from labelgen.io.files import read, write
from labelgen.io.formats import Kind, format_of
from labelgen.io.json_values import JSONValues
from labelgen.io.paths import list_files
from labelgen.io.rows import rows

ROWS: list[dict[str, Any]] = [{"id": f"{k}", "turns": [{"request": 'où 😀 [{"', "response": "}]"}]} for k in range(3)]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS)
WRITTEN = {
    "lines": LINES,
    "array": json.dumps(ROWS),
    "indented array": json.dumps(ROWS, indent=2, ensure_ascii=False),
    "an element a line": "[\n" + ",\n".join(map(json.dumps, ROWS)) + "\n]\n",
    "indented objects": "\n".join(json.dumps(row, indent=1) for row in ROWS),
    "blank lines before": "\n\n" + LINES,
    "Windows line ends": "[\r\n" + ",\r\n".join(map(json.dumps, ROWS)) + "]\r\n",
}


@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.ndjson", "A.JSON", "a.JSONL.GZ", "a.json.gz", "a.parquet", "logs"])
@pytest.mark.parametrize("layout", WRITTEN)
def test_json_is_read_under_every_name(layout: str, name: str, mark: str, tmp_path: Path) -> None:
    content = (mark + WRITTEN[layout]).encode()
    (tmp_path / name).write_bytes(gzip.compress(content) if name.lower().endswith(".gz") else content)
    assert [dialogue.model_dump(exclude_defaults=True) for dialogue in read(tmp_path / name)] == ROWS


@pytest.mark.parametrize("name", ["a.jsonl", "a.PARQUET", "a"])
def test_parquet_is_read_under_every_name(name: str, tmp_path: Path) -> None:
    dialogues = [Dialogue(id="a", turns=[Turn(request="x")]), Dialogue(id="b", turns=[Turn()])]
    write(dialogues, tmp_path / "a.parquet")
    (tmp_path / "a.parquet").rename(tmp_path / name)
    assert list(read(tmp_path / name)) == dialogues


def test_rows_that_are_arrays_are_lines(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('[{"role": "user"}]\n[{"role": "user"}]\n')
    assert format_of(UPath(tmp_path / "a.jsonl")).kind is Kind.JSON_LINES
    assert [row for _, row in rows(UPath(tmp_path / "a.jsonl"))] == ["a JSON list, not an object"] * 2


@pytest.mark.parametrize("first", ["{", '{"id": "x", "turns"', '{"id": 1,', "oops"])
def test_a_broken_first_line_costs_that_line_alone(first: str, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(first + "\n" + LINES)
    errors: list[RecordError] = []
    assert len(list(read(tmp_path / "a.jsonl", errors.append))) == 3
    assert [error.row for error in errors] == [1]


@pytest.mark.parametrize(
    ("content", "numbers", "reason"),
    [
        ('[{"id": "a", "turns": [{}]}, 3, {"id": "b", "turns": [{}]}]', [2], "a JSON int, not an object"),
        ('[{"id": "a", "turns": [{}]},\n{"id": "b", "turns": [{}]}', [3], "the array has no end at character 56"),
        ('[{"id": "a", "turns": [{}]}, {"id": "b", "turns": [{}]}, {"id": oops}]' + " " * 100, [3], "not JSON .*at character"),
        ('[{"id": "a", "turns": [{}]}, {"id": "b", "turns": [{}]}, {"id": "' + "c" * 100, [3], "Unterminated string"),
        ('[{"id": "a", "turns": [{}]}, {"id": "b", "turns": [{}]}] {"id": "c"}', [3], "text after the end of the array"),
        ('[{"id": "a", "turns": [{}]}, {"id": "b", "turns": [{}]} {"id": "c"}]', [3], "expected , or ]"),
        ('[{"id": "a", "turns": [{}]}, {"id": "\udcff"}, {"id": "b", "turns": [{}]}]', [2], "not UTF-8"),
        ("[" + '{"id": "a", "turns": [{}]}, {"id": "b", "turns": [{}]}, ' + "[" * 100_000, [3], "not JSON"),
    ],
)
def test_errors_in_an_array_name_the_element(content: str, numbers: list[int], reason: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(content.encode("utf-8", "surrogateescape"))
    errors: list[RecordError] = []
    assert [dialogue.id for dialogue in read(tmp_path / "a.json", errors.append)] == ["a", "b"]
    assert [error.row for error in errors] == numbers
    with pytest.raises(RecordError, match=reason):
        list(read(tmp_path / "a.json"))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.lists(json_values), st.integers(1, 9), st.sampled_from([None, 2]), st.booleans())
def test_values_are_those_of_the_json_module(values: list[Any], size: int, indent: int | None, ascii_only: bool) -> None:
    """However the file is cut into chunks."""

    class Small(io.BytesIO):
        def read(self, length: int | None = -1, /) -> bytes:
            return super().read(min(size, length or size))

    array = json.dumps(values, indent=indent, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
    assert list(JSONValues(Small(array))) == json.loads(array.decode("utf-8", "surrogatepass"))
    objects = [{"v": value} for value in values]
    written = "\n".join(json.dumps(row, indent=indent) for row in objects).encode()
    assert list(JSONValues(Small(written))) == objects


def test_an_array_is_streamed(tmp_path: Path) -> None:
    with (tmp_path / "a.json").open("w") as file:
        file.write("[")
        for k in range(20_000):
            file.write(("," if k else "") + json.dumps({"k": k, "words": "x" * 1000}))
        file.write("]")
    tracemalloc.start()
    assert sum(1 for _ in rows(UPath(tmp_path / "a.json"))) == 20_000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 6 * 2**20, "the file has 20 MB"


@pytest.mark.parametrize("layout", ["lines", "array"])
def test_a_compressed_file_that_is_cut_short(layout: str, tmp_path: Path) -> None:
    many = [{"id": f"{k}", "turns": [{"request": f"{k * 7919 % 10007}" * 9}]} for k in range(5000)]
    content = gzip.compress(("".join(json.dumps(row) + "\n" for row in many) if layout == "lines" else json.dumps(many)).encode())
    (tmp_path / "a.jsonl.gz").write_bytes(content[: len(content) // 2])
    write([Dialogue(id="last", turns=[Turn()])], tmp_path / "b.jsonl")
    errors: list[RecordError] = []
    found = [dialogue.id for dialogue in read(tmp_path, errors.append)]
    assert 1000 < len(found) < 5000 and found[-1] == "last", "what is before it and the next file are read"
    (error,) = errors
    assert error.row == len(found) and "cut short" in error.problem


@pytest.mark.parametrize(("name", "content"), [("a.parquet.gz", gzip.compress(b"PAR1...")), ("a.json", b"PK\x03\x04...")])
def test_archives_are_refused_with_the_remedy(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(RecordError, match="unpack the file"):
        list(read(tmp_path / name))


# -- times in Parquet ------------------------------------------------------------------------------------------------------------

NOON = datetime(2024, 5, 1, 12, tzinfo=UTC)
NANOSECONDS = int(NOON.timestamp()) * 10**9 + 123_456_789


def nested(kind: pa.DataType, make: Callable[[Any], Any] = lambda value: value) -> pa.Array:
    return pa.array([make(NANOSECONDS), None], kind)


def test_nanoseconds_are_read_without_pandas(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pandas", None)
    kind = pa.timestamp("ns")
    columns = {
        "plain": nested(kind),
        "zone": nested(pa.timestamp("ns", "Europe/Lisbon")),
        "listed": nested(pa.list_(kind), lambda value: [value]),
        "struct": nested(pa.struct([("at", kind), ("k", pa.int8())]), lambda value: {"at": value, "k": 1}),
        "map": nested(pa.map_(pa.string(), kind), lambda value: [("at", value)]),
        "deep": nested(pa.large_list(pa.struct([("at", pa.list_(kind, 1))])), lambda value: [{"at": [value]}]),
        "time": pa.array([NANOSECONDS % (86_400 * 10**9), None], pa.time64("ns")),
        "length": nested(pa.duration("ns")),
    }
    pq.write_table(pa.table(columns), tmp_path / "a.parquet", version="2.6")
    (_, row), (_, empty) = rows(UPath(tmp_path / "a.parquet"))
    assert isinstance(row, dict) and isinstance(empty, dict)
    at = datetime(2024, 5, 1, 12, microsecond=123_456)
    assert row["plain"] == row["listed"][0] == row["struct"]["at"] == row["map"][0][1] == row["deep"][0]["at"][0] == at
    assert row["zone"] == at.replace(tzinfo=UTC) and row["zone"].utcoffset() == timedelta(hours=1), "the zone is kept"
    assert row["time"] == at.time() and row["length"] == timedelta(microseconds=NANOSECONDS // 1000)
    assert not any(empty.values())


def test_a_record_may_have_its_times_in_nanoseconds(tmp_path: Path) -> None:
    turn = pa.struct([("request", pa.string()), ("timestamp", pa.timestamp("ns"))])
    table = pa.table({"id": ["a"], "turns": pa.array([[{"request": "x", "timestamp": NANOSECONDS}]], pa.list_(turn))})
    pq.write_table(table, tmp_path / "a.parquet", version="2.6")
    (dialogue,) = read(tmp_path / "a.parquet")
    assert dialogue.turns[0].timestamp == NOON.replace(microsecond=123_456)


def test_a_column_that_cannot_be_read_is_named_and_costs_nothing_unless_asked_for(tmp_path: Path) -> None:
    bad = pa.array([2**62, 0], pa.timestamp("us"))
    pq.write_table(pa.table({"id": ["a", "b"], "expires": bad}), tmp_path / "a.parquet")
    (_, reason), (_, second) = rows(UPath(tmp_path / "a.parquet"))
    assert isinstance(reason, str) and "column 'expires' is not readable" in reason
    assert isinstance(second, dict)
    assert [row for _, row in rows(UPath(tmp_path / "a.parquet"), columns=["id"])] == [{"id": "a"}, {"id": "b"}]


# -- folders ---------------------------------------------------------------------------------------------------------------------


def test_a_folder_says_what_it_leaves_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    folder, other = tmp_path / "logs", tmp_path / "other"
    for name in ("logs/a.jsonl", "logs/b.JSON", "logs/c.ndjson.gz", "logs/notes.txt", "logs/_draft.jsonl", "other/d.jsonl"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    (folder / "more").symlink_to(other)
    assert [file.name for file in list_files(folder, (".jsonl", ".ndjson", ".json"), "")] == ["a.jsonl", "b.JSON", "c.ndjson.gz"]
    for words in ("1 files are ignored, such as notes.txt", "begins with . or _, such as _draft.jsonl", "1 linked folders are not read"):
        assert words in caplog.text
    caplog.clear()
    assert len(list_files(f"{folder}/*", (".jsonl", ".ndjson", ".json"), "")) == 4, "a pattern names the linked folder"
    assert "linked" not in caplog.text
    assert len(list_files(folder / "more", (".jsonl",), "")) == 1
    for file in folder.glob("*.*"):
        file.unlink()
    with pytest.raises(ValueError, match=r"holds no .jsonl file; linked folders are not read, such as .*more: name it"):
        list_files(folder, (".jsonl",), "")
