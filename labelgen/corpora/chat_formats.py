"""The formats of chat logs with one conversation per row: each is a function from a row to its messages, and a test of the row.

- messages: huggingface.co/docs/trl/dataset_formats (conversational), platform.openai.com/docs/api-reference/chat, Anthropic, the AI SDK
- sharegpt: github.com/hiyouga/LLaMA-Factory/blob/main/data/README.md
- responses: platform.openai.com/docs/api-reference/responses, `input` and `output` as lists of items
- trl: huggingface.co/docs/trl/dataset_formats, `prompt` with `completion`, `chosen` with `rejected`
- rasa: rasa.com/docs/reference/primitives/events, trackers with their `events`

`chat_groups` has the formats whose conversations take several rows.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from labelgen.corpora.chat_fields import ROLES, WORDS, Keys, Message, at_path, read_message
from labelgen.corpora.chat_parts import ANSWERED, CALLED, THOUGHT, FieldError, as_json, from_json
from labelgen.io.rows import Row

TRANSCRIPT = re.compile(r"(?:^|\n\n)(Human|Assistant): ?")  # hh-rlhf
STRUCTURAL = re.compile(
    r"action_(listen|session_start|restart|default_\w+|deactivate_loop|two_stage_fallback|back|unlikely_intent|extract_slots)"
)
COMPLETIONS = ("completion", "chosen", "response")
HOLDERS = ("messages", "conversations", "output")  # keys of an object that may hold a list of messages


class Located(NamedTuple):
    """A message as the file has it, and its path in the row. `made`: made here, with `role` and `content`, whatever the settings say."""

    where: str
    message: Row
    made: bool = False


@dataclass
class Chat:
    """A conversation as the file has it.

    `columns`: those that hold it, the messages' first. `left_out`: what is not read, by kind. `rest`: the fields of columns that are not
    read, by column.
    """

    messages: list[Located]
    columns: list[str]
    identity: str | None = None
    left_out: Counter[str] = field(default_factory=Counter)
    slots: list[dict[str, Any]] = field(default_factory=list)
    rest: dict[str, Any] = field(default_factory=dict)

    def keep_rest(self, column: str, value: Any) -> None:
        """Keeps the fields that `to_messages` does not read of a column's value. Counts the other choices."""
        unread = unread_of(value)
        if unread.fields:
            self.rest[column] = unread.fields
        self.left_out["choices after the first"] += unread.choices


class Unread(NamedTuple):
    """What `to_messages` does not read of an object: its other fields, and the number of choices after the first."""

    fields: dict[str, Any]
    choices: int = 0


class Format(NamedTuple):
    """A format with one conversation per row."""

    description: str
    fits: Callable[[Row], bool]
    read: Callable[[Row, Keys], Chat]


def messages_chat(row: Row, keys: Keys) -> Chat:
    """`messages`, and what the model answered to them in the same row: `choices` or `response`. Or a `request` that holds them."""
    inner = row.get("request")
    wrapped = keys.messages is None and row.get("messages") is None and isinstance(inner, Mapping)
    holder, prefix = (inner, "request.") if wrapped and isinstance(inner, Mapping) else (row, "")
    column = keys.messages or "messages"
    messages = system_of(holder, prefix) + list_of_messages(at_path(holder, column), f"{prefix}{column}")
    chat = Chat(messages, ["request"] if wrapped else [column.split(".")[0], "system"])
    if wrapped:
        chat.keep_rest("request", holder)
    elif column not in row and "." in column:
        chat.rest |= without_path(row, column.split("."))
    for answer in ("choices", "response"):
        value = from_json(row.get(answer)) if answer == "choices" else decoded_chat(row.get(answer))
        if keys.messages is None and (isinstance(value, Mapping) or (value and answer == "choices")):
            given = {"choices": value} if answer == "choices" else value
            chat.messages += to_messages(given, "assistant", answer, keys)
            chat.columns.append(answer)
            chat.keep_rest(answer, given)
    if "choices" in chat.rest:  # it is a list, not an object that holds one
        chat.rest |= chat.rest["choices"]
    return chat


def sharegpt_chat(row: Row, keys: Keys) -> Chat:
    """`conversations` of {from, value}, an optional `system` prompt, and `chosen` in a preference dataset."""
    column = keys.messages or "conversations"
    messages = system_of(row) + list_of_messages(at_path(row, column), column)
    chosen = [Located("chosen", row["chosen"])] if isinstance(row.get("chosen"), Mapping) else []
    return Chat(messages + chosen, [column.split(".")[0], "system", *(item.where for item in chosen)])


def responses_chat(row: Row, keys: Keys) -> Chat:
    """`instructions`, `input` (text or items) and `output` (items) of the Responses API."""
    given, output = row.get("input"), row.get("output")
    if isinstance(output, str):  # it is never a text, so that both columns hold JSON text
        given, output = decoded_chat(given), decoded_chat(output)
    messages = system_of({"instructions": row.get("instructions")})
    messages += to_messages(given, "user", "input", keys) + to_messages(output, "assistant", "output", keys)
    chat = Chat(messages, ["input", "output", "instructions"])
    chat.keep_rest("input", given)
    chat.keep_rest("output", output)
    return chat


def trl_chat(row: Row, keys: Keys) -> Chat:
    """`prompt` with `completion`, `response` or `chosen`; or `chosen` with the prompt in it. Each is a text or a list of messages."""
    answer = next((name for name in COMPLETIONS if row.get(name) is not None), None)
    completion = transcript(row[answer], "assistant", answer, keys) if answer else []
    whole = any(ROLES.get(str(located.message.get("role")).lower()) == "user" for located in completion)
    if whole and answer:  # the prompt is in it, and stays in the metadata
        chat = Chat(completion, [answer])
        chat.keep_rest(answer, row[answer])
        return chat
    if row.get("prompt") is None:
        raise FieldError(str(answer), "a text without a request; give `prompt` too, or a list of messages")
    chat = Chat(transcript(row["prompt"], "user", "prompt", keys) + completion, ["prompt", *([answer] if answer else [])])
    for column in chat.columns:
        chat.keep_rest(column, row[column])
    return chat


def rasa_chat(row: Row, keys: Keys) -> Chat:
    """The `events` of a tracker. What Rasa predicted (intent, entities) is no annotation: it is kept with the message, in the metadata."""
    messages: list[Located] = []
    slots: list[dict[str, Any]] = []
    left_out: Counter[str] = Counter()
    events = list_of_messages(row.get("events"), "events")
    for k, event in enumerate(events):
        kind, name = event.message.get("event"), str(event.message.get("name"))
        if kind in ("user", "bot"):
            messages += rasa_message(event, left_out)
        elif kind == "action" and event.message.get("name") is None:
            messages += rasa_end_to_end(event, events[k + 1 :], left_out)
        elif kind == "action" and not name.startswith("utter_") and not STRUCTURAL.fullmatch(name):
            fields = {"timestamp": event.message.get("timestamp"), "tool_calls": [{"name": name}]}
            messages.append(Located(event.where, {"role": "assistant", **fields}, made=True))
        elif kind == "slot":
            slots.append({"event": k, "name": name, "value": as_json(event.message.get("value"))})
        elif kind != "action":
            left_out[f"events of type {kind}"] += 1
    identity = row.get("sender_id") or row.get("conversation_id")
    return Chat(messages, ["events", "sender_id"], None if identity is None else str(identity), left_out, slots)


def rasa_message(event: Located, left_out: Counter[str]) -> list[Located]:
    """A `user` or `bot` event as a message. A bot's buttons, images and the like are left out; without a text, there is no message."""
    raw = event.message
    predicted, data = raw.get("parse_data") or {}, raw.get("data") or {}
    left_out.update(f"parts of type {kind}" for kind, value in data.items() if value)
    if raw.get("event") == "bot" and not raw.get("text") and any(data.values()):
        return []
    intent = (predicted.get("intent") or {}).get("name")
    found = {"intent": intent, "confidence": (predicted.get("intent") or {}).get("confidence"), "entities": predicted.get("entities")}
    others = {key: value for key, value in predicted.items() if key not in ("intent", "entities", "text")}
    kept = {key: value for key, value in {**found, **others}.items() if value}
    role = "user" if raw.get("event") == "user" else "assistant"
    message = {key: value or None for key, value in raw.items() if key not in ("event", "text", "parse_data", "data", "sender_id")}
    return [Located(event.where, {**message, "role": role, "content": raw.get("text"), "predicted_by_rasa": kept or None}, made=True)]


def rasa_end_to_end(event: Located, later: Sequence[Located], left_out: Counter[str]) -> list[Located]:
    """An action without a name utters its `action_text`. Rasa writes the same text as a `bot` event after it, which is read instead."""
    text = event.message.get("action_text")
    if not text:
        left_out["actions without a name or a text"] += 1
        return []
    following = next((other.message for other in later if other.message.get("event") in ("user", "bot", "action")), {})
    if following.get("event") == "bot" and following.get("text") == text:
        return []
    return [Located(event.where, {"role": "assistant", "content": text, "timestamp": event.message.get("timestamp")}, made=True)]


class ReadMessage(NamedTuple):
    """A message before and after reading."""

    located: Located
    message: Message


class MessageReader:
    """Reads messages. One that equals the last message at its path is not read again: inputs of calls repeat the conversation so far.

    The messages that are returned may be shared. Copy one before you change it.
    """

    def __init__(self, keys: Keys) -> None:
        self.keys = keys
        self._last: dict[str, ReadMessage] = {}  # by path

    def read(self, located: Iterable[Located]) -> list[Message]:
        """The messages, in their order. FieldError: one cannot be used."""
        return [self._read(item) for item in located]

    def _read(self, item: Located) -> Message:
        last = self._last.get(item.where)
        if last is None or last.located != item:
            last = ReadMessage(item, read_message(item.message, item.where, Keys() if item.made else self.keys))
            self._last[item.where] = last
        return last.message


def transcript(value: Any, role: str, where: str, keys: Keys) -> list[Located]:
    """`to_messages`, also for one text in which "Human:" and "Assistant:" take turns."""
    pieces = TRANSCRIPT.split(value) if isinstance(value, str) else []
    if len(pieces) < 2 or pieces[0].strip():
        return to_messages(value, role, where, keys)
    turns = zip(pieces[1::2], pieces[2::2], strict=True)
    return [Located(where, {"role": speaker.lower(), "content": text}, made=True) for speaker, text in turns if text.strip()]


def to_messages(value: Any, role: str, where: str, keys: Keys) -> list[Located]:
    """The messages that an input or output of a model is: a text, a message, a list of them, or an object that holds them.

    `role`: of a text. A text stays one, whatever it looks like: see `decoded_chat`. FieldError: it is none of these.
    """
    if value in (None, "", [], {}):
        return []
    if isinstance(value, list) and all(isinstance(item, Mapping) for item in value) and any(map(is_message, value)):
        return [Located(f"{where}.{k}", item) for k, item in enumerate(value)]
    if isinstance(value, str | list):  # a text, or parts of one message
        return [Located(where, {"role": role, "content": value}, made=True)]
    if not isinstance(value, Mapping):
        raise FieldError(where, f"a {type(value).__name__}; give text, a message or a list of messages")
    for name in HOLDERS:
        if isinstance(value.get(name), list):
            return system_of(value, f"{where}.") + to_messages(value[name], role, f"{where}.{name}", keys)
    if isinstance(value.get("choices"), list) and value["choices"]:
        return to_messages(value["choices"][0].get("message"), role, f"{where}.choices.0.message", keys)
    if is_message(value):
        return [Located(where, value)]
    if keys.text is None and any(key in value for key in (*WORDS, "tool_calls")):
        return [Located(where, {"role": role, **value}, made=True)]
    words = [keys.text] if keys.text in value else [key for key in value if isinstance(value[key], str)]
    if len(words) != 1:
        raise FieldError(where, f"an object with {', '.join(map(str, value))}; set corpus.text to the key that holds the words")
    others = {key: value[key] for key in value if key != words[0]}
    return [Located(where, {"role": role, "content": value[words[0]], **others}, made=True)]


def unread_of(value: Any) -> Unread:
    """What `to_messages` does not read of a value. Nothing of a message, whose fields are read with it."""
    if not isinstance(value, Mapping):
        return Unread({})
    read = {item.where for item in system_of(value)}
    if (name := next((name for name in HOLDERS if isinstance(value.get(name), list)), None)) is not None:
        return Unread({key: as_json(inner) for key, inner in value.items() if key not in {name, *read}})
    choices = value.get("choices")
    if not isinstance(choices, list) or not choices:
        return Unread({})
    fields = {key: as_json(inner) for key, inner in value.items() if key != "choices"}
    first = {key: as_json(inner) for key, inner in choices[0].items() if key != "message"}
    return Unread(fields | ({"choices": [first]} if first else {}), len(choices) - 1)


def without_path(row: Row, path: Sequence[str]) -> dict[str, Any]:
    """The first column of a path, without the value at its end. Empty: it holds nothing else."""
    column, *inner = path
    value = row.get(column)
    if not isinstance(value, Mapping):
        return {}
    rest = {key: as_json(held) for key, held in value.items() if key != inner[0]}
    if len(inner) > 1:
        rest |= without_path(value, inner)
    return {column: rest} if rest else {}


def is_message(value: Any) -> bool:
    """Whether an object is a message, or an item of the Responses API."""
    if not isinstance(value, Mapping):
        return False
    kind = str(value.get("type"))
    is_item = kind in THOUGHT or kind == "message" or CALLED.fullmatch(kind) or ANSWERED.fullmatch(kind)
    return isinstance(value.get("role") or value.get("from"), str) or bool(is_item and kind not in ("tool_use", "thinking"))


def is_chat(value: Any) -> bool:
    """Whether a value holds messages, and is no text that looks like JSON."""
    if isinstance(value, list):
        return any(is_message(item) or (isinstance(item, Mapping) and isinstance(item.get("type"), str)) for item in value)
    return isinstance(value, Mapping) and (is_message(value) or any(name in value for name in ("messages", "choices", "output", *WORDS)))


def decoded_chat(value: Any) -> Any:
    """The messages that a JSON text holds, in a format that stores them so. Another text, unchanged."""
    return decoded if is_chat(decoded := from_json(value)) else value


def system_of(holder: Row, prefix: str = "") -> list[Located]:
    """The system prompt that stands next to the messages."""
    names = [name for name in ("system", "instructions") if holder.get(name)]
    return [Located(f"{prefix}{name}", {"role": "system", "content": holder[name]}, made=True) for name in names]


def list_of_messages(value: Any, where: str) -> list[Located]:
    """The messages of a column. FieldError: it does not hold a list of objects, nor one as JSON text."""
    if isinstance(value, str):
        value = from_json(value)
        if isinstance(value, str):
            raise FieldError(where, f"text that is not JSON ({value[:40]!r}); give a list of messages")
    if not isinstance(value, list) or not all(isinstance(message, Mapping) for message in value):
        raise FieldError(where, "not a list of objects; give [{role, content}, ...]")
    return [Located(f"{where}.{k}", message) for k, message in enumerate(value)]


def _has_messages(row: Row) -> bool:
    inner = row.get("request")
    return row.get("messages") is not None or (isinstance(inner, Mapping) and inner.get("messages") is not None)


def _is_tracker(row: Row) -> bool:
    events = row.get("events")
    events = from_json(events)
    return isinstance(events, list) and ("sender_id" in row or any(isinstance(event, Mapping) and "event" in event for event in events))


def _is_response(row: Row) -> bool:
    given, output = from_json(row.get("input")), from_json(row.get("output"))
    items = [item for value in (given, output) if isinstance(value, list) for item in value if isinstance(item, Mapping)]
    typed = any(is_message(item) and isinstance(item.get("type"), str) for item in items)
    return row.get("object") == "response" or (typed and isinstance(output, list))


def _is_trl(row: Row) -> bool:
    has = {name for name in ("prompt", "completion", "chosen", "rejected", "response", "completions") if row.get(name) is not None}
    return has >= {"chosen", "rejected"} or ("prompt" in has and (len(has) > 1 or isinstance(row["prompt"], list)))


FORMATS: dict[str, Format] = {
    "messages": Format("chat messages", _has_messages, messages_chat),
    "sharegpt": Format("ShareGPT conversations", lambda row: row.get("conversations") is not None, sharegpt_chat),
    "rasa": Format("Rasa trackers", _is_tracker, rasa_chat),
    "responses": Format("inputs and outputs of the OpenAI Responses API", _is_response, responses_chat),
    "trl": Format("TRL prompts with completions", _is_trl, trl_chat),
}


def candidates(row: Row) -> Iterator[str]:
    """The columns that hold a list of objects, and so perhaps the messages."""
    for name, value in row.items():
        value = from_json(value)
        if isinstance(value, list) and value and all(isinstance(item, Mapping) for item in value):
            yield str(name)
