"""Users' own logs as chat `messages` (Hugging Face, OpenAI): JSONL or Parquet, one conversation a row -> dialogues.

The format: huggingface.co/docs/trl/dataset_formats (conversational), platform.openai.com/docs/api-reference/chat. `path` is a file or a
folder of them. A row has `messages`, a list of {role, content, tool_calls, tool_call_id, name}, or that list as JSON text.

What becomes what:

- Id: `id`, else `conversation_id`, else `session_id`, else `chat:` and a fingerprint of the messages: without ids the second of two equal
  conversations is refused. User: `user_id`, else `user`. Time of the first turn: see below. Other columns stand in the metadata.
- Turns: a message of `user` begins a turn, `assistant` is its response. Assistant messages around tool calls are one response, their
  texts joined by a newline; other consecutive ones are turns without request, consecutive messages of `user` turns without response.
- Content: text, or a list of parts whose texts are joined by a newline. It may be null: beside tool calls, beside `refusal` or beside
  `audio` with a transcript, which then are the words.
- Audio: the first part of the user's that names its recording by path or URI. Recordings within the row (base64) are left out.
- Tool calls, also the older `function_call`: the turn's categorical feature `tool` (the names, each once, joined by "+"; missing without
  a call) and its numerical feature `tool_calls` (how many, missing where the assistant said nothing).
- Time: `timestamp`, `created_at` or `created` of the turn's first message, for the first turn else that of the row. ISO 8601 or seconds
  since 1970.
- `metadata["messages"]`: `system` (the prompt, also of role `developer`), `tool_calls` with arguments and results, `parts` that are no
  text, and what else messages carry (`other`, with the message's index).

Not labelled: anything. Neither format defines feedback on a message; a `rating` or `feedback` stands in `other`. Licence: yours.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from pydantic import TypeAdapter, ValidationError

from labelgen.dialogue import Dialogue, RecordError, Reject, UTCDatetime
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
}  # of a message; the rest goes to `other`
MOMENT: TypeAdapter[datetime] = TypeAdapter(UTCDatetime)


@dataclass(frozen=True)
class ChatMessages:
    """Conversations of the file or folder `path` (.jsonl, .parquet)."""

    path: str

    def read(self, reject: Reject | None = None) -> Iterator[Dialogue]:
        """Streams the dialogues; bad rows and second uses of an id go to `reject` (without it the first one raises RecordError)."""
        remedy = "give .jsonl or .parquet, one conversation a row, with `messages`"
        yield from read_files(list_files(self.path, RECORD_SUFFIXES, remedy), convert, reject)


class FieldError(ValueError):
    """What is wrong with one field of a row."""

    def __init__(self, name: str, problem: str) -> None:
        super().__init__(problem)
        self.name = name


@dataclass
class Talk:
    """A conversation while its messages are read: the turns' fields, and what goes to the metadata."""

    turns: list[dict[str, Any]] = field(default_factory=list)
    metadata: dict[str, list[Any]] = field(default_factory=dict)
    answered: bool = False  # has the assistant spoken in the last turn?
    within_calls: bool = False  # was the message before a tool's, or one that called tools?

    def note(self, name: str, what: Any) -> None:
        """Adds to one list of the metadata."""
        self.metadata.setdefault(name, []).append(what)

    def add(self, message: Row, where: str) -> None:
        """Takes the next message; `where` is its place in the row. FieldError where it cannot be used."""
        role = message.get("role")
        if role in ("system", "developer"):
            self.note("system", self.text(message, where))
        elif role == "user":
            self._begin(message, where)
            self.turns[-1]["request"] = self.text(message, where)
        elif role == "assistant":
            self._answer(message, calls(message, where), where)
        elif role in ("tool", "function"):
            self._result(message, where)
        else:
            raise FieldError(f"{where}.role", f"{role!r} is none of system, developer, user, assistant, tool, function; map it to one")

    def _begin(self, message: Row, where: str) -> None:
        self.turns.append({"timestamp": moment(message, where), "categorical": {}, "numerical": {}})
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
        """A tool's result, beside its call: by id, else the first call of the tool (or of any) that has none."""
        self.within_calls = True
        identity, name, result = message.get("tool_call_id"), message.get("name"), self.text(message, where)
        for call in self.metadata.get("tool_calls", ()):
            if "result" not in call and (call.get("id") == identity if identity else name in (None, call["name"])):
                call["result"] = result
                return
        self.note("tool_calls", {"turn": max(len(self.turns) - 1, 0), "name": name, "id": identity, "result": result})  # the log is cut

    def text(self, message: Row, where: str) -> str | None:
        """The words of a message; notes parts that are none, and takes the user's recording."""
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
            words = part if isinstance(part, str) else words_of(part, f"{where}.content.{k}")
            if words is not None:
                texts.append(words)
            elif (audio := recording(part)) and message.get("role") == "user" and "audio" not in self.turns[-1]:
                self.turns[-1]["audio"] = audio
            else:
                self.note("parts", {"message": int(where.rpartition(".")[2]), "type": str(part["type"])})
        return "\n".join(texts) if texts else None


def convert(row: Row, source: str, number: int) -> Row:
    """A row -> the fields of our record. RecordError: which message cannot be used, and why."""
    identity = next((str(row[name]) for name in IDS if row.get(name) is not None), None)
    try:
        messages = messages_of(row)
        talk = talk_of(messages)
        if talk.turns[0]["timestamp"] is None:
            talk.turns[0]["timestamp"] = moment(row, "")
        metadata = {key: plain(value) for key, value in row.items() if key not in {"messages", *IDS, *USERS, *TIMES} and value is not None}
        name = fingerprint(messages) if identity is None else identity
    except FieldError as error:
        raise RecordError(source, number, identity, error.name, str(error)) from None
    except RecursionError:
        raise RecordError(source, number, identity, "record", "nested too deep; leave the row out") from None
    if talk.metadata:
        system = {"system": "\n".join(text for text in talk.metadata["system"] if text)} if "system" in talk.metadata else {}
        metadata["messages"] = {**talk.metadata, **system}
    user = next((str(row[name]) for name in USERS if row.get(name) is not None), None)
    return {"id": name, "turns": talk.turns, "user": user, "metadata": metadata}


def talk_of(messages: list[Row]) -> Talk:
    """Reads the messages in order. FieldError where one cannot be used, or none is a turn."""
    talk = Talk()
    for k, message in enumerate(messages):
        talk.add(message, f"messages.{k}")
        if other := {key: plain(value) for key, value in message.items() if key not in READ and value is not None}:
            talk.note("other", {"message": k, **other})
    if not talk.turns:
        raise FieldError("messages", "no message of user or assistant; leave the row out")
    return talk


def messages_of(row: Row) -> list[Row]:
    """The row's messages, as they are or as JSON text."""
    messages = row.get("messages")
    if messages is None:
        raise FieldError(
            "messages", f"the row has none (but {', '.join(sorted(map(str, row))) or 'nothing'}); rename the column that holds them"
        )
    if isinstance(messages, str):
        try:
            messages = json.loads(messages)
        except (ValueError, RecursionError) as error:
            raise FieldError("messages", f"text that is not JSON ({error}); give a list of messages") from None
    if not isinstance(messages, list) or not all(isinstance(message, Mapping) for message in messages):
        raise FieldError("messages", "not a list of objects; give [{role, content}, ...]")
    return messages


def calls(message: Row, where: str) -> list[dict[str, Any]]:
    """The tool calls of an assistant's message: name, arguments, id."""
    listed = message.get("tool_calls") or ()
    if not isinstance(listed, list | tuple) or not all(isinstance(call, Mapping) for call in listed):
        raise FieldError(f"{where}.tool_calls", "not a list of objects; give [{id, function: {name, arguments}}, ...]")
    found = [(call.get("function") or call.get("custom") or call, call.get("id")) for call in listed]
    if isinstance(old := message.get("function_call"), Mapping):
        found.append((old, None))
    told = []
    for called, identity in found:
        if not isinstance(called, Mapping) or not isinstance(called.get("name"), str):
            raise FieldError(f"{where}.tool_calls", "a call names no function; give {id, function: {name, arguments}}")
        given = called.get("arguments", called.get("input"))
        told.append({"name": called["name"], "arguments": plain(given), **({"id": identity} if identity else {})})
    return told


def words_of(part: Any, where: str) -> str | None:
    """The text of a part of a message; None: it is no text."""
    if not isinstance(part, Mapping) or not isinstance(part.get("type"), str):
        raise FieldError(where, "a part without `type`; give {type: text, text: ...}")
    kind = part["type"]
    if kind != "refusal" and not kind.endswith("text"):  # text, input_text, output_text
        return None
    text = part.get("refusal" if kind == "refusal" else "text")
    if not isinstance(text, str):
        raise FieldError(where, f"a part of type {kind!r} without words; give its text")
    return text


def recording(part: Row) -> str | None:
    """Path or URI of a part that is audio; None: it is not, or holds the sound itself."""
    if "audio" not in part["type"]:
        return None
    for name in ("audio", "path", "url", "audio_url"):
        where = part.get(name)
        for place in (where.get("url"), where.get("path")) if isinstance(where, Mapping) else (where,):
            if isinstance(place, str) and place and not place.startswith("data:"):
                return place
    return None


def moment(holder: Row, where: str) -> datetime | None:
    """The time of a message or row."""
    for name in TIMES:
        if (value := holder.get(name)) is not None:
            try:
                return MOMENT.validate_python(value)
            except ValidationError:
                problem = f"{value!r} is no time; write ISO 8601 (2024-05-01T12:00:00Z), seconds since 1970, or null"
                raise FieldError(f"{where}.{name}".lstrip("."), problem) from None
    return None


def fingerprint(messages: list[Row]) -> str:
    """An id for a conversation that has none: equal messages, equal id."""
    text = json.dumps(plain(messages), sort_keys=True)
    return f"chat:{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def plain(value: Any) -> Any:
    """A value as JSON has it: times as ISO 8601, bytes by their number, NaN and infinity as null, anything else strange as its text."""
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items() if inner is not None}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, str | int):
        return value
    return f"{len(value)} bytes" if isinstance(value, bytes) else value.isoformat() if hasattr(value, "isoformat") else str(value)
