"""Records: what every part of labelgen exchanges. Dialogues as they were logged, and what people and models say of them.

A *turn* is a user's request and the assistant's response to it; a dialogue is a list of turns. Everything but the id may be
missing, and missing (`None`) never means "no": an empty list of slots says "annotated, there are none", `None` says "not annotated".
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from copy import deepcopy
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import to_json

Outcome = Literal["success", "recovered", "failure"]
Part = Literal["request", "response"]
PARTS: tuple[Part, Part] = ("request", "response")


def _utc(moment: datetime) -> datetime:
    try:
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except OverflowError:
        raise ValueError(f"{moment} in UTC is outside the years 1 to 9999; write null where the time is not known") from None


def _plain_json(metadata: dict[str, Any]) -> dict[str, Any]:
    try:  # what cannot be written must not be read: it would stop a long run at its end
        json.dumps(metadata, allow_nan=False, ensure_ascii=False).encode()
        to_json(metadata)  # its depth is limited
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"not plain JSON ({error}); keep text, finite numbers, lists and objects there") from None
    return metadata


Moment = Annotated[datetime, AfterValidator(_utc)]
Metadata = Annotated[dict[str, Any], AfterValidator(_plain_json)]


class Record(BaseModel):
    """Base of the records: unknown keys are an error (a misspelt key would otherwise be lost in silence), and so is half a surrogate pair
    in a text: it could not be written."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, str_min_length=0)  # a limit, any, makes pydantic decode texts


class Slot(Record):
    """A span of a request or response that carries a slot: `text[start:end]`, in code points, half-open."""

    name: str = Field(min_length=1)
    start: int = Field(ge=0)
    end: int = Field(gt=0)
    value: str | None = None  # the words of the span; filled in by the turn
    normalised: str | None = None  # the value that the backend would use
    categorical: bool = False  # found by its value, not marked by an annotator


class Vote(Record):
    """One annotator's (or the user's own) answer to one question about a turn or a dialogue."""

    question: str = Field(min_length=1)  # "satisfaction", "goal_success", ...
    value: float | str
    annotator: str | None = None  # None: no identity across dialogues


class Goal(Record):
    """The turns that serve one aim of the user; goals may interleave and be resumed."""

    turns: list[int] = Field(min_length=1)
    name: str | None = None
    outcome: Outcome | None = None  # None: unknown


class Label(Record):
    """A derived label: what it says, of which turns, how sure, and where it comes from."""

    task: str
    value: str
    turns: list[int]
    confidence: float = Field(ge=0.0, le=1.0)  # probability that `value` is right, as the model has it
    part: Part | None = None  # with start and end: the span that the label speaks of
    start: int | None = None
    end: int | None = None
    text: str | None = None
    source: str  # fingerprint of the model, or the rule, that made it


class Turn(Record):
    """A request and its response. The two texts, what was logged beside them, and what annotators said of them."""

    request: str | None = None
    response: str | None = None
    timestamp: Moment | None = None  # when the request began; without a zone it is read as UTC
    categorical: dict[str, str | None] = Field(default_factory=dict)  # device type, locale, dialogue status, ...
    numerical: dict[str, float | None] = Field(default_factory=dict)  # recogniser confidence, ...
    audio: str | None = None  # path or URI of the request's recording
    intent: str | None = None  # Domain/Intent
    request_slots: list[Slot] | None = None
    response_slots: list[Slot] | None = None
    defect: bool | None = None  # was the response defective?
    rewrites: list[str] | None = None  # the request reworded so that it stands alone, the best first; the request itself: no need
    votes: list[Vote] = Field(default_factory=list)

    @model_validator(mode="after")
    def _spans_fit(self) -> Turn:
        for part in PARTS:
            text = self.text(part)
            for k, slot in enumerate(self.slots(part) or ()):
                where = f"{part}_slots.{k} ({slot.name!r})"
                if text is None:
                    raise ValueError(f"{where}: the turn has no {part}; give its text or leave the slot out")
                if not slot.start < slot.end <= len(text):
                    raise ValueError(
                        f"{where}: span [{slot.start}, {slot.end}) does not fit the text of {len(text)} code points; "
                        "offsets count code points (not bytes, not UTF-16 units) and the end is exclusive"
                    )
                words = text[slot.start : slot.end]
                if slot.value is not None and slot.value != words:
                    raise ValueError(
                        f"{where}: value {slot.value!r} is not the text of its span {words!r}; "
                        "put the canonical value in `normalised`, count offsets in code points"
                    )
                slot.value = words
        return self

    def text(self, part: Part) -> str | None:
        """The words of one side of the turn."""
        return self.request if part == "request" else self.response

    def slots(self, part: Part) -> list[Slot] | None:
        """The slots of one side; None: not annotated."""
        return self.request_slots if part == "request" else self.response_slots


class Dialogue(Record):
    """Turns with a stable id, the annotations that people made, and the labels that models derived."""

    id: str = Field(min_length=1)
    turns: list[Turn] = Field(min_length=1)
    user: str | None = None
    goals: list[Goal] | None = None
    votes: list[Vote] = Field(default_factory=list)
    labels: list[Label] | None = None
    metadata: Metadata = Field(default_factory=dict)

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
        """Per turn the index of its goal in `goals`; None where that is not annotated."""
        owner: list[int | None] = [None] * len(self.turns)
        for g, goal in enumerate(self.goals or ()):
            for turn in goal.turns:
                owner[turn] = g
        return owner

    def content(self) -> Dialogue:
        """The dialogue as it was logged: without annotations, votes and labels."""
        turns = [Turn(**{name: getattr(turn, name) for name in _LOGGED}) for turn in self.turns]
        return Dialogue(id=self.id, turns=turns, user=self.user, metadata=deepcopy(self.metadata))

    def fingerprint(self) -> str:
        """Hash of what a model reads (content, not labels): equal content, equal fingerprint. 16 hex digits."""
        logged = json.dumps(self.content().model_dump(mode="json", exclude={"id", "user", "metadata"}), sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(logged.encode("utf-8", "surrogatepass")).hexdigest()[:16]


_LOGGED = ("request", "response", "timestamp", "categorical", "numerical", "audio")


class RecordError(ValueError):
    """A record that cannot be used: which one, which field, what is wrong and what to do."""

    def __init__(self, source: str, row: int, dialogue_id: str | None, field: str, problem: str) -> None:
        self.source, self.row, self.dialogue_id, self.field, self.problem = source, row, dialogue_id, field, problem
        super().__init__(f"{source}, row {row}, dialogue {dialogue_id!r}, field {field!r}: {problem}")

    def __reduce__(self) -> tuple[Any, ...]:  # without it the error of a worker process cannot be unpickled
        return RecordError, (self.source, self.row, self.dialogue_id, self.field, self.problem)

    def as_row(self) -> dict[str, Any]:
        """The row for a file of rejected records."""
        return {"source": self.source, "row": self.row, "id": self.dialogue_id, "field": self.field, "problem": self.problem}


Reject = Callable[[RecordError], None]


def refuse(error: RecordError, reject: Reject | None) -> None:
    """Hands what cannot be used over to `reject`; without it, raises."""
    if reject is None:
        raise error
    reject(error)


_REMEDIES = {
    "extra_forbidden": "the record has no such field; put what labelgen does not know into the dialogue's `metadata`",
    "missing": "the field is required; add it",
    "string_type": "write it as text",
    "string_too_short": "it must not be empty",
    "too_short": "it must hold at least one item",
    "string_unicode": "it holds half a surrogate pair, as of an emoji that was cut; replace it (text.encode('utf-8', 'replace').decode())",
    "finite_number": "it must be a finite number; write null where the value is missing",
}


def parse(row: Mapping[str, Any], source: str = "record", number: int = 0) -> Dialogue:
    """One mapping -> Dialogue; raises RecordError that names the dialogue, the field and the remedy."""
    try:
        return Dialogue.model_validate(row)
    except ValidationError as error:
        name = row.get("id") if isinstance(row, Mapping) else None
        first = error.errors(include_url=False, include_input=False)[0]
        path = ".".join(str(step) for step in first["loc"])
        told = first["msg"].removeprefix("Value error, ")
        remedy = _REMEDIES.get(first["type"])
        rest = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
        problem = f"{told}; {remedy}{rest}" if remedy else told + rest
        raise RecordError(source, number, None if name is None else str(name), path or "record", problem) from None


def json_schema() -> dict[str, Any]:
    """The published JSON Schema of one line of JSONL."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Dialogue.model_json_schema()}


def schema(output: str | None = None) -> None:
    """Entry: prints the JSON Schema of a record, or writes it to the file `output`."""
    text = json.dumps(json_schema(), indent=2)
    if output is None:
        print(text)
    else:
        Path(output).write_text(text + "\n", "utf-8")
