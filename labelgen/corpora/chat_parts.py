"""The parts of a chat message of any API as one form: words, tool calls and their results, recordings, reasoning, and what is left out.

The types of parts that are known, with the page that defines them:

- text, input_text, output_text, refusal, function_call, reasoning, ...: OpenAI, platform.openai.com/docs/api-reference/responses
- text, tool_use, tool_result, thinking, redacted_thinking, ...: Anthropic, docs.claude.com/en/api/messages
- text, reasoning, file, dynamic-tool, tool-NAME: AI SDK, ai-sdk.dev/docs/reference/ai-sdk-core/ui-message; tool-call and tool-result:
  ai-sdk.dev/docs/reference/ai-sdk-core/model-message; tool-invocation: version 4
- text (with `content`), tool_call, tool_call_response, reasoning, uri, blob: OpenTelemetry,
  opentelemetry.io/docs/specs/semconv/gen-ai/gen-ai-input-messages.json
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from labelgen.io.rows import Row

SPOKEN = {"text", "input_text", "output_text", "refusal"}  # types of parts that are spoken
THOUGHT = {"reasoning", "thinking", "reasoning_text", "summary_text", "redacted_thinking", "redacted-reasoning"}
EMPTY = {"step-start"}  # types of parts without content
CALLED = re.compile(r"tool_use|\w+_tool_use|tool-call|toolUse|functionCall|(?!image_generation)\w+_call")
ANSWERED = re.compile(
    r"(\w+_)?tool_result|tool-result|tool-error|toolResult|functionResponse|(?!computer)\w+_call_output|(\w+_)?(call|function|tool)_response"
)
NOT_A_TOOL = {"tool-invocation", "tool-call", "tool-result", "tool-error", "tool-approval-request", "tool-approval-response"}
WITHOUT_TYPE = ("text", "functionCall", "functionResponse", "toolUse", "toolResult")  # Gemini and Bedrock name a part by its key
NAMES = ("name", "toolName", "tool_name")
IDENTITIES = (  # of a call; the last is also that of a message
    "call_id",
    "tool_call_id",
    "tool_use_id",
    "toolCallId",
    "toolUseId",
    "id",
)
ARGUMENTS = ("arguments", "input", "args", "parameters", "action", "queries", "code", "server_tool_call")
RESULTS = ("output", "result", "results", "outputs", "errorText", "error")
ERRORS = ("errorText", "error")  # of RESULTS
NO_ERROR = (None, False, "")  # their values where a call did not fail
RESPONSES = (*RESULTS, "content", "response", "server_tool_call_response")  # of a part that is a result
LOCATIONS = ("audio", "path", "url", "audio_url", "input_audio", "uri", "file", "data")
MAX_LOCATION = 4096  # characters of a path or URI; anything longer is the recording itself


class FieldError(ValueError):
    """A field of a row cannot be used."""

    def __init__(self, name: str, problem: str) -> None:
        super().__init__(problem)
        self.name = name

    def __reduce__(self) -> tuple[Any, ...]:
        return FieldError, (self.name, str(self))


MALFORMED = (AttributeError, IndexError, KeyError, OverflowError, TypeError, ValueError)  # what a row in no format of ours may raise


def malformed(error: Exception) -> FieldError:
    """The error of a row whose layout is not that of its format."""
    return FieldError("record", f"not in its format ({type(error).__name__}: {error}); set corpus.format, or leave the row out")


class Recording(NamedTuple):
    """The path or URI of a recording, and the type of its part."""

    location: str
    kind: str


class Tool(NamedTuple):
    """A call of a tool, its result, or both."""

    name: str | None
    identity: str | None
    called: bool = False
    arguments: Any = None
    answered: bool = False
    result: Any = None
    failed: bool = False

    @property
    def key(self) -> tuple[Any, ...]:
        """What two logs of one call or result share: its id, or else its name, arguments and result."""
        if self.identity:
            return self.identity, self.called, self.answered
        held = json.dumps([as_json(from_json(value)) for value in (self.arguments, self.result)], sort_keys=True)
        return self.name, self.called, self.answered, held

    def same_as(self, other: Tool) -> bool:
        """Whether the other is the same call or result. Arguments may be JSON text in one of them."""
        ours, theirs = (tool._replace(arguments=from_json(tool.arguments)) for tool in (self, other))
        return ours == theirs


@dataclass
class Contents:
    """What a message holds. `left_out`: the types of parts that are not read. `kinds`: the types of all parts."""

    texts: list[str] = field(default_factory=list)
    tools: list[Tool] = field(default_factory=list)
    recordings: list[Recording] = field(default_factory=list)
    reasoning: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    kinds: list[str] = field(default_factory=list)
    ends_in_tool: bool = False  # the last part is a call or a result, so that the message after it continues the response

    @property
    def text(self) -> str | None:
        """The words, joined by a newline. None: there are none."""
        return "\n".join(self.texts) if self.texts else None

    def say(self, text: str) -> None:
        """Adds words."""
        if text.strip():
            self.texts.append(text)
            self.ends_in_tool = False

    def use(self, tool: Tool) -> None:
        """Adds a call or a result, unless the message has it under another key too."""
        if tool.identity is None or not any(tool.same_as(other) for other in self.tools):
            self.tools.append(tool)
            self.ends_in_tool = True

    def add(self, value: Any, where: str) -> None:
        """Adds a text, a part or a list of parts. FieldError: it is none of them."""
        if isinstance(value, str):
            self.kinds.append("text")
            self.say(value)
        elif isinstance(value, Mapping) and isinstance(value.get("parts"), list):
            self.add(value["parts"], f"{where}.parts")
        elif isinstance(value, Mapping):
            self.add_part(value, where)
        elif isinstance(value, list):
            for k, part in enumerate(value):
                if isinstance(part, str):
                    self.add(part, f"{where}.{k}")
                else:
                    self.add_part(part, f"{where}.{k}")
        else:
            raise FieldError(where, f"a {type(value).__name__}; give text, null or a list of parts")

    def add_part(self, part: Any, where: str) -> None:
        """Adds a part. FieldError: it has no type, no words although it is text, or calls no tool although it is a call."""
        kind = type_of(part, where)
        self.kinds.append(kind)
        if kind in EMPTY:
            return
        if kind in THOUGHT or part.get("thought") is True:
            texts = reasoning_of(part)
            self.reasoning += texts
            self.left_out += [kind] if not texts and (part.get("data") or part.get("encrypted_content")) else []
        elif kind in SPOKEN:
            text = next((part[key] for key in ("text", "content", "refusal", "value") if isinstance(part.get(key), str)), None)
            if text is None:
                raise FieldError(where, f"a part of type {kind!r} without words; give its text")
            self.say(text)
        elif (tool := tool_of(part, kind, where, self)) is not None:
            self.use(tool)
        else:
            self._add_recording(part, kind)

    def _add_recording(self, part: Row, kind: str) -> None:
        """Adds a recording by its path or URI, and its transcript. Another part, and sound within the row, is left out."""
        if (location := recording_of(part, kind)) is not None:
            self.recordings.append(Recording(location, kind))
        else:
            self.left_out.append(kind)
        transcript = transcript_of(part) if is_audio(part, kind) else None
        if transcript is not None and squeeze([transcript]) not in squeeze(self.texts):
            self.say(transcript)


def type_of(part: Any, where: str) -> str:
    """The type of a part, or the key that stands for it. FieldError: it has none."""
    if isinstance(part, Mapping):
        if isinstance(part.get("type"), str):
            return str(part["type"])
        if (kind := next((key for key in WITHOUT_TYPE if part.get(key) is not None), None)) is not None:
            return kind
    raise FieldError(where, "a part without `type`; give {type: text, text: ...}")


def reasoning_of(part: Row) -> list[str]:
    """The texts of a part that is reasoning. Encrypted reasoning has none."""
    texts: dict[str, None] = {}
    for key in ("thinking", "reasoning", "reasoning_content", "text", "content", "summary"):
        value = part.get(key)
        for item in value if isinstance(value, list) else [value]:
            text = item.get("text") if isinstance(item, Mapping) else item
            if isinstance(text, str) and text.strip():
                texts[text] = None
    return list(texts)


def tool_of(part: Row, kind: str, where: str, contents: Contents) -> Tool | None:
    """The call or the result that a part is. None: it is neither."""
    inner = part.get("toolInvocation" if kind == "tool-invocation" else kind)
    body = inner if isinstance(inner, Mapping) else part
    static = kind.startswith("tool-") and (kind not in NOT_A_TOOL or "state" in part)  # tool-NAME
    if static or kind in ("dynamic-tool", "tool-invocation") or CALLED.fullmatch(kind):
        default = kind.removeprefix("tool-") if static else kind.removesuffix("_call") if kind.endswith("_call") else None
        return call_of(body, where, None if kind in ("tool_call", "function_call") else default, contents)
    if not ANSWERED.fullmatch(kind):
        return None
    name, identity = text_or_none(first_of(body, NAMES)), text_or_none(first_of(body, IDENTITIES))
    result = outcome_of(body, RESPONSES)
    failed = bool(body.get("is_error") or body.get("isError")) or kind == "tool-error" or body.get("status") == "error"
    failed |= isinstance(result, Mapping) and str(result.get("type")).startswith(("error", "execution-denied"))
    return Tool(name, identity, answered=True, result=result_of(result, contents), failed=failed)


def calls_of(listed: Any, where: str) -> list[Tool]:
    """The calls of a list. FieldError: it is no list, or a call has no name."""
    if listed is None:
        return []
    if not isinstance(listed, list | tuple) or not all(isinstance(call, Mapping) for call in listed):
        raise FieldError(where, "not a list of objects; give [{id, function: {name, arguments}}, ...]")
    return [call_of(call, where) for call in listed]


def call_of(call: Row, where: str, default: str | None = None, contents: Contents | None = None) -> Tool:
    """A call, and its result if the same object holds it. `default`: the tool's name where the call has none. FieldError: no name."""
    inner = next((call[key] for key in ("function", "custom") if isinstance(call.get(key), Mapping)), call)
    name = text_or_none(first_of(inner, NAMES)) or default
    if not name:
        raise FieldError(where, "a call names no function; give {id, function: {name, arguments}}")
    result = outcome_of(call, RESULTS)
    denied = call.get("state") == "output-denied"
    failed = denied or any(call.get(key) not in NO_ERROR for key in ERRORS)
    answered = result is not None or denied
    value = result_of("denied" if denied and result is None else result, contents or Contents()) if answered else None
    identity = text_or_none(first_of(call, IDENTITIES))
    return Tool(name, identity, True, as_json(first_of(inner, ARGUMENTS)), answered, value, failed)


def outcome_of(holder: Row, names: Iterable[str]) -> Any:
    """What a tool gave: the value of the key that has one. Of several that differ, such as an output and an error, an object with each."""
    found = {key: holder[key] for key in names if holder.get(key) not in (NO_ERROR if key in ERRORS else (None,))}
    values = list(found.values())
    return found if any(value != values[0] for value in values) else next(iter(values), None)


def result_of(value: Any, contents: Contents) -> Any:
    """A tool's result: the text of its parts, or else JSON. Its other parts are left out."""
    if isinstance(value, Mapping) and isinstance(value.get("type"), str) and "value" in value:  # the AI SDK's {type: json, value: ...}
        value = value["value"]
    typed = isinstance(value, list) and all(isinstance(part, Mapping) and isinstance(part.get("type"), str) for part in value)
    if not typed or not value:
        return as_json(value)
    found = Contents()
    for part in value:
        text = part.get("text")
        found.say(text) if part["type"] in SPOKEN and isinstance(text, str) else found.left_out.append(part["type"])
    contents.left_out += found.left_out
    return found.text


def is_audio(part: Row, kind: str) -> bool:
    """Whether a part is a recording, by its type or its media type."""
    media = str(part.get("mediaType") or part.get("mimeType") or part.get("mime_type") or part.get("modality") or "")
    return "audio" in kind or media.startswith("audio")


def transcript_of(part: Row) -> str | None:
    """The transcript of a recording, from its part or from the object that locates it."""
    holders = [part, *(part[name] for name in LOCATIONS if isinstance(part.get(name), Mapping))]
    return next((holder["transcript"] for holder in holders if isinstance(holder.get("transcript"), str)), None)


def recording_of(part: Row, kind: str) -> str | None:
    """The path or URI of a part that is audio. None: it is not audio, or it holds the sound itself."""
    if not is_audio(part, kind):
        return None
    for name in LOCATIONS:
        value: Any = part.get(name)
        for location in (value.get("url"), value.get("path"), value.get("uri")) if isinstance(value, Mapping) else (value,):
            is_path = isinstance(location, str) and 0 < len(location) <= MAX_LOCATION and not location.startswith("data:")
            if is_path and (name != "data" or "://" in str(location)):
                return str(location)
    return None


def first_of(holder: Row, names: Iterable[str]) -> Any:
    """The value of the first key that has one."""
    return next((holder[name] for name in names if holder.get(name) is not None), None)


def text_or_none(value: Any) -> str | None:
    """A value as text without outer blanks."""
    return None if value is None else str(value).strip()


def squeeze(texts: Iterable[str]) -> str:
    """Texts without blanks, to compare them."""
    return "".join("".join(texts).split())


def from_json(value: Any) -> Any:
    """The value that a JSON text stands for. Other values, and texts that are no list or object, unchanged."""
    if isinstance(value, str) and value.lstrip()[:1] in ("[", "{"):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    return value


def as_json(value: Any) -> Any:
    """A value as JSON: times as ISO 8601, bytes as their number, NaN and infinity as null, other types as their text."""
    if isinstance(value, Mapping):
        return {str(key): as_json(inner) for key, inner in value.items() if inner is not None}
    if isinstance(value, list | tuple):
        return [as_json(inner) for inner in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, str | int):
        return value
    return f"{len(value)} bytes" if isinstance(value, bytes) else value.isoformat() if hasattr(value, "isoformat") else str(value)
