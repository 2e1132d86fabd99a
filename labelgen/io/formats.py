"""What a file holds, decided by its content in this one place. The ending of a name only says which files of a folder are read."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from enum import Enum
from typing import BinaryIO, NamedTuple, cast

from upath import UPath

HEAD = 2**20  # bytes at the start of a file, by which it is recognised
PARQUET, GZIP, ZIP = b"PAR1", b"\x1f\x8b", b"PK\x03\x04"
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class Kind(Enum):
    """How the rows of a file are laid out."""

    JSON_LINES = "JSON Lines"
    JSON_VALUES = "JSON"  # one array of rows, or rows that take several lines each
    PARQUET = "Parquet"
    TEXT = "text"  # CSV, or nothing that is known
    ZIP = "a zip archive"  # also the workbooks of Excel


class Format(NamedTuple):
    """The layout of a file's rows, and whether the file is compressed with gzip."""

    kind: Kind
    is_gzip: bool = False

    @property
    def is_splittable(self) -> bool:
        """Whether reading may begin in the middle of the file."""
        return not self.is_gzip and self.kind in (Kind.JSON_LINES, Kind.TEXT, Kind.PARQUET)

    def __str__(self) -> str:
        return f"{self.kind.value}, compressed with gzip" if self.is_gzip else self.kind.value


def format_of(file: UPath) -> Format:
    """The format of a file. An empty or damaged file has the format of its ending."""
    with file.open("rb") as raw:
        is_gzip = raw.read(len(GZIP)) == GZIP
    head = read_head(file, is_gzip)
    if head.startswith(PARQUET):
        return Format(Kind.PARQUET, is_gzip)
    if head.startswith(ZIP):
        return Format(Kind.ZIP, is_gzip)
    kind = _kind_of_text(head.removeprefix(BYTE_ORDER_MARK).lstrip())
    if kind is Kind.TEXT and has_ending(file.name, (".parquet",)):
        return Format(Kind.PARQUET, is_gzip)
    return Format(kind, is_gzip)


def read_head(file: UPath, is_gzip: bool) -> bytes:
    """The first bytes of a file, decompressed. Of a damaged file, those that can be read."""
    head = bytearray()
    with open_decompressed(file, is_gzip) as opened:
        try:
            while len(head) < HEAD and (more := opened.content.read(2**13)):
                head += more
        except (OSError, EOFError, zlib.error) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise
    return bytes(head)


def _kind_of_text(head: bytes) -> Kind:
    """JSON values begin with an array, or with a line that is the beginning of an object. JSON Lines may have arrays as rows."""
    line, _, rest = head.partition(b"\n")
    following = rest.lstrip()[:1]
    if head.startswith(b"["):
        return Kind.JSON_LINES if following and _json_error(line) is None else Kind.JSON_VALUES
    if not head.startswith(b"{"):
        return Kind.TEXT
    cut = _json_error(line)
    continues = cut is not None and cut >= len(line.decode("utf-8", "replace").rstrip()) and following not in (b"", b"{")
    return Kind.JSON_VALUES if continues else Kind.JSON_LINES


def _json_error(line: bytes) -> int | None:
    """The character of a line at which it is no JSON. None: it is JSON."""
    try:
        json.loads(line.decode("utf-8", "replace"))
    except json.JSONDecodeError as error:
        return error.pos
    except (ValueError, RecursionError):
        return 0
    return None


def has_ending(name: str, endings: Collection[str]) -> bool:
    """Whether a name has one of the endings (`.jsonl`, in lower case), in any case, with or without `.gz`."""
    return name.lower().removesuffix(".gz").endswith(tuple(endings))


class Opened(NamedTuple):
    """A file that is open: its bytes, decompressed, and the file on the disk, whose position says how far it is read."""

    content: BinaryIO
    raw: BinaryIO


@contextmanager
def open_decompressed(file: UPath, is_gzip: bool) -> Iterator[Opened]:
    """Opens a file for reading."""
    with file.open("rb") as raw:
        yield Opened(cast(BinaryIO, gzip.GzipFile(fileobj=raw)) if is_gzip else raw, raw)
