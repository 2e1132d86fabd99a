"""Streams the rows of a JSONL, Parquet or CSV file, or of a fragment of one. A row that cannot be read is replaced by the reason."""

from __future__ import annotations

import csv
import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from upath import UPath

from labelgen.io.paths import naming_file

if TYPE_CHECKING:
    import pyarrow as pa

log = logging.getLogger(__name__)
Row = Mapping[str, Any]
MAX_CELL = 16 * 2**20  # characters of a CSV cell; Python's own limit is 131,072


@dataclass
class Position:
    """How far a file is read. `row` counts from 1, with empty lines of JSONL. `byte` counts from 0 and is an estimate for Parquet."""

    row: int = 0
    byte: int = 0


class NumberedRow(NamedTuple):
    """The number of a row, from 1 (the header of a CSV file is not counted), and the row, or as a str the reason why it cannot be read."""

    number: int
    row: Row | str


def rows(file: UPath, start: int = 0, stop: int | None = None, position: Position | None = None) -> Iterator[NumberedRow]:
    """The rows of a .jsonl, .parquet or .csv file.

    `start` and `stop` select a fragment: the lines of JSONL that begin in these bytes, or these rows of Parquet. Numbers then count from
    the start of the fragment. `position` is kept up to date.
    """
    with naming_file(file):
        yield from _ROWS[file.suffix](file, start, stop, position or Position())


def _jsonl_rows(file: UPath, start: int, stop: int | None, position: Position) -> Iterator[NumberedRow]:
    with file.open("rb") as lines:
        if start:  # skip the rest of a line that began before
            lines.seek(start - 1)
            start += len(lines.readline()) - 1
        position.byte = start
        for line in lines:
            if stop is not None and position.byte >= stop:
                return
            first = not position.byte
            position.row, position.byte = position.row + 1, position.byte + len(line)
            if not line.strip():
                continue
            try:
                row = json.loads(line.decode("utf-8-sig" if first else "utf-8"))
            except UnicodeDecodeError as error:
                yield NumberedRow(position.row, f"not UTF-8 ({error.reason} at byte {error.start}); save the file as UTF-8")
            except (ValueError, RecursionError) as error:
                yield NumberedRow(position.row, f"not JSON ({error}); one JSON object a line")
            else:
                yield NumberedRow(position.row, row if isinstance(row, dict) else f"a JSON {type(row).__name__}, not an object")


def _csv_rows(file: UPath, start: int, stop: int | None, position: Position) -> Iterator[NumberedRow]:
    assert start == 0 and stop is None, "a CSV file is read whole"
    header = None
    csv.field_size_limit(MAX_CELL)  # the csv module has one limit for the whole process
    with file.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as text:
        lines = csv.reader(text, strict=True)
        while True:
            try:
                cells = next(lines, None)
                if cells is None:
                    return
                problem = _csv_problem(cells, header)
            except csv.Error as error:
                remedy = "quote cells that hold commas, line ends or quotation marks, and double the latter"
                if "field limit" in str(error):
                    remedy = f"shorten the cell to {MAX_CELL:,} characters, and look for a quotation mark that is never closed"
                cells, problem = [], f"not CSV ({error}); {remedy}"
            if problem is None and not cells:
                continue  # an empty line
            if header is None:
                if problem is not None:
                    yield NumberedRow(0, f"the column names: {problem}. Nothing is read from this file")
                    return
                header = cells
            else:
                position.row += 1
                yield NumberedRow(position.row, problem or dict(zip(header, cells, strict=True)))


def _csv_problem(cells: list[str], header: list[str] | None) -> str | None:
    """What is wrong with a line of a CSV file. None: nothing is, or the line is empty."""
    if any("\udc80" <= mark <= "\udcff" for cell in cells if not cell.isascii() for mark in cell):
        return "not UTF-8; save the file as UTF-8"
    if header is None:
        twice = next((name for name in cells if cells.count(name) > 1), None)
        return None if twice is None else f"two have the name {twice!r}; rename one"
    if cells and len(cells) != len(header):
        return f"{len(cells)} cells under {len(header)} column names; quote cells that hold commas"
    return None


def _parquet_rows(file: UPath, start: int, stop: int | None, position: Position) -> Iterator[NumberedRow]:
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
                for batch in parquet.iter_batches(batch_size=256, row_groups=[group]):
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
    with suppress(ValueError, OverflowError):
        yield from batch.to_pylist()
        return
    for k in range(batch.num_rows):
        try:
            yield batch.slice(k, 1).to_pylist()[0]
        except (ValueError, OverflowError) as error:
            yield f"not readable ({error}); write text as UTF-8 and times in microseconds"


_ROWS = {".jsonl": _jsonl_rows, ".parquet": _parquet_rows, ".csv": _csv_rows}
