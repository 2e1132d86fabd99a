"""Reads and writes dialogues as JSONL and Parquet. Reading streams, and written files appear whole. Unusable rows go to a separate file."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from difflib import get_close_matches
from functools import partial
from itertools import islice
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from upath import UPath

from labelgen.dialogue import Dialogue, RecordError, Reject, parse, reject_or_raise
from labelgen.io.arrow import PROVENANCE_COLUMNS, arrow_schema, from_arrow, to_arrow, to_tables
from labelgen.io.formats import Format, Kind, format_of
from labelgen.io.lock import locked
from labelgen.io.offsets import MisplacedSlots
from labelgen.io.paths import OUTPUT_SUFFIXES, list_record_files, local_path, naming_file
from labelgen.io.rows import NumberedRow, Position, Row, raise_unless_damaged, rows
from labelgen.io.wording import counted

log = logging.getLogger(__name__)
Convert = Callable[[Row, str, int], Row]
Explain = Callable[[Row, str], str | None]
DUPLICATE_ID = "a dialogue with this id came before; make ids unique (this one is left out)"
REJECTED_STATUS = 3  # exit status: finished, but some rows were rejected
REASONS_SHOWN = 3
COLUMNS_SHOWN = 10
RECENT_IDS = 50_000  # in a Python set, 80 bytes each; the others take 8 bytes each


class NumberedDialogue(NamedTuple):
    """A dialogue, and its row in the file (from 1)."""

    row: int
    dialogue: Dialogue


def read(path: str | os.PathLike[str], reject: Reject | None = None, explain: Explain | None = None) -> Iterator[Dialogue]:
    """Dialogues of a JSON or Parquet file, of all such files of a folder, or of those that a pattern (`*`) names, streamed in order.

    JSON is one dialogue per line, or one array of dialogues. Files may be compressed with gzip.

    `reject` takes what cannot be used (bad rows, repeated ids) and reading continues. Without `reject` the first such row raises.
    `explain`: see `read_records`. At the end, the log says how many slots seem to have offsets in UTF-16.
    """
    return _with_offsets_checked(read_files(list_record_files(path), None, reject, explain))


def _with_offsets_checked(dialogues: Iterable[Dialogue]) -> Iterator[Dialogue]:
    misplaced = MisplacedSlots()
    for dialogue in dialogues:
        misplaced.add(dialogue)
        yield dialogue
    misplaced.log()


def read_files(
    files: Iterable[UPath], convert: Convert | None, reject: Reject | None, explain: Explain | None = None
) -> Iterator[Dialogue]:
    """One dialogue per row of each file. `convert`, `explain`: see `read_records`.

    `reject` takes rows that `convert` or the record refuses with a RecordError, and repeated ids. Without `reject` the first one raises.
    """
    found = ((str(file), record) for file in files for record in read_records(file, convert, reject, explain=explain))
    return unique_dialogues(((file, record.row, record.dialogue) for file, record in found), reject)


def unique_dialogues(found: Iterable[tuple[str, int, Dialogue]], reject: Reject | None) -> Iterator[Dialogue]:
    """The dialogues of `found`: file, row and dialogue. One whose id came before goes to `reject`; without it, RecordError."""
    ids = SeenIds()
    for file, row, dialogue in found:
        if ids.add(dialogue.id):
            yield dialogue
        else:
            reject_or_raise(RecordError(file, row, dialogue.id, "id", DUPLICATE_ID), reject)


def read_records(
    file: UPath,
    convert: Convert | None,
    reject: Reject | None,
    start: int = 0,
    stop: int | None = None,
    position: Position | None = None,
    rows_before: int = 0,
    explain: Explain | None = None,
) -> Iterator[NumberedDialogue]:
    """The dialogues of a file, or of a fragment (see `rows`). `rows_before`: rows of the file before the fragment. Ids may repeat.

    `convert` takes a row, its file and its number (from 1), and returns the fields of the record. None: the rows are as `write` wrote them.
    `explain` takes a row that cannot be used, and its file, and returns what the row is instead. None: the error stays as it is.
    """
    with naming_file(file):
        file_format = format_of(file)
    columns = None
    if convert is None and file_format == Format(Kind.PARQUET):
        columns = _parquet_columns(file, is_logged=not start)
    convert = convert or (_columns_of_record if file_format.kind is Kind.PARQUET else _as_it_is)
    numbered = (NumberedRow(number + rows_before, row) for number, row in rows(file, start, stop, position, file_format, columns))
    yield from convert_rows(numbered, str(file), convert, reject, explain)


def convert_rows(
    numbered: Iterable[NumberedRow], source: str, convert: Convert, reject: Reject | None, explain: Explain | None = None
) -> Iterator[NumberedDialogue]:
    """The dialogues of rows. See `read_records`."""
    for number, row in numbered:
        try:
            if isinstance(row, str):
                raise RecordError(source, number, None, "record", row)
            dialogue = parse(convert(row, source, number), source, number)
        except RecordError as error:
            problem = explain(row, source) if explain and not isinstance(row, str) else None
            reject_or_raise(error if problem is None else RecordError(source, number, error.dialogue_id, error.field, problem), reject)
        else:
            yield NumberedDialogue(number, dialogue)


def _as_it_is(row: Row, source: str, number: int) -> Row:
    return row


def _parquet_columns(file: UPath, is_logged: bool) -> list[str] | None:
    """See `record_columns`. None: the file is damaged, too."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with naming_file(file), file.open("rb") as opened:
            names = pq.read_schema(opened).names
    except (pa.ArrowException, OSError) as error:
        raise_unless_damaged(error)
        return None
    return record_columns(names, str(file), is_logged)


def record_columns(names: Sequence[str], source: str, is_logged: bool = True) -> list[str] | None:
    """Those columns of a table that are fields of a record, or its provenance. The log names the others. None: it does not hold records.

    Every row has all columns, so that one without a use would cost all rows.
    """
    if not {"id", "turns"} <= {*names}:
        return None
    known = {*Dialogue.model_fields, *PROVENANCE_COLUMNS}
    unknown = [name for name in names if name not in known]
    if unknown and is_logged:
        shown = ", ".join(map(_with_suggestion, unknown[:COLUMNS_SHOWN])) + (", ..." if len(unknown) > COLUMNS_SHOWN else "")
        log.warning("%s: columns that are not read, because a record has no such fields: %d (%s)", source, len(unknown), shown)
    return [name for name in names if name in known]


def _with_suggestion(name: str) -> str:
    close = get_close_matches(name, Dialogue.model_fields, n=1)
    return f"{name!r} (did you mean {close[0]!r}?)" if close else repr(name)


def _columns_of_record(row: Row, source: str, number: int) -> Row:
    """A row of Parquet as `write` or `backfill` wrote it -> the fields of the record."""
    try:
        return from_arrow(dict(row))
    except (TypeError, ValueError, AttributeError, KeyError, RecursionError) as error:
        problem = f"the columns are not labelgen's ({error}); write Parquet with labelgen.write or use labelgen.io.arrow.arrow_schema"
        raise RecordError(source, number, None, "record", problem) from None


def hash64(text: str) -> int:
    """A 64-bit hash of a text."""
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")


class SeenIds:
    """The set of ids so far, at 8 bytes each, so that the ids of a year of logs fit in memory."""

    def __init__(self) -> None:
        self._recent: set[int] = set()
        self._older: list[np.ndarray] = []  # sorted runs, each at most half as long as the one before: few to search, rarely merged

    def add(self, identity: str) -> bool:
        """Adds an id. False if it came before."""
        key = hash64(identity)
        if key in self._recent:
            return False
        for run in self._older:
            index = int(np.searchsorted(run, np.uint64(key)))
            if index < len(run) and int(run[index]) == key:
                return False
        self._recent.add(key)
        if len(self._recent) == RECENT_IDS:
            run = np.sort(np.fromiter(self._recent, np.uint64, RECENT_IDS))
            while self._older and len(self._older[-1]) < 2 * len(run):
                run = np.sort(np.concatenate([self._older.pop(), run]), kind="stable")
            self._older.append(run)
            self._recent.clear()
        return True


def rejected_line(error: RecordError) -> str:
    """A line of a JSONL file of rejected rows. An unusable id in it may hold half a surrogate pair."""
    return json.dumps(error.as_row(), ensure_ascii=False) + "\n"


class RejectedFile:
    """Writes unusable records with their reasons to a JSONL file, and counts them. `first` holds the first of them."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.count = 0
        self.first: list[RecordError] = []
        with suppress(FileNotFoundError):  # otherwise the file of an earlier run would pass for this run's
            self.path.unlink()

    def __call__(self, error: RecordError) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with naming_file(self.path), self.path.open("a", encoding="utf-8", errors="backslashreplace") as file:
            file.write(rejected_line(error))
        self.count += 1
        if len(self.first) < REASONS_SHOWN:
            self.first.append(error)

    def summary(self) -> str:
        """Where the reasons are, and the first of them, each on a line of its own."""
        return reasons_in(self.path, self.first)

    def log(self) -> None:
        """Logs how many records are not usable, where the reasons are, and the first of them. Nothing, if all are usable."""
        if not self.count:
            return
        log_reasons(f"{counted(self.count, 'record was', 'records were')} not usable", self.path, self.first)


def reasons_in(path: str | os.PathLike[str] | UPath, first: Sequence[RecordError]) -> str:
    """Where the reasons are, and the first of them, each on a line of its own."""
    return "\n  ".join([f"reasons in {path}, such as", *map(str, first)])


def log_reasons(problem: str, path: str | os.PathLike[str] | UPath, first: Sequence[RecordError]) -> None:
    """Logs the problem, where the reasons are, and the first of them, each in a line of its own."""
    log.warning("%s; reasons in %s, such as", problem, path)
    for error in first:
        log.warning("  %s", error)


def write(dialogues: Iterable[Dialogue], path: str | os.PathLike[str], rows_per_group: int = 1000, reject: Reject | None = None) -> int:
    """Writes dialogues to a .jsonl or .parquet file and returns their number.

    The file appears whole or not at all: it is written under another name, then renamed. `reject` takes what cannot be written (an
    integer beyond the column's 32 bits, half a surrogate pair), with its number from 1. Without `reject` the first such dialogue raises.
    ValueError if another process is writing the same file.
    """
    path = local_path(path)
    if path.suffix not in OUTPUT_SUFFIXES:
        raise ValueError(f"{path}: the name must end in .jsonl or .parquet")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.partial")  # always the same name, so that the next run replaces what a killed one left
    refusal = f"{path}: another process is writing it; wait for it, or write to another file"
    with naming_file(path), locked(temporary, refusal) as file:
        file.truncate(0)
        file.seek(0)
        try:
            if path.suffix == ".parquet":
                count = _write_parquet(dialogues, file, path, rows_per_group, reject)
            else:
                count = _write_jsonl(dialogues, file, path, reject)
            file.flush()
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    return count


def _write_jsonl(dialogues: Iterable[Dialogue], file: BinaryIO, path: Path, reject: Reject | None) -> int:
    count = 0
    for number, dialogue in enumerate(dialogues, 1):
        try:
            line = dialogue.model_dump_json(exclude_none=True, exclude_defaults=True).encode()
        except (TypeError, ValueError) as error:
            problem = f"cannot be written as JSON ({error}); correct the value"
            reject_or_raise(RecordError(str(path), number, dialogue.id, "record", problem), reject)
            continue
        file.write(line + b"\n")
        count += 1
    return count


def _write_parquet(dialogues: Iterable[Dialogue], file: BinaryIO, path: Path, rows_per_group: int, reject: Reject | None) -> int:
    import pyarrow.parquet as pq

    count, schema, numbered = 0, arrow_schema(), enumerate(dialogues, 1)
    with pq.ParquetWriter(file, schema) as writer:
        while group := [NumberedDialogue(number, dialogue) for number, dialogue in islice(numbered, rows_per_group)]:
            for table in to_tables([to_arrow(row.dialogue) for row in group], schema, partial(_refuse_row, str(path), group, reject)):
                writer.write_table(table)
                count += table.num_rows
    return count


def _refuse_row(path: str, group: Sequence[NumberedDialogue], reject: Reject | None, index: int, problem: str) -> None:
    reject_or_raise(RecordError(path, group[index].row, group[index].dialogue.id, "record", problem), reject)
