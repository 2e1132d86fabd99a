"""Files of records: JSONL and Parquet, read as a stream and written whole; what cannot be read goes to a file of its own, with reasons.

What is read lies on a disk or in an object store: a path may be a URI of any file system that fsspec knows (`s3://bucket/logs/*.parquet`).
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from fsspec.core import split_protocol
from fsspec.utils import glob_translate
from upath import UPath

from labelgen.dialogue import Dialogue, RecordError, Reject, parse, refuse
from labelgen.io.rows import Place, Row, rows

if TYPE_CHECKING:
    import pyarrow as pa

log = logging.getLogger(__name__)
RECORDS = (".jsonl", ".parquet")  # a path's ending names the format
DISK = ("", "file", "local")  # protocols of this machine's own files
PROVENANCE = ("model", "config", "input", "version", "time")  # columns that backfill adds
SAME_ID = "a dialogue with this id came before; make ids unique (this one is left out)"
RECENT = 50_000  # ids in a set of Python's, 80 bytes each; the others are 8 bytes each


class Read(NamedTuple):
    """A dialogue, and its row in the file (from 1)."""

    row: int
    dialogue: Dialogue


def rejected_line(error: RecordError) -> str:
    """A line of a JSONL file of what could not be used; it may hold half a surrogate pair, of an unusable id."""
    return json.dumps(error.as_row(), ensure_ascii=False) + "\n"


class Rejected:
    """Writes unusable records to a JSONL file beside the output, with their reasons, and counts them."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.count = 0
        with suppress(FileNotFoundError):  # a file of an earlier run would be read as this run's
            self.path.unlink()

    def __call__(self, error: RecordError) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8", errors="backslashreplace") as file:
            file.write(rejected_line(error))
        self.count += 1


def key(text: str) -> int:
    """64 bits that stand for a text."""
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")


class Ids:
    """The ids of the dialogues so far: 8 bytes each, so that those of a year of logs fit in memory."""

    def __init__(self) -> None:
        self._recent: set[int] = set()
        self._older: list[np.ndarray] = []  # sorted, each at most half as long as the one before: few to search, seldom merged

    def add(self, identity: str) -> bool:
        """False where the id came before."""
        number = key(identity)
        if number in self._recent:
            return False
        for run in self._older:
            place = int(np.searchsorted(run, np.uint64(number)))
            if place < len(run) and int(run[place]) == number:
                return False
        self._recent.add(number)
        if len(self._recent) == RECENT:
            run = np.sort(np.fromiter(self._recent, np.uint64, RECENT))
            while self._older and len(self._older[-1]) < 2 * len(run):
                run = np.sort(np.concatenate([self._older.pop(), run]), kind="stable")
            self._older.append(run)
            self._recent.clear()
        return True


def read(path: str | os.PathLike[str], reject: Reject | None = None) -> Iterator[Dialogue]:
    """Dialogues of a JSONL or Parquet file, of all such files of a folder, or of those that a pattern (`*`) names, streamed in order.

    `reject` takes what cannot be used (bad rows, second uses of an id) and reading goes on; without it the first such row raises.
    """
    return read_each(record_files(path), as_written, reject)


def record_files(path: str | os.PathLike[str]) -> list[UPath]:
    """The files of records that a path names; ValueError where there are none."""
    return files(path, RECORDS, "labelgen reads .jsonl (one dialogue a line) and .parquet; `labelgen schema` prints the record")


def read_each(found: Iterable[UPath], convert: Callable[[Row, str, int], Row], reject: Reject | None) -> Iterator[Dialogue]:
    """One dialogue a row of each file; `convert` takes a row, its file and its number (from 1), and gives the fields of the record.

    `reject` takes rows that `convert` or the record refuses with a RecordError, and second uses of an id; without it the first raises.
    """
    ids = Ids()
    for file in found:
        for number, dialogue in records(file, convert, reject):
            if ids.add(dialogue.id):
                yield dialogue
            else:
                refuse(RecordError(str(file), number, dialogue.id, "id", SAME_ID), reject)


def records(
    file: UPath,
    convert: Callable[[Row, str, int], Row],
    reject: Reject | None,
    start: int = 0,
    stop: int | None = None,
    place: Place | None = None,
    before: int = 0,
) -> Iterator[Read]:
    """The dialogues of a file, or of a piece of it as `rows` cuts it; `before`: rows of the file before the piece. Ids may repeat."""
    for number, row in rows(file, start, stop, place):
        number += before
        try:
            if isinstance(row, str):
                raise RecordError(str(file), number, None, "record", row)
            dialogue = parse(convert(row, str(file), number), str(file), number)
        except RecordError as error:
            refuse(error, reject)
        else:
            yield Read(number, dialogue)


def local(path: str | os.PathLike[str]) -> Path:
    """A path on a disk; ValueError where it is a URI of elsewhere."""
    protocol = split_protocol(str(path))[0] or ""
    if protocol not in DISK:
        raise ValueError(f"{path}: {protocol} cannot be used here; give a path on a disk, and copy it there or from there")
    return Path(UPath(path).path)


def located(path: str | os.PathLike[str] | UPath) -> UPath:
    """A path or URI in full: on a disk a plain path without links, so that two of them can be compared."""
    with reaching(path):
        place = UPath(path)
        if place.protocol in DISK:
            return UPath(Path(place.path).resolve())
        _ = place.fs  # made on first use
        return place.absolute()


@contextmanager
def reaching(path: str | os.PathLike[str] | UPath) -> Iterator[None]:
    """ValueError, naming the path, for what a store's client raises: no package, no credentials, an unknown protocol. OSError passes."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:  # each client has errors of its own
        raise ValueError(f"{path}: {error}") from None


def reads(source: str | os.PathLike[str], path: UPath) -> bool:
    """Would a file, folder or pattern read `path`, as `located` gives it, or what is written into it?"""
    if "*" not in str(source):
        return located(source) in (path, *path.parents)
    base, rest = _split(UPath(source))
    named = re.compile(glob_translate(f"{str(located(base)).rstrip('/')}/{rest}"))
    return any(named.match(str(one).rstrip("/")) for one in (path, *path.parents))


def check_output(output: str, source: str | None) -> None:
    """ValueError where `output` names no file of records, or would overwrite or join what is read from `source` (None: nothing is)."""
    target = local(output).resolve()
    if source is not None and reads(source, located(target)):
        raise ValueError(f"{output}: the output would overwrite the input, or be read as input the next time; write it elsewhere")
    if target.suffix not in RECORDS or target.is_dir():
        raise ValueError(f"{output}: name a file that ends in .jsonl or .parquet")


def files(path: str | os.PathLike[str], endings: Collection[str], remedy: str) -> list[UPath]:
    """The files with one of the endings that a path, a URI or a pattern names, in order, but hidden and rejected ones.

    ValueError where there are none; where a file has another ending it ends in `remedy`.
    """
    if not str(path):
        raise ValueError("the path is empty, as of a variable that is not set; name a file, a folder or a pattern")
    with reaching(path):
        root, rest = _split(UPath(path)) if "*" in str(path) else (UPath(path), "")
        named = sorted(root.glob(rest), key=str) if rest else [root] if root.exists() else []
        found = (file for one in named for file in ((f for f in one.rglob("*") if f.is_file()) if one.is_dir() else [one]))
        every = list({str(file): file for file in found}.values())  # a pattern may name a folder and what is in it
    if not named:
        raise ValueError(f"{path}: no such file or folder")
    if every == named and (wrong := next((file for file in every if file.suffix not in endings), None)):
        raise ValueError(f"{wrong}: {remedy}")
    below = len(str(root).rstrip("/"))  # a folder that is hidden hides its files, but one that is named does not
    seen = [file for file in every if not any(part.startswith((".", "_")) for part in str(file)[below:].split("/"))]
    shown = [file for file in seen if not file.name.endswith(".rejected.jsonl")]
    wanted = [file for file in shown if file.suffix in endings]
    if wanted and (others := [file.name for file in shown if file.suffix not in endings]):
        log.warning("%s: %d files are left out, such as %s; %s", path, len(others), others[0], remedy)
    if not wanted:
        raise ValueError(f"{path}: the folder holds {' and '.join(f'no {ending}' for ending in endings)} file")
    return sorted(wanted, key=str)


def _split(pattern: UPath) -> tuple[UPath, str]:
    """The folder that a pattern starts from, and the pattern within it."""
    whole = pattern.absolute()
    base = next(parent for parent in whole.parents if "*" not in str(parent))
    return base, str(whole)[len(str(base)) :].lstrip("/")


def as_written(row: Row, source: str, number: int) -> Row:
    """A row as `write` or `backfill` wrote it. Parquet has maps as pairs, votes' values and metadata as JSON, and null for absent."""
    if not source.endswith(".parquet"):
        return row
    try:
        row = {name: value for name, value in row.items() if value is not None and name not in PROVENANCE}
        if isinstance(row.get("metadata"), str):
            row["metadata"] = json.loads(row["metadata"])
        row["votes"] = [_vote_from_arrow(vote) for vote in row.get("votes", ())]
        turns = []
        for turn in row.get("turns", ()):
            turn = {name: value for name, value in turn.items() if value is not None}
            for name in ("categorical", "numerical"):
                turn[name] = dict(turn.get(name, ()))
            turn["votes"] = [_vote_from_arrow(vote) for vote in turn.get("votes", ())]
            turns.append(turn)
        return {**row, "turns": turns}
    except (TypeError, ValueError, AttributeError, KeyError, RecursionError) as error:
        problem = f"the columns are not labelgen's ({error}); write Parquet with labelgen.write or use labelgen.io.files.arrow_schema"
        raise RecordError(source, number, None, "record", problem) from None


def _vote_from_arrow(vote: dict[str, Any]) -> dict[str, Any]:
    return {**vote, "value": json.loads(vote["value"])}


def write(dialogues: Iterable[Dialogue], path: str | os.PathLike[str], rows_per_group: int = 1000) -> int:
    """Dialogues -> .jsonl or .parquet by the name's ending; whole or not at all (written aside, then renamed). Returns their number."""
    path = local(path)
    if path.suffix not in RECORDS:
        raise ValueError(f"{path}: the name must end in .jsonl or .parquet")
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        count = (_write_parquet if path.suffix == ".parquet" else _write_jsonl)(dialogues, aside, rows_per_group)
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)
    return count


def _write_jsonl(dialogues: Iterable[Dialogue], path: Path, rows_per_group: int) -> int:
    count = 0
    with path.open("w", encoding="utf-8") as file:
        for dialogue in dialogues:
            file.write(dialogue.model_dump_json(exclude_none=True, exclude_defaults=True) + "\n")
            count += 1
    return count


def _write_parquet(dialogues: Iterable[Dialogue], path: Path, rows_per_group: int) -> int:
    import pyarrow as pa
    import pyarrow.parquet as pq

    count, rows, schema = 0, [], arrow_schema()
    with pq.ParquetWriter(path, schema) as writer:
        for dialogue in dialogues:
            rows.append(to_arrow(dialogue))
            count += 1
            if len(rows) == rows_per_group:
                writer.write_table(pa.Table.from_pylist(rows, schema=schema))
                rows = []
        if rows:
            writer.write_table(pa.Table.from_pylist(rows, schema=schema))
    return count


def to_arrow(dialogue: Dialogue) -> dict[str, Any]:
    """A row of `arrow_schema`."""
    row = dialogue.model_dump()
    row["metadata"] = json.dumps(row["metadata"], ensure_ascii=False)
    for holder in (row, *row["turns"]):
        holder["votes"] = [{**vote, "value": json.dumps(vote["value"], ensure_ascii=False)} for vote in holder["votes"]]
    return row


def arrow_schema() -> pa.Schema:
    """The one Arrow schema of Parquet files; free metadata and votes' values are JSON columns."""
    import pyarrow as pa

    text, integers = pa.string(), pa.list_(pa.int32())
    span = [("start", pa.int32()), ("end", pa.int32())]
    slots = pa.list_(pa.struct([("name", text), *span, ("value", text), ("normalised", text), ("categorical", pa.bool_())]))
    votes = pa.list_(pa.struct([("question", text), ("value", text), ("annotator", text)]))
    goals = pa.list_(pa.struct([("turns", integers), ("name", text), ("outcome", text)]))
    labels = pa.list_(
        pa.struct([
            ("task", text), ("value", text), ("turns", integers), ("confidence", pa.float64()),
            ("part", text), *span, ("text", text), ("source", text),
        ])
    )  # fmt: skip
    turn = pa.struct([
        ("request", text), ("response", text), ("timestamp", pa.timestamp("us", tz="UTC")),
        ("categorical", pa.map_(text, text)), ("numerical", pa.map_(text, pa.float64())), ("audio", text),
        ("intent", text), ("request_slots", slots), ("response_slots", slots), ("defect", pa.bool_()),
        ("rewrites", pa.list_(text)), ("votes", votes),
    ])  # fmt: skip
    return pa.schema([
        ("id", text), ("turns", pa.list_(turn)), ("user", text), ("goals", goals), ("votes", votes), ("labels", labels), ("metadata", text),
    ])  # fmt: skip
