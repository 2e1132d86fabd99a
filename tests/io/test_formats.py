"""The content of a file decides how it is read, whatever its name; arrays are streamed; nothing is left out without a word."""

from __future__ import annotations

import gzip
import io
import json
import logging
import re
import tracemalloc
import zlib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from upath import UPath

from labelgen.dialogue import Dialogue, RecordError, Turn
from labelgen.io.files import read, write
from labelgen.io.formats import HEAD, GzipReader, Kind, format_of
from labelgen.io.json_values import JSONValues
from labelgen.io.paths import list_files
from labelgen.io.rows import Position, raise_unless_damaged, rows

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
    assert [row for _, row in rows(UPath(tmp_path / "a.jsonl"))] == ["a JSON array, not an object"] * 2


@pytest.mark.parametrize(
    ("value", "name"), [("null", "null"), ("true", "boolean"), ("3", "number"), ("0.5", "number"), ('"x"', "string"), ("[]", "array")]
)
def test_values_that_are_no_objects_are_named_as_in_json(value: str, name: str, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(f"{LINES}{value}\n")
    assert [row for _, row in rows(UPath(tmp_path / "a.jsonl")) if isinstance(row, str)] == [f"a JSON {name}, not an object"]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a"])
@pytest.mark.parametrize("text", [LINES, json.dumps(ROWS)])
def test_json_in_utf_16_is_refused_in_one_sentence(text: str, name: str, encoding: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(text.encode(encoding))
    with pytest.raises(ValueError, match=f"{name}: JSON in UTF-16; save the file as UTF-8"):
        list(read(tmp_path / name))


CUT = [
    "{",
    '{"id": "x", "turns"',
    '{"id": "x", "turns":',
    '{"id": 1,',
    '{"id": "x',
    "[",
    '[{"id": "x',
    '[{"id": "x"}, ',
    "oops",
    "]",
    '{"id": oops}',
]


@pytest.mark.parametrize("second", ["", "[1, 2]", '["x"', "3", "}"])
@pytest.mark.parametrize("first", CUT)
def test_broken_first_lines_cost_those_lines_alone(first: str, second: str, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(first + "\n" + second + "\n" + LINES)
    errors: list[RecordError] = []
    assert len(list(read(tmp_path / "a.jsonl", errors.append))) == 3
    is_one_value = first + second == "{}"
    assert [error.row for error in errors] == ([1, 2] if second and not is_one_value else [1])


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        ('[\n{"id": oops},\n{"id": "b"}\n]', Kind.JSON_VALUES),
        ('[\n{"id": oops}\n,\n{"id": "b"}\n]', Kind.JSON_VALUES),
        ('[\n{"id": "a"}\n]', Kind.JSON_VALUES),
        ('[{"id": "a"}]', Kind.JSON_VALUES),
        ('{"id": "a", "turns": [\n{"request": "x"}\n]}', Kind.JSON_VALUES),
        ('{"id": "a",\n"turns": []}\n{"id": "b",\n"turns": []}', Kind.JSON_VALUES),
        ('{\n"id": "a",\n"x": oops}', Kind.JSON_VALUES),
        ('{\n"id": oops,\n"turns": [\n{"request": "x"}\n]}', Kind.JSON_VALUES),
        ('{"id": "a"} {"id": "b"}\n[1]\n[2]', Kind.JSON_LINES),
        ('{"id": "a"', Kind.JSON_LINES),
        ('{"id": oops}\n[1]\n[2]', Kind.JSON_LINES),
        ("3\n", Kind.TEXT),
    ],
)
def test_the_layout_is_recognised_by_the_head(content: str, kind: Kind, tmp_path: Path) -> None:
    (tmp_path / "a").write_text(content)
    assert format_of(UPath(tmp_path / "a")).kind is kind


@pytest.mark.parametrize("head", [100, 120, 140, 1000])
def test_an_array_is_recognised_wherever_its_head_is_cut(head: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("labelgen.io.formats.HEAD", head)
    monkeypatch.setattr("labelgen.io.formats.LONGEST_TOKEN", 4)
    for layout in ("array", "indented array", "an element a line", "indented objects"):
        (tmp_path / "a").write_text(WRITTEN[layout])
        assert format_of(UPath(tmp_path / "a")).kind is Kind.JSON_VALUES, layout
    (tmp_path / "a").write_text(LINES)
    assert format_of(UPath(tmp_path / "a")).kind is Kind.JSON_LINES


@pytest.mark.parametrize(
    ("content", "numbers", "reason"),
    [
        ('[{"id": "a", "turns": [{}]}, 3, {"id": "b", "turns": [{}]}]', [2], "a JSON number, not an object"),
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


GOOD = '{"id": "%s", "turns": [{"request": "\\\\ \\" é"}]}'


@pytest.mark.parametrize("chunk", [5, 2**16])
@pytest.mark.parametrize("indent", ["", "\n  "])
@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ("9" * 5000, "an integer of more than 4,300 digits"),
        ("[" * 3000 + "]" * 3000, "it is nested too deeply"),
        ("nan", "Expecting value"),
        ("NaN", "it must be a finite number"),
        ('"\\x [{"', "Invalid .escape"),
        ('"a\nb"', "Invalid control character"),
        ('{"a": 1,}', "Expecting property name"),
        ('"\udcff"', "not UTF-8"),
        ('{"t": "' + "x" * 200_000 + '\\"]}\\\\", "u": oops}', "Expecting value"),
        ("", "Expecting value"),
    ],
)
def test_a_bad_element_costs_that_element_alone(
    bad: str, reason: str, indent: str, chunk: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of an array, of objects that take several lines, and of JSON Lines. It is rejected by its number."""
    monkeypatch.setattr("labelgen.io.json_values.CHUNK", chunk)
    broken = f'{{"id": "b",{indent} "turns": [{{"numerical": {{"x": {bad}}}}}]}}'
    values = [GOOD % "a", broken, GOOD % "c", GOOD % "d"]
    layouts = [f"[{indent}{','.join(values)}]"]
    if indent:
        layouts.append(f"{{{indent}" + "\n".join(values)[1:])
    elif "\n" not in bad:
        layouts.append("\n".join(values))
    for content in layouts:
        (tmp_path / "a.json").write_bytes(content.encode("utf-8", "surrogateescape"))
        errors: list[RecordError] = []
        assert [dialogue.id for dialogue in read(tmp_path / "a.json", errors.append)] == ["a", "c", "d"]
        assert [error.row for error in errors] == [2] and re.search(reason, errors[0].problem), errors


@pytest.mark.parametrize("bad", ['"x"y"', '{"a": [1}', '"x', "'it, then'", 'it"s, then"', '"x" y', '"a", "b', '"\\', ")", "[1"])
def test_an_element_whose_end_is_in_doubt_ends_the_reading(bad: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(f'[{GOOD % "a"}, {GOOD % "b"}, {{"id": {bad}}}, {GOOD % "c"}, {GOOD % "d"}]')
    errors: list[RecordError] = []
    assert [dialogue.id for dialogue in read(tmp_path / "a.json", errors.append)] == ["a", "b"]
    (error,) = errors
    assert error.row == 3
    assert "where this value ends is not clear" in error.problem or "expected , or ]" in error.problem
    assert "Elements before it: 2. Nothing is read from here to the end of the file" in error.problem


@pytest.mark.parametrize("before", range(12))
def test_what_a_bad_element_escapes_may_be_read_later(before: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A backslash at the end of what is read escapes the first character of what follows."""
    monkeypatch.setattr("labelgen.io.json_values.CHUNK", 3)
    bad = '{"x": oops, "t": "' + "x" * before + '\\"\\\\\\"]}"}'
    (tmp_path / "a.json").write_text(f"[{GOOD % 'a'}, {bad}, {GOOD % 'b'}]")
    errors: list[RecordError] = []
    assert [dialogue.id for dialogue in read(tmp_path / "a.json", errors.append)] == ["a", "b"]
    assert [error.row for error in errors] == [2]


def test_a_disk_that_fails_is_not_a_damaged_file() -> None:
    raise_unless_damaged(OSError("Couldn't deserialize thrift"))
    with pytest.raises(OSError, match="Input/output error"):
        raise_unless_damaged(OSError(5, "Input/output error"))


@pytest.mark.parametrize("element", [":", "[[[[x]]]]"])
def test_an_element_that_is_a_separator_or_far_too_deep_ends_the_reading(
    element: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("labelgen.io.json_values.DEEPEST", 3)
    (tmp_path / "a.json").write_text(f"[{GOOD % 'a'}, {element}, {GOOD % 'b'}]")
    errors: list[RecordError] = []
    assert [dialogue.id for dialogue in read(tmp_path / "a.json", errors.append)] == ["a"]
    (error,) = errors
    assert error.row == 2 and "where this value ends is not clear" in error.problem


def test_elements_that_are_missing_are_counted(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(f"[{GOOD % 'a'}, , {GOOD % 'b'}, ]")
    errors: list[RecordError] = []
    assert [dialogue.id for dialogue in read(tmp_path / "a.json", errors.append)] == ["a", "b"]
    assert [(error.row, "an element is missing" in error.problem) for error in errors] == [(2, True), (4, True)]


BOUND = 10_000
MODULES = ("formats", "json_values", "rows", "tables")


@pytest.mark.parametrize("is_gzip", [False, True])
@pytest.mark.parametrize("layout", ["lines", "array", "indented objects"])
def test_a_row_that_is_too_large_is_never_held(layout: str, is_gzip: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where 20 MB are 20 kB on the disk."""
    for module in MODULES[1:]:
        monkeypatch.setattr(f"labelgen.io.{module}.MAX_ROW", BOUND)
    turns = ['{"request": "]}\\\\\\""}'] * 1000 + [f'{{"request": "{"x]}" * 7 * 10**6}"}}']
    large = '{"id": "b", "turns": [' + ", ".join(turns) + "]}"
    values = [GOOD % "a", large, GOOD % "c"]
    content = {"lines": "\n".join(values), "array": f"[{', '.join(values)}]", "indented objects": "{\n" + "\n".join(values)[1:]}[layout]
    file = tmp_path / ("a.jsonl.gz" if is_gzip else "a.jsonl")
    file.write_bytes(gzip.compress(content.encode()) if is_gzip else content.encode())
    errors: list[RecordError] = []
    tracemalloc.start()
    assert [dialogue.id for dialogue in read(file, errors.append)] == ["a", "c"]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 6 * 2**20 + 3 * HEAD, f"the row has {len(large):,} bytes"
    (error,) = errors
    assert error.row == 2
    assert f"{len(large) + (layout == 'lines'):,} bytes, more than 10,000; split the dialogue" in error.problem


@pytest.mark.parametrize("size", [BOUND - 1, BOUND, BOUND + 1])
def test_the_bound_of_a_row(size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in MODULES[1:]:
        monkeypatch.setattr(f"labelgen.io.{module}.MAX_ROW", BOUND)
    start, end = '{"id": "a", "turns": [{"request": "', '"}]}'
    row = start + "x" * (size - len(start) - len(end)) + end
    for content in (row, f"[{row}]"):
        (tmp_path / "a.json").write_text(content)
        assert len(list(read(tmp_path / "a.json", lambda error: None))) == (size <= BOUND)


def test_fragments_cut_long_lines_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each line belongs to the fragment in which it begins, and no fragment reads beyond its lines."""
    monkeypatch.setattr("labelgen.io.rows.MAX_ROW", 2000)
    monkeypatch.setattr("labelgen.io.rows.CHUNK", 7)
    lines = [json.dumps({"id": f"{k}", "x": "y" * (k * 7919 % 3000)}) for k in range(40)]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    size = (tmp_path / "a.jsonl").stat().st_size
    for length in (41, 999, 5000):
        found: list[Any] = []
        for start in range(0, size, length):
            position = Position()
            stop = start + length if start + length < size else None
            found += [row for _, row in rows(UPath(tmp_path / "a.jsonl"), start, stop, position)]
            assert position.byte <= start + length + 3100
        assert [row if isinstance(row, str) else row["id"] for row in found] == [
            f"{k}" if len(line) < 2000 else found[k] for k, line in enumerate(lines)
        ]
        assert sum(isinstance(row, str) for row in found) == sum(len(line) >= 2000 for line in lines)


@pytest.mark.parametrize("is_gzip", [False, True])
@pytest.mark.parametrize("layout", ["lines", "array", "indented objects"])
def test_the_position_is_that_of_the_row(layout: str, is_gzip: bool, tmp_path: Path) -> None:
    """Not that of what is read ahead, so that a small file does not seem done at its first row."""
    random = Random(0)
    values = [json.dumps({"id": f"{k}", "x": random.randbytes(60).hex() + "é" * 9}, ensure_ascii=False) for k in range(200)]
    content = {"lines": "\n".join(values), "array": f"[{','.join(values)}]", "indented objects": "{\n" + "\n".join(values)[1:]}[layout]
    (tmp_path / "a").write_bytes(gzip.compress(content.encode()) if is_gzip else content.encode())
    size, position = (tmp_path / "a").stat().st_size, Position()
    shares = [position.byte / size for _ in rows(UPath(tmp_path / "a"), position=position)]
    assert len(shares) == 200
    assert all(abs(share - k / 200) < 0.02 for k, share in enumerate(shares, 1)), shares
    assert shares == sorted(shares) and shares[-1] <= 1


@settings(deadline=None)
@given(st.lists(st.binary(max_size=80), min_size=1, max_size=3), st.integers(1, 50), st.integers(1, 40), st.sampled_from([0, 9]))
def test_gzip_is_read_as_the_gzip_module_reads_it(members: list[bytes], chunk: int, size: int, padding: int) -> None:
    """Several members, zeros at the end, whatever is read at once."""
    compressed = b"".join(map(gzip.compress, members)) + b"\0" * padding
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("labelgen.io.formats.CHUNK", chunk)
        reader, found, stored = GzipReader(io.BytesIO(compressed)), b"", [0]
        while more := reader.read(size):
            found += more
            stored.append(reader.stored(len(found)))
        assert found == gzip.decompress(compressed)
        assert stored == sorted(stored) and stored[-1] <= len(compressed)
        with pytest.raises((EOFError, zlib.error)):
            GzipReader(io.BytesIO(gzip.compress(b"a" * 500)[:-9])).readall()


def test_lines_of_a_store_whose_files_know_no_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Store(io.BytesIO):
        def __init__(self, content: bytes) -> None:
            super().__init__(content)

    class Opened(io.RawIOBase):
        """As fsspec's AbstractBufferedFile."""

        def __init__(self) -> None:
            self.inner = Store(LINES.encode())

        def readable(self) -> bool:
            return True

        def seekable(self) -> bool:
            return True

        def seek(self, at: int, whence: int = 0, /) -> int:
            return self.inner.seek(at, whence)

        def readinto(self, buffer: Any) -> int:
            return self.inner.readinto(buffer)

        def readline(self) -> bytes:  # type: ignore[override]
            raise AssertionError("it takes no limit")

    monkeypatch.setattr(UPath, "open", lambda *_: Opened())
    assert [row for _, row in rows(UPath("memory://a.jsonl"))] == ROWS


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@settings(deadline=None)
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
    for words in ("1 file is ignored, such as notes.txt", "begins with . or _, such as _draft.jsonl", "1 linked folder is not read"):
        assert words in caplog.text
    caplog.clear()
    assert len(list_files(f"{folder}/*", (".jsonl", ".ndjson", ".json"), "")) == 4, "a pattern names the linked folder"
    assert "linked" not in caplog.text
    assert len(list_files(folder / "more", (".jsonl",), "")) == 1
    for file in folder.glob("*.*"):
        file.unlink()
    with pytest.raises(ValueError, match=r"holds no .jsonl file; linked folders are not read, such as .*more: name it"):
        list_files(folder, (".jsonl",), "")
