"""Your own logs as chat `messages` (Hugging Face, OpenAI), in JSONL or Parquet, one conversation per row.

The format: huggingface.co/docs/trl/dataset_formats (conversational), platform.openai.com/docs/api-reference/chat. `path` is a file or a
folder of files. A row has `messages`, a list of {role, content, tool_calls, tool_call_id, name}, or that list as JSON text.

How a row becomes a dialogue:

- Id: `id`, `conversation_id` or `session_id`, whichever comes first in this order; otherwise `chat:` and a fingerprint of the messages, so
  that the second of two equal conversations without ids is rejected. User: `user_id` or `user`. Other columns go to the metadata.
- Turns: a message of `user` begins a turn, and a message of `assistant` is its response. Assistant messages around tool calls are one
  response, with their texts joined by a newline. Other consecutive messages of `assistant` are turns without a request, and consecutive
  messages of `user` turns without a response.
- Content: text, or a list of parts whose texts are joined by a newline. Content may be null with tool calls, or with `refusal` or the
  transcript of `audio`, which are used instead.
- Audio: the first part of a user's message that names a recording by path or URI. Recordings within the row (base64) are left out.
- Tool calls, also the older `function_call`: the turn's categorical feature `tool` (the names, each once, joined by "+", missing without
  a call) and its numerical feature `tool_calls` (their number, missing without a message of the assistant).
- Time: `timestamp`, `created_at` or `created` of the turn's first message. The first turn may take that of the row. ISO 8601 or seconds
  since 1970.
- `metadata["messages"]`: `system` (the prompt, also of role `developer`), `tool_calls` with arguments and results, `parts` that are not
  text, and all other fields of messages (`other`, with the index of the message).

Nothing is labelled. Neither format defines feedback on a message: a `rating` or `feedback` goes to `other`. Licence: yours.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from labelgen.corpora import parse_time
from labelgen.dialogue import Dialogue, RecordError, Reject
from labelgen.io.files import read_files
from labelgen.io.paths import RECORD_SUFFIXES, list_files
from labelgen.io.rows import Row

IDS, USERS, TIMES = ("id", "conversation_id", "session_id"), ("user_id", "user"), ("timestamp", "created_at", "created")
READ = {
    "role",
    "content",
    "refusal",
    "audio",
    "tool_calls",
    "function_call",
    "tool_call_id",
    *TIMES,
}  # fields of a message that are read; the others go to `other`


@dataclass(frozen=True)
class ChatMessages:
    """The conversations of the file or folder `path` (.jsonl, .parquet)."""

    path: str

    def read(self, reject: Reject | None = None) -> Iterator[Dialogue]:
        """Yields the dialogues. Unusable rows and repeated ids go to `reject`; without it the first one raises RecordError."""
        remedy = "give .jsonl or .parquet, one conversation a row, with `messages`"
        yield from read_files(list_files(self.path, RECORD_SUFFIXES, remedy), convert, reject)


class FieldError(ValueError):
    """A field of a row cannot be used."""

    def __init__(self, name: str, problem: str) -> None:
        super().__init__(problem)
        self.name = name


@dataclass
class Conversation:
    """A conversation while its messages are read: the fields of its turns, and its metadata."""

    turns: list[dict[str, Any]] = field(default_factory=list)
    metadata: dict[str, list[Any]] = field(default_factory=dict)
    answered: bool = False  # the assistant has spoken in the last turn
    within_calls: bool = False  # the message before called tools, or was a tool's

    def note(self, name: str, value: Any) -> None:
        """Appends the value to a list of the metadata."""
        self.metadata.setdefault(name, []).append(value)

    def add(self, message: Row, where: str) -> None:
        """Adds the next message. `where` is its path in the row. FieldError: it cannot be used."""
        role = message.get("role")
        if role in ("system", "developer"):
            self.note("system", self.text(message, where))
        elif role == "user":
            self._begin(message, where)
            self.turns[-1]["request"] = self.text(message, where)
        elif role == "assistant":
            self._answer(message, tool_calls_of(message, where), where)
        elif role in ("tool", "function"):
            self._result(message, where)
        else:
            raise FieldError(f"{where}.role", f"{role!r} is none of system, developer, user, assistant, tool, function; map it to one")

    def _begin(self, message: Row, where: str) -> None:
        self.turns.append({"timestamp": time_of(message, where), "categorical": {}, "numerical": {}})
        self.answered = self.within_calls = False

    def _answer(self, message: Row, called: list[dict[str, Any]], where: str) -> None:
        if not self.turns or (self.answered and not called and not self.within_calls):
            self._begin(message, where)
        turn, text = self.turns[-1], self.text(message, where)
        if text is not None:
            turn["response"] = f"{turn['response']}\n{text}" if turn.get("response") else text
        turn["numerical"]["tool_calls"] = turn["numerical"].get("tool_calls", 0) + len(called)
        for call in called:
            names = turn["categorical"].get("tool", call["name"]).split("+")
            turn["categorical"]["tool"] = "+".join(dict.fromkeys([*names, call["name"]]))
            self.note("tool_calls", {"turn": len(self.turns) - 1, **call})
        self.answered, self.within_calls = True, bool(called)

    def _result(self, message: Row, where: str) -> None:
        """Adds a tool's result to its call: by id, or else to the first call of that tool (or of any) without a result."""
        self.within_calls = True
        identity, name, result = message.get("tool_call_id"), message.get("name"), self.text(message, where)
        for call in self.metadata.get("tool_calls", ()):
            if "result" not in call and (call.get("id") == identity if identity else name in (None, call["name"])):
                call["result"] = result
                return
        self.note("tool_calls", {"turn": max(len(self.turns) - 1, 0), "name": name, "id": identity, "result": result})  # the log is cut

    def text(self, message: Row, where: str) -> str | None:
        """The text of a message. Takes the user's recording, and notes the other parts that are not text."""
        content = message.get("content")
        if content is None:
            audio = message.get("audio")
            content = message.get("refusal") or (audio.get("transcript") if isinstance(audio, Mapping) else None)
        if content is None or isinstance(content, str):
            return content
        if not isinstance(content, list):
            raise FieldError(f"{where}.content", f"a {type(content).__name__}; give text, null or a list of parts")
        texts = []
        for k, part in enumerate(content):
            words = part if isinstance(part, str) else text_of_part(part, f"{where}.content.{k}")
            if words is not None:
                texts.append(words)
            elif (audio := recording_of(part)) and message.get("role") == "user" and "audio" not in self.turns[-1]:
                self.turns[-1]["audio"] = audio
            else:
                self.note("parts", {"message": int(where.rpartition(".")[2]), "type": str(part["type"])})
        return "\n".join(texts) if texts else None


def convert(row: Row, source: str, number: int) -> Row:
    """A row -> the fields of the record. RecordError: a message cannot be used."""
    identity = next((str(row[name]) for name in IDS if row.get(name) is not None), None)
    try:
        messages = messages_in(row)
        conversation = read_messages(messages)
        if conversation.turns[0]["timestamp"] is None:
            conversation.turns[0]["timestamp"] = time_of(row, "")
        metadata = {
            key: as_json(value) for key, value in row.items() if key not in {"messages", *IDS, *USERS, *TIMES} and value is not None
        }
        name = fingerprint(messages) if identity is None else identity
    except FieldError as error:
        raise RecordError(source, number, identity, error.name, str(error)) from None
    except RecursionError:
        raise RecordError(source, number, identity, "record", "nested too deep; leave the row out") from None
    if conversation.metadata:
        system = (
            {"system": "\n".join(text for text in conversation.metadata["system"] if text)} if "system" in conversation.metadata else {}
        )
        metadata["messages"] = {**conversation.metadata, **system}
    user = next((str(row[name]) for name in USERS if row.get(name) is not None), None)
    return {"id": name, "turns": conversation.turns, "user": user, "metadata": metadata}


def read_messages(messages: list[Row]) -> Conversation:
    """Reads the messages in order. FieldError: one cannot be used, or none is of the user or the assistant."""
    conversation = Conversation()
    for k, message in enumerate(messages):
        conversation.add(message, f"messages.{k}")
        if other := {key: as_json(value) for key, value in message.items() if key not in READ and value is not None}:
            conversation.note("other", {"message": k, **other})
    if not conversation.turns:
        raise FieldError("messages", "no message of user or assistant; leave the row out")
    return conversation


def messages_in(row: Row) -> list[Row]:
    """The messages of a row. FieldError: there are none, or they have another form."""
    messages = row.get("messages")
    if messages is None:
        raise FieldError(
            "messages", f"the row has none (it has {', '.join(sorted(map(str, row))) or 'nothing'}); rename the column that holds them"
        )
    if isinstance(messages, str):
        try:
            messages = json.loads(messages)
        except (ValueError, RecursionError) as error:
            raise FieldError("messages", f"text that is not JSON ({error}); give a list of messages") from None
    if not isinstance(messages, list) or not all(isinstance(message, Mapping) for message in messages):
        raise FieldError("messages", "not a list of objects; give [{role, content}, ...]")
    return messages


def tool_calls_of(message: Row, where: str) -> list[dict[str, Any]]:
    """The tool calls of an assistant's message: name, arguments, id."""
    listed = message.get("tool_calls") or ()
    if not isinstance(listed, list | tuple) or not all(isinstance(call, Mapping) for call in listed):
        raise FieldError(f"{where}.tool_calls", "not a list of objects; give [{id, function: {name, arguments}}, ...]")
    found = [(call.get("function") or call.get("custom") or call, call.get("id")) for call in listed]
    if isinstance(old := message.get("function_call"), Mapping):
        found.append((old, None))
    calls = []
    for called, identity in found:
        if not isinstance(called, Mapping) or not isinstance(called.get("name"), str):
            raise FieldError(f"{where}.tool_calls", "a call names no function; give {id, function: {name, arguments}}")
        given = called.get("arguments", called.get("input"))
        calls.append({"name": called["name"], "arguments": as_json(given), **({"id": identity} if identity else {})})
    return calls


def text_of_part(part: Any, where: str) -> str | None:
    """The text of a part of a message. None: the part is not text. FieldError: it has no type or no text."""
    if not isinstance(part, Mapping) or not isinstance(part.get("type"), str):
        raise FieldError(where, "a part without `type`; give {type: text, text: ...}")
    kind = part["type"]
    if kind != "refusal" and not kind.endswith("text"):  # text, input_text, output_text
        return None
    text = part.get("refusal" if kind == "refusal" else "text")
    if not isinstance(text, str):
        raise FieldError(where, f"a part of type {kind!r} without words; give its text")
    return text


def recording_of(part: Row) -> str | None:
    """The path or URI of a part that is audio. None: it is not audio, or it holds the sound itself."""
    if "audio" not in part["type"]:
        return None
    for name in ("audio", "path", "url", "audio_url"):
        value = part.get(name)
        for location in (value.get("url"), value.get("path")) if isinstance(value, Mapping) else (value,):
            if isinstance(location, str) and location and not location.startswith("data:"):
                return location
    return None


def time_of(holder: Row, where: str) -> datetime | None:
    """The time of a message or row. FieldError: it is not a time."""
    for name in TIMES:
        if (value := holder.get(name)) is not None:
            try:
                return parse_time(value)
            except ValueError as error:
                raise FieldError(f"{where}.{name}".lstrip("."), str(error)) from None
    return None


def fingerprint(messages: list[Row]) -> str:
    """An id for a conversation that has none. Equal messages give equal ids."""
    text = json.dumps(as_json(messages), sort_keys=True)
    return f"chat:{hashlib.sha256(text.encode()).hexdigest()[:16]}"


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
