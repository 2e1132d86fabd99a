"""Records: what every part of labelgen exchanges. Dialogues in (JSONL, Parquet), dialogues with labels out.

A *turn* is a user's request and the assistant's response to it; a dialogue is a list of turns. Everything but the id may be
missing, and missing (`None`) never means "no": an empty list of slots says "annotated, there are none", `None` says "not annotated".
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from copy import deepcopy
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import to_json

if TYPE_CHECKING:
    import pyarrow as pa

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
    """Base of the records: unknown keys are an error (a misspelt key would otherwise be lost in silence)."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


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

_REMEDIES = {
    "extra_forbidden": "the record has no such field; put what labelgen does not know into `metadata`",
    "missing": "the field is required; add it",
    "string_too_short": "it must not be empty",
    "too_short": "it must hold at least one item",
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


class Rejected:
    """Writes unusable records to a JSONL file beside the output, with their reasons, and counts them."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.count = 0
        with suppress(FileNotFoundError):  # a file of an earlier run would be read as this run's
            self.path.unlink()

    def __call__(self, error: RecordError) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8", errors="backslashreplace") as file:  # an unusable id may hold half a surrogate pair
            file.write(json.dumps(error.as_row(), ensure_ascii=False) + "\n")
        self.count += 1


def read(path: str | os.PathLike[str], reject: Reject | None = None) -> Iterator[Dialogue]:
    """Dialogues of a JSONL or Parquet file, or of all such files of a folder, streamed in order.

    `reject` takes what cannot be used (bad rows, second uses of an id) and reading goes on; without it the first such row raises.
    """

    def refuse(error: RecordError) -> None:
        if reject is None:
            raise error
        reject(error)

    seen: set[bytes] = set()  # 8 bytes an id: a year of logs fits in memory
    for file in files(path):
        rows = _parquet_rows(file) if file.suffix == ".parquet" else _jsonl_rows(file)
        for number, row in rows:
            if isinstance(row, str):
                refuse(RecordError(str(file), number, None, "record", row))
                continue
            try:
                dialogue = parse(row, str(file), number)
            except RecordError as error:
                refuse(error)
                continue
            key = hashlib.blake2b(dialogue.id.encode("utf-8", "surrogatepass"), digest_size=8).digest()
            if key in seen:
                problem = "a dialogue with this id came before; make ids unique (this one is left out)"
                refuse(RecordError(str(file), number, dialogue.id, "id", problem))
                continue
            seen.add(key)
            yield dialogue


def files(path: str | os.PathLike[str]) -> list[Path]:
    """The .jsonl and .parquet files that a path names, in order, but hidden and rejected ones; ValueError where there are none."""
    root = Path(path)
    if root.is_dir():
        every = sorted(file for file in root.rglob("*") if file.suffix in {".jsonl", ".parquet"} and file.is_file())
        found = [file for file in every if not file.name.startswith(".") and not file.name.endswith(".rejected.jsonl")]
        if not found:
            raise ValueError(f"{root}: the folder holds no .jsonl and no .parquet file")
        return found
    if not root.exists():
        raise ValueError(f"{root}: no such file or folder")
    if root.suffix not in {".jsonl", ".parquet"}:
        raise ValueError(f"{root}: labelgen reads .jsonl (one dialogue a line) and .parquet; `labelgen schema` prints the record")
    return [root]


def _jsonl_rows(file: Path) -> Iterator[tuple[int, Mapping[str, Any] | str]]:
    """(row number from 1, mapping or the reason why there is none)."""
    with file.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
            except UnicodeDecodeError as error:
                yield number, f"not UTF-8 ({error.reason} at byte {error.start}); save the file as UTF-8"
            except (ValueError, RecursionError) as error:
                yield number, f"not JSON ({error}); one JSON object a line"
            else:
                yield number, row if isinstance(row, dict) else f"a JSON {type(row).__name__}, not an object"


def _parquet_rows(file: Path) -> Iterator[tuple[int, Mapping[str, Any] | str]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        for batch in pq.ParquetFile(file).iter_batches(batch_size=256):
            for row in _batch_rows(batch):
                number += 1
                yield number, row if isinstance(row, str) else _from_arrow(row)
    except (pa.ArrowException, OSError) as error:
        yield number + 1, f"not a whole Parquet file ({error}); was it cut short? Nothing is read from here on"


def _batch_rows(batch: pa.RecordBatch) -> Iterator[dict[str, Any] | str]:
    """The rows of a batch; one that holds what Python cannot (text that is not UTF-8, far-off times) is the reason why."""
    with suppress(ValueError, OverflowError):
        yield from batch.to_pylist()
        return
    for k in range(batch.num_rows):
        try:
            yield batch.slice(k, 1).to_pylist()[0]
        except (ValueError, OverflowError) as error:
            yield f"not readable ({error}); write text as UTF-8 and times in microseconds"


def _from_arrow(row: dict[str, Any]) -> dict[str, Any] | str:
    """Undoes what the Arrow schema needs: maps are pairs, votes' values and metadata are JSON, absent is null."""
    try:
        row = {key: value for key, value in row.items() if value is not None}
        if isinstance(row.get("metadata"), str):
            row["metadata"] = json.loads(row["metadata"])
        row["votes"] = [_vote_from_arrow(vote) for vote in row.get("votes", ())]
        turns = []
        for turn in row.get("turns", ()):
            turn = {key: value for key, value in turn.items() if value is not None}
            for name in ("categorical", "numerical"):
                turn[name] = dict(turn.get(name, ()))
            turn["votes"] = [_vote_from_arrow(vote) for vote in turn.get("votes", ())]
            turns.append(turn)
        return {**row, "turns": turns}
    except (TypeError, ValueError, AttributeError) as error:
        return f"the columns are not labelgen's ({error}); write Parquet with labelgen.dialogue.write or use its schema"


def _vote_from_arrow(vote: dict[str, Any]) -> dict[str, Any]:
    return {**vote, "value": json.loads(vote["value"])}


def write(dialogues: Iterable[Dialogue], path: str | os.PathLike[str], rows_per_group: int = 1000) -> int:
    """Dialogues -> .jsonl or .parquet by the name's ending; whole or not at all (written aside, then renamed). Returns their number."""
    path = Path(path)
    if path.suffix not in {".jsonl", ".parquet"}:
        raise ValueError(f"{path}: the name must end in .jsonl or .parquet")
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        count = (_write_parquet if path.suffix == ".parquet" else _write_jsonl)(dialogues, aside, rows_per_group)
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)
    return count


def _write_jsonl(dialogues: Iterable[Dialogue], path: Path, rows_per_group: int) -> int:
    count = 0
    with path.open("w", encoding="utf-8") as file:
        for dialogue in dialogues:
            file.write(dialogue.model_dump_json(exclude_none=True, exclude_defaults=True) + "\n")
            count += 1
    return count


def _write_parquet(dialogues: Iterable[Dialogue], path: Path, rows_per_group: int) -> int:
    import pyarrow as pa
    import pyarrow.parquet as pq

    count, rows, schema = 0, [], arrow_schema()
    with pq.ParquetWriter(path, schema) as writer:
        for dialogue in dialogues:
            rows.append(_to_arrow(dialogue))
            count += 1
            if len(rows) == rows_per_group:
                writer.write_table(pa.Table.from_pylist(rows, schema=schema))
                rows = []
        if rows:
            writer.write_table(pa.Table.from_pylist(rows, schema=schema))
    return count


def _to_arrow(dialogue: Dialogue) -> dict[str, Any]:
    row = dialogue.model_dump()
    row["metadata"] = json.dumps(row["metadata"], ensure_ascii=False)
    for holder in (row, *row["turns"]):
        holder["votes"] = [{**vote, "value": json.dumps(vote["value"], ensure_ascii=False)} for vote in holder["votes"]]
    return row


def arrow_schema() -> pa.Schema:
    """The one Arrow schema of Parquet files; free metadata and votes' values are JSON columns."""
    import pyarrow as pa

    text, integers = pa.string(), pa.list_(pa.int32())
    span = [("start", pa.int32()), ("end", pa.int32())]
    slots = pa.list_(pa.struct([("name", text), *span, ("value", text), ("normalised", text), ("categorical", pa.bool_())]))
    votes = pa.list_(pa.struct([("question", text), ("value", text), ("annotator", text)]))
    goals = pa.list_(pa.struct([("turns", integers), ("name", text), ("outcome", text)]))
    labels = pa.list_(
        pa.struct([
            ("task", text), ("value", text), ("turns", integers), ("confidence", pa.float64()),
            ("part", text), *span, ("text", text), ("source", text),
        ])
    )  # fmt: skip
    turn = pa.struct([
        ("request", text), ("response", text), ("timestamp", pa.timestamp("us", tz="UTC")),
        ("categorical", pa.map_(text, text)), ("numerical", pa.map_(text, pa.float64())), ("audio", text),
        ("intent", text), ("request_slots", slots), ("response_slots", slots), ("defect", pa.bool_()),
        ("rewrites", pa.list_(text)), ("votes", votes),
    ])  # fmt: skip
    return pa.schema([
        ("id", text), ("turns", pa.list_(turn)), ("user", text), ("goals", goals), ("votes", votes), ("labels", labels), ("metadata", text),
    ])  # fmt: skip


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
