"""Streams the rows of a table, CSV, Parquet or JSON. The encoding of CSV and the delimiter between its columns are recognised."""

from __future__ import annotations

import codecs
import csv
import io
import logging
import re
import zlib
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import BinaryIO, NamedTuple

from upath import UPath

from labelgen.io.formats import CHUNK, MAX_ROW, Format, Kind, format_of, has_ending, open_decompressed, read_head
from labelgen.io.paths import naming_file
from labelgen.io.rows import NumberedRow, Row, raise_unless_damaged, rows
from labelgen.io.wording import counted

log = logging.getLogger(__name__)
TEXT_SUFFIXES = (".csv", ".tsv")
TABLE_SUFFIXES = (*TEXT_SUFFIXES, ".parquet")  # that are read of a folder
NAMED = 1000  # rows of JSON, of which one has each column
MAX_CELL = 16 * 2**20  # characters of a CSV cell; Python's own limit is 131,072
LINE_TOO_LONG = "a line has more than"
DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}
NOT_DECODED = re.compile("[\udc80-\udcff]")  # how Python decodes bytes that do not fit the encoding
SEPARATOR = re.compile(r"sep=(.)\s*", re.IGNORECASE)  # a first line that names the delimiter to Excel
NON_ASCII = re.compile(rb"[\x80-\xff]+")
MARKS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}


class Layout(NamedTuple):
    """How a CSV file is written."""

    encoding: str
    delimiter: str
    example: str | None = None  # a word that is not ASCII, where the encoding is a guess

    def __str__(self) -> str:
        return f"CSV with {DELIMITERS.get(self.delimiter, repr(self.delimiter))} between the columns, in {self.encoding}"


class TableFile:
    """A file of a table. `columns`: those that are read. `delimiter` and `encoding` are those of CSV; None: they are recognised.

    Objects of JSON are rows, of which some may lack a column. ValueError: the file is no table, or its encoding is not known.
    """

    def __init__(self, file: UPath, columns: Sequence[str], delimiter: str | None = None, encoding: str | None = None) -> None:
        self.file, self.columns = file, list(dict.fromkeys(columns))
        self.layout: Layout | None = None  # of CSV
        with naming_file(file):
            self.format = format_of(file)
            if self.format.kind is Kind.ZIP:
                raise ValueError(f"{file}: a workbook of Excel or another zip archive; save the table as CSV")
            self.is_json = self.format.kind in (Kind.JSON_LINES, Kind.JSON_VALUES) and not has_ending(file.name, TEXT_SUFFIXES)
            if self.format.kind is not Kind.PARQUET and not self.is_json:
                self.layout = _recognise(file, self.format, self.columns, delimiter, encoding)

    def log_layout(self) -> None:
        """Logs how a CSV file is read, unless it has commas and UTF-8."""
        if self.layout is None:
            return
        if self.layout.example is not None:
            guess = "the encoding is a guess: set `encoding` if this word of the file is wrong"
            log.warning("%s: %s; %s: %r", self.file.name, self.layout, guess, self.layout.example)
        elif self.layout.delimiter != "," or not self.layout.encoding.startswith("utf-8"):
            log.info("%s: %s", self.file.name, self.layout)

    def __str__(self) -> str:
        return str(self.file)

    def names(self) -> list[str] | None:
        """The names of all columns. None: they cannot be read, and `rows` gives the reason."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        if self.is_json:
            found = dict.fromkeys(name for _, row in islice(self._json_rows(), NAMED) if not isinstance(row, str) for name in row)
            return list(found) or None
        with naming_file(self.file), open_decompressed(self.file, self.format.is_gzip) as opened:
            try:
                if self.layout is None:
                    return list(pq.read_schema(opened.content).names)
                with _open_text(opened.content, self.layout.encoding) as text:
                    return next((cells for cells in _cells_of_lines(text, self.layout.delimiter) if _is_filled(cells)), None)
            except (pa.ArrowException, csv.Error, UnicodeError, OSError, EOFError, zlib.error) as error:
                raise_unless_damaged(error)
                return None

    def _json_rows(self) -> Iterator[NumberedRow]:
        return rows(self.file, file_format=self.format)

    def rows(self) -> Iterator[NumberedRow]:
        """The rows, with the cells of the columns that are read. The line of the names is not counted. Blank rows have empty cells."""
        if self.is_json:
            for number, row in self._json_rows():
                yield NumberedRow(number, row if isinstance(row, str) else {name: row.get(name) for name in self.columns})
            return
        if self.layout is None:
            yield from rows(self.file, file_format=self.format, columns=self.columns)
            return
        reader, number = _CSVReader(self.columns, self.layout.encoding), 0
        with (
            naming_file(self.file),
            open_decompressed(self.file, self.format.is_gzip) as opened,
            _open_text(opened.content, self.layout.encoding) as text,
        ):
            try:
                for row in reader.rows(_cells_of_lines(text, self.layout.delimiter)):
                    number += reader.header is not None
                    yield NumberedRow(number, row)
            except (UnicodeError, OSError, EOFError, zlib.error) as error:
                raise_unless_damaged(error)
                yield NumberedRow(number + 1, f"cannot be read ({error}); was the file cut short? Nothing is read from here to its end")


class _CSVReader:
    """Turns the cells of lines into rows. The first line that is not blank has the names of the columns."""

    def __init__(self, columns: Sequence[str], encoding: str) -> None:
        self.columns, self.encoding = columns, encoding
        self.header: list[str] | None = None
        self._places: dict[str, int] = {}

    def rows(self, lines: Iterator[list[str]]) -> Iterator[Row | str]:
        csv.field_size_limit(MAX_CELL)  # the csv module has one limit for the whole process
        problem: str | None
        cells: list[str] | None
        while True:
            try:
                cells = next(lines, None)
            except csv.Error as error:
                cells, problem = [], _problem_of(error)
            else:
                if cells is None:
                    return
                if not _is_filled(cells):
                    if self.header is not None:
                        yield dict.fromkeys(self._places, "")
                    continue
                problem = self._problem_of_names(cells) if self.header is None else self._problem_of_cells(cells, len(self.header))
            if self.header is not None:
                yield problem or {name: cells[place] for name, place in self._places.items()}
            elif problem is not None:
                yield f"the column names: {problem}. Nothing is read from this file"
                return
            else:
                self.header = cells
                self._places = {name: cells.index(name) for name in self.columns if name in cells}

    def _problem_of_names(self, cells: list[str]) -> str | None:
        if NOT_DECODED.search("".join(cells)):
            return self._not_decoded()
        twice = next((name for name in self.columns if cells.count(name) > 1), None)
        return None if twice is None else f"two have the name {twice!r}; rename one"

    def _problem_of_cells(self, cells: list[str], width: int) -> str | None:
        if len(cells) < width or _is_filled(cells[width:]):
            return f"{counted(len(cells), 'cell')} under {counted(width, 'column name')}; quote cells that hold the delimiter"
        if any(NOT_DECODED.search(cells[place]) for place in self._places.values()):
            return self._not_decoded()
        return None

    def _not_decoded(self) -> str:
        return f"not {self.encoding.upper()}; save the file as UTF-8, or set its `encoding`"


def _problem_of(error: csv.Error) -> str:
    remedy = "quote cells that hold the delimiter, line ends or quotation marks, and double the latter"
    if LINE_TOO_LONG in str(error):
        remedy = "look for line ends that are missing"
    if "field limit" in str(error):
        remedy = f"shorten the cell to {MAX_CELL:,} characters, and look for a quotation mark that is never closed"
    return f"not CSV ({error}); {remedy}"


def _is_filled(cells: Sequence[str]) -> bool:
    return any(cell.strip() for cell in cells)


def _open_text(content: BinaryIO, encoding: str) -> io.TextIOWrapper:
    return io.TextIOWrapper(content, encoding, errors="surrogateescape", newline="")


def _cells_of_lines(text: io.TextIOWrapper, delimiter: str) -> Iterator[list[str]]:
    """The cells of each line of CSV. csv.Error: a line is not CSV; the next one can be read."""
    return csv.reader(_Lines(text), delimiter=delimiter, strict=True)


class _Lines:
    """The lines of a text, without the line in which Excel names the delimiter. csv.Error: a line is too long; it is skipped."""

    def __init__(self, text: io.TextIOWrapper) -> None:
        self._text, self._is_first = text, True

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._text.readline(MAX_ROW)
        is_separator, self._is_first = self._is_first and SEPARATOR.fullmatch(line), False
        if is_separator:
            return next(self)
        if len(line) == MAX_ROW:
            while line and not line.endswith(("\n", "\r")):
                line = self._text.readline(CHUNK)
            raise csv.Error(f"{LINE_TOO_LONG} {MAX_ROW:,} characters")
        if not line:
            raise StopIteration
        return line


# -- recognition -----------------------------------------------------------------------------------------------------------------


def _recognise(file: UPath, file_format: Format, columns: Sequence[str], delimiter: str | None, encoding: str | None) -> Layout:
    """The layout of a CSV file, by its first bytes and the names of the columns that are read."""
    head, example = read_head(file, file_format.is_gzip), None
    if encoding is not None and codecs.lookup(encoding).name == "utf-8":
        encoding = "utf-8-sig"  # the mark is optional
    if encoding is None:
        encoding = encoding_of(head)
        if encoding is None:
            raise ValueError(f"{file}: neither UTF-8, UTF-16 nor cp1252; set `encoding`, such as cp1251 or shift_jis, or save it as UTF-8")
        if encoding == "cp1252":
            found = re.search(r"\w*[^\x00-\x7f]+\w*", head.decode("cp1252", "replace"))
            example = found[0] if found else None
    text = codecs.getincrementaldecoder(encoding)("replace").decode(head)
    return Layout(encoding, delimiter or delimiter_of(text, columns), example)


def encoding_of(head: bytes) -> str | None:
    """The encoding of a text that begins with these bytes: that of its byte order mark, else UTF-16, UTF-8 or cp1252. None: not known.

    Texts in UTF-16 have zeros in every second byte where they are ASCII. cp1252 is that of Windows in western Europe, where letters that
    are not ASCII mostly stand alone or in pairs (Grüße). In other alphabets they stand together.
    """
    if found := next((encoding for mark, encoding in MARKS.items() if head.startswith(mark)), None):
        return found
    for encoding, zeros in (("utf-16-le", head[1::2]), ("utf-16-be", head[0::2])):
        if zeros.count(0) > len(zeros) // 3:
            return encoding
    text = codecs.getincrementaldecoder("utf-8")("surrogateescape").decode(head)
    wrong = len(NOT_DECODED.findall(text))
    if not wrong or sum(character > "\x7f" for character in text) >= 2 * wrong:  # a few damaged rows do not change the encoding
        return "utf-8"
    runs = NON_ASCII.findall(head)
    return "cp1252" if sum(map(len, runs)) <= 2 * len(runs) else None


def delimiter_of(text: str, columns: Sequence[str]) -> str:
    """The delimiter under which the first line has the most of the columns' names, else the most cells."""
    if found := SEPARATOR.match(text):
        return found[1]
    headers = {delimiter: _first_cells(text.lstrip(), delimiter) for delimiter in DELIMITERS}
    return max(headers, key=lambda delimiter: (len({*columns} & {*headers[delimiter]}), len(headers[delimiter])))


def _first_cells(text: str, delimiter: str) -> list[str]:
    try:
        return next(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter), [])
    except csv.Error:
        return []
