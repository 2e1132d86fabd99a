"""Reads the elements of a JSON array, or JSON values that follow one another, without holding the file in memory."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from typing import Any, BinaryIO, NamedTuple

from labelgen.io.formats import CHUNK, LONGEST_TOKEN, MAX_ROW

DEEPEST = 2**20  # brackets that are open at once
SPACE = re.compile(r"[ \t\r\n]*")
WORD = re.compile(r"[\w.+-]+")  # numbers, true, false, null and whatever else has no quotation marks
WORDS = re.compile(r'[^"\\]*')  # of a string
NOT_DECODED = re.compile("[\udc80-\udcff]")  # how Python decodes bytes that are not UTF-8
NOT_UTF8 = "not UTF-8; save the file as UTF-8"
CLOSING = {"[": "]", "{": "}"}
BEFORE_STRING, AFTER_STRING = ("", "[", "{", ",", ":"), (",", ":", "]", "}")


class Unusable(NamedTuple):
    """Stands for a value that cannot be used, and says why."""

    reason: str


class JSONValues:
    """Iterates over the values of a file, one in memory at a time.

    In the place of a value that cannot be used comes an Unusable. ValueError: where the next value begins is in doubt.
    """

    def __init__(self, content: BinaryIO) -> None:
        self._content, self._is_at_end = content, False
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")("surrogateescape")
        self._decode = json.JSONDecoder().raw_decode
        self._text, self._start = "", 0  # what is read of the file, and where the next value begins in it
        self._before = 0  # characters of the file before the text
        self._bytes, self._counted = 0, 0  # bytes of the file, and the characters of the text that are counted in them

    def __iter__(self) -> Iterator[Any]:
        if self._next_character() != "[":
            while self._next_character():
                yield self._value()
            return
        self._start += 1
        if self._next_character() != "]":
            yield self._element()
            while self._next_character() == ",":
                self._start += 1
                yield self._element()
        if (character := self._next_character()) != "]":
            raise ValueError(self._at("expected , or ]" if character else "the array has no end", self._start))
        self._start += 1
        if self._next_character():
            raise ValueError(self._at("text after the end of the array", self._start))

    @property
    def byte(self) -> int:
        """The bytes of the file up to the end of the last value."""
        part = self._text[self._counted : self._start]
        self._bytes += len(part) if part.isascii() else len(part.encode("utf-8", "surrogateescape"))
        self._counted = self._start
        return self._bytes

    def _next_character(self) -> str:
        """The first character of the next value or separator. Empty: the file has ended."""
        while True:
            match = SPACE.match(self._text, self._start)
            self._start = match.end() if match else self._start
            if self._start < len(self._text):
                return self._text[self._start]
            if not self._read_more():
                return ""

    def _element(self) -> Any:
        """The next value of an array."""
        is_missing = self._next_character() in (",", "]")
        return Unusable(f"not JSON ({self._at('an element is missing', self._start)})") if is_missing else self._value()

    def _value(self) -> Any:
        """The next value, or an Unusable. ValueError: its end is in doubt."""
        self._next_character()
        while True:
            try:
                value, end = self._decode(self._text, self._start)
            except (ValueError, RecursionError) as error:
                if self._may_continue(error) and self._read_more():
                    continue
                is_large = len(self._text) - self._start > MAX_ROW
                return self._skip(None if is_large else self._reason(error))
            is_closed = self._text[end - 1] in '}]"'  # a number or a word may continue behind the end of the text
            if is_closed or end <= len(self._text) - LONGEST_TOKEN or not self._read_more():
                return self._taken(value, end)

    def _taken(self, value: Any, end: int) -> Any:
        """The value that ends here in the text, or an Unusable."""
        start, size, is_utf8 = self.byte, end - self._start, NOT_DECODED.search(self._text, self._start, end) is None
        self._start = end
        if size > MAX_ROW:
            return Unusable(too_large(self.byte - start))
        return value if is_utf8 else Unusable(NOT_UTF8)

    def _may_continue(self, error: Exception) -> bool:
        """Whether the end of the text may be the reason of an error, and the value is not too large."""
        if not isinstance(error, json.JSONDecodeError) or len(self._text) - self._start > MAX_ROW:
            return False
        return error.msg.startswith("Unterminated string") or error.pos >= len(self._text) - LONGEST_TOKEN

    def _reason(self, error: Exception) -> str:
        return self._at(error.msg, error.pos) if isinstance(error, json.JSONDecodeError) else reason_of(error)

    def _skip(self, problem: str | None) -> Unusable:
        """Skips a value that has a problem, or is too large. ValueError: its end is in doubt."""
        start = self.byte
        is_clear = self._skip_value()
        if not is_clear:
            raise ValueError(f"{problem or too_large(self.byte - start)}, and where this value ends is not clear")
        return Unusable(f"not JSON ({problem})" if problem else too_large(self.byte - start))

    def _skip_value(self) -> bool:
        """Skips a value. False: its end is in doubt.

        It is clear if brackets match, and each string stands between separators: if a quotation mark were missing, words would stand there.
        """
        closing: list[str] = []  # of the brackets that are open
        last = ""
        while token := self._token():
            if (token == '"' and last not in BEFORE_STRING) or (last == '"' and token not in AFTER_STRING):
                return False
            if token in CLOSING:
                closing.append(CLOSING[token])
            elif token in CLOSING.values():
                if not closing or closing.pop() != token:
                    return False
            elif token not in 'w",:':
                return False
            if not closing:
                return token not in ",:"
            if len(closing) > DEEPEST:
                return False
            last = token
        return False

    def _token(self) -> str:
        """Skips a token and returns its first character, or `w` for a number or a word. Empty: the file has ended."""
        character = self._next_character()
        if character == '"':
            self._start += 1
            return character if self._skip_string() else ""
        if not WORD.match(character):
            self._start += len(character)
            return character
        while match := WORD.match(self._text, self._start):
            self._start = match.end()
            if self._start < len(self._text) or not self._read_more():
                break
        return "w"

    def _skip_string(self) -> bool:
        """Skips the rest of a string. False: the file has ended within."""
        while True:
            match = WORDS.match(self._text, self._start)
            self._start = match.end() if match else self._start
            if self._text[self._start : self._start + 1] == '"':
                self._start += 1
                return True
            if self._start + 1 < len(self._text):  # a backslash and the character that it escapes
                self._start += 2
            elif not self._read_more():
                return False

    def _read_more(self) -> bool:
        """Appends to the text as much as it holds, so that a long value is not decoded often. False: the file has ended."""
        if self._is_at_end:
            return False
        held = len(self._text) - self._start
        more = self._content.read(min(max(CHUNK, held), max(CHUNK, MAX_ROW + 1 - held)))
        self._is_at_end = not more
        self._bytes, self._counted = self.byte, 0
        self._before += self._start
        self._text, self._start = self._text[self._start :] + self._decoder.decode(more, final=not more), 0
        return True

    def _at(self, problem: str, at: int) -> str:
        return f"{problem} at character {self._before + at + 1:,}"


def type_of(value: Any) -> str:
    """JSON's name for the type of a value."""
    names = {type(None): "null", bool: "boolean", int: "number", float: "number", str: "string", list: "array"}
    return names.get(type(value), "object")


def reason_of(error: Exception) -> str:
    """Why the json module does not read a text."""
    if isinstance(error, json.JSONDecodeError):
        return str(error)
    return "it is nested too deeply" if isinstance(error, RecursionError) else "it has an integer of more than 4,300 digits"


def too_large(size: int) -> str:
    """Why a row of so many bytes is not read."""
    return f"{size:,} bytes, more than {MAX_ROW:,}; split the dialogue, or leave out recordings and images"
