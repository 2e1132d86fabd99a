"""Your own logs as chat messages, in JSON, Parquet or CSV: the formats of OpenAI, Anthropic, the AI SDK, ShareGPT, TRL, Rasa, Langfuse and
OpenTelemetry.

`path` is a file or a folder of files. The format is recognised by the columns of a row, and the log says which it is; `format` sets it:

- `messages`: a list of messages under `messages`, as OpenAI, Anthropic and the AI SDK have them. The model's answer may stand next to it
  in `choices` or `response`, and the list in `request`.
- `sharegpt`: `conversations` of {from, value}.
- `responses`: `input` and `output` of the OpenAI Responses API.
- `trl`: `prompt` with `completion`, or `chosen` with `rejected`, which stays in the metadata. Each is a text or a list of messages.
- `rasa`: trackers with `sender_id` and `events`. Intents and entities that Rasa predicted are metadata, not annotations.
- `rasa_events`: an event of a tracker per row, with its `sender_id`, as event brokers write them. Or rows of the table `events` of a
  tracker store, whose column `data` holds the event as JSON.
- `langfuse`: traces or observations with `input` and `output`, one dialogue per session (or else per trace).
- `opentelemetry`: spans with `gen_ai.input.messages` and `gen_ai.output.messages`, one dialogue per `gen_ai.conversation.id` (or else
  `session.id` or trace). Also the older events (`gen_ai.user.message`, `gen_ai.choice`), as log records or within spans, and the older
  attributes `gen_ai.prompt` and `gen_ai.completion`, also by number as in OpenLLMetry. Rows may be flat, have `attributes`, or be OTLP
  JSON.

A row that holds all rows in one list, such as {"data": [...]}, is replaced by them. A text stays a text if it looks like JSON, except where
a format stores messages as JSON text. Cells of CSV may hold JSON text. Of a folder, only JSON and Parquet are read.

For another layout, set `messages` (the column), `role` and `text` (keys of a message; `author.role` is a path) and `roles`, such as
{customer: user, agent: assistant, note: ignore} or [customer=user, agent=assistant]. The module `chat_parts` lists the types of parts that
are known, with their definitions.

How a conversation becomes a dialogue:

- Id: `id`, `conversation_id` or `session_id`, whichever comes first in this order (`sender_id` for Rasa). Otherwise `chat:` and a
  fingerprint of the messages; of conversations that are equal, the second ends in `-2`, and so on in the order of the files. User:
  `user_id` or `user`. Other columns go to the metadata.
- Turns: a message of the user begins a turn, and a message of the assistant is its response. Assistant messages around tool calls are
  one response, with their texts joined by a newline. Other consecutive messages of the assistant are turns without a request, and
  consecutive messages of the user turns without a response.
- Words: text, or the parts that are text, joined by a newline. A model's reasoning is never a response. A message that has no words, no
  call and no recording is rejected with its conversation; `without_words=skip` leaves it out instead.
- Audio: the first part of a user's message that names a recording by path or URI.
- Tool calls, of all formats: the turn's categorical feature `tool` (the names, each once, joined by "+", missing without a call) and its
  numerical feature `tool_calls` (their number, missing without a message of the assistant).
- Time: `timestamp`, `created_at` or `created` of the turn's first message, or the start of its span. The first turn may take that of the
  row. ISO 8601 or seconds since 1970. Another value is counted, and stays in the metadata; that of a span rejects its conversation.
- `metadata["messages"]`: `system` (the prompt), `tool_calls` with arguments and results (`error`: the call failed), `reasoning`, `parts`
  that are left out, `slots` that Rasa set, and all other fields of messages (`other`, with the index of the message).
  `column` is a column `messages` that is not the one read.

What is left out (images, recordings within the row, encrypted reasoning, ...) is counted, and the log ends with one line per kind.
`ChatMessages.summary` has the counts.

Where several rows make a conversation, files are read twice, and a dialogue comes when its last row is read: memory holds the conversations
that overlap in the files, and about 100 bytes for each of all. Inputs mostly repeat the conversation so far, and each message is kept
once. Within a trace, calls of a model are preferred to the spans of agents around them. `metadata["spans"]` has the other fields of the
rows.

Nothing is labelled. No format defines feedback on a message: a `rating` or `feedback` goes to `other`. Licence: yours.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import compress, islice
from operator import not_
from pathlib import PurePath
from typing import Any, Literal, NamedTuple

from upath import UPath

from labelgen.corpora import LeftOut
from labelgen.corpora.chat_fields import READ_AS, TIMES, Keys, Message, time_of
from labelgen.corpora.chat_formats import FORMATS, Format, MessageReader, candidates
from labelgen.corpora.chat_groups import SPAN_FORMATS, Unwrapped, format_of_rows, group_spans
from labelgen.corpora.chat_parts import MALFORMED, FieldError, as_json, malformed
from labelgen.corpora.chat_turns import Conversation
from labelgen.dialogue import Dialogue, RecordError, Reject, parse, reject_or_raise
from labelgen.io.files import SeenIds, convert_rows, unique_dialogues
from labelgen.io.formats import Kind, format_of
from labelgen.io.paths import RECORD_SUFFIXES, list_files
from labelgen.io.rows import NumberedRow, Row, RowFile, RowSource
from labelgen.io.tables import TableFile

log = logging.getLogger(__name__)
IDS = ("id", "conversation_id", "session_id", "conversationId", "sessionId", "sender_id")
ROWS_TO_RECOGNISE = 1000  # of a file, until one has a known format
USERS = ("user_id", "user", "userId")


@dataclass
class Summary:
    """What reading has found so far."""

    formats: Counter[str] = field(default_factory=Counter)  # rows by format
    parts: Counter[str] = field(default_factory=Counter)  # parts of messages by type
    left_out: LeftOut = field(default_factory=LeftOut)  # what is nowhere in the records, by kind
    without_id: int = 0  # conversations without an id
    repeated: int = 0  # of these, the conversations that equal an earlier one

    def clear(self) -> None:
        """Forgets what an earlier reading has found."""
        for counts in (self.formats, self.parts, self.left_out):
            counts.clear()
        self.without_id = self.repeated = 0

    def log(self) -> None:
        """One line per kind."""
        self.left_out.log()
        if self.repeated:
            log.warning("conversations without an id that equal an earlier one: %d; their ids end in -2, -3, ...", self.repeated)
        elif self.without_id:
            log.info("conversations without an id: %d; a fingerprint of the messages takes its place", self.without_id)


@dataclass(frozen=True)
class ChatMessages:
    """The conversations of the file or folder `path`. ValueError: a setting has another value.

    `format`: messages, sharegpt, responses, trl, rasa, rasa_events, opentelemetry or langfuse; None: recognised. `messages`: the column
    with the list of messages. `role`, `text`: the keys of a message's role and words. `roles`: a role of the file -> one of system, user,
    assistant, tool, function_call, ignore; or a list such as [caller=user]. `without_words`: what becomes of a message without words, call
    and recording.
    `summary`: what the last `read` has found.
    """

    path: str
    format: str | None = None
    messages: str | None = None
    role: str | None = None
    text: str | None = None
    roles: Mapping[str, str] | Sequence[str] | None = None
    without_words: Literal["reject", "skip"] = "reject"
    summary: Summary = field(default_factory=Summary, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        known = {**FORMATS, **SPAN_FORMATS}
        if self.format is not None and self.format not in known:
            raise ValueError(f"format={self.format!r}: give {', '.join(known)}, or null to recognise it")
        if wrong := {role: value for role, value in roles_of(self.roles).items() if value not in READ_AS}:
            raise ValueError(f"roles: {wrong} is not known; a role of the file is read as one of {', '.join(READ_AS)}")
        if self.without_words not in ("reject", "skip"):
            raise ValueError(f"without_words={self.without_words!r}: give reject or skip")

    def read(self, reject: Reject | None = None) -> Iterator[Dialogue]:
        """Yields the dialogues. Unusable rows and repeated ids go to `reject`; without it the first one raises RecordError.

        At the end, the log says what was left out.
        """
        remedy = "give JSON (.jsonl, .ndjson, .json, also .gz), .parquet or one .csv, with `messages` or another format of chats"
        files = list_files(self.path, RECORD_SUFFIXES, remedy, (Kind.JSON_LINES, Kind.JSON_VALUES, Kind.PARQUET, Kind.TEXT))
        yield from self.read_sources([TextFile(file, remedy) if is_text(file) else RowFile(file) for file in files], reject)

    def read_sources(self, sources: Sequence[RowSource], reject: Reject | None) -> Iterator[Dialogue]:
        """See `read`. The rows are those of the sources, whatever `path` is."""
        self.summary.clear()
        sources = [Unwrapped(source, self.summary.left_out) for source in sources]
        yield from unique_dialogues(Reader(self).dialogues(sources, reject), reject)
        self.summary.log()


def is_text(file: UPath) -> bool:
    """Whether a file is CSV, or nothing that is known."""
    return format_of(file).kind is Kind.TEXT


class TextFile:
    """A CSV file as a source of rows, whose cells may hold JSON text. ValueError, with the remedy: it has no columns."""

    def __init__(self, file: UPath, remedy: str) -> None:
        names = TableFile(file, []).names()
        if not names:
            raise ValueError(f"{file}: {remedy}")
        self.table = TableFile(file, [name for name in names if name])

    def __str__(self) -> str:
        return str(self.table)

    def rows(self) -> Iterator[NumberedRow]:
        """The rows. An empty cell is no value."""
        for number, row in self.table.rows():
            yield NumberedRow(number, row if isinstance(row, str) else {name: cell or None for name, cell in row.items()})


class FoundDialogue(NamedTuple):
    """A dialogue, and where it begins: the file, and the row from 1."""

    file: str
    number: int
    dialogue: Dialogue


class Reader:
    """Reads files for a corpus, and keeps its summary."""

    def __init__(self, corpus: ChatMessages) -> None:
        self.corpus, self.summary = corpus, corpus.summary
        self.keys = Keys(corpus.messages, corpus.role, corpus.text, roles_of(corpus.roles))
        self.fingerprints, self.copies = SeenIds(), Counter[str]()
        self._announced: str | None = None

    def dialogues(self, files: Sequence[RowSource], reject: Reject | None) -> Iterator[FoundDialogue]:
        """The dialogues of files with a conversation per row, then those of files with several rows per conversation."""
        has_spans = [self._has_spans(file) for file in files]
        for file in compress(files, map(not_, has_spans)):
            for number, dialogue in convert_rows(file.rows(), str(file), self.convert, reject):
                yield FoundDialogue(str(file), number, dialogue)
        yield from self._dialogues_of_spans(list(compress(files, has_spans)), reject)

    def _has_spans(self, file: RowSource) -> bool:
        """Whether a file has several rows per conversation, judged by the settings, or by the first row whose format is known."""
        if self.corpus.format is not None or self.corpus.messages is not None:
            return self.corpus.format in SPAN_FORMATS
        for _, row in islice(file.rows(), ROWS_TO_RECOGNISE):
            if not isinstance(row, str):
                if format_of_rows(row) is not None:
                    return True
                if any(known.fits(row) for known in FORMATS.values()):
                    return False
        return False

    def _announce(self, source: str, description: str) -> None:
        """Says which format was recognised, unless it is that of the row before."""
        if description != self._announced:
            log.info("%s: %s", PurePath(source).name, description)
            self._announced = description
        self.summary.formats[description] += 1

    def convert(self, row: Row, source: str, number: int) -> Row:
        """A row -> the fields of the record. RecordError: a message cannot be used."""
        id_column, user_column = first_key(row, IDS), first_key(row, USERS)
        identity = None if id_column is None else str(row[id_column])
        try:
            layout = recognise(row, self.corpus.format, self.keys)
            self._announce(source, layout.description)
            chat = layout.read(row, self.keys)
            messages = MessageReader(self.keys).read(chat.messages)
            prompts = sum(item.made and item.message["role"] == "system" for item in chat.messages)  # they are not in the list
            conversation = self._converse(messages, chat.columns[0], -prompts)
            conversation.left_out.update(chat.left_out)
            read = {*chat.columns, id_column, user_column}
            if conversation.turns[0]["timestamp"] is None and (time := self._time_of(row, source, number)) is not None:
                conversation.turns[0]["timestamp"] = time
                read.add(first_key(row, TIMES))
            metadata = {key: as_json(value) for key, value in row.items() if key not in read and value is not None} | chat.rest
            if chat.slots:
                conversation.metadata["slots"] = chat.slots
            user = None if user_column is None else str(row[user_column])
            identity = identity if chat.identity is None else chat.identity
            name = self._new_id([item.message for item in chat.messages]) if identity is None else identity
            return self._fields(name, user, conversation, messages, metadata)
        except RecursionError:
            raise RecordError(source, number, identity, "record", "nested too deep; leave the row out") from None
        except MALFORMED as error:
            field_error = error if isinstance(error, FieldError) else malformed(error)
            raise RecordError(source, number, identity, field_error.name, str(field_error)) from error

    def _time_of(self, row: Row, source: str, number: int) -> datetime | None:
        """The time of a row. One that cannot be read is counted, and stays in the metadata."""
        try:
            return time_of(row, "")
        except FieldError as error:
            self.summary.left_out.add(f"times in {error.name!r}", f"{source}, row {number}: {error}")
            return None

    def _converse(self, messages: Sequence[Message], column: str, first: int = 0) -> Conversation:
        """Reads the messages in order, of which `first` is the index of the first.

        FieldError: one cannot be used, or none is of the user or the assistant.
        """
        conversation = Conversation(self.corpus.without_words == "skip")
        for k, message in enumerate(messages, first):
            conversation.add(message, k)
        if not conversation.turns:
            raise FieldError(column, "no message of user or assistant; leave the row out")
        conversation.finish()
        return conversation

    def _fields(
        self, identity: str, user: str | None, conversation: Conversation, messages: Sequence[Message], metadata: dict[str, Any]
    ) -> dict[str, Any]:
        """The fields of the record. Counts what is in them, and what is not."""
        self.summary.left_out.update(+conversation.left_out)
        for message in messages:
            self.summary.parts.update(message.contents.kinds)
            if (error := message.unreadable) is not None:
                self.summary.left_out.add(f"times in {error.name.rpartition('.')[2]!r}", f"{identity}, {error.name}: {error}")
        if "messages" in metadata:  # a column of that name, which is not the list
            conversation.metadata["column"] = metadata.pop("messages")
        if held := conversation.metadata:
            system = {"system": "\n".join(held["system"])} if "system" in held else {}
            metadata["messages"] = {**held, **system}
        return {"id": identity, "turns": conversation.turns, "user": user, "metadata": metadata}

    def _new_id(self, messages: Sequence[Any]) -> str:
        """An id for a conversation that has none: a fingerprint of its messages, and -2, -3, ... where they came before."""
        name = fingerprint(messages)
        self.summary.without_id += 1
        if self.fingerprints.add(name):
            return name
        self.summary.repeated += 1
        self.copies[name] += 1
        return f"{name}-{self.copies[name] + 1}"

    # -- several rows per conversation --

    def _dialogues_of_spans(self, files: Sequence[RowSource], reject: Reject | None) -> Iterator[FoundDialogue]:
        for group in group_spans(files, self.corpus.format, self.keys, self.summary.left_out, reject):
            self._announce(group.file, group.layout.description)
            try:
                if group.error is not None:
                    raise group.error
                merged = group.layout.merge(group.spans)
                if not merged.messages:
                    self.summary.left_out.update(merged.left_out)
                    continue
                conversation = self._converse(merged.messages, "messages")
                conversation.left_out.update(merged.left_out)
                if merged.slots:
                    conversation.metadata["slots"] = list(merged.slots)
                name = self._new_id([message.words_key for message in merged.messages]) if group.identity is None else group.identity
                metadata = {"spans": merged.rest} if merged.rest else {}
                dialogue = parse(self._fields(name, merged.user, conversation, merged.messages, metadata), group.file, group.number)
            except FieldError as error:
                reject_or_raise(RecordError(group.file, group.number, group.identity, error.name, str(error)), reject)
            except RecursionError:
                problem = "nested too deep; leave the conversation out"
                reject_or_raise(RecordError(group.file, group.number, group.identity, "record", problem), reject)
            except RecordError as error:
                reject_or_raise(error, reject)
            else:
                yield FoundDialogue(group.file, group.number, dialogue)


def recognise(row: Row, name: str | None, keys: Keys) -> Format:
    """The format of a row. FieldError: it has none, or could have several."""
    if name in FORMATS:
        return FORMATS[name]
    if keys.messages is not None:
        return FORMATS["messages"]
    if format_of_rows(row) is not None:
        raise FieldError("record", "one of several rows of a conversation, in a file that begins with whole ones; separate the files")
    fitting = [known for known, layout in FORMATS.items() if layout.fits(row)]
    if len(fitting) > 1 and fitting[1] in ("sharegpt", "rasa"):  # two columns that hold whole conversations
        raise FieldError("messages", f"the row fits several formats ({', '.join(fitting)}); set corpus.format to one of them")
    if not fitting:
        lists = [f"corpus.messages={name}" for name in candidates(row)]
        remedy = "set corpus.messages to the column that holds them, or corpus.format"
        remedy = f"set {' or '.join(lists)} if that holds them, or save the conversations of such a list as a file" if lists else remedy
        columns = ", ".join(sorted(map(str, row))) or "none"
        raise FieldError("messages", f"no chat format that is known (the columns: {columns}); {remedy}")
    return FORMATS[fitting[0]]


def roles_of(setting: Mapping[str, str] | Sequence[str] | None) -> Mapping[str, str]:
    """The setting `roles` as a mapping: it is one, or a list of `role=read as`. ValueError: an item has no "="."""
    if setting is None or isinstance(setting, Mapping):
        return setting or {}
    if wrong := [item for item in setting if "=" not in item]:
        raise ValueError(f"roles: {wrong[0]!r}: give role=user, such as caller=user")
    return {role: value for role, _, value in (item.rpartition("=") for item in setting)}


def first_key(row: Row, names: Sequence[str]) -> str | None:
    """The first of the columns that has a value."""
    return next((name for name in names if row.get(name) is not None), None)


def fingerprint(messages: Sequence[Any]) -> str:
    """An id for a conversation that has none. Equal messages give equal ids."""
    text = json.dumps(as_json(messages), sort_keys=True)
    return f"chat:{hashlib.sha256(text.encode()).hexdigest()[:16]}"
