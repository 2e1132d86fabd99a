"""What a backfill reads and leaves: the input cut into units, the output written in parts, and which dialogues it holds already.

    OUTPUT/backfill.json                         the model, the settings and the versions: one output holds the labels of one model
    OUTPUT/FILE-DIGEST-UNIT-PART.parquet         dialogues with their labels, beside what made them
    OUTPUT/rejected/FILE-DIGEST-UNIT.rejected.jsonl  rows of a unit that could not be read or labelled, with their reasons

Every file appears whole or not at all. A dialogue is known by its id and its content, never by its row.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime
from io import BytesIO
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from upath import UPath

from labelgen import __version__
from labelgen.dialogue import Dialogue, RecordError, Reject, parse, refuse
from labelgen.files import PROVENANCE, Place, arrow_schema, as_written, key, rows, to_arrow

if TYPE_CHECKING:
    import pyarrow as pa

UNIT_BYTES = 64 * 2**20  # of JSONL
UNIT_ROWS = 16_384  # of Parquet, in whole row groups
ROWS_AT_ONCE = 200  # that become columns together: records of Python's take ten times the memory
MANIFEST, REJECTED = "backfill.json", "rejected"


class Unit(NamedTuple):
    """A piece of an input file: the lines that begin in bytes [start, stop), or the row groups [start, stop). `size`: bytes of it."""

    file: str
    number: int
    start: int
    stop: int | None  # None: to the end
    size: int

    @property
    def name(self) -> str:
        """Of its parts; the digest tells files of one name in several folders apart."""
        file = UPath(self.file)
        digest = hashlib.blake2b(self.file.encode(), digest_size=4).hexdigest()
        return f"{re.sub(r'[^A-Za-z0-9_.]+', '_', file.stem)[:64]}-{digest}-{self.number:05d}"


def units(file: UPath) -> list[Unit]:
    """The units of a file, in order; one that is not whole is one unit, whose reading will say so."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    size = file.stat().st_size
    if file.suffix != ".parquet":
        starts = [*range(0, size, UNIT_BYTES)] or [0]
        return [Unit(str(file), k, a, None if b == size else b, b - a) for k, (a, b) in enumerate(pairwise([*starts, size]))]
    try:
        with file.open("rb") as opened:
            held = pq.read_metadata(opened)
    except (pa.ArrowException, OSError):
        return [Unit(str(file), 0, 0, None, size)]
    cuts, room = [0], UNIT_ROWS
    for group in range(held.num_row_groups):
        count = held.row_group(group).num_rows
        if room < count and group > cuts[-1]:
            cuts.append(group)
            room = UNIT_ROWS
        room -= count
    cuts.append(held.num_row_groups)
    return [Unit(str(file), k, a, b, size * (b - a) // max(held.num_row_groups, 1)) for k, (a, b) in enumerate(pairwise(cuts))]


class Row(NamedTuple):
    """A dialogue of a unit, and its row in the file (from 1)."""

    number: int
    dialogue: Dialogue


class Reader:
    """The dialogues of a unit. `before`: rows of the file before it; `place` says how far it is read; `reject` takes unusable rows."""

    def __init__(self, unit: Unit, before: int, reject: Reject) -> None:
        self.unit, self.before, self.reject = unit, before, reject
        self.place = Place()

    def __iter__(self) -> Iterator[Row]:
        unit = self.unit
        for number, row in rows(UPath(unit.file), unit.start, unit.stop, self.place):
            number += self.before
            try:
                if isinstance(row, str):
                    raise RecordError(unit.file, number, None, "record", row)
                dialogue = parse(as_written(row, unit.file, number), unit.file, number)
            except RecordError as error:
                refuse(error, self.reject)
            else:
                yield Row(number, dialogue)


class Scan(NamedTuple):
    """The ids of a unit's dialogues, 64 bits each, the numbers of their rows in it, from 1, and how many rows it has."""

    ids: np.ndarray
    numbers: np.ndarray
    rows: int


def scan(unit: Unit) -> Scan:
    """Reads a unit for its ids."""
    reader = Reader(unit, 0, lambda error: None)
    found = [(key(dialogue.id), number) for number, dialogue in reader]
    return Scan(np.array([k for k, _ in found], np.uint64), np.array([n for _, n in found], np.int64), reader.place.row)


class Done:
    """The dialogues that an output holds: 64 bits of the id and the fingerprint of each."""

    def __init__(self, rows: Iterable[tuple[str, str]] = ()) -> None:
        """`rows`: ids and fingerprints."""
        pairs = np.fromiter(((key(identity), int(text, 16)) for identity, text in rows), np.dtype((np.uint64, 2)))
        order = np.argsort(pairs[:, 0])
        self._keys, self._inputs = pairs[order].T

    def __len__(self) -> int:
        return len(self._keys)

    def get(self, identity: str) -> str | None:
        """The fingerprint under which the id was labelled; None: it was not."""
        number = np.uint64(key(identity))
        place = int(np.searchsorted(self._keys, number))
        return f"{int(self._inputs[place]):016x}" if place < len(self._keys) and self._keys[place] == number else None


class Mark(NamedTuple):
    """What made the labels of a row."""

    model: str
    config: str


class Output:
    """The folder (or URI of one) that a backfill writes to."""

    def __init__(self, folder: str) -> None:
        self.folder = UPath(folder)
        self.is_local = self.folder.protocol in ("", "file")

    def claim(self, mark: Mark, told: dict[str, Any]) -> AbstractContextManager[Any]:
        """Makes the folder this model's, and this process's until the result is left (on a disk; object stores have no locks).

        ValueError where it holds another model's labels, or other files, or another process writes there.
        """
        if self.folder.is_file():
            raise ValueError(f"{self.folder} is a file; name a folder, which will hold Parquet files")
        manifest = self.folder / MANIFEST
        if not manifest.exists() and self.folder.exists() and any(self.folder.iterdir()):
            raise ValueError(f"{self.folder} exists and is no output of backfill (it has no {MANIFEST}); name another folder")
        if manifest.exists():
            try:
                held = Mark(**{name: str(json.loads(manifest.read_text())[name]) for name in Mark._fields})
            except (ValueError, KeyError, TypeError) as error:
                raise ValueError(f"{manifest}: damaged ({type(error).__name__}: {error}); name another output") from None
            if held != mark:
                raise ValueError(
                    f"{self.folder} holds labels of model {held.model} with config {held.config}; this run is model {mark.model} with "
                    f"config {mark.config}. Name another output: the labels of two models do not go together"
                )
        else:
            self.folder.mkdir(parents=True, exist_ok=True)
            self.save(MANIFEST, json.dumps({**mark._asdict(), **told}, indent=1).encode())
        return self._lock() if self.is_local else nullcontext()

    def _lock(self) -> AbstractContextManager[Any]:
        lock = (self.folder / MANIFEST).open("rb")  # the lock ends with the process, however it ends
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            raise ValueError(f"{self.folder}: another process is writing there; wait for it, or stop it") from None
        for stale in self.folder.rglob(".*.aside"):  # of a killed process
            stale.unlink(missing_ok=True)
        return lock

    def save(self, name: str, content: bytes) -> None:
        """Writes a file whole: on a disk aside, then renamed; an object store shows what is complete."""
        target = self.folder / name
        if not self.is_local:
            target.write_bytes(content)
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        aside = target.with_name(f".{target.name}.{os.getpid()}.aside")
        try:
            with aside.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(str(aside), str(target))
        finally:
            aside.unlink(missing_ok=True)

    def parts(self, unit: Unit | None = None) -> list[UPath]:
        """The parts there are, of a unit or of all, in order."""
        return sorted(self.folder.glob(f"{unit.name if unit else '*'}-?????.parquet"), key=str)

    def done(self, unit: Unit | None = None) -> Done:
        """Which dialogues the parts hold; ValueError where a part is damaged."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        def rows() -> Iterator[tuple[str, str]]:
            for part in self.parts(unit):
                try:
                    with part.open("rb") as file:
                        table = pq.read_table(file, columns=["id", "input"])
                    yield from zip(table["id"].to_pylist(), table["input"].to_pylist(), strict=True)
                except (pa.ArrowException, OSError, KeyError) as error:
                    remedy = "delete it and start again: its dialogues will be labelled anew"
                    raise ValueError(f"{part}: damaged ({error}); {remedy}") from None

        return Done(rows())

    def reject(self, unit: Unit, errors: Sequence[RecordError]) -> None:
        """Writes the rows of a unit that could not be used; without any, no file stays from an earlier run."""
        name = f"{REJECTED}/{unit.name}.rejected.jsonl"
        if errors:
            lines = (json.dumps(error.as_row(), ensure_ascii=False) + "\n" for error in errors)
            self.save(name, "".join(lines).encode(errors="backslashreplace"))
        else:
            (self.folder / name).unlink(missing_ok=True)


class Part:
    """Labelled dialogues that are becoming a Parquet file."""

    def __init__(self, mark: Mark) -> None:
        self._mark = mark
        self._schema = part_schema()
        self._rows: list[dict[str, Any]] = []
        self._tables: list[pa.Table] = []
        self.count = 0

    def add(self, dialogue: Dialogue, input: str) -> None:
        """`input`: its fingerprint."""
        values = (*self._mark, input, __version__, datetime.now(UTC))
        self._rows.append({**to_arrow(dialogue), **dict(zip(PROVENANCE, values, strict=True))})
        self.count += 1
        if len(self._rows) == ROWS_AT_ONCE:
            self._flush()

    def _flush(self) -> None:
        import pyarrow as pa

        self._tables.append(pa.Table.from_pylist(self._rows, schema=self._schema))
        self._rows = []

    def content(self) -> bytes:
        """The bytes of the file."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        self._flush()
        file = BytesIO()
        pq.write_table(pa.concat_tables(self._tables), file)
        return file.getvalue()


def part_schema() -> pa.Schema:
    """The record's columns and those of what made the labels."""
    import pyarrow as pa

    schema = arrow_schema()
    for name in PROVENANCE:
        schema = schema.append(pa.field(name, pa.timestamp("us", tz="UTC") if name == "time" else pa.string()))
    return schema
