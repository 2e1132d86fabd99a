"""What the rows of a file are: labelgen's records, chat messages or a table. For each, the corpus that reads them, and the command.

A format of chats is recognised by the tests of `chat_formats`. The names of columns, of keys and of speakers in other files are compared
with common ones; `Recognised.notes` says what is a guess.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any, NamedTuple

from labelgen.corpora import parse_time
from labelgen.corpora.chat_fields import ROLES, WORDS, at_path
from labelgen.corpora.chat_formats import FORMATS, candidates
from labelgen.corpora.chat_groups import format_of_rows, is_known, items_of
from labelgen.corpora.chat_parts import from_json
from labelgen.corpora.table import BOOLEANS, missing
from labelgen.dialogue import Turn
from labelgen.io.rows import Row

SPEAKER_KEYS = (
    "role", "from", "speaker", "sender", "author", "sender_type", "speaker_role", "author_role", "sender_role", "author_type",
    "participant_role", "participant", "who", "source", "direction", "side", "party",
)  # fmt: skip
TEXT_KEYS = (
    "content", "text", "value", "utterance", "message", "message_text", "body", "words", "transcript", "msg", "sentence", "line",
)  # fmt: skip
COLUMNS: Mapping[str, Sequence[str]] = {  # field of the record -> names of columns, the likeliest first
    "dialogue": (
        "dialogue_id", "dialog_id", "conversation_id", "conv_id", "convo_id", "chat_id", "session_id", "call_id", "thread_id", "ticket_id",
        "case_id", "interaction_id", "contact_id", "room_id", "channel_id", "dialogue", "dialog", "conversation", "session", "chat", "call",
        "thread", "ticket", "case",
    ),
    "request": (
        "request", "user_message", "user_text", "user_utterance", "user_input", "user_query", "customer_message", "question", "query",
        "prompt", "input", "human", "customer", "user",
    ),
    "response": (
        "response", "answer", "reply", "assistant_message", "assistant_response", "bot_message", "bot_response", "agent_message",
        "agent_response", "system_response", "model_response", "output", "completion", "assistant", "bot", "agent", "system",
    ),
    "timestamp": ("timestamp", "datetime", "date_time", "created_at", "sent_at", "time", "ts", "created", "start_time", "date"),
    "intent": ("intent", "intent_label", "intent_name"),
    "defect": ("defect", "is_defect", "defective"),
    "audio": ("audio", "audio_path", "audio_file", "audio_url", "recording"),
    "user": ("user_id", "customer_id", "caller_id", "client_id", "uid", "user"),
}  # fmt: skip
SPOKEN_BY = {
    "user": (
        "user usr customer client caller human visitor guest patient consumer member buyer inbound incoming in contact student prompter"
    ),
    "assistant": (
        "assistant agent bot chatbot sys model ai gpt operator advisor support representative rep staff wizard outbound outgoing out "
        "seller tutor counselor doctor service"
    ),
    "ignore": "note notes event internal log status",
}
ROLE_OF_WORD = {word: role for role, words in SPOKEN_BY.items() for word in words.split()}
MOST_SPEAKERS = 8  # distinct values of a column that may hold speakers
PLAIN = re.compile(r"[A-Za-z_./][A-Za-z0-9_./:@%+-]*")  # a value that needs no quotation marks in Hydra's grammar
SPECIAL = re.compile(r"([\\()\[\]{}:=, \t])")  # characters that a key escapes there


class Recognised(NamedTuple):
    """What rows are. `corpus`: the option of `corpus=`, with its `settings`. `notes`: what is a guess, and how to correct it."""

    description: str
    corpus: str
    settings: Mapping[str, Any] = {}
    notes: Sequence[str] = ()

    def command(self, path: str) -> str:
        """The command that turns a file or folder into records, for a shell."""
        words = ["labelgen", "convert", f"corpus={self.corpus}", *overrides("corpus", {"path": path, **self.settings})]
        return shlex.join([*words, override("output", output_name(path))])


def output_name(path: str) -> str:
    """A file in the working directory for the records of a file or folder. Other files and endings give other names."""
    place = PurePath(path)
    if place.is_absolute():
        here = Path.cwd()
        place = place.relative_to(here) if place.is_relative_to(here) else PurePath(*place.parts[-2:])
    name = re.sub(r"[^\w.]+", "_", "_".join(place.parts).removesuffix(".jsonl")).strip("_.")
    return f"{name or 'logs'}.records.jsonl"


def recognise(rows: Sequence[Row]) -> Recognised | None:
    """What the rows of a file are, judged by the first ones. None: not known."""
    rows = [row for row in rows if isinstance(row, Mapping)]
    rows = rows[next((k for k, row in enumerate(rows) if is_record(row) or is_known(row)), 0) :]  # a header of another kind may come first
    if not rows:
        return None
    if is_record(rows[0]):
        return Recognised("records", "jsonl")
    rows = [item for row in rows for item in items_of(row)]
    return _recognise_spans(rows) or recognise_table(rows, sure=True) or _recognise_chats(rows) or recognise_table(rows)


def foreign(row: Row, source: str) -> str | None:
    """What a row of a file of records is instead, with the command that converts the file. None: not known, or a record."""
    found = recognise([row])
    if found is None or found.corpus == "jsonl":
        return None
    command = found.command(source) if found.corpus == "chat_messages" else f"labelgen inspect {shlex.quote(source)}"
    return f"{found.description}, not a record of labelgen; convert the file first: {command}"


def is_record(row: Row) -> bool:
    """Whether a row has the turns of labelgen's record. Other files have messages under that name."""
    turns = row.get("turns")
    if not isinstance(turns, Sequence) or isinstance(turns, str):
        return False
    keys = {key for turn in turns if isinstance(turn, Mapping) for key in turn}
    return bool(keys & Turn.model_fields.keys()) or not keys


# -- chat messages ---------------------------------------------------------------------------------------------------------------


def _recognise_spans(rows: Sequence[Row]) -> Recognised | None:
    """The format of the first row that has one, if several of its rows make a conversation."""
    for row in rows:
        if (known := format_of_rows(row)) is not None:
            return Recognised(known.description, "chat_messages")
        if any(known.fits(row) for known in FORMATS.values()):
            return None
    return None


def _recognise_chats(rows: Sequence[Row]) -> Recognised | None:
    first = rows[0]
    fitting = next((name for name, known in FORMATS.items() if known.fits(first)), None)
    if fitting in ("messages", "sharegpt"):
        column = "messages" if fitting == "messages" else "conversations"
        guess = _recognise_messages(rows, column, FORMATS[fitting].description)
        return guess or Recognised(FORMATS[fitting].description, "chat_messages")
    if fitting is not None:
        return Recognised(FORMATS[fitting].description, "chat_messages")
    guesses = (_recognise_messages(rows, column, f"chat messages under {column!r}") for column in candidates(first))
    return next((guess for guess in guesses if guess is not None), None)


def _recognise_messages(rows: Sequence[Row], column: str, description: str) -> Recognised | None:
    """Chats whose messages are in a column, with the settings for keys and roles that are not known. None: they have no such keys."""
    lists = [value for row in rows if isinstance(value := from_json(row.get(column)), list)]
    messages = [message for value in lists for message in value if isinstance(message, Mapping)]
    role, text = _key_of(messages, SPEAKER_KEYS), _key_of(messages, TEXT_KEYS)
    if role is None or (text is None and not any(set(message) & {*WORDS, "tool_calls"} for message in messages)):
        return None
    values = dict.fromkeys(str(value) for message in messages if (value := at_path(message, role)) is not None)
    unknown = [value for value in values if value.lower() not in ROLES]
    known = {ROLES[value.lower()] for value in values if value.lower() in ROLES}
    guess = guess_speakers(unknown, known)
    if "assistant" not in {*known, *guess.roles.values()}:  # in some data, the system is what answers; the prompt comes first
        later = {str(at_path(message, role)): "assistant" for chat in lists for message in chat[1:] if isinstance(message, Mapping)}
        answering = {value: "assistant" for value in later if value.lower() == "system"}
        guess.roles.update(answering)
        guess.notes.extend(f"who speaks is a guess for {value!r} (assistant)" for value in answering)
    settings: dict[str, Any] = {}
    if column not in ("messages", "conversations"):
        settings["messages"] = column
    if role not in ("role", "from"):
        settings["role"] = role
    if text is not None and text not in WORDS:
        settings["text"] = text
    if guess.roles:  # Hydra has no form for keys that are not ASCII
        listed = [f"{value}={role}" for value, role in guess.roles.items()]
        settings["roles"] = guess.roles if all(value.isascii() for value in guess.roles) else listed
    if settings and column == "conversations":
        settings["format"] = "sharegpt"
    return Recognised(description, "chat_messages", settings, guess.notes)


def _key_of(messages: Sequence[Row], names: Sequence[str]) -> str | None:
    """The key of all messages that has one of the names; a path where it holds an object with a role or a name."""
    present = {plain(key): key for message in messages for key in message}
    key = next((present[name] for name in names if name in present), None)
    if key is None:
        return None
    inner = next((message[key] for message in messages if isinstance(message.get(key), Mapping)), None)
    if inner is None or key in WORDS:
        return str(key)
    return next((f"{key}.{name}" for name in ("role", "type", "text", "parts", "name") if name in inner), None)


class Speakers(NamedTuple):
    """The role of each value: user, assistant or ignore. `notes`: which is a guess."""

    roles: dict[str, str]
    notes: list[str]


def guess_speakers(values: Iterable[str], known: Iterable[str] = ()) -> Speakers:
    """The roles of speakers, by the words in their names. `known`: roles that other values have."""
    roles = {value: role_of(value) for value in values}
    for value, role in list(roles.items()):
        if role is None and plain(value) == "system":
            roles[value] = "ignore" if "assistant" in {*roles.values(), *known} else "assistant"
    unknown = [value for value, role in roles.items() if role is None]
    missing = [role for role in ("user", "assistant") if role not in {*roles.values(), *known}]
    guessed = dict(zip(unknown, missing, strict=False))
    guessed |= dict.fromkeys((value for value in unknown if value not in guessed), "ignore")
    notes = [f"who speaks is a guess for {', '.join(f'{value!r} ({role})' for value, role in guessed.items())}"] if guessed else []
    return Speakers({value: role or guessed[value] for value, role in roles.items()}, notes)


def role_of(value: str) -> str | None:
    """The role that a word in a speaker's name stands for. None: there is no such word."""
    return next((ROLE_OF_WORD[word] for word in plain(value).split("_") if word in ROLE_OF_WORD), None)


# -- tables ----------------------------------------------------------------------------------------------------------------------


def recognise_table(rows: Sequence[Row], sure: bool = False) -> Recognised | None:
    """A table whose columns have common names. `sure`: only if all cells are plain, and rows of a dialogue follow one another."""
    nested = dict.fromkeys(name for row in rows for name, value in row.items() if isinstance(value, Mapping | list))
    if sure and nested:
        return None
    filled = [row for row in rows if not all(map(missing, row.values()))]
    cells = {name: [row.get(name) for row in filled] for name in rows[0] if name and name not in nested}
    columns = guess_columns(cells)
    if "dialogue" not in columns or (sure and not _repeats(cells[columns["dialogue"]])):
        return None
    settings: dict[str, Any] = {"columns": columns}
    notes: list[str] = []
    if "speaker" in columns:
        values = dict.fromkeys(str(value) for value in cells[columns["speaker"]] if value not in (None, ""))
        roles, notes = guess_speakers(values)
        settings["speakers"] = {
            role: listed for role in ("user", "assistant", "ignore") if (listed := [v for v in values if roles[v] == role])
        }
    if plain(columns["dialogue"]) not in COLUMNS["dialogue"]:
        notes = [*notes, f"that {columns['dialogue']!r} is the column of the dialogue's id is a guess"]
    unread = [name for name in (*cells, *nested) if name not in columns.values()]
    if unread:
        notes = [*notes, f"columns that are not read: {', '.join(unread)}"]
    shape = "message" if "speaker" in columns else "turn"
    return Recognised(f"a table with one row per {shape}", "table", settings, notes)


def guess_columns(cells: Mapping[str, Sequence[Any]]) -> dict[str, str]:
    """Fields of the record -> columns of a table, by their names, else by their values. Empty: neither messages nor turns are found."""
    names = {plain(name): name for name in cells}
    if is_turn := all(field in names and _is_text(cells[names[field]]) for field in ("request", "response")):
        return _with_others({field: names[field] for field in ("request", "response")}, cells, names, is_turn)
    speaker = _speakers_column(cells, names)
    spoken = (names[name] for key in TEXT_KEYS for name in names if name == key or name.endswith(f"_{key}"))
    text = next((name for name in spoken if name != speaker), None)
    if speaker is not None and text is None:
        text = _longest(cells, {speaker})
    if speaker is not None and text is not None:
        found = {"speaker": speaker, "text": text}
    else:
        wordy = {plain(name): name for name in cells if _has_words(cells[name])}
        found = {field: wordy[name] for field in ("request", "response") if (name := next((n for n in COLUMNS[field] if n in wordy), None))}
    return _with_others(found, cells, names, is_turn) if found else {}


def _with_others(found: dict[str, str], cells: Mapping[str, Sequence[Any]], names: Mapping[str, str], is_turn: bool) -> dict[str, str]:
    """Adds the columns of the other fields. `is_turn`: rows are turns without a doubt. Empty: there is no column of the dialogue's id."""
    for field in ("timestamp", "intent", "defect", "audio", "user"):
        name = next((name for name in COLUMNS[field] if name in names and names[name] not in found.values()), None)
        if name is not None and _is_readable(field, cells[names[name]]):
            found[field] = names[name]
    dialogue = _dialogue_column(cells, names, {*found.values()}, is_turn)
    return {"dialogue": dialogue, **found} if dialogue is not None else {}


def _speakers_column(cells: Mapping[str, Sequence[Any]], names: Mapping[str, str]) -> str | None:
    """The column that says who speaks: it has a common name and few values, or values that name roles."""
    named = [names[name] for name in SPEAKER_KEYS if name in names]
    few = {name: values for name in cells if 0 < len(values := {str(v) for v in cells[name] if v not in (None, "")}) <= MOST_SPEAKERS}
    spoken = [name for name in (*named, *few) if name in few and any(role_of(value) in ("user", "assistant") for value in few[name])]
    return next((name for name in (*spoken, *named) if name in few and not _has_words(sorted(few[name]))), None)


def _dialogue_column(cells: Mapping[str, Sequence[Any]], names: Mapping[str, str], used: set[str], is_turn: bool) -> str | None:
    """The column of the dialogue's id, by its name; else one that repeats in adjacent rows, or an `id`.

    `is_turn`: else, of rows that are turns without a doubt, the first one that repeats in any rows.
    """
    free = {name: column for name, column in names.items() if column not in used}
    if found := next((free[name] for name in COLUMNS["dialogue"] if name in free), None):
        return found
    repeating = [column for column in free.values() if _repeats(cells[column]) and not _has_words(cells[column])]
    if repeating:
        return max(repeating, key=lambda column: len({str(value) for value in cells[column]}))
    named = (column for name, column in free.items() if name == "id" or name.endswith("_id"))
    anywhere = (column for column in free.values() if 1 < len({*map(str, cells[column])}) < len(cells[column]))
    return next(named, next((column for column in anywhere if is_turn and not _has_words(cells[column])), None))


def _repeats(values: Sequence[Any]) -> bool:
    """Whether values follow one another as those of a dialogue's id do: each in adjacent rows."""
    runs = 1 + sum(before != after for before, after in zip(values, values[1:], strict=False))
    return len(values) > len({str(value) for value in values}) == runs > 1 or (len(values) > 1 and runs == 1)


def _is_text(values: Sequence[Any]) -> bool:
    """Whether the cells that are filled hold text. At least one is filled."""
    filled = [value for value in values if value not in (None, "")]
    return bool(filled) and all(isinstance(value, str) for value in filled)


def _has_words(values: Sequence[Any]) -> bool:
    """Whether most cells that are filled hold several words."""
    filled = [value for value in values if isinstance(value, str) and value.strip()]
    return 2 * sum(len(value.split()) > 1 for value in filled) >= len(filled) > 0


def _longest(cells: Mapping[str, Sequence[Any]], used: set[str]) -> str | None:
    free = {name: sum(len(value) for value in values if isinstance(value, str)) for name, values in cells.items() if name not in used}
    return max((name for name in free if _has_words(cells[name])), key=lambda name: free[name], default=None)


def _is_readable(field: str, values: Sequence[Any]) -> bool:
    """Whether the first cell that is filled can be read as the field."""
    value = next((value for value in values if value not in (None, "")), None)
    if value is None or field == "defect":
        return value is not None and str(value).strip().lower() in BOOLEANS
    if field == "timestamp":
        try:
            parse_time(value)
        except ValueError:
            return False
    return True


def plain(name: Any) -> str:
    """A name in lower case with underscores: `Conversation ID` and `conversationId` are conversation_id."""
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", str(name))
    return re.sub(r"\W+|_+", "_", words).strip("_").lower()


# -- commands --------------------------------------------------------------------------------------------------------------------


def overrides(group: str, settings: Mapping[str, Any]) -> list[str]:
    """Settings of a group as words of the command line."""
    return [override(f"{group}.{key}", value) for key, value in settings.items()]


def override(key: str, value: Any) -> str:
    """A setting in Hydra's grammar, `key=value`, not yet quoted for a shell."""
    return f"{key}={_literal(value)}"


def _literal(value: Any) -> str:
    if isinstance(value, Mapping):
        pairs = (f"{SPECIAL.sub(_escaped, str(key))}: {_literal(inner)}" for key, inner in value.items())
        return "{" + ", ".join(pairs) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_literal, value)) + "]"
    if isinstance(value, bool):
        return str(value).lower()
    text = str(value)
    if PLAIN.fullmatch(text) and text.lower() not in ("null", "true", "false", "nan", "inf"):
        return text
    mark = "'" if '"' in text else '"'
    return mark + re.sub(rf"(\\*)({mark}|$)", lambda found: 2 * found[1] + (f"\\{mark}" if found[2] else ""), text) + mark


def _escaped(match: re.Match[str]) -> str:
    return f"\\{match[1]}"
