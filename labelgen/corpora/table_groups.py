"""The rows of a table by dialogue: rows that are adjacent, or rows that stand anywhere."""

from __future__ import annotations

import errno
import pickle
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from itertools import groupby
from tempfile import gettempdir
from typing import NamedTuple

from labelgen.io.rows import Row


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
    """Lines of one dialogue. `unreadable`: a row before, among or after adjacent lines that cannot be read."""

    identity: str | None
    lines: list[Line] = field(default_factory=list)
    unreadable: Unreadable | None = None


Identify = Callable[[Row], str | None]  # a row -> the id of its dialogue


def adjacent(rows: Iterable[Line | Unreadable], identify: Identify) -> Iterator[Group]:
    """The runs of lines of one dialogue. An unreadable row belongs to the dialogues before and after it."""
    group, unreadable = None, None
    for row in rows:
        if isinstance(row, Unreadable):
            unreadable = row
            if group is not None:
                group.unreadable = group.unreadable or unreadable
            continue
        identity = identify(row.row)
        if group is None or identity != group.identity:
            if group is not None:
                yield group
            group = Group(identity, unreadable=unreadable)
        group.lines.append(row)
        unreadable = None
    if group is not None or unreadable is not None:
        yield group or Group(None, unreadable=unreadable)


def gathered(rows: Iterable[Line | Unreadable], identify: Identify, refuse: Callable[[Unreadable], None]) -> Iterator[Group]:
    """The lines of each dialogue, wherever they stand, in the order of the table. The dialogues are in the order of their ids.

    The lines are sorted by a temporary database on the disk, so that memory holds one dialogue. `refuse` takes rows that cannot be read,
    whose dialogues are not known. OSError: the disk is full.
    """
    try:
        with closing(sqlite3.connect("")) as database:  # a file that is deleted when it is closed
            database.execute("PRAGMA journal_mode = OFF")
            database.execute("CREATE TABLE lines (number INTEGER PRIMARY KEY, dialogue BLOB, line BLOB)")
            database.executemany("INSERT INTO lines (dialogue, line) VALUES (?, ?)", _stored(rows, identify, refuse))
            found = database.execute("SELECT dialogue, line FROM lines ORDER BY dialogue, number")
            for name, stored in groupby(found, key=lambda row: row[0]):
                identity = None if name is None else name.decode("utf-8", "surrogatepass")
                yield Group(identity, [Line(*pickle.loads(line)) for _, line in stored])
    except sqlite3.Error as error:
        raise OSError(errno.EIO, f"the rows cannot be sorted on the disk ({error}); free space, or set TMPDIR", gettempdir()) from error


class _Stored(NamedTuple):
    dialogue: bytes | None
    line: bytes


def _stored(rows: Iterable[Line | Unreadable], identify: Identify, refuse: Callable[[Unreadable], None]) -> Iterator[_Stored]:
    for row in rows:
        if isinstance(row, Unreadable):
            refuse(row)
            continue
        identity = identify(row.row)
        yield _Stored(None if identity is None else identity.encode("utf-8", "surrogatepass"), pickle.dumps(tuple(row)))
