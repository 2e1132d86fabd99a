"""Records: what goes out comes back, in both formats, whatever people write; what cannot be used is rejected and does not stop the run."""

from __future__ import annotations

import json
import math
import pickle
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labelgen import dialogue as dialogue_module
from labelgen.dialogue import (
    PARTS,
    Dialogue,
    Goal,
    Label,
    Outcome,
    Record,
    RecordError,
    Slot,
    Turn,
    Vote,
    json_schema,
    parse,
    schema,
)
from labelgen.io.files import RejectedFile, read, write
from labelgen.io.hugging_face import features, from_dataset, to_dataset

ENDINGS = ("jsonl", "parquet")
FAMILY, ACCENTED, HEBREW, HIDDEN = "👩‍👩‍👧 ok 🇨🇭", "cafe\u0301 nin\u0303o", "\u202bשלום, أهلاً\u202c", "a\u2028b\u0000c\ufeff\r\n"

texts = st.one_of(st.text(max_size=30), st.sampled_from(["", " ", FAMILY, ACCENTED, HEBREW, HIDDEN]))
names = texts.filter(bool)
numbers = st.floats(allow_nan=False, allow_infinity=False)
moments = st.datetimes(min_value=datetime(1900, 1, 1), max_value=datetime(2200, 1, 1), timezones=st.just(UTC))
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | numbers | texts,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(texts, inner, max_size=2),
    max_leaves=5,
)
votes = st.lists(st.builds(Vote, question=names, value=numbers | texts, annotator=st.none() | texts), max_size=2)


@st.composite
def slots(draw: st.DrawFn, text: str | None) -> list[Slot] | None:
    """Spans that fit the text; None: not annotated."""
    if draw(st.booleans()):
        return None
    found = []
    for _ in range(draw(st.integers(0, 2)) if text else 0):
        assert text
        start = draw(st.integers(0, len(text) - 1))
        end = draw(st.integers(start + 1, len(text)))
        found.append(Slot(name=draw(names), start=start, end=end, normalised=draw(st.none() | texts), categorical=draw(st.booleans())))
    return found


@st.composite
def turns(draw: st.DrawFn) -> Turn:
    request, response = draw(st.none() | texts), draw(st.none() | texts)
    return Turn(
        request=request,
        response=response,
        timestamp=draw(st.none() | moments),
        categorical=draw(st.dictionaries(texts, st.none() | texts, max_size=2)),
        numerical=draw(st.dictionaries(texts, st.none() | numbers, max_size=2)),
        audio=draw(st.none() | texts),
        intent=draw(st.none() | texts),
        request_acts=draw(st.none() | st.lists(names, max_size=2)),
        response_acts=draw(st.none() | st.lists(names, max_size=2)),
        request_slots=draw(slots(request)),
        response_slots=draw(slots(response)),
        defect=draw(st.none() | st.booleans()),
        retry=draw(st.none() | st.booleans()),
        rewrites=draw(st.none() | st.lists(texts, max_size=2)),
        rewritten_with_hindsight=draw(st.none() | st.booleans()),
        paraphrases=draw(st.dictionaries(texts, texts, max_size=2)),
        votes=draw(votes),
    )


@st.composite
def dialogues(draw: st.DrawFn) -> Dialogue:
    spoken = draw(st.lists(turns(), min_size=1, max_size=2))
    indices = range(len(spoken))
    goals = None
    if draw(st.booleans()):
        owner = draw(st.lists(st.none() | st.integers(0, 1), min_size=len(spoken), max_size=len(spoken)))
        outcomes = st.sampled_from([None, *get_args(Outcome)])
        members = [[k for k in indices if owner[k] == g] for g in (0, 1)]
        goals = [Goal(turns=m, name=draw(st.none() | texts), outcome=draw(outcomes)) for m in members if m]
    label = st.builds(
        Label, task=texts, value=texts, turns=st.lists(st.sampled_from(indices), max_size=2), confidence=st.floats(0, 1),
        part=st.none() | st.sampled_from(PARTS), start=st.none() | st.integers(0, 9), end=st.none() | st.integers(0, 9),
        text=st.none() | texts, source=texts,
    )  # fmt: skip
    return Dialogue(
        id=draw(names),
        turns=spoken,
        user=draw(st.none() | texts),
        goals=goals,
        votes=draw(votes),
        labels=draw(st.none() | st.lists(label, max_size=2)),
        slices=draw(st.lists(names, max_size=2)),
        metadata=draw(st.dictionaries(texts, json_values, max_size=2)),
    )


@settings(max_examples=1, deadline=None)
@given(record=dialogues())
def test_the_records_here_set_every_field(record: Dialogue) -> None:
    """Else a new field would not be tested to survive writing."""
    assert record.model_fields_set == Dialogue.model_fields.keys()
    assert record.turns[0].model_fields_set == Turn.model_fields.keys()


def test_the_published_schema_describes_the_fields() -> None:
    turn = json_schema()["$defs"]["Turn"]
    assert [name for name, field in turn["properties"].items() if "description" not in field] == []
    assert [name for name, field in json_schema()["properties"].items() if "description" not in field] == ["id", "turns"]


def back(records: list[Dialogue], folder: Path, ending: str) -> list[Dialogue]:
    file = folder / f"dialogues.{ending}"
    assert write(records, file, rows_per_group=1) == len(records)
    return list(read(file))


@settings(max_examples=50, deadline=None)
@given(records=st.lists(dialogues(), max_size=2, unique_by=lambda dialogue: dialogue.id))
def test_what_is_written_is_read(tmp_path_factory: pytest.TempPathFactory, records: list[Dialogue]) -> None:
    for ending in ENDINGS:
        assert back(records, tmp_path_factory.mktemp("records"), ending) == records


@settings(max_examples=50, deadline=None)
@given(records=st.lists(dialogues(), min_size=1, max_size=2))
def test_a_dataset_gives_the_records_back(records: list[Dialogue]) -> None:
    dataset = to_dataset(records)
    assert list(from_dataset(dataset)) == records
    assert dataset.features == features()
    assert list(from_dataset(dataset.to_iterable_dataset())) == records


@settings(max_examples=30, deadline=None)
@given(record=dialogues())
def test_written_lines_fit_the_published_schema(tmp_path_factory: pytest.TempPathFactory, record: Dialogue) -> None:
    file = tmp_path_factory.mktemp("records") / "one.jsonl"
    write([record], file)
    row = json.loads(file.read_text(encoding="utf-8"))
    validator = jsonschema.Draft202012Validator(json_schema())
    validator.validate(row)
    assert not validator.is_valid({**row, "turn": []}), "the schema knows no misspelt key"
    assert not validator.is_valid({key: value for key, value in row.items() if key != "id"})


@settings(max_examples=30, deadline=None)
@given(record=dialogues(), other=dialogues())
def test_content_and_fingerprint_ignore_labels(record: Dialogue, other: Dialogue) -> None:
    label = Label(task="intent", value="Banks/Transfer", turns=[0], confidence=0.5, source="model")
    goals = [Goal(turns=[0], outcome="failure")]
    content = record.content()
    logged = {name: getattr(content.turns[0], name) for name in ("request", "response", "timestamp", "categorical", "numerical", "audio")}
    changed = {name: getattr(other.turns[0], name) for name in Turn.model_fields.keys() - logged.keys()}
    turn = content.turns[0].model_copy(update={**changed, "votes": [Vote(question="q", value=1)]})
    changed = {"labels": [label], "goals": goals, "turns": [turn, *content.turns[1:]], "votes": other.votes, "slices": ["rare"]}
    labelled = content.model_copy(update=changed)
    assert labelled.content() == content == content.content()
    assert labelled.fingerprint() == record.fingerprint()
    spoken = content.turns[0].model_copy(update={"request": (content.turns[0].request or "") + "!"})
    assert content.model_copy(update={"turns": [spoken, *content.turns[1:]]}).fingerprint() != record.fingerprint()


def test_content_shares_nothing_with_the_dialogue() -> None:
    record = Dialogue(id="a", turns=[Turn(categorical={"device": "car"}), Turn()], metadata={"tags": ["x"]})
    content = record.content()
    content.turns[0].categorical["device"] = "phone"
    content.turns[0].votes.append(Vote(question="q", value=1))
    content.metadata["tags"].append("y")
    assert record.turns[0].categorical == {"device": "car"}
    assert record.metadata == {"tags": ["x"]}
    assert content.turns[1].votes == [] == record.content().turns[0].votes


@pytest.mark.parametrize("ending", ENDINGS)
def test_missing_is_never_no(tmp_path: Path, ending: str) -> None:
    unknown = Turn()
    none = Turn(request="", response="", request_slots=[], response_slots=[], defect=False, intent="NONE")
    got = back([Dialogue(id="a", turns=[unknown, none], goals=[], labels=[]), Dialogue(id="b", turns=[unknown])], tmp_path, ending)
    first, second = got
    assert (first.goals, first.labels) == ([], [])
    assert (second.goals, second.labels) == (None, None)
    for turn, slots_, defect, words in ((first.turns[0], None, None, None), (first.turns[1], [], False, "")):
        assert (turn.request_slots, turn.response_slots, turn.defect) == (slots_, slots_, defect)
        assert (turn.request, turn.response) == (words, words)


@pytest.mark.parametrize("ending", ENDINGS)
def test_long_and_system_first_dialogues(tmp_path: Path, ending: str) -> None:
    words = (FAMILY + ACCENTED + HEBREW) * 400
    words = words[:10_000]
    first = Turn(response="Good morning", response_slots=[Slot(name="greeting", start=0, end=4)])
    huge = Turn(request=words, request_slots=[Slot(name="all", start=0, end=10_000), Slot(name="last", start=9_999, end=10_000)])
    record = Dialogue(id="long", turns=[first, huge, *(Turn(request=str(k), response="") for k in range(498))])
    (got,) = back([record], tmp_path, ending)
    assert got == record
    assert len(got.turns) == 500
    assert got.turns[0].request is None
    assert got.turns[1].request_slots is not None
    assert [slot.value for slot in got.turns[1].request_slots] == [words, words[-1]]


@pytest.mark.parametrize("text", [FAMILY, ACCENTED, HEBREW, HIDDEN])
def test_offsets_count_code_points(text: str) -> None:
    turn = {"request": text, "request_slots": [{"name": "end", "start": len(text) - 1, "end": len(text)}]}
    slots_ = parse({"id": "a", "turns": [turn]}).turns[0].request_slots
    assert [slot.value for slot in slots_ or ()] == [text[-1]]
    in_bytes = {"request": text, "request_slots": [{"name": "end", "start": 0, "end": len(text.encode())}]}
    with pytest.raises(RecordError, match=r"'a'.*turns\.0.*code points"):
        parse({"id": "a", "turns": [in_bytes]})


@pytest.mark.parametrize(
    ("row", "field", "remedy"),
    [
        ({"turns": [{}]}, "id", "add it"),
        ({"id": "", "turns": [{}]}, "id", "empty"),
        ({"id": "\ud800", "turns": [{}]}, "id", "surrogate"),
        ({"id": "a", "turns": []}, "turns", "at least one"),
        ({"id": "a", "turns": [{"requst": "hi"}]}, "turns.0.requst", "did you mean 'request'?"),
        ({"id": "a", "turns": [{"colour": "red"}]}, "turns.0.colour", "metadata"),
        ({"id": "a", "turns": [{"numerical": {"confidence": float("nan")}}]}, "turns.0.numerical.confidence", "null"),
        ({"id": "a", "turns": [{"timestamp": "0001-01-01T00:00:00+05:00"}]}, "turns.0.timestamp", "null"),
        ({"id": "a", "turns": [{"request_slots": [{"name": "x", "start": 0, "end": 1}]}]}, "turns.0", "leave the slot out"),
        ({"id": "a", "turns": [{"request": "hi", "request_slots": [{"name": "x", "start": 1, "end": 1}]}]}, "turns.0", "exclusive"),
        (
            {"id": "a", "turns": [{"request": "hi", "request_slots": [{"name": "x", "start": 0, "end": 1, "value": "i"}]}]},
            "turns.0",
            "normalised",
        ),
        ({"id": "a", "turns": [{}], "goals": [{"turns": [1]}]}, "record", "no turn 1"),
        ({"id": "a", "turns": [{}], "goals": [{"turns": [0]}, {"turns": [0]}]}, "record", "one goal"),
        ({"id": "a", "turns": [{}], "goals": [{"turns": [0], "outcome": "abandoned"}]}, "goals.0.outcome", "success"),
        ({"id": "a", "turns": [{}], "metadata": {"score": float("nan")}}, "metadata", "finite"),
        ({"id": "a", "turns": [{}], "metadata": {"slice": "unseen"}}, "metadata", "`slices`"),
        ({"id": "a", "turns": [{}], "metadata": {"user_acts": ["ASK"]}}, "metadata", "`request_acts`"),
        ({"id": "a", "turns": [{"request_acts": "ASK"}]}, "turns.0.request_acts", "list"),
        ({"id": "a", "turns": [{"request_acts": [""]}]}, "turns.0.request_acts.0", "empty"),
        ({"id": "a", "turns": [{}], "metadata": {"\udfff": 1}}, "metadata.\ufffd\ufffd\ufffd.[key]", "surrogate"),
    ],
)
def test_bad_rows_are_rejected_and_reading_continues(tmp_path: Path, row: dict[str, Any], field: str, remedy: str) -> None:
    file = tmp_path / "logs.jsonl"
    good = {"id": "good", "turns": [{"request": "hi"}]}
    file.write_text(f"{json.dumps(row)}\n\n{json.dumps(good)}\n", encoding="utf-8")
    rejected = RejectedFile(tmp_path / "rejected.jsonl")
    assert [dialogue.id for dialogue in read(file, rejected)] == ["good"]
    (rejection,) = (json.loads(line) for line in rejected.path.read_text(encoding="utf-8").splitlines())
    assert rejected.count == 1
    assert (rejection["source"], rejection["row"], rejection["id"], rejection["field"]) == (str(file), 1, row.get("id"), field)
    assert remedy in rejection["problem"]
    with pytest.raises(RecordError, match="row 1"):
        list(read(file))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"id": ""}, "field 'id': it must not be empty"),
        ({"id": 3}, "field 'id': it must be text"),
        ({"turns": []}, "field 'turns': it must hold at least one item"),
        ({"goals": [{}]}, "field 'goals.0.turns': the field is required; add it"),
        ({"goals": [{"turns": [0], "outcome": "ok"}]}, "field 'goals.0.outcome': 'ok' is none of success, recovered, failure"),
        ({"turns": [{"defect": "x" * 99}]}, "it must be true or false; given: 'xxxxxxxxxxxx...xxxxxxxxxxxxx'"),
        ({"goals": [{"turns": 0, "names": "x"}]}, "'goals.0.names': the record has no such field; did you mean 'name'? (and 1 more)"),
        ({"labels": [{"task": 1, "turns": [], "sourse": "x"}]}, "'labels.0.sourse': the record has no such field; did you mean 'source'?"),
        ({"votes": [{"questoin": "x", "value": 1}]}, "'votes.0.questoin': the record has no such field; did you mean 'question'?"),
        ({"turns": [{"request_slots": [{"starts": 0}]}]}, "request_slots.0.starts': the record has no such field; did you mean 'start'?"),
        ({"turns": [{"response_slots": [{"ends": 0}]}]}, "response_slots.0.ends': the record has no such field; did you mean 'end'?"),
    ],
)
def test_a_problem_is_one_sentence_with_the_value_or_the_closest_key(change: dict[str, Any], message: str) -> None:
    with pytest.raises(RecordError) as caught:
        parse({"id": "a", "turns": [{}], **change})
    assert message in str(caught.value)
    assert not re.search("Field required|should have at least|valid string", str(caught.value))


def test_every_kind_of_record_suggests_its_own_keys() -> None:
    """The table by which a key is looked up holds every field whose value is a record, or a list of them."""
    fields = {
        (name, kind)
        for model in Record.__subclasses__()
        for name, field in model.model_fields.items()
        for kind in records_in(field.annotation)
    }
    assert fields == set(dialogue_module._RECORDS.items())


def records_in(annotation: Any) -> list[type[Record]]:
    if isinstance(annotation, type) and issubclass(annotation, Record):
        return [annotation]
    return [found for inner in get_args(annotation) for found in records_in(inner)]


def test_a_misspelt_key_is_reported_before_what_follows_from_it() -> None:
    with pytest.raises(RecordError) as caught:
        parse({"id": "d", "turn": [{}]})
    assert str(caught.value) == "record, dialogue 'd', field 'turn': the record has no such field; did you mean 'turns'? (and 1 more)"


def test_the_schema_goes_to_a_file_that_an_error_names(tmp_path: Path) -> None:
    schema(str(tmp_path / "schema.json"))
    assert json.loads((tmp_path / "schema.json").read_text("utf-8")) == json_schema()
    with pytest.raises(OSError, match="No space left on device: '/dev/full'"):
        schema("/dev/full")


def test_times_are_utc() -> None:
    east, naive = (
        parse({"id": "a", "turns": [{"timestamp": t}]}).turns[0].timestamp for t in ("2024-05-01T14:00:00+02:00", "2024-05-01T12:00")
    )
    assert east == naive == datetime(2024, 5, 1, 12, tzinfo=UTC)


def test_an_interleaved_goal_is_a_set_of_turns() -> None:
    record = Dialogue(id="a", turns=[Turn()] * 4, goals=[Goal(turns=[2, 0, 2]), Goal(turns=[1])])
    assert record.goal_of_turns() == [0, 1, 0, None]


def test_errors_cross_processes() -> None:
    error = RecordError("file", 3, "a", "id", "twice")
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.as_row()) == (str(error), error.as_row())


CUT = "cut emoji \ud83d"
SPAN = {"name": "n", "start": 0, "end": 1}


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("id", {"id": CUT}),
        ("user", {"user": CUT}),
        ("turns.0.request", {"turns": [{"request": CUT}]}),
        ("turns.0.response", {"turns": [{"response": CUT}]}),
        ("turns.0.audio", {"turns": [{"audio": CUT}]}),
        ("turns.0.rewrites.0", {"turns": [{"rewrites": [CUT]}]}),
        ("turns.0.categorical.device", {"turns": [{"categorical": {"device": CUT}}]}),
        ("turns.0.numerical.", {"turns": [{"numerical": {CUT: 1.0}}]}),
        ("turns.0.request_slots.0.normalised", {"turns": [{"request": "x", "request_slots": [SPAN | {"normalised": CUT}]}]}),
        ("votes.0.value", {"votes": [{"question": "why", "value": CUT}]}),
        ("goals.0.name", {"goals": [{"turns": [0], "name": CUT}]}),
        ("metadata", {"metadata": {"note": [CUT]}}),
    ],
)
def test_half_a_surrogate_pair_is_refused_with_its_field(field: str, change: dict[str, Any]) -> None:
    """It can be read from JSON, but not written: it would stop a conversion."""
    with pytest.raises(RecordError) as caught:
        parse(json.loads(json.dumps({"id": "a", "turns": [{}], **change})))
    assert caught.value.field.startswith(field)
    assert "surrogate" in caught.value.problem
    whole = json.loads(json.dumps({"id": "a", "turns": [{}], **change}).replace("\\ud83d", "\\ud83d\\ude00"))
    assert parse(whole).model_dump_json().count("\U0001f600") == 1


@pytest.mark.parametrize("given", ["yesterday", "01.05.2024 12:00", "", True, [1], 1e30, math.nan])
def test_a_time_that_is_none_is_described_in_our_words(given: Any) -> None:
    with pytest.raises(RecordError, match=r"'turns\.0\.timestamp': .* is not a time; write ISO 8601 .* or seconds since 1970"):
        parse({"id": "a", "turns": [{"timestamp": given}]})


@pytest.mark.parametrize("given", [45000.5, 45000, "45000.5"])
def test_a_day_number_of_a_spreadsheet_is_not_read_as_1970(given: Any) -> None:
    with pytest.raises(RecordError, match=rf"{given!r} looks like the day number of a spreadsheet \(2023-03-15 (12|00):00\); write"):
        parse({"id": "a", "turns": [{"timestamp": given}]})
    assert parse({"id": "a", "turns": [{"timestamp": 12.5}]}).turns[0].timestamp, "seconds from the start of a recording"


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"turns": 3}, "'turns': it must be a list; given: 3"),
        ({"turns": [3]}, "'turns.0': it must be an object; given: 3"),
        ({"turns": [{"categorical": 3}]}, "'turns.0.categorical': it must be an object; given: 3"),
        ({"turns": [{"numerical": {"a": "x"}}]}, "'turns.0.numerical.a': it must be a number; given: 'x'"),
        ({"turns": [{"defect": "maybe"}]}, "'turns.0.defect': it must be true or false; given: 'maybe'"),
        ({"turns": [{}], "goals": [{"turns": [0.5]}]}, "'goals.0.turns.0': it must be a whole number; given: 0.5"),
        ({"turns": [{"request": "x", "request_slots": [{"name": "n", "start": -1, "end": 1}]}]}, "it must be at least 0; given: -1"),
        ({"turns": [{"request": "x", "request_slots": [{"name": "n", "start": 0, "end": 0}]}]}, "it must be more than 0; given: 0"),
        ({"turns": [{}], "labels": [{"task": "t", "value": "v", "turns": [0], "confidence": 2, "source": "s"}]}, "at most 1.0; given: 2"),
    ],
)
def test_wrong_types_are_described_in_our_words(row: dict[str, Any], words: str) -> None:
    with pytest.raises(RecordError) as caught:
        parse({"id": "a", **row})
    assert words in str(caught.value)
