"""A chat message of any API as one form: its role, time and contents, from the keys that its file has for them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Any, NamedTuple

from labelgen.corpora import parse_time
from labelgen.corpora.chat_parts import (
    ANSWERED,
    CALLED,
    EMPTY,
    IDENTITIES,
    NAMES,
    SPOKEN,
    THOUGHT,
    Contents,
    FieldError,
    Recording,
    Tool,
    as_json,
    calls_of,
    first_of,
    from_json,
    reasoning_of,
    recording_of,
    squeeze,
    text_or_none,
)
from labelgen.io.rows import Row

ROLES = {
    "system": "system", "developer": "system", "user": "user", "human": "user", "assistant": "assistant", "gpt": "assistant",
    "model": "assistant", "ai": "assistant", "bot": "assistant", "tool": "tool", "function": "tool", "observation": "tool",
    "function_call": "function_call",
}  # fmt: skip
READ_AS = ("system", "user", "assistant", "tool", "function_call", "ignore")  # what a role of a file may be read as
WORDS = ("content", "parts", "text", "value")  # keys of a message that may hold its words, the likeliest first
TIMES = ("timestamp", "created_at", "createdAt", "created")
ITEMS = {"image_generation_call", "computer_call_output", "mcp_list_tools", "mcp_approval_request", "mcp_approval_response"}
ITEMS |= {"item_reference", "compaction"}  # of the Responses API, which are left out
REASONING_FIELDS = ("reasoning", "reasoning_content", "thinking")
READ = {*REASONING_FIELDS, "refusal", "audio", "tool_calls", "toolInvocations", "function_call"}  # fields that are read of all messages


class Keys(NamedTuple):
    """Where a file keeps things, as far as its owner says. A key may be a path (`author.role`)."""

    messages: str | None = None
    role: str | None = None
    text: str | None = None
    roles: Mapping[str, str] = {}


@dataclass
class Message:
    """A message that has been read. `standalone`: an item of the Responses API that is not a message, such as a call."""

    role: str
    where: str  # its path in the row
    contents: Contents
    time: datetime | None = None
    other: dict[str, Any] = field(default_factory=dict)  # fields that are not read
    standalone: bool = False
    unreadable: FieldError | None = None  # its time, which `other` keeps

    @cached_property
    def words_key(self) -> tuple[Any, ...]:
        """What two logs of one message share."""
        tools = tuple(tool.key for tool in self.contents.tools)
        return (self.role, " ".join((self.contents.text or "").split()), tools)


def read_message(raw: Row, where: str, keys: Keys) -> Message:
    """Reads a message of any API. FieldError: its role, or a part of it, cannot be used."""
    role = role_of(raw, where, keys)
    if role is None:  # an item of the Responses API
        message = Message("assistant", where, Contents(), standalone=True)
        message.contents.add_part(raw, where)
        _read_time(raw, message)
        return message
    message = Message(role, where, Contents())
    read = READ | keys_read(raw, keys)
    message.other = {key: as_json(value) for key, value in raw.items() if value is not None and key not in read}
    _read_time(raw, message)
    if role != "tool" or not _read_json_result(raw, message, keys):
        _read_words(raw, message, keys)
    _read_fields(raw, message)
    if role == "tool":
        _make_result(raw, message)
    return message


def _read_time(raw: Row, message: Message) -> None:
    """Reads the time. One that cannot be read is kept in `other`."""
    try:
        message.time = time_of(raw, message.where)
    except FieldError as error:
        name = error.name.removeprefix(f"{message.where}.")
        message.unreadable, message.other[name] = error, as_json(raw[name])


def keys_read(raw: Row, keys: Keys) -> set[str | None]:
    """The keys of a message that hold its role, words and time. Others of that kind are not read, such as `content` next to `text`."""
    words = {keys.text} if keys.text else set(WORDS)
    time = next((name for name in TIMES if raw.get(name) is not None), None)
    return {role_key(raw, keys), *words, time, "type" if raw.get("type") == "message" else None}


def role_key(raw: Row, keys: Keys) -> str:
    """The key of a message that holds its role."""
    return keys.role or next((key for key in ("role", "from") if raw.get(key) is not None), "role")


def _read_words(raw: Row, message: Message, keys: Keys) -> None:
    """Reads the words under each key that may hold them. Words that differ from those under a likelier key are kept in `other`."""
    contents = message.contents
    for key in (keys.text,) if keys.text else WORDS:
        value = at_path(raw, key) if keys.text else raw.get(key)
        if value is None:
            continue
        found = Contents()
        if message.role == "function_call":
            decoded = from_json(value)
            found.tools = calls_of([decoded] if isinstance(decoded, Mapping) else decoded, f"{message.where}.{key}")
            found.kinds = ["function_call"] * len(found.tools)
        else:
            found.add(value, f"{message.where}.{key}")
        if contents.texts and found.texts:
            if squeeze(found.texts) != squeeze(contents.texts):
                message.other[key] = as_json(value)
            found.texts = []
            found.kinds = [kind for kind in found.kinds if kind not in SPOKEN]
        contents.texts += found.texts
        contents.recordings += found.recordings
        contents.reasoning += found.reasoning
        contents.left_out += found.left_out
        contents.kinds += found.kinds
        for tool in found.tools:
            contents.use(tool)
        contents.ends_in_tool = found.ends_in_tool or message.role == "function_call"
    if message.role == "function_call":
        message.role = "assistant"


def _read_fields(raw: Row, message: Message) -> None:
    """Reads what OpenAI and others keep in fields of the message instead of parts."""
    contents = message.contents
    if (refusal := raw.get("refusal")) is not None:
        _read_text(refusal, "refusal", message)
    if (audio := raw.get("audio")) is not None:
        _read_audio(audio, message)
    for key in REASONING_FIELDS:
        if raw.get(key):
            contents.reasoning += reasoning_of({key: raw[key]}) or [json.dumps(as_json(raw[key]))]
    for key in ("tool_calls", "toolInvocations", "function_call"):
        listed = raw.get(key) or None
        for tool in calls_of([listed] if key == "function_call" and listed else listed, f"{message.where}.{key}"):
            contents.kinds.append("tool call")
            contents.use(tool)


def _read_text(text: Any, key: str, message: Message) -> None:
    """Reads words that stand in a field of their own. They are the message's if it has no others."""
    if isinstance(text, str) and not message.contents.texts:
        message.contents.kinds.append("text")
        message.contents.say(text)
    elif not isinstance(text, str) or squeeze([text]) not in squeeze(message.contents.texts):
        message.other[key] = as_json(text)


def _read_audio(audio: Any, message: Message) -> None:
    """Reads the recording of a message: its transcript, and its path or URI. Sound itself is left out."""
    contents = message.contents
    contents.kinds.append("audio")
    if isinstance(audio, Mapping) and audio.get("transcript") is not None:
        _read_text(audio["transcript"], "transcript", message)
    if (location := recording_of({"audio": audio}, "audio")) is not None:
        contents.recordings.append(Recording(location, "audio"))
    elif isinstance(audio, str) or (isinstance(audio, Mapping) and audio.get("data")):
        contents.left_out.append("audio")


def _read_json_result(raw: Row, message: Message, keys: Keys) -> bool:
    """Reads a tool's result that is JSON. False: it is text, or parts of a message."""
    key = next((key for key in ((keys.text,) if keys.text else WORDS) if at_path(raw, key) is not None), "")
    value = at_path(raw, key)
    typed = [isinstance(part, str) or (isinstance(part, Mapping) and isinstance(part.get("type"), str)) for part in as_list(value)]
    if value is None or all(typed):
        return False
    message.contents.kinds.append("tool result")
    message.contents.use(Tool(*_named(raw), answered=True, result=as_json(value)))
    message.other |= {other: as_json(raw[other]) for other in WORDS if other != key and raw.get(other) is not None}
    return True


def _make_result(raw: Row, message: Message) -> None:
    """Makes the words of a tool's message its result."""
    contents = message.contents
    if contents.texts or not contents.tools:
        contents.use(Tool(*_named(raw), answered=True, result=contents.text))
    contents.texts = []
    for key in (*NAMES, *IDENTITIES[:-1]):
        message.other.pop(key, None)


def _named(raw: Row) -> tuple[str | None, str | None]:
    """The name of the tool and the id of the call that a tool's message answers."""
    return text_or_none(first_of(raw, NAMES)), text_or_none(first_of(raw, IDENTITIES[:-1]))


def as_list(value: Any) -> list[Any]:
    """The value, as a list if it is none."""
    return value if isinstance(value, list) else [value]


def role_of(raw: Row, where: str, keys: Keys) -> str | None:
    """The role of a message, as one of READ_AS. None: an item of the Responses API without a role. FieldError: it is not known."""
    name = role_key(raw, keys)
    found, kind = at_path(raw, name), str(raw.get("type"))
    if found is None and keys.role is None:
        if kind in {*THOUGHT, *EMPTY} or CALLED.fullmatch(kind) or ANSWERED.fullmatch(kind) or kind in ITEMS:
            return None
        found = kind if kind in ROLES else None  # LangChain names the role so
    role = keys.roles.get(str(found)) or ROLES.get(str(found).lower())
    if isinstance(found, str) and role:
        return role
    remedy = f"set corpus.role to the key that holds it (now {name})" if found is None else f"set corpus.roles, such as {{{found}: user}}"
    raise FieldError(f"{where}.{name}", f"{found!r} is none of {', '.join(ROLES)}; {remedy}")


def time_of(holder: Row, where: str) -> datetime | None:
    """The time of a message or row. FieldError: it is not a time."""
    for name in TIMES:
        if (value := holder.get(name)) is not None:
            try:
                return parse_time(value)
            except ValueError as error:
                raise FieldError(f"{where}.{name}".lstrip("."), str(error)) from None
    return None


def at_path(holder: Row, path: str) -> Any:
    """The value at a key, or at a path of keys with dots. None: there is none."""
    value: Any = holder.get(path)
    if value is None and "." in path:
        value = holder
        for key in path.split("."):
            value = value.get(key) if isinstance(value, Mapping) else None
    return value
