"""What a file holds, decided by its content in this one place. The ending of a name only says which files of a folder are read."""

from __future__ import annotations

import io
import json
import zlib
from collections import deque
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from enum import Enum
from typing import Any, BinaryIO, NamedTuple, cast

from upath import UPath

HEAD = 2**20  # bytes at the start of a file, by which it is recognised
CHUNK = 2**16  # bytes that are read at once
MAX_ROW = 2**26  # bytes of a line, or characters of an element of an array: a larger one is never held in memory
LONGEST_TOKEN = 16  # characters: an error this close to the end of a text may be due to the end alone
GZIP_BITS = 31  # zlib's number for gzip
MOST_REACHED = 1000
PARQUET, GZIP, ZIP = b"PAR1", b"\x1f\x8b", b"PK\x03\x04"
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
JSON_IN_UTF_16 = tuple(text.encode(f"utf-16-{order}") for text in ("[", "{", "\ufeff[", "\ufeff{") for order in ("le", "be"))


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
    """The format of a file. An empty or damaged file has the format of its ending. ValueError: it is JSON in UTF-16."""
    with file.open("rb") as raw:
        is_gzip = raw.read(len(GZIP)) == GZIP
    head = read_head(file, is_gzip)
    if head.startswith(PARQUET):
        return Format(Kind.PARQUET, is_gzip)
    if head.startswith(ZIP):
        return Format(Kind.ZIP, is_gzip)
    if head.startswith(JSON_IN_UTF_16):
        raise ValueError(f"{file}: JSON in UTF-16; save the file as UTF-8")
    kind = _kind_of_text(head.removeprefix(BYTE_ORDER_MARK).lstrip(), is_cut=len(head) >= HEAD)
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


def _kind_of_text(head: bytes, is_cut: bool) -> Kind:
    """The layout of a text that begins with `head`, which is cut at its end or whole.

    JSON Lines have a value per line. If the first line is none, it may be the beginning of a value that takes several lines, or a broken
    line. The head decides: it is one value, or most of the following lines are objects.
    """
    if not head.startswith((b"[", b"{")):
        return Kind.TEXT
    is_array = head.startswith(b"[")
    first, *rest = (line for line in head.split(b"\n") if line.strip())
    error = _json_error(first)
    if not rest or error is None:
        return Kind.JSON_VALUES if is_array and not rest else Kind.JSON_LINES
    if not is_array and error < len(first.decode("utf-8", "replace").rstrip()):
        return Kind.JSON_LINES
    if _json_error(head, is_cut) is None:
        return Kind.JSON_VALUES
    lines = rest[:-1] if is_cut else rest
    objects = sum(line.startswith(b"{") and _json_error(line) is None for line in lines)
    is_most = 2 * objects > len(lines) and objects > is_array  # the last element of an array has no comma, so that it is an object alone
    return Kind.JSON_LINES if is_most else Kind.JSON_VALUES


def _json_error(text: bytes, is_cut: bool = False) -> int | None:
    """The character of a text at which it is no JSON. None: it is JSON, or with `is_cut` the beginning of it."""
    decoded = text.decode("utf-8", "replace")
    try:
        json.loads(decoded)
    except json.JSONDecodeError as error:
        is_value = error.msg == "Extra data" and "\n" in decoded[: error.pos].rstrip()  # one that takes several lines, and others after it
        may_continue = is_cut and (error.msg.startswith("Unterminated string") or error.pos >= len(decoded) - LONGEST_TOKEN)
        return None if is_value or may_continue else error.pos
    except (ValueError, RecursionError):
        return 0
    return None


def has_ending(name: str, endings: Collection[str]) -> bool:
    """Whether a name has one of the endings (`.jsonl`, in lower case), in any case, with or without `.gz`."""
    return name.lower().removesuffix(".gz").endswith(tuple(endings))


class Opened(NamedTuple):
    """A file that is open: its bytes, decompressed, and how many bytes on the disk hold the first so many of them."""

    content: BinaryIO
    stored: Callable[[int], int]


@contextmanager
def open_decompressed(file: UPath, is_gzip: bool) -> Iterator[Opened]:
    """Opens a file for reading."""
    with file.open("rb") as raw:
        if is_gzip:
            reader = GzipReader(raw)
            yield Opened(cast(BinaryIO, io.BufferedReader(reader, CHUNK)), reader.stored)
        else:
            is_buffered = isinstance(raw, io.BufferedReader | io.BytesIO)  # readline of a file in an object store takes no limit
            yield Opened(raw if is_buffered else cast(BinaryIO, io.BufferedReader(raw, CHUNK)), int)


class _Reached(NamedTuple):
    """How far a compressed file is decompressed: bytes of the content, and the bytes on the disk that hold them."""

    content: int
    stored: int


class GzipReader(io.RawIOBase):
    """The decompressed bytes of a gzip file. Unlike `gzip.GzipFile` it knows which bytes on the disk hold them.

    EOFError: the file is cut short. zlib.error: it is damaged.
    """

    def __init__(self, raw: BinaryIO) -> None:
        self._raw, self._read, self._input = raw, 0, b""
        self._member = zlib.decompressobj(GZIP_BITS)
        self._reached = deque([_Reached(0, 0)], MOST_REACHED)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        found = self._decompress(len(buffer))
        buffer[: len(found)] = found
        if found:
            self._reached.append(_Reached(self._reached[-1].content + len(found), self._read - len(self._input)))
        return len(found)

    def _decompress(self, size: int) -> bytes:
        """At most so many bytes. Empty: the file has ended."""
        while True:
            if not self._input:
                self._input = self._raw.read(CHUNK)
                self._read += len(self._input)
            is_at_end = not self._input
            if self._member.eof:  # another member, or zeros that fill a block, may follow
                if is_at_end:
                    return b""
                self._input = self._input.lstrip(b"\0")
                if self._input:
                    self._member = zlib.decompressobj(GZIP_BITS)
                continue
            found = self._member.decompress(self._input, size)
            self._input = self._member.unused_data if self._member.eof else self._member.unconsumed_tail
            if found:
                return found
            if is_at_end and not self._member.eof:
                raise EOFError("the compressed data have no end")

    def stored(self, byte: int) -> int:
        """How many bytes on the disk hold the first `byte` bytes of the content. Later calls give no smaller one."""
        while len(self._reached) > 2 and self._reached[1].content <= byte:
            self._reached.popleft()
        before, after = self._reached[0], self._reached[min(1, len(self._reached) - 1)]
        share = (byte - before.content) / max(after.content - before.content, 1)
        return before.stored + round((after.stored - before.stored) * max(share, 0))
