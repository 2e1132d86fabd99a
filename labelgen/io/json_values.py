"""Reads the elements of a JSON array, or JSON values that follow one another, without holding the file in memory."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from typing import Any, BinaryIO

CHUNK = 2**16  # bytes that are read at once
LONGEST_TOKEN = 16  # characters: an error this close to the end of the text may be due to the end alone
SPACE = re.compile(r"[ \t\r\n]*")
NOT_UTF8 = re.compile("[\udc80-\udcff]")  # how Python decodes bytes that are not UTF-8


class JSONValues:
    """Iterates over the values of a file, one in memory at a time. ValueError: it is not JSON from here on."""

    def __init__(self, content: BinaryIO) -> None:
        self._content, self._is_at_end = content, False
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")("surrogateescape")
        self._decode = json.JSONDecoder().raw_decode
        self._text, self._start = "", 0  # what is read of the file, and where the next value begins in it
        self._before = 0  # characters of the file before the text
        self.is_utf8 = True  # whether the last value is UTF-8

    def __iter__(self) -> Iterator[Any]:
        if self._next_character() != "[":
            while self._next_character():
                yield self._value()
            return
        self._start += 1
        if self._next_character() != "]":
            yield self._value()
            while self._next_character() == ",":
                self._start += 1
                yield self._value()
        if (character := self._next_character()) != "]":
            raise self._error("expected , or ]" if character else "the array has no end", self._start)
        self._start += 1
        if self._next_character():
            raise self._error("text after the end of the array", self._start)

    def _next_character(self) -> str:
        """The first character of the next value or separator. Empty: the file has ended."""
        while True:
            match = SPACE.match(self._text, self._start)
            self._start = match.end() if match else self._start
            if self._start < len(self._text):
                return self._text[self._start]
            if not self._read_more():
                return ""

    def _value(self) -> Any:
        self._next_character()
        while True:
            try:
                value, end = self._decode(self._text, self._start)
            except json.JSONDecodeError as error:
                may_continue = error.msg.startswith("Unterminated string") or error.pos >= len(self._text) - LONGEST_TOKEN
                if not (may_continue and self._read_more()):
                    raise self._error(error.msg, error.pos) from None
                continue
            is_closed = self._text[end - 1] in '}]"'  # a number or a word may continue behind the end of the text
            if is_closed or end <= len(self._text) - LONGEST_TOKEN or not self._read_more():
                self.is_utf8 = NOT_UTF8.search(self._text, self._start, end) is None
                self._start = end
                return value

    def _read_more(self) -> bool:
        """Appends to the text as much as it holds, so that a long value is not decoded often. False: the file has ended."""
        if self._is_at_end:
            return False
        more = self._content.read(max(CHUNK, len(self._text) - self._start))
        self._is_at_end = not more
        self._before += self._start
        self._text, self._start = self._text[self._start :] + self._decoder.decode(more, final=not more), 0
        return True

    def _error(self, problem: str, at: int) -> ValueError:
        return ValueError(f"{problem} at character {self._before + at + 1:,}")
