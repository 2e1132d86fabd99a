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

from labelgen.io.formats import BYTE_ORDER_MARK, Format, Kind, format_of, open_decompressed
from labelgen.io.json_values import JSONValues
from labelgen.io.paths import naming_file

if TYPE_CHECKING:
    import pyarrow as pa

log = logging.getLogger(__name__)
Row = Mapping[str, Any]
UNREADABLE = (ValueError, OverflowError, KeyError)  # of pyarrow, for values that Python cannot hold; KeyError: an unknown time zone
NOT_UTF8 = "not UTF-8; save the file as UTF-8"


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
                with file.open("rb") as lines:
                    yield from _lines_between(lines, start, stop, position)


def _lines_between(lines: BinaryIO, start: int, stop: int | None, position: Position) -> Iterator[NumberedRow]:
    """The lines of JSON Lines that begin in bytes [start, stop)."""
    if start:  # skip the rest of a line that began before
        lines.seek(start - 1)
        start += len(lines.readline()) - 1
    position.byte = start
    for line in lines:
        if stop is not None and position.byte >= stop:
            return
        first = not position.byte
        position.row, position.byte = position.row + 1, position.byte + len(line)
        if (row := _row_of_line(line, first)) is not None:
            yield NumberedRow(position.row, row)


def _row_of_line(line: bytes, first: bool) -> Row | str | None:
    """The row of a line, or the reason why it cannot be read. None: the line is blank."""
    if first:
        line = line.removeprefix(BYTE_ORDER_MARK)
    if not line.strip():
        return None
    try:
        row = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        return f"{NOT_UTF8} ({error.reason} at byte {error.start})"
    except (ValueError, RecursionError) as error:
        return f"not JSON ({error}); one JSON object a line"
    return _object_or_reason(row)


def _object_or_reason(row: Any) -> Row | str:
    return row if isinstance(row, dict) else f"a JSON {type(row).__name__}, not an object"


def _whole(
    file: UPath, file_format: Format, position: Position, read: Callable[[BinaryIO], Iterator[Row | str | None]]
) -> Iterator[NumberedRow]:
    """The rows of a file that cannot be read in fragments. `read` yields them, and None for a row that is empty."""
    with open_decompressed(file, file_format.is_gzip) as opened:
        try:
            for row in read(opened.content):
                position.row, position.byte = position.row + 1, opened.raw.tell()
                if row is not None:
                    yield NumberedRow(position.row, row)
        except (EOFError, zlib.error, OSError) as error:
            raise_unless_damaged(error)
            log.warning("%s is not whole: rows are lost", file)
            problem = f"not a whole gzip file ({error}); was it cut short? Nothing is read from here to the end of the file"
            yield NumberedRow(position.row + 1, problem)


def _json_lines(content: BinaryIO) -> Iterator[Row | str | None]:
    for number, line in enumerate(content):
        yield _row_of_line(line, first=not number)


def _json_values(content: BinaryIO) -> Iterator[Row | str | None]:
    """The elements of an array, or values that follow one another. An error ends the reading, because the next row may begin anywhere."""
    values = JSONValues(content)
    try:
        for value in values:
            yield _object_or_reason(value) if values.is_utf8 else NOT_UTF8
    except (ValueError, RecursionError) as error:
        yield f"not JSON ({error}); correct it. Nothing is read from here to the end of the file"


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
