"""Your own logs as a flat table, CSV or Parquet. `columns` says which column holds what.

`path` is a file or a folder of files (.csv, .tsv, .parquet, also .gz), which are streamed in the order of their names as one table. CSV
files have the column names in the first line. Their delimiter and encoding (UTF-8, UTF-16 or cp1252) are recognised, and logged unless they
are commas and UTF-8; `delimiter` and `encoding` set them. Columns that are not named are ignored. Rows without a value in the named
columns, such as blank lines, are left out and counted. `columns` maps the fields of a record to columns of the table:

- One row per turn: `dialogue` (the id), and any of `request`, `response`, `timestamp`, `intent`, `defect`, `audio`, `user`. A row that has
  none of these but an id, a time or a user is left out and counted.
- One row per message: `dialogue`, `speaker` and `text`, and any of `timestamp`, `intent`, `defect`, `audio`, `user`. `speakers` lists the
  values of the column `speaker` that mean the user, and those that mean the assistant. A row of the user begins a turn and gives its
  time, intent and audio. The assistant's row after it is the response and says whether it was defective. A row without a partner is a
  turn of its own. The time of a turn without a request is that of the response. A feature comes from the user's row or, if it is missing
  there, from the assistant's.

`categorical` and `numerical` list the columns that are features of a turn. Empty cells, null and NaN are missing values. So are times,
numbers and values of `defect` that cannot be read: the log says at the end how many, with the first. Times are ISO 8601 or seconds since
1970. `time_format` sets another format, as Python's `strptime` has it ('%d.%m.%Y %H:%M'), or `excel` for the day numbers of spreadsheets.
Rows of the speakers in `speakers.ignore` are left out and counted.

An id is the text of its cell without the space around it: 1, 1.0, "1" and "1 " are one dialogue.

The rows of a dialogue must be adjacent and in order of time. They may continue in the next file. If an id comes back later, reading stops
with an error: memory holds one dialogue at a time, and the dialogues read so far may be incomplete. With `sort=true` the rows may stand
anywhere. They are gathered in a temporary file, as large as the columns that are named, and ordered by `timestamp` if that is named, else
as in the table.

A dialogue with an unreadable row is rejected as a whole, because its turns would be wrong. If the dialogue of that row is not known, the
dialogues before and after it are rejected, or with `sort` the row alone.

Labelled: intent and defect, if the table has columns for them. Nothing else. Licence: yours.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from labelgen.corpora import LeftOut, parse_time
from labelgen.corpora.table_groups import Group, Line, Unreadable, adjacent, gathered
from labelgen.dialogue import SPREADSHEET_EPOCH, Dialogue, RecordError, Reject, parse, reject_or_raise
from labelgen.io.files import SeenIds
from labelgen.io.formats import Kind
from labelgen.io.paths import list_files
from labelgen.io.rows import Row, RowSource
from labelgen.io.tables import TABLE_SUFFIXES, TableFile

TURN = {"dialogue", "request", "response", "timestamp", "intent", "defect", "audio", "user"}
CONTENT = ("request", "response", "audio", "intent", "categorical", "numerical")  # a row with none of these is no turn
MESSAGE = {"dialogue", "speaker", "text", "timestamp", "intent", "defect", "audio", "user"}
LAST_WHOLE = 2.0**53  # from here on, a float may stand for several whole numbers
EXCEL = "excel"  # the `time_format` of day numbers
DAYS = re.compile(r"[0-9]+(?:[.,][0-9]+)?")  # a day number as text
THOUSANDS = re.compile(r"[0-9]{1,3}[.,][0-9]{3}")  # it may have a separator of thousands instead of a decimal point
BOOLEANS = {"true": True, "t": True, "yes": True, "y": True, "1": True, "1.0": True}
BOOLEANS |= {"false": False, "f": False, "no": False, "n": False, "0": False, "0.0": False}


class NotAdjacentError(ValueError):
    """The rows of a dialogue stand apart, and `sort` is not set."""


class Filled(NamedTuple):
    """A line, and its cells by the field of the record."""

    line: Line
    cells: dict[str, Any]


@dataclass(frozen=True)
class Table:
    """Dialogues of the table at `path`. ValueError: `columns` and `speakers` contradict each other or lack something."""

    path: str
    columns: Mapping[str, str | None]  # field of the record -> column of the table; null: there is none
    speakers: Mapping[str, Sequence[str | int]]  # user, assistant, ignore -> values of the column `speaker`
    categorical: Sequence[str] = ()
    numerical: Sequence[str] = ()
    delimiter: str | None = None  # of CSV; None: recognised
    encoding: str | None = None  # of CSV; None: recognised
    time_format: str | None = None  # as strptime has it, or "excel"; None: ISO 8601 or seconds since 1970
    sort: bool = False  # whether the rows of a dialogue may stand apart
    left_out: LeftOut = field(default_factory=LeftOut, init=False, repr=False, compare=False)  # by the last `read`

    def __post_init__(self) -> None:
        self._check_formats()
        lists = {f"speakers.{speaker}": values for speaker, values in self.speakers.items()}
        for key, value in {**lists, "categorical": self.categorical, "numerical": self.numerical}.items():
            if isinstance(value, str | int):  # a string would be read as a list of its letters
                raise ValueError(f"{key}: {value!r} is one value; give a list: [{value}]")
        named = {key for key, column in self.columns.items() if column is not None}
        allowed = MESSAGE if named & {"speaker", "text"} else TURN
        needed = {"dialogue", "speaker", "text"} if allowed is MESSAGE else {"dialogue"}
        if named - allowed:
            raise ValueError(f"columns: {sorted(named - allowed)} do not fit the other columns; a row is a turn {sorted(TURN)} "
                             f"or a message {sorted(MESSAGE)}")  # fmt: skip
        if needed - named:
            raise ValueError(f"columns: name the column of {', '.join(sorted(needed - named))}")
        if allowed is TURN and not named & {"request", "response", "audio"}:
            raise ValueError("columns: name the column of request or response, or speaker and text where a row is a message")
        if allowed is MESSAGE and {*self.speakers} - {"ignore"} != {"user", "assistant"}:
            raise ValueError(
                f"speakers: {sorted(self.speakers)}; list the values of {self.columns['speaker']!r} for user and for assistant"
            )

    def _check_formats(self) -> None:
        if self.delimiter is not None and len(self.delimiter) != 1:
            raise ValueError(f"delimiter={self.delimiter!r}: give one character, or null to recognise it")
        try:
            "".encode(self.encoding or "utf-8")
        except LookupError:
            raise ValueError(f"encoding={self.encoding!r} is not known; give a name such as cp1252, or null to recognise it") from None
        if self.time_format not in (None, EXCEL):
            try:
                time_by(self.time_format, datetime.now(UTC).strftime(self.time_format))
            except ValueError as error:
                raise ValueError(f"time_format={self.time_format!r}: {error}; give one such as '%d.%m.%Y %H:%M', or {EXCEL}") from None

    def read(self, reject: Reject | None = None) -> Iterator[Dialogue]:
        """Yields the dialogues in the table's order, or with `sort` in that of their ids.

        Dialogues that cannot be used go to `reject`; without it the first one raises RecordError that names the column. At the end, the
        log says what was left out. ValueError: there is no such table, or it lacks a column. NotAdjacentError: the rows of a dialogue stand
        apart.
        """
        yield from self.read_sources(self._tables(), reject)

    def read_sources(self, tables: Sequence[RowSource], reject: Reject | None) -> Iterator[Dialogue]:
        """See `read`. The rows are those of the sources, whatever `path` is."""
        self.left_out.clear()
        ids = SeenIds()
        for group in self._groups(tables, reject):
            if group.identity is not None and not ids.add(group.identity):
                raise self._not_adjacent(group)
            try:
                dialogue = self._dialogue(group)
            except RecordError as error:
                reject_or_raise(error, reject)
            else:
                if dialogue is not None:
                    yield dialogue
        self.left_out.log()

    def _not_adjacent(self, group: Group) -> NotAdjacentError:
        first = group.lines[0]
        remedy = f"set `sort` (corpus.sort=true), or sort the table by {self.columns['dialogue']!r} and time"
        problem = f"the rows of dialogue {group.identity!r} are not adjacent, so that dialogues would be read in parts"
        return NotAdjacentError(f"{first.source}, row {first.number}: {problem}; {remedy}")

    def _columns(self) -> list[str]:
        """The columns that are read."""
        return [column for column in (*self.columns.values(), *self.categorical, *self.numerical) if column is not None]

    def _tables(self) -> list[TableFile]:
        """The files. ValueError: there are none, or one lacks a column."""
        columns = self._columns()
        files = list_files(self.path, TABLE_SUFFIXES, "give a .csv or .parquet file, or one of JSON", tuple(Kind))
        tables = [TableFile(file, columns, self.delimiter, self.encoding) for file in files]
        for table in tables:
            table.log_layout()
            names = table.names()
            if names is not None and (missing := [column for column in table.columns if column not in names]):
                present = ", ".join(repr(name) for name in names if name)
                raise ValueError(f"{table.file}: no column {', '.join(map(repr, missing))}; there are {present}. Set `columns`")
        return tables

    def _groups(self, tables: Sequence[RowSource], reject: Reject | None) -> Iterator[Group]:
        """The rows of all tables by dialogue."""

        def identify(row: Row) -> str | None:
            return identity_of(row[str(self.columns["dialogue"])])

        def refuse(row: Unreadable) -> None:
            problem = f"{row.reason}. The dialogue of this row is read without it"
            reject_or_raise(RecordError(row.source, row.number, None, "record", problem), reject)

        rows = (row for table in tables for row in self._lines(table))
        return gathered(rows, identify, refuse) if self.sort else adjacent(rows, identify)

    def _lines(self, table: RowSource) -> Iterator[Line | Unreadable]:
        """The rows of a table. Those without a value in any column that is read are counted."""
        identity, columns = str(self.columns["dialogue"]), self._columns()
        for number, row in table.rows():
            if isinstance(row, str):
                yield Unreadable(str(table), number, row)
            elif all(missing(row[column]) for column in columns):
                self.left_out.add("rows without a value", f"{table}, row {number}")
            elif isinstance(value := row[identity], float) and LAST_WHOLE <= abs(value) < math.inf:
                problem = f"column {identity!r}: {value!r} is a float that may have lost digits; write ids as text, or as whole numbers"
                yield Unreadable(str(table), number, problem)
            else:
                yield Line(str(table), number, row)

    def _dialogue(self, group: Group) -> Dialogue | None:
        """The dialogue of a group. None: none of its rows is a message. RecordError: a row or a cell cannot be used."""
        if group.unreadable is not None:
            raise RecordError(group.unreadable.source, group.unreadable.number, group.identity, "record", group.unreadable.reason)
        first, identity = group.lines[0], group.identity
        if identity is None:
            raise RecordError(first.source, first.number, None, str(self.columns["dialogue"]), "empty; give each row its dialogue's id")
        turns: list[dict[str, Any]] = []
        users: dict[str, Line] = {}
        for line, cells in self._in_order([Filled(line, self._cells(line)) for line in group.lines]):
            if (user := cells.pop("user", None)) is not None:
                users.setdefault(user, line)
            if "speaker" in cells:
                self._add_message(turns, cells, line, identity)
            elif any(cells.get(key) for key in CONTENT) or "defect" in cells:
                turns.append(cells)
            else:
                self.left_out.add("rows without a request or a response", f"{line.source}, row {line.number}")
        if len(users) > 1:
            problem = f"{' and '.join(map(repr, users))} in one dialogue; make the dialogues' ids unique over users"
            second = list(users.values())[1]
            raise RecordError(second.source, second.number, identity, str(self.columns["user"]), problem)
        if not turns:
            self.left_out["dialogues without a message"] += 1
            return None
        return parse({"id": identity, "user": next(iter(users), None), "turns": turns}, first.source, first.number)

    def _in_order(self, rows: list[Filled]) -> list[Filled]:
        """With `sort`, the rows in the order of their times. A row without a time follows the row before it."""
        if not self.sort:
            return rows
        times, last = [], datetime.min.replace(tzinfo=UTC)
        for row in rows:
            last = row.cells.get("timestamp", last)
            times.append(last)
        return [rows[k] for k in sorted(range(len(rows)), key=times.__getitem__)]

    def _cells(self, line: Line) -> dict[str, Any]:
        """The cells of a row by field. Missing values are left out, but a missing speaker is not. Those that cannot be read are counted."""
        wanted = [(key, column) for key, column in self.columns.items() if column is not None and key != "dialogue"]
        features = [
            (kind, column) for kind, listed in (("categorical", self.categorical), ("numerical", self.numerical)) for column in listed
        ]
        cells: dict[str, Any] = {"categorical": {}, "numerical": {}}
        for key, column in (*wanted, *features):
            reader: Callable[[Any], Any] = self._time if key == "timestamp" else READERS.get(key, text)
            try:
                value = reader(line.row[column])
            except ValueError as error:
                self.left_out.add(f"values of column {column!r}", f"{line.source}, row {line.number}: {error}")
                continue
            if key in ("categorical", "numerical"):
                cells[key] |= {} if value is None else {column: value}
            elif value is not None or key == "speaker":
                cells[key] = value
        return cells

    def _time(self, value: Any) -> datetime | None:
        """A cell as a time. ValueError: it is none."""
        if missing(value):
            return None
        if self.time_format is None or isinstance(value, datetime):
            try:
                return parse_time(value)
            except ValueError as error:
                raise ValueError(f"{error}. `time_format` reads other formats, and with {EXCEL} the numbers of a spreadsheet") from None
        try:
            if self.time_format == EXCEL:
                if isinstance(value, str) and (not DAYS.fullmatch(value.strip()) or THOUSANDS.fullmatch(value.strip())):
                    raise ValueError
                return SPREADSHEET_EPOCH + timedelta(days=float(str(value).replace(",", ".")))
            return parse_time(time_by(self.time_format, str(value).strip()))
        except (ValueError, TypeError, OverflowError):
            raise ValueError(f"{value!r} does not have the `time_format` {self.time_format}") from None

    def _add_message(self, turns: list[dict[str, Any]], cells: dict[str, Any], line: Line, identity: str) -> None:
        """Adds one message: the user's begins a turn, the assistant's is its response."""
        value = cells["speaker"] or ""
        speaker = next((speaker for speaker, values in self.speakers.items() if value in map(str, values)), None)
        if speaker == "ignore":
            self.left_out[f"rows of speaker {value!r}"] += 1
            return
        if speaker is None:
            known = ", ".join(f"{speaker}: {list(values)}" for speaker, values in self.speakers.items())
            problem = f"{value!r} is none of the speakers {known}; add it to `speakers`, under `ignore` to leave its rows out"
            raise RecordError(line.source, line.number, identity, str(self.columns["speaker"]), problem)
        own = ("intent", "audio") if speaker == "user" else ("defect",)
        for key in sorted(({"intent", "audio", "defect"} - {*own}) & {*cells}):
            self.left_out[f"values of column {self.columns[key]!r} in rows of the {speaker}"] += 1
        if not any(cells.get(key) for key in ("text", "categorical", "numerical")) and not {*own} & {*cells}:
            self.left_out[f"rows of the {speaker} without a text"] += 1
            return
        fields = {key: cells[key] for key in ("categorical", "numerical", "timestamp", *own) if key in cells}
        if speaker == "user":
            turns.append(fields | {"request": cells.get("text")})
        elif not turns or "response" in turns[-1]:
            turns.append(fields | {"response": cells.get("text")})
        else:
            turn = turns[-1]
            features = {key: fields[key] | turn[key] for key in ("categorical", "numerical")}
            turns[-1] = fields | turn | features | {"response": cells.get("text")}


def missing(value: Any) -> bool:
    """Whether the cell is empty, null or NaN."""
    return value is None or (isinstance(value, float) and math.isnan(value)) or (isinstance(value, str) and not value.strip())


def text(value: Any) -> str | None:
    """A cell as text. Numbers become text too, because ids are often numbers."""
    if missing(value):
        return None
    if isinstance(value, bytes):  # a binary column of Parquet
        return value.decode("utf-8", "surrogateescape")
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def identity_of(value: Any) -> str | None:
    """The id of a dialogue in a cell: its text without the space around it. So 1, 1.0, "1" and "1 " are one dialogue."""
    found = text(value)
    return None if found is None else found.strip()


def time_by(time_format: str, value: str) -> datetime:
    """A time of a format. ValueError: the text has another one, or there is no such format."""
    return datetime.strptime(value, time_format)  # noqa: DTZ007 - without a zone it is UTC, as everywhere


def number(value: Any) -> float | None:
    """A cell as a finite number. ValueError: it is none."""
    try:
        found = None if missing(value) else math.inf if "_" in str(value) else float(value)
    except (TypeError, ValueError):
        found = math.inf
    if found is not None and math.isinf(found):
        raise ValueError(f"{value!r} is not a finite number; write digits and a point, leave the cell empty where the value is missing")
    return None if found is None or math.isnan(found) else found


def boolean(value: Any) -> bool | None:
    """A cell as a boolean. ValueError: it is none."""
    if missing(value):
        return None
    found = BOOLEANS.get(str(value).strip().lower())
    if found is None:
        raise ValueError(f"{value!r} is neither true nor false; write true, false, or leave the cell empty where it is not known")
    return found


READERS: Mapping[str, Callable[[Any], Any]] = {"defect": boolean, "numerical": number}
