"""A flat table of users' own logs, CSV or Parquet: `columns` says which column holds what -> dialogues.

`path` is a file or a folder of them, read in the order of their names as one table, streamed. CSV: commas, UTF-8, the column names in the
first line. Columns that are not named are ignored. `columns` maps what a record needs to the table's names:

- A row a turn: `dialogue` (the id), and any of `request`, `response`, `timestamp`, `intent`, `defect`, `audio`, `user`.
- A row a message: `dialogue`, `speaker` and `text`, and any of `timestamp`, `intent`, `defect`, `audio`, `user`. `speakers` says which
  values of the column `speaker` are the user and which the assistant. A row of the user begins a turn, and gives its time, intent and
  audio; the assistant's row after it is the response, and says whether it was defective. Consecutive rows of one of them are turns with
  one side alone, and the time of a turn without request is the response's. A feature is the user's row's, and where that has none the
  assistant's.

`categorical` and `numerical` list the columns that are features of a turn. An empty cell, null and NaN are missing values.

Rows of one dialogue stand next to each other, in order of time, and may go on in the next file. Where an id comes back later, reading
stops: memory holds one dialogue at a time, and the dialogues so far may be parts. Sort the table by the dialogue and time. A dialogue
with a row that cannot be read is refused as a whole, for its turns would not be its turns; where a row is so broken that its dialogue is
not known, both dialogues beside it are.

Labelled: intent and defect, where the table has columns for them; nothing else. Licence: yours.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

from pydantic import TypeAdapter, ValidationError
from upath import UPath

from labelgen.dialogue import Dialogue, RecordError, Reject, UTCDatetime, parse, reject_or_raise
from labelgen.io.files import SeenIds
from labelgen.io.paths import list_files
from labelgen.io.rows import Row, rows

ENDINGS = (".csv", ".parquet")
TURN = {"dialogue", "request", "response", "timestamp", "intent", "defect", "audio", "user"}
MESSAGE = {"dialogue", "speaker", "text", "timestamp", "intent", "defect", "audio", "user"}
TRUTH = {"true": True, "t": True, "yes": True, "y": True, "1": True, "1.0": True}
TRUTH |= {"false": False, "f": False, "no": False, "n": False, "0": False, "0.0": False}
MOMENT: TypeAdapter[datetime] = TypeAdapter(UTCDatetime)


class Line(NamedTuple):
    """A row of the table, and where it stands."""

    source: str
    number: int
    row: Row


@dataclass
class Run:
    """Lines of one dialogue that stand next to each other; `broken` tells of an unreadable row before, among or after them."""

    name: str | None
    lines: list[Line] = field(default_factory=list)
    broken: tuple[str, int, str] | None = None  # file, row, reason


@dataclass(frozen=True)
class Table:
    """Dialogues of the table at `path`. ValueError where `columns` and `speakers` do not make sense."""

    path: str
    columns: Mapping[str, str | None]  # what a record needs -> the table's column; null: the table has none
    speakers: Mapping[str, Sequence[str | int]]  # user, assistant -> values of the column `speaker`
    categorical: Sequence[str] = ()
    numerical: Sequence[str] = ()

    def __post_init__(self) -> None:
        lists = {f"speakers.{side}": values for side, values in self.speakers.items()}
        for key, value in {**lists, "categorical": self.categorical, "numerical": self.numerical}.items():
            if isinstance(value, str | int):  # a text would be taken for a list of its letters
                raise ValueError(f"{key}: {value!r} is one value; give a list: [{value}]")
        named = {key for key, column in self.columns.items() if column is not None}
        allowed = MESSAGE if named & {"speaker", "text"} else TURN
        needed = {"dialogue", "speaker", "text"} if allowed is MESSAGE else {"dialogue"}
        if named - allowed:
            raise ValueError(f"columns: {sorted(named - allowed)} do not go together with the rest; a row is a turn {sorted(TURN)} "
                             f"or a message {sorted(MESSAGE)}")  # fmt: skip
        if needed - named:
            raise ValueError(f"columns: name the column of {', '.join(sorted(needed - named))}")
        if allowed is TURN and not named & {"request", "response", "audio"}:
            raise ValueError("columns: name the column of request or response, or speaker and text where a row is a message")
        if allowed is MESSAGE and set(self.speakers) != {"user", "assistant"}:
            raise ValueError(
                f"speakers: {sorted(self.speakers)}; list the values of {self.columns['speaker']!r} for user and for assistant"
            )

    def read(self, reject: Reject | None = None) -> Iterator[Dialogue]:
        """Streams the dialogues in the table's order, under their ids.

        Dialogues with cells that cannot be used go to `reject`; without it the first one raises RecordError that names the column.
        ValueError: there is no such table, it lacks a column, or the rows of a dialogue stand apart.
        """
        shards = list_files(self.path, ENDINGS, "give a .csv or .parquet file")
        for shard in shards:
            self._check(shard)
        ids = SeenIds()
        for run in self._runs(shards):
            if run.name is not None and not ids.add(run.name):
                source, number, _ = run.lines[0]
                raise ValueError(
                    f"{source}, row {number}: the rows of dialogue {run.name!r} stand apart, so that dialogues would be read in parts; "
                    f"sort the table by {self.columns['dialogue']!r} and time, and read it again"
                )
            try:
                dialogue = self._dialogue(run)
            except RecordError as error:
                reject_or_raise(error, reject)
            else:
                yield dialogue

    def _check(self, shard: UPath) -> None:
        there = next((row for _, row in rows(shard) if not isinstance(row, str)), None)
        wanted = [column for column in (*self.columns.values(), *self.categorical, *self.numerical) if column is not None]
        if there is not None and (lacking := [column for column in wanted if column not in there]):
            raise ValueError(f"{shard}: no column {', '.join(map(repr, lacking))}; there are {', '.join(map(repr, there))}. Set `columns`")

    def _runs(self, shards: list[UPath]) -> Iterator[Run]:
        run, broken = None, None
        for shard in shards:
            for number, row in rows(shard):
                if isinstance(row, str):
                    broken = (str(shard), number, row)
                    if run is not None:
                        run.broken = run.broken or broken
                    continue
                name = text(row[str(self.columns["dialogue"])])
                if run is None or name != run.name:
                    if run is not None:
                        yield run
                    run = Run(name, broken=broken)
                run.lines.append(Line(str(shard), number, row))
                broken = None
        if run is not None or broken is not None:
            yield run or Run(None, broken=broken)

    def _dialogue(self, run: Run) -> Dialogue:
        if run.broken is not None:
            source, number, reason = run.broken
            raise RecordError(source, number, run.name, "record", reason)
        first = run.lines[0]
        if run.name is None:
            raise RecordError(first.source, first.number, None, str(self.columns["dialogue"]), "empty; give each row its dialogue's id")
        turns: list[dict[str, Any]] = []
        users: dict[str, Line] = {}
        for line in run.lines:
            cells = self._cells(line, run.name)
            if (user := cells.pop("user", None)) is not None:
                users.setdefault(user, line)
            if "speaker" in cells:
                self._add(turns, cells, line, run.name)
            else:
                turns.append(cells)
        if len(users) > 1:
            told = f"{' and '.join(map(repr, users))} in one dialogue; make the dialogues' ids unique over users"
            raise RecordError(*list(users.values())[1][:2], run.name, str(self.columns["user"]), told)
        return parse({"id": run.name, "user": next(iter(users), None), "turns": turns}, first.source, first.number)

    def _cells(self, line: Line, name: str) -> dict[str, Any]:
        """What the columns of one row say, missing values left out (but the speaker's)."""
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
                raise RecordError(line.source, line.number, name, column, str(error)) from None
            if key in ("categorical", "numerical"):
                cells[key] |= {} if value is None else {column: value}
            elif value is not None or key == "speaker":
                cells[key] = value
        return cells

    def _add(self, turns: list[dict[str, Any]], cells: dict[str, Any], line: Line, name: str) -> None:
        """One message: the user's begins a turn, the assistant's is its response."""
        side = next((side for side, values in self.speakers.items() if cells["speaker"] in map(str, values)), None)
        if side is None:
            known = ", ".join(f"{side}: {list(values)}" for side, values in self.speakers.items())
            problem = f"{cells['speaker']!r} is no speaker of {known}; add it to `speakers`, or leave the row out"
            raise RecordError(line.source, line.number, name, str(self.columns["speaker"]), problem)
        both = ("categorical", "numerical", "timestamp")
        said = {key: cells[key] for key in (*both, *(("intent", "audio") if side == "user" else ("defect",))) if key in cells}
        if side == "user" or not turns or "response" in turns[-1]:
            turns.append(said | {"request" if side == "user" else "response": cells.get("text")})
        else:
            begun = turns[-1]
            features = {key: said[key] | begun[key] for key in ("categorical", "numerical")}
            turns[-1] = said | begun | features | {"response": cells.get("text")}


def missing(value: Any) -> bool:
    """Is the cell empty, null or NaN?"""
    return value is None or (isinstance(value, float) and math.isnan(value)) or (isinstance(value, str) and not value.strip())


def text(value: Any) -> str | None:
    """A cell as text, numbers too (ids often are)."""
    if missing(value):
        return None
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def number(value: Any) -> float | None:
    """A cell as a finite number."""
    try:
        found = None if missing(value) else float(value)
    except (TypeError, ValueError):
        found = math.inf
    if found is not None and math.isinf(found):
        raise ValueError(f"{value!r} is no finite number; write digits and a point, leave the cell empty where the value is missing")
    return None if found is None or math.isnan(found) else found


def truth(value: Any) -> bool | None:
    """A cell as true or false."""
    if missing(value):
        return None
    found = TRUTH.get(str(value).strip().lower())
    if found is None:
        raise ValueError(f"{value!r} is neither true nor false; write true, false, or leave the cell empty where it is not known")
    return found


def moment(value: Any) -> datetime | None:
    """A cell as a time."""
    try:
        return None if missing(value) else MOMENT.validate_python(value)
    except ValidationError:
        raise ValueError(f"{value!r} is no time; write ISO 8601 (2024-05-01T12:00:00Z) or seconds since 1970") from None


READERS: Mapping[str, Callable[[Any], Any]] = {"timestamp": moment, "defect": truth, "numerical": number}
