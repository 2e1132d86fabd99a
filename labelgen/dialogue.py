"""Records: the types that all parts of labelgen exchange. They hold logged dialogues, people's annotations and models' labels.

A *turn* is a user's request and the assistant's response to it. A dialogue is a list of turns. Every field but the id may be missing.
Missing (`None`) never means "no": an empty list of slots means "annotated, there are none", `None` means "not annotated".
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from copy import deepcopy
from datetime import UTC, datetime, timedelta
from difflib import get_close_matches
from math import isfinite
from pathlib import Path
from reprlib import repr as shortened
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails, to_json

Outcome = Literal["success", "recovered", "failure"]
Part = Literal["request", "response"]
MAX_INT32 = 2**31 - 1  # offsets take 32 bits in Parquet
SPREADSHEET_EPOCH = datetime(1899, 12, 30, tzinfo=UTC)  # day 0 of Excel, LibreOffice and Google Sheets
DAY_NUMBERS = range(30_000, 60_000)  # days of the years 1982 to 2064
PARTS: tuple[Part, Part] = ("request", "response")


def _utc(time: datetime) -> datetime:
    try:
        return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
    except OverflowError:
        raise ValueError(f"{time} in UTC is outside the years 1 to 9999; write null where the time is not known") from None


def _no_day_number(time: Any) -> Any:
    """Refuses the numbers by which spreadsheets write days, because they would be read as seconds of the first of January 1970."""
    try:
        number = float(time) if isinstance(time, int | float | str) else 0.0
    except ValueError:
        return time
    if isfinite(number) and int(number) in DAY_NUMBERS:
        day = (SPREADSHEET_EPOCH + timedelta(days=number)).strftime("%Y-%m-%d %H:%M")
        raise ValueError(f"{time!r} looks like the day number of a spreadsheet ({day}); write times as ISO 8601 (2024-05-01T12:00:00Z)")
    return time


def _plain_json(metadata: dict[str, Any]) -> dict[str, Any]:
    """Refuses metadata that cannot be written. Otherwise a long run would fail at its end."""
    try:
        json.dumps(metadata, allow_nan=False, ensure_ascii=False).encode()
        to_json(metadata)  # limits the depth
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"not plain JSON ({error}); keep text, finite numbers, lists and objects there") from None
    return metadata


def _no_annotations(metadata: dict[str, Any]) -> dict[str, Any]:
    """Refuses the keys that held annotations in older files, because they would be ignored."""
    for name, remedy in _FORMER_METADATA.items():
        if name in metadata:
            raise ValueError(f"{name!r} has a place in the record; {remedy}, or rename the key")
    return metadata


_FORMER_METADATA = {
    "slice": "write a list of names to the dialogue's `slices`",
    "user_acts": "write each turn's acts to its `request_acts`, a list",
}

UTCDatetime = Annotated[datetime, BeforeValidator(_no_day_number), AfterValidator(_utc)]
Metadata = Annotated[dict[str, Any], AfterValidator(_plain_json), AfterValidator(_no_annotations)]
Name = Annotated[str, Field(min_length=1)]


class Record(BaseModel):
    """Base of the records. It refuses unknown keys, since a misspelt key would be lost silently, and texts with half a surrogate pair,
    which cannot be written. The docstrings of the fields are the descriptions in the JSON Schema."""

    model_config = ConfigDict(
        extra="forbid",
        allow_inf_nan=False,
        str_min_length=0,  # any limit makes pydantic decode texts
        use_attribute_docstrings=True,
    )


class Slot(Record):
    """A span of a request or response that holds a slot's value: `text[start:end]`, in code points, half-open."""

    name: Name
    start: int = Field(ge=0)
    end: int = Field(gt=0)
    value: str | None = None
    """The words of the span. The turn fills them in."""
    normalised: str | None = None
    """The value that the backend would use."""
    categorical: bool = False
    """Whether the span was found by its value instead of marked by an annotator."""


class Vote(Record):
    """The answer of an annotator, or of the user, to a question about a turn or a dialogue."""

    question: Name
    """For example "satisfaction" or "goal_success"."""
    value: float | str
    annotator: str | None = None
    """Null: the annotator is not known across dialogues."""


class Goal(Record):
    """The turns that serve one goal of the user. Goals may interleave and be resumed."""

    turns: list[int] = Field(min_length=1)
    """Indices into the dialogue's turns, from 0. A turn serves at most one goal."""
    name: str | None = None
    outcome: Outcome | None = None
    """Null: not known."""


class Label(Record):
    """A derived label: its value, the turns that it is about, its confidence and its source."""

    task: str
    value: str
    turns: list[int]
    """Indices into the dialogue's turns, from 0."""
    confidence: float = Field(ge=0.0, le=1.0)
    """The model's probability that `value` is right."""
    part: Part | None = None
    """With `start`, `end` and `text`: the span that the label is about."""
    start: int | None = Field(default=None, ge=0, le=MAX_INT32)
    end: int | None = Field(default=None, ge=0, le=MAX_INT32)
    text: str | None = None
    source: str
    """Fingerprint of the model, or name of the rule, that made the label."""


class Turn(Record):
    """A request and its response: the two texts, what was logged with them, and how annotators labelled them."""

    request: str | None = None
    """What the user said."""
    response: str | None = None
    """What the assistant answered."""
    timestamp: UTCDatetime | None = None
    """When the request began. A time without a zone is read as UTC."""
    categorical: dict[str, str | None] = Field(default_factory=dict)
    """Logged categorical features: device type, locale, dialogue status, ..."""
    numerical: dict[str, float | None] = Field(default_factory=dict)
    """Logged numerical features: the recogniser's confidence, ..."""
    audio: str | None = None
    """Path or URI of the recording of the request."""
    intent: str | None = None
    """What the request asks for: Domain/Intent."""
    request_acts: list[Name] | None = None
    """Dialogue acts of the request (inform, affirm, thank, ...). A request may perform several. Null: not annotated."""
    response_acts: list[Name] | None = None
    """Dialogue acts of the response. Null: not annotated."""
    request_slots: list[Slot] | None = None
    """Slots of the request. Null: not annotated."""
    response_slots: list[Slot] | None = None
    """Slots of the response. Null: not annotated."""
    defect: bool | None = None
    """Whether the response was defective."""
    retry: bool | None = None
    """Whether the request repeats one that the assistant failed to serve."""
    rewrites: list[str] | None = None
    """The request reworded so that it stands alone, best first. The request itself: it needs no rewrite."""
    rewritten_with_hindsight: bool | None = None
    """Whether the rewrites draw on later turns, which a running assistant does not know."""
    paraphrases: dict[str, str] = Field(default_factory=dict)
    """Other wordings with the same meaning in this context, by kind ("ellipsis", "coreference")."""
    votes: list[Vote] = Field(default_factory=list)
    """Answers to questions about the turn."""

    @model_validator(mode="after")
    def _spans_fit(self) -> Turn:
        for part in PARTS:
            for k, slot in enumerate(self.slots(part) or ()):
                slot.value = _words_of(slot, self.text(part), part, f"{part}_slots.{k} ({slot.name!r})")
        return self

    def text(self, part: Part) -> str | None:
        """The request or the response."""
        return self.request if part == "request" else self.response

    def slots(self, part: Part) -> list[Slot] | None:
        """The slots of the request or of the response. None: not annotated."""
        return self.request_slots if part == "request" else self.response_slots


def _words_of(slot: Slot, text: str | None, part: Part, field: str) -> str:
    """The words of the slot's span. ValueError: the span does not fit the text."""
    if text is None:
        raise ValueError(f"{field}: the turn has no {part}; give its text or leave the slot out")
    if not slot.start < slot.end <= len(text):
        raise ValueError(
            f"{field}: span [{slot.start}, {slot.end}) does not fit the text of {len(text)} code points; "
            "offsets count code points (not bytes, not UTF-16 units) and the end is exclusive"
        )
    words = text[slot.start : slot.end]
    if slot.value is not None and slot.value != words:
        raise ValueError(
            f"{field}: value {slot.value!r} is not the text of its span {words!r}; "
            "put the canonical value in `normalised`, count offsets in code points"
        )
    return words


class Dialogue(Record):
    """Turns with a stable id, the annotations that people made, and the labels that models derived."""

    id: Name
    turns: list[Turn] = Field(min_length=1)
    user: str | None = None
    """A pseudonym that is stable over dialogues."""
    goals: list[Goal] | None = None
    """Null: not annotated."""
    votes: list[Vote] = Field(default_factory=list)
    """Answers to questions about the whole dialogue."""
    labels: list[Label] | None = None
    """Labels that models or rules derived."""
    slices: list[Name] = Field(default_factory=list)
    """Names of the subsets that the dialogue belongs to, such as "unseen" services. Evaluation also reports figures for each."""
    metadata: Metadata = Field(default_factory=dict)
    """Anything else, as JSON. No part of labelgen reads it."""

    @model_validator(mode="after")
    def _turns_exist(self) -> Dialogue:
        owner: dict[int, int] = {}
        for g, goal in enumerate(self.goals or ()):
            goal.turns = sorted(set(goal.turns))
            for turn in goal.turns:
                if not 0 <= turn < len(self.turns):
                    raise ValueError(f"goals.{g}.turns: there is no turn {turn}; the dialogue has {len(self.turns)}, from 0")
                if turn in owner:
                    raise ValueError(f"goals.{g}.turns: turn {turn} is in goal {owner[turn]} too; give it to one goal")
                owner[turn] = g
        for k, label in enumerate(self.labels or ()):
            if any(not 0 <= turn < len(self.turns) for turn in label.turns):
                raise ValueError(f"labels.{k}.turns: {label.turns} name a turn that the dialogue does not have")
        return self

    def goal_of_turns(self) -> list[int | None]:
        """For each turn, the index of its goal in `goals`. None: the turn has no goal, or goals are not annotated."""
        owner: list[int | None] = [None] * len(self.turns)
        for g, goal in enumerate(self.goals or ()):
            for turn in goal.turns:
                owner[turn] = g
        return owner

    def content(self) -> Dialogue:
        """The dialogue as it was logged: without annotations, votes, slices and labels."""
        turns = [Turn(**{name: getattr(turn, name) for name in _LOGGED}) for turn in self.turns]
        return Dialogue(id=self.id, turns=turns, user=self.user, metadata=deepcopy(self.metadata))

    def fingerprint(self) -> str:
        """A hash of what a model reads, 16 hex digits. Equal content has an equal fingerprint, whatever the labels."""
        logged = json.dumps(self.content().model_dump(mode="json", include={"turns"}), sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(logged.encode("utf-8", "surrogatepass")).hexdigest()[:16]


_LOGGED = ("request", "response", "timestamp", "categorical", "numerical", "audio")


class RecordError(ValueError):
    """A record cannot be used. The message names the record and the field, and says what is wrong and what to do.

    `row` counts from 1; 0: the record is not a row of a file.
    """

    def __init__(self, source: str, row: int, dialogue_id: str | None, field: str, problem: str) -> None:
        self.source, self.row, self.dialogue_id, self.field, self.problem = source, row, dialogue_id, field, problem
        place = f"{source}, row {row}" if row else source
        dialogue = "" if dialogue_id is None else f", dialogue {dialogue_id!r}"
        super().__init__(f"{place}{dialogue}, field {field!r}: {problem}")

    def __reduce__(self) -> tuple[Any, ...]:  # an error of a worker process must survive pickling
        return RecordError, (self.source, self.row, self.dialogue_id, self.field, self.problem)

    def as_row(self) -> dict[str, Any]:
        """The row for a file of rejected records."""
        return {"source": self.source, "row": self.row, "id": self.dialogue_id, "field": self.field, "problem": self.problem}

    @classmethod
    def of_row(cls, row: Mapping[str, Any]) -> RecordError:
        """The error whose row this is."""
        return cls(row["source"], row["row"], row["id"], row["field"], row["problem"])


Reject = Callable[[RecordError], None]


def reject_or_raise(error: RecordError, reject: Reject | None) -> None:
    """Passes the error to `reject`. Without `reject`, raises it."""
    if reject is None:
        raise error
    reject(error)


_PROBLEMS = {
    "missing": "the field is required; add it",
    "string_type": "it must be text",
    "string_too_short": "it must not be empty",
    "too_short": "it must hold at least one item",
    "string_unicode": "it holds half a surrogate pair (was an emoji cut?); replace it (text.encode('utf-8', 'replace').decode())",
    "finite_number": "it must be a finite number; write null where the value is missing",
}
_EXPECTED = {  # by the beginning of pydantic's type of error
    "model_": "an object",
    "dict_": "an object",
    "list_": "a list",
    "bool_": "true or false",
    "int_": "a whole number",
    "float_": "a number",
    "greater_than_equal": "at least {ge}",
    "greater_than": "more than {gt}",
    "less_than_equal": "at most {le}",
}
_RECORDS: dict[str, type[Record]] = {  # by the field that holds them
    "turns": Turn,
    "request_slots": Slot,
    "response_slots": Slot,
    "votes": Vote,
    "goals": Goal,
    "labels": Label,
}


def parse(row: Mapping[str, Any], source: str = "record", number: int = 0) -> Dialogue:
    """Turns a mapping into a Dialogue. `number` is that of its row in the file `source`, from 1. It is 0 if there is no file.

    RecordError: names the dialogue, the field and the remedy.
    """
    try:
        return Dialogue.model_validate(row)
    except ValidationError as error:
        name = row.get("id") if isinstance(row, Mapping) else None
        first, *more = sorted(error.errors(include_url=False), key=lambda one: one["type"] != "extra_forbidden")  # typos explain the rest
        path = ".".join(str(step) for step in first["loc"])
        problem = problem_of(first) + (f" (and {len(more)} more)" if more else "")
        raise RecordError(source, number, None if name is None else str(name), path or "record", problem) from None


def problem_of(error: ErrorDetails) -> str:
    """What is wrong with a field, and the remedy."""
    given = shortened(error["input"])
    match error["type"]:
        case "extra_forbidden":
            return _unknown_key(error["loc"])
        case "literal_error":
            expected = error["ctx"]["expected"].replace("'", "").replace(" or ", ", ")
            return f"{given} is none of {expected}"
        case "value_error":
            return error["msg"].removeprefix("Value error, ")
        case known if known in _PROBLEMS:
            return _PROBLEMS[known]
        case known if known.startswith(("datetime", "date_")):
            remedy = "write ISO 8601 (2024-05-01T12:00:00Z) or seconds since 1970, or nothing where the time is not known"
            return f"{given} is not a time; {remedy}"
        case known if expected := next((words for start, words in _EXPECTED.items() if known.startswith(start)), None):
            return f"it must be {expected.format(**error.get('ctx', {}))}; given: {given}"
    return f"{error['msg']}; given: {given}"


def _unknown_key(path: tuple[int | str, ...]) -> str:
    holder = next((step for step in reversed(path[:-1]) if isinstance(step, str)), None)
    known = (_RECORDS[holder] if holder else Dialogue).model_fields
    close = get_close_matches(str(path[-1]), known, n=1)
    remedy = f"did you mean {close[0]!r}?" if close else "put other data into the dialogue's `metadata`"
    return f"the record has no such field; {remedy}"


def json_schema() -> dict[str, Any]:
    """The published JSON Schema of one line of JSONL."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Dialogue.model_json_schema()}


def schema(output: str | None = None) -> None:
    """Entry point of `labelgen schema`: prints the JSON Schema of a record, or writes it to the file `output`."""
    text = json.dumps(json_schema(), indent=2)
    if output is None:
        print(text)
        return
    try:
        Path(output).write_text(text + "\n", "utf-8")
    except OSError as error:  # of a full disk it does not name the file
        raise OSError(error.errno, error.strerror, output) from error
