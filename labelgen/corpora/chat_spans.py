"""The formats of chat logs with one call of a model per row, where several rows make a conversation.

- opentelemetry: opentelemetry.io/docs/specs/semconv/gen-ai/gen-ai-spans, as rows with `gen_ai.*` attributes or as OTLP JSON
- langfuse: langfuse.com/docs/api-and-data-platform/features/blob-storage-export-fields, traces or observations with `input` and `output`

Most calls repeat the conversation so far in their input. `merge` finds what is new in each.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import groupby
from typing import Any, NamedTuple

from labelgen.corpora import parse_time
from labelgen.corpora.chat_fields import Keys, Message, at_path
from labelgen.corpora.chat_formats import Located, MessageReader, to_messages, unread_of
from labelgen.corpora.chat_parts import MALFORMED, FieldError, as_json, first_of, from_json, malformed
from labelgen.dialogue import RecordError, Reject, reject_or_raise
from labelgen.io.files import hash64
from labelgen.io.rows import Row, RowSource

INFERENCE = {"chat", "generate_content", "text_completion", "GENERATION"}  # operations that call a model
ATTRIBUTES = ("attributes", "SpanAttributes", "span_attributes", "LogAttributes", "log_attributes")
CONVERSATIONS = ("gen_ai.conversation.id", "session.id", "trace_id", "traceId", "context.trace_id", "TraceId")
NANOSECONDS = ("startTimeUnixNano", "start_time_unix_nano", "timeUnixNano")
STARTS = (*NANOSECONDS, "start_time", "startTime", "Timestamp", "timestamp", "created_at", "createdAt")
SESSIONS = ("session_id", "sessionId", "trace_id", "traceId", "id")
ANY_SPAN = {
    *ATTRIBUTES,
    "trace_id",
    "traceId",
    "TraceId",
    "span_id",
    "spanId",
    "SpanId",
    "context",
    "parentSpanId",
}  # columns of other spans
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
INPUT, OUTPUT, INSTRUCTIONS = "gen_ai.input.messages", "gen_ai.output.messages", "gen_ai.system_instructions"


@dataclass
class Span:
    """One call of a model: what it was given, and what it answered. `rest`: the other fields of the row."""

    start: datetime | None = None
    operation: str = ""
    is_root: bool = True
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


class SpanFormat(NamedTuple):
    """A format with several rows per conversation."""

    description: str
    fits: Callable[[Row], bool]
    split: Callable[[Row], list[SpanRow]]
    read: Callable[[Row, MessageReader], Span]


class Merged(NamedTuple):
    """The conversation that spans hold together."""

    messages: list[Message]
    user: str | None
    rest: list[dict[str, Any]]
    left_out: Counter[str]


def merge(spans: Sequence[Span]) -> Merged:
    """The messages of a conversation, each once.

    Calls of a model are preferred to spans of agents and other operations around them, and roots to spans within them. In order of
    time, each input is compared with the messages so far: an end of these that begins the input is what the input repeats. An input that
    agrees with at least their first two messages, and then differs, replaces what follows.
    """
    left_out: Counter[str] = sum((span.left_out for span in spans), Counter())
    used = [span for span in spans if span.inputs or span.outputs]
    left_out["spans without messages"] += len(spans) - len(used)
    for preferred in (lambda span: span.operation in INFERENCE, lambda span: span.is_root):
        chosen = [span for span in used if preferred(span)]
        if chosen and len(chosen) < len(used):
            left_out.update(f"spans of type {span.operation or 'unknown'}" for span in used if not preferred(span))
            used = chosen
    used.sort(key=lambda span: span.start or datetime.min.replace(tzinfo=UTC))
    messages: list[Message] = []
    keys: list[WordsKey] = []  # of the messages
    system: dict[WordsKey, Message] = {}
    for span in used:
        given = [message for message in span.inputs if message.role != "system"]
        for message in (*span.system, *(message for message in span.inputs if message.role == "system")):
            system.setdefault(message.words_key, message)
        repeated, kept = found = overlap(keys, keys_of(given))
        left_out["messages of an earlier version of the history"] += len(messages) - kept
        left_out["fields of repeated messages that differ"] += add_fields(messages, given, found)
        new = [*given[repeated:], *span.outputs]
        messages[kept:] = [replace(message, time=message.time or span.start) for message in new]
        keys[kept:] = keys_of(new)
    user = next((span.user for span in used if span.user is not None), None)
    return Merged([*system.values(), *messages], user, [span.rest for span in used if span.rest], +left_out)


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
    name = next((name for name in STARTS if row.get(name) not in (None, "")), None)
    if name is None:
        return None
    value = row[name]
    try:
        return parse_time(int(value) / 1e9) if name in NANOSECONDS else parse_time(value)
    except (OverflowError, TypeError, ValueError) as error:
        raise FieldError(name, f"{str(value)[:40]!r} is not a time ({error}); leave the span out") from None


# -- OpenTelemetry ---------------------------------------------------------------------------------------------------------------


def split_opentelemetry(row: Row) -> list[SpanRow]:
    """A row that is a span or an event; or the spans of a line of OTLP JSON (opentelemetry.io/docs/specs/otlp)."""
    if isinstance(row.get("resourceSpans"), list):
        scopes = [scope for resource in objects(row["resourceSpans"]) for scope in objects(resource.get("scopeSpans"))]
        return [flat for scope in scopes for span in objects(scope.get("spans")) for flat in split_opentelemetry(span)]
    attributes: dict[str, Any] = {}
    for event in objects(row.get("events")):
        attributes |= attributes_of(event.get("attributes"))
    name = next((name for name in ATTRIBUTES if row.get(name) is not None), None)
    attributes |= attributes_of(row.get(name)) if name else {}
    flat = {**{key: value for key, value in row.items() if key not in (name, "events")}, **attributes}
    identity = next((str(value) for key in CONVERSATIONS if (value := at_path(flat, key)) not in (None, "")), None)
    return [SpanRow(identity, flat)]


def objects(value: Any) -> list[Row]:
    """The objects of a list."""
    return [item for item in value if isinstance(item, Mapping)] if isinstance(value, list) else []


def attributes_of(value: Any) -> dict[str, Any]:
    """Attributes as a mapping, from a mapping, from pairs (a Parquet map) or from OTLP's list of {key, value}."""
    value = from_json(value)
    if isinstance(value, Mapping):
        return dict(value)
    if not isinstance(value, list):
        return {}
    given = {str(item["key"]): any_value(item.get("value")) for item in value if isinstance(item, Mapping) and "key" in item}
    return given | {str(item[0]): item[1] for item in value if isinstance(item, list | tuple) and len(item) == 2}


def any_value(value: Any) -> Any:
    """The value within OTLP's AnyValue: {stringValue: ...}, {arrayValue: {values: [...]}}, {kvlistValue: ...}."""
    if not isinstance(value, Mapping) or len(value) != 1:
        return value
    ((kind, inner),) = value.items()
    values = (inner.get("values") or []) if isinstance(inner, Mapping) else None
    if kind == "arrayValue" and isinstance(values, list):
        return [any_value(item) for item in values]
    return attributes_of(values) if kind == "kvlistValue" and isinstance(values, list) else inner


def read_opentelemetry(row: Row, reader: MessageReader) -> Span:
    """A span with `gen_ai.input.messages` and `gen_ai.output.messages`, as JSON text or as lists. Of several choices, the first is read."""
    span = Span(start_of(row), str(at_path(row, "gen_ai.operation.name") or ""))
    span.inputs = reader.read(to_messages(at_path(row, INPUT), "user", INPUT, reader.keys))
    choices = reader.read(to_messages(at_path(row, OUTPUT), "assistant", OUTPUT, reader.keys))
    span.outputs, span.left_out["choices but the first"] = choices[:1], max(len(choices) - 1, 0)
    if instructions := from_json(at_path(row, INSTRUCTIONS)):
        span.system = reader.read([Located(INSTRUCTIONS, {"role": "system", "content": instructions}, made=True)])
    user = first_of(row, ("user.id", "enduser.id"))
    span.user = None if user is None else str(user)
    span.is_root = span.operation not in ("execute_tool", "embeddings")
    span.rest = {key: as_json(value) for key, value in row.items() if key not in {INPUT, OUTPUT, INSTRUCTIONS} and value not in (None, "")}
    return span


def is_opentelemetry(row: Row) -> bool:
    """Whether a row is a span with `gen_ai` attributes, or OTLP JSON."""
    if isinstance(row.get("resourceSpans"), list):
        return True
    attributes = next((attributes_of(row[name]) for name in ATTRIBUTES if row.get(name) is not None), {})
    return any(str(key).startswith("gen_ai") for holder in (row, attributes) for key in holder)


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
        span.left_out["fields of repeated messages that differ"] += add_fields(span.inputs, span.outputs, found)
        span.outputs = span.outputs[found.repeated :]
    span.user = next((str(row[name]) for name in ("user_id", "userId") if row.get(name) not in (None, "")), None)
    span.is_root = not first_of(row, ("parent_observation_id", "parentObservationId"))
    span.rest = {key: as_json(value) for key, value in row.items() if key not in ("input", "output") and value not in (None, "")}
    for name, value in (("input", given), ("output", output)):
        unread = unread_of(value)
        span.rest |= {name: unread.fields} if unread.fields else {}
        span.left_out["choices but the first"] += unread.choices
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


SPAN_FORMATS: dict[str, SpanFormat] = {
    "opentelemetry": SpanFormat("OpenTelemetry GenAI spans", is_opentelemetry, split_opentelemetry, read_opentelemetry),
    "langfuse": SpanFormat("Langfuse traces or observations", is_langfuse, split_langfuse, read_langfuse),
}


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
    description: str
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
                group = Group(identity, found.file, found.number, found.layout.description, MessageReader(keys))
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
            layout = (
                None if isinstance(row, str) else SPAN_FORMATS.get(name or next((n for n, f in SPAN_FORMATS.items() if f.fits(row)), ""))
            )
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
