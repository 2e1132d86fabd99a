"""Your own logs as a flat table, CSV or Parquet. `columns` says which column holds what.

`path` is a file or a folder of files (.csv, .tsv, .parquet, also .gz), which are streamed in the order of their names as one table. CSV
files have the column names in the first line. Their delimiter and encoding (UTF-8, UTF-16 or cp1252) are recognised, and logged unless they
are commas and UTF-8; `delimiter` and `encoding` set them. Blank lines, and columns that are not named, are ignored. `columns` maps the
fields of a record to columns of the table:

- One row per turn: `dialogue` (the id), and any of `request`, `response`, `timestamp`, `intent`, `defect`, `audio`, `user`.
- One row per message: `dialogue`, `speaker` and `text`, and any of `timestamp`, `intent`, `defect`, `audio`, `user`. `speakers` lists the
  values of the column `speaker` that mean the user, and those that mean the assistant. A row of the user begins a turn and gives its
  time, intent and audio. The assistant's row after it is the response and says whether it was defective. A row without a partner is a
  turn of its own. The time of a turn without a request is that of the response. A feature comes from the user's row or, if it is missing
  there, from the assistant's.

`categorical` and `numerical` list the columns that are features of a turn. Empty cells, null and NaN are missing values.

The rows of a dialogue must be adjacent and in order of time. They may continue in the next file. If an id comes back later, reading stops
with an error: memory holds one dialogue at a time, and the dialogues read so far may be incomplete. Sort the table by dialogue and time.
A dialogue with an unreadable row is rejected as a whole, because its turns would be wrong. If the dialogue of that row is not known, the
dialogues before and after it are rejected.

Labelled: intent and defect, if the table has columns for them. Nothing else. Licence: yours.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

from labelgen.corpora import parse_time
from labelgen.dialogue import Dialogue, RecordError, Reject, parse, reject_or_raise
from labelgen.io.files import SeenIds
from labelgen.io.formats import Kind
from labelgen.io.paths import list_files
from labelgen.io.rows import Row
from labelgen.io.tables import TABLE_SUFFIXES, TableFile

TURN = {"dialogue", "request", "response", "timestamp", "intent", "defect", "audio", "user"}
MESSAGE = {"dialogue", "speaker", "text", "timestamp", "intent", "defect", "audio", "user"}
BOOLEANS = {"true": True, "t": True, "yes": True, "y": True, "1": True, "1.0": True}
BOOLEANS |= {"false": False, "f": False, "no": False, "n": False, "0": False, "0.0": False}


class Line(NamedTuple):
    """A row of the table, its file and its number there."""

    source: str
    number: int
    row: Row


class Unreadable(NamedTuple):
    """A row that cannot be read: its file, its number there, and the reason."""

    source: str
    number: int
    reason: str


@dataclass
class Group:
    """Adjacent lines of one dialogue. `unreadable`: a row before, among or after them that cannot be read."""

    identity: str | None
    lines: list[Line] = field(default_factory=list)
    unreadable: Unreadable | None = None


@dataclass(frozen=True)
class Table:
    """Dialogues of the table at `path`. ValueError: `columns` and `speakers` contradict each other or lack something."""

    path: str
    columns: Mapping[str, str | None]  # field of the record -> column of the table; null: there is none
    speakers: Mapping[str, Sequence[str | int]]  # user, assistant -> values of the column `speaker`
    categorical: Sequence[str] = ()
    numerical: Sequence[str] = ()
    delimiter: str | None = None  # of CSV; None: recognised
    encoding: str | None = None  # of CSV; None: recognised

    def __post_init__(self) -> None:
        self._check_csv()
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
        if allowed is MESSAGE and set(self.speakers) != {"user", "assistant"}:
            raise ValueError(
                f"speakers: {sorted(self.speakers)}; list the values of {self.columns['speaker']!r} for user and for assistant"
            )

    def _check_csv(self) -> None:
        if self.delimiter is not None and len(self.delimiter) != 1:
            raise ValueError(f"delimiter={self.delimiter!r}: give one character, or null to recognise it")
        try:
            "".encode(self.encoding or "utf-8")
        except LookupError:
            raise ValueError(f"encoding={self.encoding!r} is not known; give a name such as cp1252, or null to recognise it") from None

    def read(self, reject: Reject | None = None) -> Iterator[Dialogue]:
        """Yields the dialogues in the table's order, under their ids.

        Dialogues with cells that cannot be used go to `reject`; without it the first one raises RecordError that names the column.
        ValueError: there is no such table, it lacks a column, or the rows of a dialogue are not adjacent.
        """
        tables = self._tables()
        ids = SeenIds()
        for group in self._groups(tables):
            if group.identity is not None and not ids.add(group.identity):
                first = group.lines[0]
                raise ValueError(
                    f"{first.source}, row {first.number}: the rows of dialogue {group.identity!r} are not adjacent, so "
                    f"that dialogues would be read in parts; sort the table by {self.columns['dialogue']!r} and time, and read it again"
                )
            try:
                dialogue = self._dialogue(group)
            except RecordError as error:
                reject_or_raise(error, reject)
            else:
                yield dialogue

    def _tables(self) -> list[TableFile]:
        """The files. ValueError: there are none, or one lacks a column."""
        columns = [column for column in (*self.columns.values(), *self.categorical, *self.numerical) if column is not None]
        files = list_files(self.path, TABLE_SUFFIXES, "give a .csv or .parquet file", (Kind.TEXT, Kind.PARQUET))
        tables = [TableFile(file, columns, self.delimiter, self.encoding) for file in files]
        for table in tables:
            table.log_layout()
            names = table.names()
            if names is not None and (missing := [column for column in table.columns if column not in names]):
                present = ", ".join(repr(name) for name in names if name)
                raise ValueError(f"{table.file}: no column {', '.join(map(repr, missing))}; there are {present}. Set `columns`")
        return tables

    def _groups(self, tables: Sequence[TableFile]) -> Iterator[Group]:
        """The lines of all tables by dialogue. An unreadable row belongs to the dialogues before and after it."""
        group, unreadable = None, None
        for table in tables:
            for number, row in table.rows():
                if isinstance(row, str):
                    unreadable = Unreadable(str(table.file), number, row)
                    if group is not None:
                        group.unreadable = group.unreadable or unreadable
                    continue
                identity = text(row[str(self.columns["dialogue"])])
                if group is None or identity != group.identity:
                    if group is not None:
                        yield group
                    group = Group(identity, unreadable=unreadable)
                group.lines.append(Line(str(table.file), number, row))
                unreadable = None
        if group is not None or unreadable is not None:
            yield group or Group(None, unreadable=unreadable)

    def _dialogue(self, group: Group) -> Dialogue:
        """The dialogue of a group. RecordError: a row or a cell cannot be used."""
        if group.unreadable is not None:
            raise RecordError(group.unreadable.source, group.unreadable.number, group.identity, "record", group.unreadable.reason)
        first, identity = group.lines[0], group.identity
        if identity is None:
            raise RecordError(first.source, first.number, None, str(self.columns["dialogue"]), "empty; give each row its dialogue's id")
        turns: list[dict[str, Any]] = []
        users: dict[str, Line] = {}
        for line in group.lines:
            cells = self._cells(line, identity)
            if (user := cells.pop("user", None)) is not None:
                users.setdefault(user, line)
            if "speaker" in cells:
                self._add_message(turns, cells, line, identity)
            else:
                turns.append(cells)
        if len(users) > 1:
            problem = f"{' and '.join(map(repr, users))} in one dialogue; make the dialogues' ids unique over users"
            second = list(users.values())[1]
            raise RecordError(second.source, second.number, identity, str(self.columns["user"]), problem)
        return parse({"id": identity, "user": next(iter(users), None), "turns": turns}, first.source, first.number)

    def _cells(self, line: Line, identity: str) -> dict[str, Any]:
        """The cells of a row by field. Missing values are left out, but a missing speaker is not."""
        wanted = [(key, column) for key, column in self.columns.items() if column is not None and key != "dialogue"]
        features = [
            (kind, column) for kind, listed in (("categorical", self.categorical), ("numerical", self.numerical)) for column in listed
        ]
        cells: dict[str, Any] = {"categorical": {}, "numerical": {}}
        for key, column in (*wanted, *features):
            reader: Callable[[Any], Any] = READERS.get(key, text)
            try:
                value = reader(line.row[column])
            except ValueError as error:
                raise RecordError(line.source, line.number, identity, column, str(error)) from None
            if key in ("categorical", "numerical"):
                cells[key] |= {} if value is None else {column: value}
            elif value is not None or key == "speaker":
                cells[key] = value
        return cells

    def _add_message(self, turns: list[dict[str, Any]], cells: dict[str, Any], line: Line, identity: str) -> None:
        """Adds one message: the user's begins a turn, the assistant's is its response."""
        speaker = next((speaker for speaker, values in self.speakers.items() if cells["speaker"] in map(str, values)), None)
        if speaker is None:
            known = ", ".join(f"{speaker}: {list(values)}" for speaker, values in self.speakers.items())
            problem = f"{cells['speaker']!r} is none of the speakers {known}; add it to `speakers`, or leave the row out"
            raise RecordError(line.source, line.number, identity, str(self.columns["speaker"]), problem)
        own = ("intent", "audio") if speaker == "user" else ("defect",)
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
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def number(value: Any) -> float | None:
    """A cell as a finite number. ValueError: it is none."""
    try:
        found = None if missing(value) else float(value)
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


def time(value: Any) -> datetime | None:
    """A cell as a time. ValueError: it is none."""
    return None if missing(value) else parse_time(value)


READERS: Mapping[str, Callable[[Any], Any]] = {"timestamp": time, "defect": boolean, "numerical": number}
