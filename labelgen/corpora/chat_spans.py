"""Chat logs with one call of a model per row, where several rows make a conversation.

Most calls repeat the conversation so far in their input. `merge` finds what is new in each. This module reads Langfuse's rows: traces or
observations with `input` and `output`, langfuse.com/docs/api-and-data-platform/features/blob-storage-export-fields. `chat_opentelemetry`
reads those of OpenTelemetry.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, NamedTuple

from labelgen.corpora import parse_time
from labelgen.corpora.chat_fields import Message
from labelgen.corpora.chat_formats import MessageReader, to_messages, unread_of
from labelgen.corpora.chat_parts import FieldError, as_json, first_of, from_json
from labelgen.io.rows import Row

INFERENCE = {"chat", "generate_content", "text_completion", "GENERATION"}  # operations that call a model
NANOSECONDS = ("startTimeUnixNano", "start_time_unix_nano", "timeUnixNano", "time_unix_nano", "observedTimeUnixNano")
STARTS = (*NANOSECONDS, "start_time", "startTime", "Timestamp", "timestamp", "created_at", "createdAt")
SESSIONS = ("session_id", "sessionId", "trace_id", "traceId", "id")
LANGFUSE = {
    "trace_id",
    "traceId",
    "session_id",
    "sessionId",
    "project_id",
    "projectId",
    "bookmarked",
    "observations",
    "parentObservationId",
}
WordsKey = tuple[Any, ...]  # see Message.words_key


@dataclass
class Span:
    """One call of a model: what it was given, and what it answered. Or an event of a call, which has the call's `identity`.

    `rest`: the other fields of the row.
    """

    start: datetime | None = None
    operation: str = ""
    is_root: bool = True
    trace: str | None = None
    identity: str | None = None
    is_event: bool = False
    user: str | None = None
    system: list[Message] = field(default_factory=list)
    inputs: list[Message] = field(default_factory=list)
    outputs: list[Message] = field(default_factory=list)
    rest: dict[str, Any] = field(default_factory=dict)
    left_out: Counter[str] = field(default_factory=Counter)


class SpanRow(NamedTuple):
    """The part of a row that is one span, and the conversation that it belongs to."""

    conversation: str | None
    row: Row


class Merged(NamedTuple):
    """The conversation that spans hold together."""

    messages: list[Message]
    user: str | None
    rest: list[dict[str, Any]]
    left_out: Counter[str]
    slots: Sequence[dict[str, Any]] = ()  # that a bot has set


class SpanFormat(NamedTuple):
    """A format with several rows per conversation."""

    description: str
    fits: Callable[[Row], bool]
    split: Callable[[Row], list[SpanRow]]
    read: Callable[[Row, MessageReader], Span]
    merge: Callable[[Sequence[Span]], Merged]


def merge(spans: Sequence[Span]) -> Merged:
    """The messages of a conversation, each once.

    Within a trace, calls of a model are preferred to spans of agents and other operations around them, and roots to spans within them. In
    order of time, each input is compared with the messages so far: an end of these that begins the input is what the input repeats. An
    input that agrees with at least their first two messages, and then differs, replaces what follows.
    """
    left_out: Counter[str] = sum((span.left_out for span in spans), Counter())
    used = [span for span in spans if span.inputs or span.outputs]
    left_out["spans without messages"] += len(spans) - len(used)
    for preferred in (lambda span: span.operation in INFERENCE, lambda span: span.is_root):
        traces = {span.trace for span in used if preferred(span)}
        left_out.update(f"spans of type {span.operation or 'unknown'}" for span in used if span.trace in traces and not preferred(span))
        used = [span for span in used if span.trace not in traces or preferred(span)]
    messages: list[Message] = []
    keys: list[WordsKey] = []  # of the messages
    system: dict[WordsKey, Message] = {}
    for span in in_time(used):
        given = [message for message in span.inputs if message.role != "system"]
        for message in (*span.system, *(message for message in span.inputs if message.role == "system")):
            system.setdefault(message.words_key, message)
        repeated, kept = found = overlap(keys, keys_of(given))
        left_out["messages of an earlier version of the history"] += len(messages) - kept
        left_out["fields with several values in repeated messages"] += add_fields(messages, given, found)
        new = [*given[repeated:], *span.outputs]
        messages[kept:] = [replace(message, time=message.time or span.start) for message in new]
        keys[kept:] = keys_of(new)
    user = next((span.user for span in used if span.user is not None), None)
    return Merged([*system.values(), *messages], user, [span.rest for span in in_time(used) if span.rest], +left_out)


def in_time(spans: Sequence[Span]) -> list[Span]:
    """Spans in the order of their starts. Those without one come first."""
    return sorted(spans, key=lambda span: span.start or datetime.min.replace(tzinfo=UTC))


def keys_of(messages: Sequence[Message]) -> list[WordsKey]:
    """By which messages are compared."""
    return [message.words_key for message in messages]


class Overlap(NamedTuple):
    """How many messages the new input repeats, and how many of the messages so far stay."""

    repeated: int
    kept: int


def overlap(old: Sequence[WordsKey], new: Sequence[WordsKey]) -> Overlap:
    """What an input (`new`) repeats of the messages so far (`old`). It takes time that is linear in the length of the input."""
    if (repeated := longest_border(old[-len(new) :] if new else (), new)) > 0:
        return Overlap(repeated, len(old))
    common = next((k for k, (a, b) in enumerate(zip(old, new, strict=False)) if a != b), min(len(old), len(new)))
    return Overlap(common, common) if common > 1 else Overlap(0, len(old))


def longest_border(text: Sequence[WordsKey], pattern: Sequence[WordsKey]) -> int:
    """The length of the longest end of the text that begins the pattern (Knuth, Morris and Pratt, 1977). The text is not the longer one."""
    borders: list[int] = []  # of each beginning of the pattern: the longest shorter beginning that also ends it
    length = 0
    for k, item in enumerate((*pattern, *text)):
        while length and (length == len(pattern) or pattern[length] != item):
            length = borders[length - 1]
        length += k > 0 and pattern[length] == item
        if k < len(pattern):
            borders.append(length)
        if k == len(pattern) - 1:
            length = 0
    return length


def add_fields(messages: list[Message], given: Sequence[Message], found: Overlap) -> int:
    """Adds the fields that only the repetition of a message has, such as a rating. Returns the number of those that differ."""
    differing = 0
    for k, again in enumerate(given[: found.repeated], found.kept - found.repeated):
        other = messages[k].other
        differing += sum(other.get(key, value) != value for key, value in again.other.items())
        if again.other.keys() - other.keys():
            messages[k] = replace(messages[k], other=again.other | other)
    return differing


def start_of(row: Row) -> datetime | None:
    """When a span began. FieldError: it is not a time."""
    name = next((name for name in STARTS if row.get(name) not in (None, "", 0, "0")), None)
    if name is None:
        return None
    value = row[name]
    try:
        return parse_time(int(value) / 1e9) if name in NANOSECONDS else parse_time(value)
    except (OverflowError, TypeError, ValueError):
        written = "nanoseconds since 1970" if name in NANOSECONDS else "ISO 8601 or seconds since 1970"
        raise FieldError(name, f"{str(value)[:40]!r} is not a time; write {written}, or leave the span out") from None


def objects(value: Any) -> list[Row]:
    """The objects of a list."""
    return [item for item in value if isinstance(item, Mapping)] if isinstance(value, list) else []


# -- Langfuse --------------------------------------------------------------------------------------------------------------------


def split_langfuse(row: Row) -> list[SpanRow]:
    """A trace or an observation; or the traces of a session that was downloaded as JSON."""
    if isinstance(row.get("traces"), list):
        return [
            SpanRow(str(row["id"]) if row.get("id") else flat.conversation, flat.row)
            for trace in objects(row["traces"])
            for flat in split_langfuse(trace)
        ]
    identity = next((str(row[name]) for name in SESSIONS if row.get(name) not in (None, "")), None)
    return [SpanRow(identity, row)]


def read_langfuse(row: Row, reader: MessageReader) -> Span:
    """A trace or an observation: `input` and `output` are a text, a message, a list of messages or an object that holds one of them."""
    span = Span(start_of(row), str(row.get("type") or ""))
    given, output = stored_json(row.get("input")), stored_json(row.get("output"))
    span.inputs = reader.read(to_messages(given, "user", "input", reader.keys))
    span.outputs = reader.read(to_messages(output, "assistant", "output", reader.keys))
    if len(span.outputs) > 1:  # the state of an agent holds its input too
        found = overlap(keys_of(span.inputs), keys_of(span.outputs))
        span.left_out["fields with several values in repeated messages"] += add_fields(span.inputs, span.outputs, found)
        span.outputs = span.outputs[found.repeated :]
    span.user = next((str(row[name]) for name in ("user_id", "userId") if row.get(name) not in (None, "")), None)
    span.trace = next((str(row[name]) for name in ("trace_id", "traceId", "id") if row.get(name) not in (None, "")), None)
    span.is_root = not first_of(row, ("parent_observation_id", "parentObservationId"))
    span.rest = {key: as_json(value) for key, value in row.items() if key not in ("input", "output") and value not in (None, "")}
    for name, value in (("input", given), ("output", output)):
        unread = unread_of(value)
        span.rest |= {name: unread.fields} if unread.fields else {}
        span.left_out["choices after the first"] += unread.choices
    return span


def stored_json(value: Any) -> Any:
    """What Langfuse stored: exports hold it as JSON text, also where it is a text itself."""
    if isinstance(value, str) and value.startswith('"') and value.endswith('"'):
        try:
            return json.loads(value)
        except ValueError:
            return value
    return from_json(value)


def is_langfuse(row: Row) -> bool:
    """Whether a row is a trace, an observation or a session of Langfuse."""
    if row.get("messages") is not None:
        return False
    return ({"input", "output"} <= row.keys() and not LANGFUSE.isdisjoint(row)) or isinstance(row.get("traces"), list)
