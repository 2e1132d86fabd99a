"""Streams the rows of a file of JSON or Parquet, or of a fragment of one. A row that cannot be read is replaced by the reason."""

from __future__ import annotations

import json
import logging
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple, Protocol

from upath import UPath

from labelgen.io.formats import BYTE_ORDER_MARK, CHUNK, MAX_ROW, Format, Kind, format_of, open_decompressed
from labelgen.io.json_values import NOT_UTF8, JSONValues, Unusable, reason_of, too_large, type_of
from labelgen.io.paths import naming_file

if TYPE_CHECKING:
    import pyarrow as pa

log = logging.getLogger(__name__)
Row = Mapping[str, Any]
UNREADABLE = (ValueError, OverflowError, KeyError)  # of pyarrow, for values that Python cannot hold; KeyError: an unknown time zone


@dataclass
class Position:
    """How far a file is read. `row` counts from 1, with empty lines of JSONL. `byte` counts from 0 and is an estimate for Parquet."""

    row: int = 0
    byte: int = 0


class NumberedRow(NamedTuple):
    """The number of a row, from 1 (elements of a JSON array are rows), and the row, or as a str the reason why it cannot be read."""

    number: int
    row: Row | str


class RowSource(Protocol):
    """What has rows and a name, and can be read again and again: a file, or a dataset."""

    def __str__(self) -> str: ...

    def rows(self) -> Iterator[NumberedRow]:
        """The rows, from the first."""
        ...


@dataclass(frozen=True)
class RowFile:
    """A file of JSON or Parquet as a source of rows."""

    file: UPath

    def __str__(self) -> str:
        return str(self.file)

    def rows(self) -> Iterator[NumberedRow]:
        """See `rows`."""
        return rows(self.file)


def rows(
    file: UPath,
    start: int = 0,
    stop: int | None = None,
    position: Position | None = None,
    file_format: Format | None = None,
    columns: Sequence[str] | None = None,
) -> Iterator[NumberedRow]:
    """The rows of a file of JSON or Parquet.

    `start` and `stop` select a fragment: the lines of JSON Lines that begin in these bytes, or these rows of Parquet. Numbers then count
    from the start of the fragment. `position` is kept up to date. `file_format`: that of the file; None: it is recognised.
    `columns`: those of Parquet that are read; None: all.
    """
    position = position or Position()
    with naming_file(file):
        file_format = file_format or format_of(file)
        match file_format:
            case Format(Kind.PARQUET, False):
                yield from _parquet_rows(file, start, stop, position, columns)
            case Format(Kind.PARQUET | Kind.ZIP):
                yield NumberedRow(1, f"{file_format}; unpack the file")
            case Format(Kind.JSON_VALUES):
                yield from _whole(file, file_format, position, _json_values)
            case Format(_, True):
                yield from _whole(file, file_format, position, _json_lines)
            case _:
                with open_decompressed(file, is_gzip=False) as opened:
                    yield from _lines_between(opened.content, start, stop, position)


def _lines_between(content: BinaryIO, start: int, stop: int | None, position: Position) -> Iterator[NumberedRow]:
    """The lines of JSON Lines that begin in bytes [start, stop)."""
    position.byte = max(start - 1, 0)
    content.seek(position.byte)
    is_begun = start > 0  # by a line before the fragment, whose rest is skipped
    while is_begun and (stop is None or position.byte < stop) and (rest := content.readline(CHUNK)):
        position.byte += len(rest)
        is_begun = not rest.endswith(b"\n")
    lines = _lines(content)
    while (stop is None or position.byte < stop) and (line := next(lines, None)) is not None:
        is_first = not position.byte
        position.row, position.byte = position.row + 1, position.byte + line.size
        if (row := _row_of_line(line, is_first)) is not None:
            yield NumberedRow(position.row, row)


class Line(NamedTuple):
    """A line with its end, and its size in bytes. None: it is too large."""

    content: bytes | None
    size: int


def _lines(content: BinaryIO) -> Iterator[Line]:
    """The lines of a file. Those larger than MAX_ROW are skipped."""
    while line := content.readline(MAX_ROW + 1):
        size = len(line)
        if size <= MAX_ROW:
            yield Line(line, size)
            continue
        while not line.endswith(b"\n") and (line := content.readline(CHUNK)):
            size += len(line)
        yield Line(None, size)


def _row_of_line(line: Line, is_first: bool) -> Row | str | None:
    """The row of a line, or the reason why it cannot be read. None: the line is blank."""
    if line.content is None:
        return too_large(line.size)
    content = line.content.removeprefix(BYTE_ORDER_MARK) if is_first else line.content
    if not content.strip():
        return None
    try:
        row = json.loads(content.decode("utf-8"))
    except UnicodeDecodeError as error:
        return f"{NOT_UTF8} ({error.reason} at byte {error.start})"
    except (ValueError, RecursionError) as error:
        return f"not JSON ({reason_of(error)}); one JSON object a line"
    return _object_or_reason(row)


def _object_or_reason(row: Any) -> Row | str:
    return row if isinstance(row, dict) else f"a JSON {type_of(row)}, not an object"


class Stored(NamedTuple):
    """A row, the reason why it cannot be read, or None for a blank line; and the bytes of the content up to its end."""

    row: Row | str | None
    byte: int


def _whole(file: UPath, file_format: Format, position: Position, read: Callable[[BinaryIO], Iterator[Stored]]) -> Iterator[NumberedRow]:
    """The rows of a file that cannot be read in fragments."""
    with open_decompressed(file, file_format.is_gzip) as opened:
        try:
            for row, byte in read(opened.content):
                position.row, position.byte = position.row + 1, opened.stored(byte)
                if row is not None:
                    yield NumberedRow(position.row, row)
        except (EOFError, zlib.error, OSError) as error:
            raise_unless_damaged(error)
            log.warning("%s is not whole: rows are lost", file)
            problem = f"not a whole gzip file ({error}); was it cut short? Nothing is read from here to the end of the file"
            yield NumberedRow(position.row + 1, problem)


def _json_lines(content: BinaryIO) -> Iterator[Stored]:
    byte = 0
    for line in _lines(content):
        row = _row_of_line(line, is_first=not byte)
        byte += line.size
        yield Stored(row, byte)


def _json_values(content: BinaryIO) -> Iterator[Stored]:
    """The elements of an array, or values that follow one another, until it is in doubt where the next one begins."""
    values, count = JSONValues(content), 0
    try:
        for value in values:
            count += 1
            yield Stored(value.reason if isinstance(value, Unusable) else _object_or_reason(value), values.byte)
    except ValueError as error:
        problem = f"not JSON ({error}); correct it. Elements before it: {count:,}. Nothing is read from here to the end of the file"
        yield Stored(problem, values.byte)


def _parquet_rows(file: UPath, start: int, stop: int | None, position: Position, columns: Sequence[str] | None) -> Iterator[NumberedRow]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with file.open("rb") as opened:
            parquet = pq.ParquetFile(opened, pre_buffer=False, buffer_size=2**20)  # otherwise it reads a whole row group into memory
            metadata = parquet.metadata
            bytes_per_row = file.stat().st_size / max(metadata.num_rows, 1)
            stop = metadata.num_rows if stop is None else stop
            end = 0
            for group in range(metadata.num_row_groups):  # one by one, so that those before a damaged one are read
                at, end = end, end + metadata.row_group(group).num_rows
                if end <= start or at >= stop:
                    continue
                for batch in parquet.iter_batches(batch_size=256, row_groups=[group], columns=columns):
                    first, at = at, at + batch.num_rows
                    for row in _batch_rows(batch[max(start - first, 0) : max(stop - first, 0)]):
                        position.row, position.byte = position.row + 1, round((position.row + 1) * bytes_per_row)
                        yield NumberedRow(position.row, row)
                    if at >= stop:
                        return
    except (pa.ArrowException, OSError) as error:
        raise_unless_damaged(error)
        log.warning("%s is not whole: rows are lost", file)
        yield NumberedRow(
            position.row + 1,
            f"not a whole Parquet file ({error}); was it cut short? Nothing is read from here to the end of this fragment",
        )


def raise_unless_damaged(error: Exception) -> None:
    """Raises pyarrow's error again if a disk or a network failed. Otherwise the file itself is damaged."""
    if isinstance(error, OSError) and error.errno is not None:
        raise error


def _batch_rows(batch: pa.RecordBatch) -> Iterator[dict[str, Any] | str]:
    """The rows of a batch. A row that Python cannot hold (text that is not UTF-8, times beyond year 9999) is replaced by the reason."""
    batch = _in_microseconds(batch)
    with suppress(*UNREADABLE):
        yield from batch.to_pylist()
        return
    for k in range(batch.num_rows):
        row = batch.slice(k, 1)
        try:
            yield row.to_pylist()[0]
        except UNREADABLE as error:
            yield f"column {_unreadable_column(row)!r} is not readable ({error}); write text as UTF-8 and times in microseconds"


def _unreadable_column(row: pa.RecordBatch) -> str:
    for name, column in zip(row.schema.names, row.columns, strict=True):
        try:
            column.to_pylist()
        except UNREADABLE:
            return str(name)
    raise AssertionError("each column can be read")


def _in_microseconds(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The batch with times in microseconds instead of nanoseconds, which only pandas can hold. Also within lists, structs and maps."""
    import pyarrow as pa

    fields = [field.with_type(_microseconds(field.type)) for field in batch.schema]
    columns = [column.cast(field.type, safe=False) for column, field in zip(batch.columns, fields, strict=True)]
    return pa.RecordBatch.from_arrays(columns, schema=pa.schema(fields))


def _microseconds(kind: pa.DataType) -> pa.DataType:
    """The type with microseconds in the place of nanoseconds."""
    import pyarrow as pa

    def inner(field: pa.Field) -> pa.Field:
        return field.with_type(_microseconds(field.type))

    types = pa.types
    if types.is_timestamp(kind) and kind.unit == "ns":
        return pa.timestamp("us", kind.tz)
    if types.is_duration(kind) and kind.unit == "ns":
        return pa.duration("us")
    if types.is_time64(kind):
        return pa.time64("us")
    if types.is_map(kind):
        return pa.map_(inner(kind.key_field), inner(kind.item_field), kind.keys_sorted)
    if types.is_struct(kind):
        return pa.struct([inner(kind.field(k)) for k in range(kind.num_fields)])
    if types.is_fixed_size_list(kind):
        return pa.list_(inner(kind.value_field), kind.list_size)
    if types.is_list(kind) or types.is_large_list(kind):
        return (pa.list_ if types.is_list(kind) else pa.large_list)(inner(kind.value_field))
    return kind
