"""What a backfill reads and leaves: the input cut into units, the output written in parts, and which dialogues it holds already.

    OUTPUT/_backfill.json                        the model, the settings and the versions: one output holds the labels of one model
    OUTPUT/FILE-DIGEST-UNIT-SLOT.parquet         dialogues with their labels, beside what made them
    OUTPUT/_rejected/FILE-DIGEST-UNIT.rejected.jsonl  rows of a unit that could not be read or labelled, with their reasons

Every file appears whole or not at all (in stores of objects and on disks). A slot is a run of a unit's rows: what a part holds follows from
the input alone. Whether a dialogue is done follows from its id and its content, never from its row.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime
from io import BytesIO
from itertools import count, pairwise
from tempfile import TemporaryFile
from typing import IO, TYPE_CHECKING, Any, NamedTuple
from uuid import uuid4

import numpy as np
from upath import UPath

from labelgen import __version__
from labelgen.dialogue import Dialogue, RecordError, Reject
from labelgen.io.arrow import PROVENANCE_COLUMNS, arrow_schema, to_arrow
from labelgen.io.files import NumberedDialogue, hash64, read_records, rejected_line, stored_row
from labelgen.io.paths import LOCAL_PROTOCOLS, absolute, naming_errors
from labelgen.io.rows import Position, raise_unless_damaged

if TYPE_CHECKING:
    import pyarrow as pa

UNIT_BYTES = 8 * 2**20  # of JSONL: some thousand dialogues, minutes of a core
UNIT_ROWS = 8_000  # of Parquet
ROWS_AT_ONCE = 200  # that become columns together: records of Python's take ten times the memory
MANIFEST, LOCK, REJECTED = "_backfill.json", "_lock", "_rejected"  # what begins with _ is no data to pyarrow, pandas and Spark


class Unit(NamedTuple):
    """A piece of an input file: the lines that begin in bytes [start, stop), of Parquet the rows [start, stop). `size`: bytes of it."""

    file: str
    number: int
    start: int
    stop: int | None  # None: to the end
    size: int

    @property
    def name(self) -> str:
        """Of its parts; the digest tells files of one name in several folders apart."""
        file = UPath(self.file)
        digest = hashlib.blake2b(self.file.encode(), digest_size=8).hexdigest()
        return f"{re.sub(r'[^A-Za-z0-9_.]+', '_', file.stem)[:64]}-{digest}-{self.number:05d}"

    @property
    def is_parquet(self) -> bool:
        """What start and stop count: rows, or bytes."""
        return self.file.endswith(".parquet")

    def rows_before(self, counted: int) -> int:
        """Rows of the file before it: where they are not known, as many as were counted in the units before."""
        return self.start if self.is_parquet else counted


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
            length = pq.read_metadata(opened).num_rows
    except (pa.ArrowException, OSError) as error:
        raise_unless_damaged(error)
        return [Unit(str(file), 0, 0, None, size)]
    starts = [*range(0, length, UNIT_ROWS)] or [0]
    return [Unit(str(file), k, a, b, size * (b - a) // max(length, 1)) for k, (a, b) in enumerate(pairwise([*starts, length]))]


def read_unit(unit: Unit, before: int, place: Position, reject: Reject) -> Iterator[NumberedDialogue]:
    """The dialogues of a unit. `before`: rows of the file before it; `place` says how far it is read; `reject` takes unusable rows."""
    return read_records(UPath(unit.file), stored_row, reject, unit.start, unit.stop, place, before)


class Scan(NamedTuple):
    """The ids of a unit's dialogues, 64 bits each, the numbers of their rows in it, from 1, and how many rows it has."""

    ids: np.ndarray
    numbers: np.ndarray
    rows: int


def scan(unit: Unit) -> Scan:
    """Reads a unit for its ids."""
    place = Position()
    found = [(hash64(dialogue.id), number) for number, dialogue in read_unit(unit, 0, place, lambda error: None)]
    return Scan(np.array([k for k, _ in found], np.uint64), np.array([n for _, n in found], np.int64), place.row)


class Done:
    """The dialogues that an output holds: 64 bits of the id and the fingerprint of each."""

    def __init__(self, rows: Iterable[tuple[int, int]] = ()) -> None:
        """`rows`: keys of ids, and fingerprints as numbers."""
        pairs = np.fromiter(rows, np.dtype((np.uint64, 2)))
        order = np.argsort(pairs[:, 0])
        self._keys, self._inputs = np.ascontiguousarray(pairs[order, 0]), np.ascontiguousarray(pairs[order, 1])

    def __len__(self) -> int:
        return len(self._keys)

    def get(self, identity: str) -> str | None:
        """The fingerprint under which the id was labelled; None: it was not."""
        number = np.uint64(hash64(identity))
        place = int(np.searchsorted(self._keys, number))
        return f"{int(self._inputs[place]):016x}" if place < len(self._keys) and self._keys[place] == number else None


class Mark(NamedTuple):
    """What made the labels of a row."""

    model: str
    config: str


class Output:
    """The folder (or URI of one) that a backfill writes to."""

    def __init__(self, folder: str) -> None:
        self.folder = absolute(folder)
        self.is_local = self.folder.protocol in LOCAL_PROTOCOLS

    @contextmanager
    def claim(self, mark: Mark, told: Mapping[str, Any]) -> Iterator[list[UPath]]:
        """Makes the folder this model's, and this process's while it lasts (on a disk; object stores have no locks): the parts there.

        `told` is kept beside the mark. ValueError where the folder holds another model's labels, or other files, or another process
        writes there.
        """
        with naming_errors(self.folder):
            is_file = self.folder.is_file()
            held = {file.name for file in self.folder.iterdir()} if not is_file and self.folder.exists() else set()
        if is_file:
            raise ValueError(f"{self.folder} is a file; name a folder, which will hold Parquet files")
        if held and not held & {MANIFEST, LOCK}:
            raise self._foreign()
        self.folder.mkdir(parents=True, exist_ok=True)
        with self._locked() if self.is_local else nullcontext():
            parts = self.parts()
            if parts:
                self._check(mark, told)
            else:  # nothing is labelled yet
                self.save(MANIFEST, json.dumps({**mark._asdict(), **told}, indent=1).encode())
            yield parts

    def _foreign(self) -> ValueError:
        return ValueError(f"{self.folder} exists and is no output of backfill (it has no {MANIFEST}); name another folder")

    def _check(self, mark: Mark, told: Mapping[str, Any]) -> None:
        manifest = self.folder / MANIFEST
        if not manifest.exists():
            raise self._foreign()
        try:
            there = json.loads(manifest.read_text())
            held = Mark(**{name: str(there[name]) for name in Mark._fields})
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{manifest}: damaged ({type(error).__name__}: {error}); name another output") from None
        if held != mark:
            differ = [f"{name} {there.get(name)!r} there, {value!r} now" for name, value in told.items() if there.get(name) != value]
            raise ValueError(
                f"{self.folder} holds labels of model {held.model} with config {held.config}; this run is model {mark.model} with "
                f"config {mark.config} ({'; '.join(differ) or 'another export'}). Name another output: the labels of two models do not "
                "go together"
            )

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with (self.folder / LOCK).open("ab") as lock:  # the lock ends with the process, however it ends
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ValueError(f"{self.folder}: another process is writing there; wait for it, or stop it") from None
            for stale in self.folder.rglob(".*.aside"):  # of a killed process
                stale.unlink(missing_ok=True)
            yield

    def save(self, name: str, content: bytes) -> None:
        """Writes a file whole: on a disk aside, then renamed; an object store shows what is complete."""
        target = self.folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if not self.is_local:
            target.write_bytes(content)
            return
        aside = target.with_name(f".{target.name}.{uuid4().hex}.aside")
        try:
            with aside.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(str(aside), str(target))
        except OSError as error:
            told = f"{error.strerror}; mend that and start the same command again: it goes on from here"
            raise OSError(error.errno, told, str(target)) from error
        finally:
            aside.unlink(missing_ok=True)

    def parts(self) -> list[UPath]:
        """All parts, in order."""
        return sorted(self.folder.glob("*.parquet"), key=str)

    def slot(self, name: str) -> Iterator[UPath]:
        """The parts of a slot: NAME.parquet, NAME-1.parquet, ..., and the first name that is free. The folder is not listed."""
        for number in count():
            part = self.folder / f"{name}{f'-{number}' if number else ''}.parquet"
            yield part
            if not part.exists():
                return

    def done(self, parts: Iterable[UPath]) -> Done:
        """Which dialogues these parts hold; ValueError where one is damaged."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        def pairs() -> Iterator[tuple[int, int]]:
            for part in parts:
                try:
                    with part.open("rb") as file:
                        table = pq.read_table(file, columns=["id", "input"])
                    for identity, text in zip(table["id"].to_pylist(), table["input"].to_pylist(), strict=True):
                        yield hash64(identity), int(text, 16)
                except (pa.ArrowException, OSError, KeyError, ValueError, TypeError, AttributeError) as error:
                    raise_unless_damaged(error)
                    remedy = "delete it and start again: its dialogues will be labelled anew"
                    raise ValueError(f"{part}: damaged ({error}); {remedy}") from None

        return Done(pairs())

    @contextmanager
    def rejected(self, unit: Unit) -> Iterator[Rejects]:
        """Takes the rows of a unit that cannot be used. Without any, no file stays from an earlier run."""
        name = f"{REJECTED}/{unit.name}.rejected.jsonl"
        with TemporaryFile() as file:  # not memory: every row of a unit may be unusable
            rejects = Rejects(file)
            yield rejects
            file.seek(0)
            if rejects.count:
                self.save(name, file.read())
            else:
                (self.folder / name).unlink(missing_ok=True)


class Rejects:
    """Writes unusable rows to an open file, and counts them."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self.count = file, 0

    def __call__(self, error: RecordError) -> None:
        self._file.write(rejected_line(error).encode(errors="backslashreplace"))
        self.count += 1


class Part:
    """Labelled dialogues that are becoming a Parquet file."""

    def __init__(self, mark: Mark) -> None:
        self._mark = mark
        self._schema = part_schema()
        self._rows: list[dict[str, Any]] = []
        self._tables: list[pa.Table] = []
        self.count = 0

    def add(self, dialogue: Dialogue) -> None:
        """A row more."""
        values = (*self._mark, dialogue.fingerprint(), __version__, datetime.now(UTC))
        self._rows.append({**to_arrow(dialogue), **dict(zip(PROVENANCE_COLUMNS, values, strict=True))})
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
    for name in PROVENANCE_COLUMNS:
        schema = schema.append(pa.field(name, pa.timestamp("us", tz="UTC") if name == "time" else pa.string()))
    return schema
