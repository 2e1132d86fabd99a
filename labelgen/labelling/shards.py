"""The files of a backfill: the input cut into fragments, the output written in shards, and an index of the dialogues that it holds.

    OUTPUT/_backfill.json                                 model, settings and versions: one output holds the labels of one model
    OUTPUT/FILE-DIGEST-FRAGMENT-CHUNK.parquet             a shard: dialogues with their labels and provenance
    OUTPUT/_rejected/FILE-DIGEST-FRAGMENT.rejected.jsonl  rows of a fragment that could not be read or labelled, with reasons

Every file appears whole or not at all, in object stores and on disks. A chunk is a run of a fragment's rows, so the content of a shard
depends on the input alone. The id and the content of a dialogue decide whether it has labels, never its row.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime
from io import BytesIO
from itertools import count, islice, pairwise
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, TYPE_CHECKING, Any, NamedTuple
from uuid import uuid4

import numpy as np
from upath import UPath

from labelgen import __version__
from labelgen.corpora.recognition import foreign
from labelgen.dialogue import Dialogue, RecordError, Reject
from labelgen.io.arrow import PROVENANCE_COLUMNS, arrow_schema, to_arrow, to_tables
from labelgen.io.files import REASONS_SHOWN, NumberedDialogue, hash64, read_records, rejected_line
from labelgen.io.formats import Kind, format_of
from labelgen.io.lock import locked
from labelgen.io.paths import LOCAL_PROTOCOLS, REJECTED_SUFFIX, absolute, error_reason, naming_errors
from labelgen.io.rows import Position, raise_unless_damaged

if TYPE_CHECKING:
    import pyarrow as pa

FRAGMENT_BYTES = 8 * 2**20  # of JSON Lines: some thousand dialogues, minutes of a core
FRAGMENT_ROWS = 8_000  # of Parquet
ROWS_AT_ONCE = 200  # rows that become columns together; as Python objects they take ten times the memory
MANIFEST, LOCK, REJECTED = "_backfill.json", "_lock", "_rejected"  # pyarrow, pandas and Spark skip names that begin with _
RESUME = "run the same command again to resume"


class Fragment(NamedTuple):
    """A piece of an input file: the lines that begin in bytes [start, stop), or of Parquet the rows [start, stop).

    A JSON array, or a file that is compressed with gzip, is one fragment.
    """

    file: str
    number: int
    start: int
    stop: int | None  # None: to the end
    size: int  # bytes
    is_parquet: bool = False  # whether start and stop count rows; otherwise they count bytes

    @property
    def name(self) -> str:
        """The start of the names of its shards. The digest distinguishes files of the same name in different folders."""
        file = UPath(self.file)
        digest = hashlib.blake2b(os.fsencode(self.file), digest_size=8).hexdigest()
        return f"{re.sub(r'[^A-Za-z0-9_.]+', '_', file.stem)[:64]}-{digest}-{self.number:05d}"

    def rows_before(self, counted: int) -> int:
        """Rows of the file before the fragment. `counted`: rows of the fragments before it, used for JSON."""
        return self.start if self.is_parquet else counted


def fragments(file: UPath) -> list[Fragment]:
    """The fragments of a file, in order. A damaged file is one fragment, and reading it gives the reason."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    size = file.stat().st_size
    file_format = format_of(file)
    if not file_format.is_splittable:
        return [Fragment(str(file), 0, 0, None, size)]
    if file_format.kind is not Kind.PARQUET:
        starts = [*range(0, size, FRAGMENT_BYTES)] or [0]
        return [Fragment(str(file), k, a, None if b == size else b, b - a) for k, (a, b) in enumerate(pairwise([*starts, size]))]
    try:
        with file.open("rb") as opened:
            length = pq.read_metadata(opened).num_rows
    except (pa.ArrowException, OSError) as error:
        raise_unless_damaged(error)
        return [Fragment(str(file), 0, 0, None, size, is_parquet=True)]
    starts = [*range(0, length, FRAGMENT_ROWS)] or [0]
    sizes = [end - start for start, end in pairwise([*(size * row // max(length, 1) for row in starts), size])]  # together the file's
    rows = zip(pairwise([*starts, length]), sizes, strict=True)
    return [Fragment(str(file), k, a, b, part, is_parquet=True) for k, ((a, b), part) in enumerate(rows)]


def read_fragment(fragment: Fragment, rows_before: int, position: Position, reject: Reject) -> Iterator[NumberedDialogue]:
    """The dialogues of a fragment. `position` is kept up to date; `reject` takes unusable rows."""
    return read_records(UPath(fragment.file), None, reject, fragment.start, fragment.stop, position, rows_before, foreign)


class FragmentIds(NamedTuple):
    """The ids of a fragment's dialogues as 64-bit hashes, the numbers of their rows in it (from 1), and how many rows it has."""

    ids: np.ndarray
    numbers: np.ndarray
    rows: int


def scan(fragment: Fragment) -> FragmentIds:
    """Reads a fragment for its ids."""
    position = Position()
    found = [(hash64(dialogue.id), number) for number, dialogue in read_fragment(fragment, 0, position, lambda error: None)]
    return FragmentIds(np.array([k for k, _ in found], np.uint64), np.array([n for _, n in found], np.int64), position.row)


class LabelledRow(NamedTuple):
    """A labelled dialogue: the 64-bit hash of its id, and its fingerprint as a number."""

    id: int
    fingerprint: int


class LabelledIndex:
    """The dialogues that an output holds: for each the hash of the id and the fingerprint."""

    def __init__(self, rows: Iterable[LabelledRow] = ()) -> None:
        pairs = np.fromiter(rows, np.dtype((np.uint64, 2)))
        order = np.argsort(pairs[:, 0])
        self._ids, self._fingerprints = np.ascontiguousarray(pairs[order, 0]), np.ascontiguousarray(pairs[order, 1])

    def __len__(self) -> int:
        return len(self._ids)

    def get(self, identity: str) -> str | None:
        """The fingerprint of the labelled dialogue with this id. None: there is none."""
        key = np.uint64(hash64(identity))
        row = int(np.searchsorted(self._ids, key))
        return f"{int(self._fingerprints[row]):016x}" if row < len(self._ids) and self._ids[row] == key else None


class Provenance(NamedTuple):
    """What made the labels of a row: the fingerprints of the model and of the settings."""

    model: str
    config: str


class Output:
    """The folder (or URI of one) that a backfill writes to."""

    def __init__(self, folder: str) -> None:
        self.folder = absolute(folder)
        self.is_local = self.folder.protocol in LOCAL_PROTOCOLS

    @contextmanager
    def claim(self, provenance: Provenance, settings: Mapping[str, Any]) -> Iterator[list[UPath]]:
        """Reserves the folder for this model, and within the context for this process (object stores have no locks). Yields its shards.

        `settings` are written with the provenance. ValueError if the folder holds another model's labels or other files, or if another
        process writes there. FileNotFoundError if the folder was removed in the meantime.
        """
        with naming_errors(self.folder):
            is_file = self.folder.is_file()
            names = {file.name for file in self.folder.iterdir()} if not is_file and self.folder.exists() else set()
        if is_file:
            raise ValueError(f"{self.folder} is a file; name a folder, which will hold Parquet files")
        if names and not names & {MANIFEST, LOCK}:
            raise self._foreign()
        self.folder.mkdir(parents=True, exist_ok=True)
        with self._locked() if self.is_local else nullcontext():
            shards = self.shards()
            if shards:
                self._check(provenance, settings)
            else:  # nothing is labelled yet
                self.save(MANIFEST, json.dumps({**provenance._asdict(), **settings}, indent=1).encode())
            yield shards
            if not (self.folder / MANIFEST).exists():
                raise self._removed()

    def _foreign(self) -> ValueError:
        return ValueError(f"{self.folder} exists and is not an output of backfill (it has no {MANIFEST}); name another folder")

    def _removed(self) -> FileNotFoundError:
        return FileNotFoundError(errno.ENOENT, f"the output was removed during the run; {RESUME}", str(self.folder))

    def _check(self, provenance: Provenance, settings: Mapping[str, Any]) -> None:
        manifest = self.folder / MANIFEST
        if not manifest.exists():
            raise self._foreign()
        try:
            there = json.loads(manifest.read_text())
            other = Provenance(**{name: str(there[name]) for name in Provenance._fields})
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{manifest}: damaged ({type(error).__name__}: {error}); name another output") from None
        if other != provenance:
            differ = [f"{name} {there.get(name)!r} there, {value!r} now" for name, value in settings.items() if there.get(name) != value]
            raise ValueError(
                f"{self.folder} holds labels of model {other.model} with config {other.config}; this run is model {provenance.model} with "
                f"config {provenance.config} ({'; '.join(differ) or 'another export'}). Name another output: it would mix the labels of "
                "two models"
            )

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with locked(Path(self.folder.path, LOCK), f"{self.folder}: another process is writing there; wait for it, or stop it"):
            for stale in self.folder.rglob(".*.aside"):  # left by a killed process
                stale.unlink(missing_ok=True)
            yield

    def save(self, name: str, content: bytes) -> None:
        """Writes a file whole. On a disk it is written under another name, then renamed; an object store shows complete files only."""
        target = self.folder / name
        if not self.is_local:
            target.write_bytes(content)
            return
        temporary = target.with_name(f".{target.name}.{uuid4().hex}.aside")
        try:
            if target.parent != self.folder:
                target.parent.mkdir(exist_ok=True)
            with temporary.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(str(temporary), str(target))
        except OSError as error:
            if not self.folder.exists():
                raise self._removed() from error
            raise OSError(error.errno, f"{error.strerror}; solve that, then {RESUME}", str(target)) from error
        finally:
            temporary.unlink(missing_ok=True)

    def shards(self) -> list[UPath]:
        """All shards, in order."""
        return sorted(self.folder.glob("*.parquet"), key=str)

    def shards_of(self, chunk: str) -> Iterator[UPath]:
        """The shards of a chunk (NAME.parquet, NAME-1.parquet, ...), then the first name that is free. The folder is not listed."""
        for number in count():
            shard = self.folder / f"{chunk}{f'-{number}' if number else ''}.parquet"
            yield shard
            if not shard.exists():
                return

    def index(self, shards: Iterable[UPath]) -> LabelledIndex:
        """The index of the dialogues that these shards hold. ValueError if one is damaged."""
        return LabelledIndex(row for shard in shards for row in _labelled_rows(shard))

    @contextmanager
    def rejected(self, fragment: Fragment) -> Iterator[RejectedRows]:
        """Collects the unusable rows of a fragment and writes them. Without any, the file of an earlier run is deleted."""
        name = f"{REJECTED}/{fragment.name}{REJECTED_SUFFIX}"
        with TemporaryFile() as file:  # not memory: every row of a fragment may be unusable
            rejected = RejectedRows(file)
            yield rejected
            file.seek(0)
            if rejected.count:
                self.save(name, file.read())
            else:
                (self.folder / name).unlink(missing_ok=True)

    def rejected_path(self) -> UPath:
        """The file of rejected rows, or the folder if there are several."""
        files = list(self.folder.glob(f"{REJECTED}/*{REJECTED_SUFFIX}"))
        return files[0] if len(files) == 1 else self.folder / REJECTED

    def first_rejected(self, sources: Collection[str]) -> list[RecordError]:
        """The first rejected rows of these files of the input, with their reasons."""
        files = sorted(self.folder.glob(f"{REJECTED}/*{REJECTED_SUFFIX}"), key=str)
        rows = (json.loads(line) for file in files for line in file.read_bytes().splitlines())
        return [RecordError.of_row(row) for row in islice((row for row in rows if row["source"] in sources), REASONS_SHOWN)]

    def delete_stale_rejected(self, files: Collection[str]) -> None:
        """Deletes the rejected rows of input that is gone: of files that no longer exist, and of fragments that `files` no longer have."""
        for rejected in self.folder.glob(f"{REJECTED}/*{REJECTED_SUFFIX}"):
            with rejected.open("rb") as lines:
                source = json.loads(lines.readline())["source"]
            if source in files:
                stale = rejected.name.removesuffix(REJECTED_SUFFIX) not in {fragment.name for fragment in fragments(UPath(source))}
            else:
                stale = _is_gone(source)
            if stale:
                rejected.unlink()


def _labelled_rows(shard: UPath) -> Iterator[LabelledRow]:
    """The rows of a shard. ValueError if it is damaged."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with shard.open("rb") as file:
            table = pq.read_table(file, columns=["id", "input"])
        for identity, text in zip(table["id"].to_pylist(), table["input"].to_pylist(), strict=True):
            yield LabelledRow(hash64(identity), int(text, 16))
    except (pa.ArrowException, OSError, KeyError, ValueError, TypeError, AttributeError) as error:
        raise_unless_damaged(error)
        raise ValueError(
            f"{shard}: damaged ({error_reason(error)}); delete it and {RESUME}: its dialogues will be labelled again"
        ) from None


def _is_gone(source: str) -> bool:
    try:
        return not UPath(source).exists()
    except Exception:  # a store that does not answer proves nothing; clients have no common error type
        return False


class RejectedRows:
    """Writes unusable rows to an open file, and counts them."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self.count = file, 0

    def __call__(self, error: RecordError) -> None:
        self._file.write(rejected_line(error).encode(errors="backslashreplace"))
        self.count += 1


class Shard:
    """Labelled dialogues that become one Parquet file. `reject` takes those that Arrow refuses."""

    def __init__(self, provenance: Provenance, fragment: Fragment, reject: Reject) -> None:
        self._provenance, self._fragment, self._reject = provenance, fragment, reject
        self._schema = shard_schema()
        self._numbers: list[int] = []
        self._rows: list[dict[str, Any]] = []
        self._tables: list[pa.Table] = []

    def add(self, number: int, dialogue: Dialogue) -> None:
        """Adds a dialogue. `number`: its row in the input file."""
        values = (*self._provenance, dialogue.fingerprint(), __version__, datetime.now(UTC))
        self._numbers.append(number)
        self._rows.append({**to_arrow(dialogue), **dict(zip(PROVENANCE_COLUMNS, values, strict=True))})
        if len(self._rows) == ROWS_AT_ONCE:
            self._flush()

    @property
    def count(self) -> int:
        """The number of dialogues that the file will hold, unless Arrow refuses some."""
        return sum(int(table.num_rows) for table in self._tables) + len(self._rows)

    def _flush(self) -> None:
        self._tables += to_tables(self._rows, self._schema, self._refuse)
        self._rows, self._numbers = [], []

    def _refuse(self, index: int, problem: str) -> None:
        self._reject(RecordError(self._fragment.file, self._numbers[index], str(self._rows[index]["id"]), "record", problem))

    def content(self) -> bytes:
        """The bytes of the file. Empty if it would hold no dialogue."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        self._flush()
        if not self._tables:
            return b""
        file = BytesIO()
        pq.write_table(pa.concat_tables(self._tables), file)
        return file.getvalue()


def shard_schema() -> pa.Schema:
    """The columns of a record and of its provenance."""
    import pyarrow as pa

    schema = arrow_schema()
    for name in PROVENANCE_COLUMNS:
        schema = schema.append(pa.field(name, pa.timestamp("us", tz="UTC") if name == "time" else pa.string()))
    return schema
