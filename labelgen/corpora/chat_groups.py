"""Rows -> conversations, for the formats of chat logs where several rows make a conversation.

- opentelemetry and langfuse: see `chat_opentelemetry` and `chat_spans`
- rasa_events: one event of a tracker per row, as an event broker (rasa.com/docs/rasa/event-brokers) or the table `events` of
  `SQLTrackerStore` has them, whose column `data` holds the event as JSON
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import PurePath
from typing import NamedTuple

from labelgen.corpora.chat_fields import Keys
from labelgen.corpora.chat_formats import FORMATS, MessageReader, rasa_chat
from labelgen.corpora.chat_opentelemetry import ATTRIBUTES, is_opentelemetry, merge_opentelemetry, read_opentelemetry, split_opentelemetry
from labelgen.corpora.chat_parts import MALFORMED, FieldError, from_json, malformed
from labelgen.corpora.chat_spans import (
    Merged,
    Span,
    SpanFormat,
    SpanRow,
    in_time,
    is_langfuse,
    merge,
    read_langfuse,
    split_langfuse,
    start_of,
)
from labelgen.dialogue import RecordError, Reject, reject_or_raise
from labelgen.io.files import hash64
from labelgen.io.rows import NumberedRow, Row, RowSource

log = logging.getLogger(__name__)

ANY_SPAN = {*ATTRIBUTES, "trace_id", "traceId", "TraceId", "span_id", "spanId", "SpanId", "context", "parentSpanId"}  # of other spans
TRACE = {"id", "input", "output"}  # columns that each trace of Langfuse has


# -- Rasa ------------------------------------------------------------------------------------------------------------------------


def is_rasa_event(row: Row) -> bool:
    """Whether a row is an event of a tracker."""
    return row.get("sender_id") is not None and isinstance(_rasa_event(row).get("event"), str)


def _rasa_event(row: Row) -> Row:
    """The event that a row holds: in the column `data` of a tracker store, or as the row itself."""
    data = from_json(row.get("data"))
    return data if isinstance(data, Mapping) and isinstance(data.get("event"), str) else row


def split_rasa_event(row: Row) -> list[SpanRow]:
    """An event, in the conversation of its sender."""
    return [SpanRow(str(row["sender_id"]), row)]


def read_rasa_event(row: Row, reader: MessageReader) -> Span:
    """An event, which `merge_rasa_events` reads together with the others."""
    event = _rasa_event(row)
    return Span(start_of(event if event.get("timestamp") is not None else row), rest=dict(event))


def merge_rasa_events(spans: Sequence[Span]) -> Merged:
    """The conversation of the events of a tracker, in order of time."""
    chat = rasa_chat({"events": [span.rest for span in in_time(spans)]}, Keys())
    return Merged(MessageReader(Keys()).read(chat.messages), None, [], chat.left_out, chat.slots)


SPAN_FORMATS: dict[str, SpanFormat] = {
    "opentelemetry": SpanFormat(
        "OpenTelemetry GenAI spans or events", is_opentelemetry, split_opentelemetry, read_opentelemetry, merge_opentelemetry
    ),
    "rasa_events": SpanFormat("events of Rasa trackers", is_rasa_event, split_rasa_event, read_rasa_event, merge_rasa_events),
    "langfuse": SpanFormat("Langfuse traces or observations", is_langfuse, split_langfuse, read_langfuse, merge),
}


def format_of_rows(row: Row) -> SpanFormat | None:
    """The format of a row, if several of its rows make a conversation."""
    return next((known for known in SPAN_FORMATS.values() if known.fits(row)), None)


# -- lists of rows ---------------------------------------------------------------------------------------------------------------


@dataclass
class Unwrapped:
    """A source of rows. A row that holds all others in one list, such as {"data": [...]}, is replaced by them."""

    source: RowSource
    left_out: Counter[str]
    _columns: set[str] = field(default_factory=set)  # next to a list, or of one

    def __str__(self) -> str:
        return str(self.source)

    def rows(self) -> Iterator[NumberedRow]:
        """The rows. The items of a list are counted as rows."""
        more = 0
        for number, row in self.source.rows():
            name = None if isinstance(row, str) else list_of_rows(row)
            if name is None or isinstance(row, str):
                yield NumberedRow(number + more, row)
                continue
            if name not in self._columns:
                log.info("%s: its rows are the items of %r", PurePath(str(self)).name, name)
            self.left_out[f"columns next to the list {name!r}"] += len({*row} - {*self._columns, name})
            self._columns |= {*row}
            for k, item in enumerate(row[name]):
                yield NumberedRow(number + more + k, item)
            more += len(row[name]) - 1


def list_of_rows(row: Row) -> str | None:
    """The one column of a row that holds a list of rows in formats of chats. None: there is none, or the row is a chat itself."""
    lists = [name for name, value in row.items() if isinstance(value, list) and value and all(isinstance(item, Mapping) for item in value)]
    if len(lists) != 1 or not all(is_known(item) for item in row[lists[0]]):
        return None
    itself = format_of_rows(row) is not None or any(known.fits(row) for name, known in FORMATS.items() if name != "sharegpt")
    return None if itself else lists[0]


def items_of(row: Row) -> Sequence[Row]:
    """The rows that a row holds in a list, or the row itself."""
    name = list_of_rows(row)
    return [row] if name is None else row[name]


def is_known(row: Row) -> bool:
    """Whether a row has a format of chats."""
    return format_of_rows(row) is not None or any(known.fits(row) for known in FORMATS.values())


# -- conversations ---------------------------------------------------------------------------------------------------------------


class FoundSpan(NamedTuple):
    """A span that has not been read, and the row that holds it: `position` counts the rows of all files."""

    position: int
    file: str
    number: int
    layout: SpanFormat
    part: SpanRow


@dataclass
class Group:
    """The spans of a conversation, and the row of the first. `error`: of the first span that cannot be used."""

    identity: str | None
    file: str
    number: int
    layout: SpanFormat
    reader: MessageReader
    spans: list[Span] = field(default_factory=list)
    error: FieldError | None = None

    def add(self, found: FoundSpan) -> None:
        """Reads a span. After an error, the conversation is lost, since its turns would be wrong."""
        try:
            self.spans.append(found.layout.read(found.part.row, self.reader))
        except RecursionError:
            self._fail(found, FieldError("record", "nested too deep; leave the span out"))
        except MALFORMED as error:
            self._fail(found, error if isinstance(error, FieldError) else malformed(error))

    def _fail(self, found: FoundSpan, error: FieldError) -> None:
        if self.error is None:
            identity = found.part.row.get("id")
            problem = str(error) if identity in (None, self.identity) else f"{error} (in {identity!r})"
            self.file, self.number, self.error = found.file, found.number, FieldError(error.name, problem)


def group_spans(files: Sequence[RowSource], name: str | None, keys: Keys, left_out: Counter[str], reject: Reject | None) -> Iterator[Group]:
    """The spans of each conversation, in the order of the conversations' last rows. The first reading finds these.

    Spans that call no model are counted in `left_out`. Rows that are no spans go to `reject`; without it the first one raises.
    """
    identities = (found for found in _spans(files, name, Counter(), lambda error: None) if found.part.conversation is not None)
    last = {hash64(str(found.part.conversation)): found.position for found in identities}
    groups: dict[str, Group] = {}
    for position, row in groupby(_spans(files, name, left_out, reject), key=lambda found: found.position):
        alone: list[Group] = []
        touched: dict[str, Group] = {}  # only a conversation of this row can end in it
        for found in row:
            identity = found.part.conversation
            group = groups.get(identity) if identity is not None else None
            if group is None:
                group = Group(identity, found.file, found.number, found.layout, MessageReader(keys))
            if identity is None:
                alone.append(group)
            else:
                groups[identity] = touched[identity] = group
            group.add(found)
        yield from alone
        for identity in touched:
            if last[hash64(identity)] == position:
                yield groups.pop(identity)


def _spans(files: Sequence[RowSource], name: str | None, left_out: Counter[str], reject: Reject | None) -> Iterator[FoundSpan]:
    """The spans of all rows, not yet read."""
    position = 0
    for file in files:
        for number, row in file.rows():
            position += 1
            layout = None if isinstance(row, str) else SPAN_FORMATS[name] if name else format_of_rows(row)
            if layout is None and set(row) >= TRACE:  # next to rows that have a format
                layout = SPAN_FORMATS["langfuse"]
            if layout is not None and not isinstance(row, str):
                for part in layout.split(row):
                    yield FoundSpan(position, str(file), number, layout, part)
            elif not isinstance(row, str) and ANY_SPAN & row.keys():
                left_out["spans without messages"] += 1
            else:
                columns = "" if isinstance(row, str) else ", ".join(sorted(map(str, row)))
                unknown = f"neither a span nor a trace, as other rows of the file are (the columns: {columns})"
                problem = row if isinstance(row, str) else f"{unknown}; separate the files, or set corpus.format"
                reject_or_raise(RecordError(str(file), number, None, "record", problem), reject)
