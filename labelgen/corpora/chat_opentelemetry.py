"""OpenTelemetry's conventions for calls of generative models. Several have been in use, and all are read:

- `gen_ai.input.messages` and `gen_ai.output.messages`, since 1.37: opentelemetry.io/docs/specs/semconv/gen-ai/gen-ai-spans
- events such as `gen_ai.user.message` and `gen_ai.choice`, as log records or within a span, up to 1.36:
  github.com/open-telemetry/semantic-conventions/blob/v1.36.0/docs/gen-ai/gen-ai-events.md
- `gen_ai.prompt` and `gen_ai.completion`, up to 1.27, and with a number and a field (`gen_ai.prompt.0.content`) in OpenLLMetry:
  github.com/traceloop/openllmetry

Rows are spans or log records: flat, with their `attributes` in a column, or as OTLP JSON (opentelemetry.io/docs/specs/otlp).
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from labelgen.corpora.chat_fields import at_path
from labelgen.corpora.chat_formats import Located, MessageReader, decoded_chat, to_messages, unread_of
from labelgen.corpora.chat_parts import WITHOUT_TYPE, FieldError, as_json, first_of, from_json
from labelgen.corpora.chat_spans import Merged, Span, SpanRow, in_time, merge, objects, start_of
from labelgen.io.rows import Row

ATTRIBUTES = ("attributes", "SpanAttributes", "span_attributes", "LogAttributes", "log_attributes")
TRACES = ("trace_id", "traceId", "context.trace_id", "TraceId")
CONVERSATIONS = ("gen_ai.conversation.id", "session.id", *TRACES)
SPAN_IDS = ("span_id", "spanId", "SpanId", "context.span_id")
INPUT, OUTPUT, INSTRUCTIONS = "gen_ai.input.messages", "gen_ai.output.messages", "gen_ai.system_instructions"
PROMPT, COMPLETION = "gen_ai.prompt", "gen_ai.completion"
NUMBERED = re.compile(rf"({re.escape(PROMPT)}|{re.escape(COMPLETION)})\.(\d+)\.(.+)")
LIST_OF_OBJECTS = re.compile(r"\s*\[\s*\{")  # how its JSON text begins
CHOICE = "gen_ai.choice"
ROLE_OF_EVENT = {f"gen_ai.{role}.message": role for role in ("system", "user", "assistant", "tool")} | {CHOICE: "assistant"}
EVENT_NAMES = ("event.name", "eventName", "event_name", "EventName", "name")
BODIES = ("body", "Body")
EVENT_FIELDS = ("content", "role", "tool_calls", "id", "message", "index", "finish_reason")  # that an event without a body may have
TYPED_VALUES = {"stringValue", "intValue", "doubleValue", "boolValue", "bytesValue", "arrayValue", "kvlistValue"}
OTLP = {"resourceSpans": ("scopeSpans", "spans"), "resourceLogs": ("scopeLogs", "logRecords")}


def is_opentelemetry(row: Row) -> bool:
    """Whether a row is a span or a log record with `gen_ai` attributes, the event of a message, or OTLP JSON."""
    if any(isinstance(row.get(name), list) for name in OTLP):
        return True
    flat = flattened(row)
    holders = [flat, *map(flattened, objects(from_json(flat.get("events"))))]
    return any(name_of_event(holder) is not None or any(str(key).startswith("gen_ai") for key in holder) for holder in holders)


def split_opentelemetry(row: Row) -> list[SpanRow]:
    """A row that is a span or a log record; or those of a line of OTLP JSON."""
    for name, (scopes, items) in OTLP.items():
        if isinstance(row.get(name), list):
            listed = [scope for resource in objects(row[name]) for scope in objects(resource.get(scopes))]
            return [flat for scope in listed for item in objects(scope.get(items)) for flat in split_opentelemetry(item)]
    flat = flattened(row)
    if events := [flattened(event) for event in objects(from_json(flat.get("events")))]:
        flat["events"] = events
    for event in events:
        if name_of_event(event) is None:  # its attributes may be those of the span
            flat = {key: value for key, value in event.items() if key.startswith("gen_ai.")} | flat
    identity = next((str(value) for key in CONVERSATIONS if (value := at_path(flat, key)) not in (None, "")), None)
    return [SpanRow(identity, flat)]


def flattened(holder: Row) -> dict[str, Any]:
    """A row or an event, with its attributes in the place of their column."""
    name = next((name for name in ATTRIBUTES if holder.get(name) is not None), None)
    return {key: value for key, value in holder.items() if key != name} | (attributes_of(holder[name]) if name else {})


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
    """The value within OTLP's AnyValue: {stringValue: ...}, {arrayValue: {values: [...]}}, {kvlistValue: ...}. Other values, unchanged."""
    if not isinstance(value, Mapping) or len(value) != 1 or not TYPED_VALUES & value.keys():
        return value
    ((kind, inner),) = value.items()
    values = (inner.get("values") or []) if isinstance(inner, Mapping) else None
    if kind == "arrayValue" and isinstance(values, list):
        return [any_value(item) for item in values]
    return attributes_of(values) if kind == "kvlistValue" and isinstance(values, list) else inner


def read_opentelemetry(row: Row, reader: MessageReader) -> Span:
    """A span or a log record. Of several choices, the first is read. What is not read stays in `rest`."""
    span = Span(start_of(row), str(at_path(row, "gen_ai.operation.name") or ""))
    user = first_of(row, ("user.id", "enduser.id"))
    span.user = None if user is None else str(user)
    trace = next((value for key in TRACES if (value := at_path(row, key)) not in (None, "")), None)
    span.trace = None if trace is None else str(trace)
    span.is_root = span.operation not in ("execute_tool", "embeddings")
    identity = next((value for key in SPAN_IDS if (value := at_path(row, key)) not in (None, "")), None)
    span.identity = None if identity is None else str(identity)
    _check_whole(row)
    if instructions := from_json(at_path(row, INSTRUCTIONS)):
        span.system = reader.read([Located(INSTRUCTIONS, {"role": "system", "content": instructions}, made=True)])
    read = {INSTRUCTIONS}
    events = [event for event in objects(row.get("events")) if name_of_event(event) is not None]
    if (name := name_of_event(row)) is not None:
        span.is_event = True
        read |= set(BODIES if first_of(row, BODIES) is not None else EVENT_FIELDS)
        add_event(span, row, name, reader)
    elif events and at_path(row, INPUT) is None and at_path(row, OUTPUT) is None:
        read.add("events")
        for k, event in enumerate(events):
            add_event(span, event, f"events.{k}", reader)
        if others := [as_json(event) for event in row["events"] if name_of_event(event) is None]:
            span.rest["events"] = others
    else:
        read |= _read_attributes(span, row, reader)
    span.rest |= {key: as_json(value) for key, value in row.items() if key not in read and value not in (None, "")}
    return span


def _check_whole(row: Row) -> None:
    """FieldError: an attribute holds the beginning of a list of messages, as JSON text that was cut short."""
    for name in (INPUT, OUTPUT, INSTRUCTIONS):
        value = at_path(row, name)
        if isinstance(value, str) and LIST_OF_OBJECTS.match(value) and from_json(value) is value:
            raise FieldError(name, "JSON text that is not whole; was it cut at the limit of an attribute's length?")


def _read_attributes(span: Span, row: Row, reader: MessageReader) -> set[str]:
    """Reads the messages that attributes of a span hold. Returns the names of these attributes."""
    read: set[str] = set()
    choices = []
    for role, names in (("user", (INPUT, PROMPT)), ("assistant", (OUTPUT, COMPLETION))):
        name = next((name for name in names if at_path(row, name) not in (None, "")), None)
        if name is not None:
            value = decoded_chat(at_path(row, name))
            messages = reader.read(to_messages(value, role, name, reader.keys))
            unread = unread_of(value)
            span.rest |= {name: unread.fields} if unread.fields else {}
            span.left_out["choices after the first"] += unread.choices
            read.add(name)
        else:
            numbered = messages_by_number(row, names[1], role)
            messages = reader.read(numbered)
            read |= {key for key in row if numbered and key.startswith(f"{names[1]}.")}
        if role == "user":
            span.inputs = messages
        else:
            choices = messages
    span.outputs = choices[:1]
    span.left_out["choices after the first"] += max(len(choices) - 1, 0)
    return read


def messages_by_number(row: Row, prefix: str, role: str) -> list[Located]:
    """The messages of attributes such as `gen_ai.prompt.0.content` and `gen_ai.prompt.0.tool_calls.0.name`, in the order of the numbers."""
    fields: defaultdict[int, dict[str, Any]] = defaultdict(dict)
    for key, value in row.items():
        if (found := NUMBERED.fullmatch(str(key))) and found[1] == prefix:
            holder, path = fields[int(found[2])], found[3].split(".")
            for name in path[:-1]:
                holder = holder.setdefault(name, {})
            holder[path[-1]] = value
    return [Located(f"{prefix}.{k}", _message_of({"role": role, **as_lists(fields[k])}), made=True) for k in sorted(fields)]


def as_lists(value: Any) -> Any:
    """Nested fields with the objects whose keys are all numbers as lists, in their order."""
    if not isinstance(value, dict):
        return value
    if value and all(key.isdigit() for key in value):
        return [as_lists(value[key]) for key in sorted(value, key=int)]
    return {key: as_lists(inner) for key, inner in value.items()}


# -- events ----------------------------------------------------------------------------------------------------------------------


def name_of_event(row: Row) -> str | None:
    """The name of the event that holds a message. None: the row is none."""
    return next((str(row[key]) for key in EVENT_NAMES if isinstance(row.get(key), str) and row[key] in ROLE_OF_EVENT), None)


def add_event(span: Span, event: Row, where: str, reader: MessageReader) -> None:
    """Adds the message of an event to its call: what the model was given, or the first choice of what it answered."""
    name, body = str(name_of_event(event)), from_json(any_value(first_of(event, BODIES)))
    if body is None:
        body = {key: event[key] for key in EVENT_FIELDS if event.get(key) is not None}
    fields = dict(body) if isinstance(body, Mapping) else {"content": body}
    if name == CHOICE:
        if fields.pop("index", 0) not in (None, 0, "0"):
            span.left_out["choices after the first"] += 1
            return
        inner = from_json(fields.pop("message", None))
        fields |= inner if isinstance(inner, Mapping) else {"content": inner} if inner is not None else {}
    target = span.outputs if name == CHOICE else span.inputs
    target += reader.read([Located(where, _message_of({"role": ROLE_OF_EVENT[name], **fields}), made=True)])


def _message_of(fields: dict[str, Any]) -> dict[str, Any]:
    """A message of an event or of attributes. Attributes hold lists as JSON text. The `id` of a tool's message is that of its call."""
    for key in ("content", "tool_calls"):
        decoded = from_json(fields.get(key))
        if isinstance(decoded, list) and decoded and all(_is_part(item) for item in decoded):
            fields[key] = decoded
    if fields["role"] == "tool" and "id" in fields:
        fields["tool_call_id"] = fields.pop("id")
    return fields


def _is_part(item: Any) -> bool:
    return isinstance(item, Mapping) and (isinstance(item.get("type"), str) or not item.keys().isdisjoint(WITHOUT_TYPE))


def merge_opentelemetry(spans: Sequence[Span]) -> Merged:
    """See `merge`. Events of one call are gathered first: they have the id of its span, or else follow one another up to its choices.

    The events of a span that has the messages itself are counted.
    """
    calls: dict[str, Span] = {span.identity: span for span in spans if span.identity is not None and not span.is_event}
    gathered = [span for span in spans if not span.is_event]
    whole = {span.identity for span in gathered if span.inputs or span.outputs}
    number, answered = 0, False
    for event in in_time([span for span in spans if span.is_event]):
        number, answered = number + (answered and bool(event.inputs)), bool(event.outputs)
        identity = event.identity if event.identity is not None else f"call {number}"
        if identity not in calls:
            calls[identity] = Span(event.start, trace=event.trace)
            gathered.append(calls[identity])
        call = calls[identity]
        call.left_out += event.left_out
        call.rest.setdefault("events", []).append(event.rest)
        if identity in whole:
            call.left_out["events of a span that has the messages itself"] += 1
            continue
        call.inputs += event.inputs
        call.outputs += event.outputs
        call.operation, call.user = call.operation or event.operation, call.user or event.user
    return merge(gathered)
