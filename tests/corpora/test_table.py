"""Tables: a row a turn and a row a message, CSV and Parquet, features, missing values; every bad cell reported by row and column."""

from __future__ import annotations

import csv
import json
import math
import re
import tracemalloc
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from labelgen.corpora.table import Table
from labelgen.corpora.table_groups import Line, gathered
from labelgen.dialogue import Dialogue, RecordError, Turn

Cells = dict[str, Any]
TURN = {"dialogue": "session", "request": "query", "response": "reply", "timestamp": "at", "intent": "nlu", "defect": "bad", "audio": "wav",
        "user": "caller"}  # fmt: skip
MESSAGE = {"dialogue": "session", "speaker": "who", "text": "words", "timestamp": "at", "intent": "nlu", "defect": "bad", "user": None}
SPEAKERS = {"user": ["caller", 1], "assistant": ["bot", "agent"]}
ENDINGS = ("csv", "parquet")


def table(path: Path, lines: Sequence[Cells], columns: dict[str, Any] = TURN, **features: list[str]) -> Table:
    """Writes rows; a column that a row does not name is empty there."""
    names = list(dict.fromkeys(name for line in lines for name in line))
    if path.suffix == ".csv":
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, names)
            writer.writeheader()
            writer.writerows(lines)
    else:
        pq.write_table(pa.table({name: [line.get(name) for line in lines] for name in names}), path)
    return Table(str(path), {key: column for key, column in columns.items() if column is None or column in names}, SPEAKERS, **features)


def read(corpus: Table) -> tuple[list[Dialogue], list[RecordError]]:
    errors: list[RecordError] = []
    return list(corpus.read(errors.append)), errors


def test_the_user_gives_the_time_of_a_turn_and_a_judgement_alone_is_a_response(tmp_path: Path) -> None:
    lines = [
        {"session": 1, "who": "caller", "words": "hi", "at": "2024-05-01T12:00:00Z", "bad": ""},
        {"session": 1, "who": "bot", "words": "hello", "at": "2024-05-01T12:00:09Z", "bad": ""},
        {"session": 1, "who": "bot", "words": "", "at": "2024-05-01T12:00:20Z", "bad": "true"},
    ]
    columns = {key: column for key, column in MESSAGE.items() if key != "intent"}
    noon = datetime(2024, 5, 1, 12, tzinfo=UTC)
    second = Turn(timestamp=noon.replace(second=20), defect=True)
    dialogue = Dialogue(id="1", turns=[Turn(request="hi", response="hello", timestamp=noon), second])
    assert read(table(tmp_path / "a.csv", lines, columns)) == ([dialogue], [])


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_row_a_turn(tmp_path: Path, ending: str) -> None:
    noon = datetime(2024, 5, 1, 12, tzinfo=UTC)
    at = noon if ending == "parquet" else "2024-05-01T14:00:00+02:00"
    corpus = table(
        tmp_path / f"a.{ending}",
        [
            {"session": 7, "query": "lights, on", "reply": "on\nit is", "at": at, "nlu": "Home/Light", "bad": False, "wav": "a.wav",
             "caller": "u1", "asr": 0.5, "device": "car"},
            {"session": 7, "query": "thanks", "bad": True, "device": "phone"},
            {"session": 8, "reply": "Hello.", "asr": 1.0},
        ],
        categorical=["device"], numerical=["asr"],
    )  # fmt: skip
    assert read(corpus) == ([
        Dialogue(id="7", user="u1", turns=[
            Turn(request="lights, on", response="on\nit is", timestamp=noon, intent="Home/Light", defect=False, audio="a.wav",
                 categorical={"device": "car"}, numerical={"asr": 0.5}),
            Turn(request="thanks", defect=True, categorical={"device": "phone"}),
        ]),
        Dialogue(id="8", turns=[Turn(response="Hello.", numerical={"asr": 1.0})]),
    ], [])  # fmt: skip


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_row_a_message(tmp_path: Path, ending: str) -> None:
    def line(who: str, words: str, **cells: Any) -> Cells:
        return {"session": "a", "who": who, "words": words, **cells}

    corpus = table(
        tmp_path / f"a.{ending}",
        [
            line("bot", "Welcome.", at="2024-05-01"), line("caller", "Hm", nlu="no"), line("caller", "A taxi", nlu="Taxi/Book", asr="0.5"),
            line("agent", "Where to?", bad="no", nlu="Bot/Asks", asr="0.9", load="3"), line("bot", "Anyone there?", bad="yes"),
            line("1", "Bye", bad="yes"),
        ],
        MESSAGE, numerical=["asr", "load"],
    )  # fmt: skip
    ((dialogue,), errors) = read(corpus)
    assert not errors
    assert dialogue.turns == [
        Turn(response="Welcome.", timestamp=datetime(2024, 5, 1, tzinfo=UTC)),
        Turn(request="Hm", intent="no"),
        Turn(request="A taxi", response="Where to?", intent="Taxi/Book", defect=False, numerical={"asr": 0.5, "load": 3.0}),
        Turn(response="Anyone there?", defect=True),
        Turn(request="Bye"),
    ]


def test_the_formats_agree_and_missing_is_never_no(tmp_path: Path) -> None:
    lines = [
        {"session": "a", "query": "x", "bad": None, "n": 1.0, "kind": None},
        {"session": "a", "query": None, "bad": "0", "n": math.nan, "kind": "k"},
        {"session": "b", "query": "y", "bad": "1.0", "n": None, "kind": ""},
    ]
    both = [read(table(tmp_path / f"a.{ending}", lines, categorical=["kind"], numerical=["n"])) for ending in ENDINGS]
    assert both[0] == both[1]
    ((first, second), errors) = both[0]
    assert not errors
    assert [turn.defect for turn in (*first.turns, *second.turns)] == [None, False, True]
    assert [turn.numerical for turn in first.turns] == [{"n": 1.0}, {}]
    assert [turn.categorical for turn in first.turns] == [{}, {"kind": "k"}]


@pytest.mark.parametrize(("value", "hour"), [("2024-05-01 12:00:00", 12), ("1714564800", 12), ("2024-05-01T14:00+02:00", 12)])
def test_times_may_be_written_in_many_ways(tmp_path: Path, value: str, hour: int) -> None:
    ((dialogue,), _) = read(table(tmp_path / "a.csv", [{"session": "a", "query": "x", "at": value}]))
    assert dialogue.turns[0].timestamp == datetime(2024, 5, 1, hour, tzinfo=UTC)


@pytest.mark.parametrize(
    ("broken", "column", "message"),
    [
        ({"session": ""}, "session", r"empty.*id"),
        ({"session": "b", "caller": "u2"}, "caller", r"'u1' and 'u2'.*unique"),
    ],
)
def test_bad_cells_name_row_and_column_and_reading_continues(tmp_path: Path, broken: Cells, column: str, message: str) -> None:
    usual = {"query": "x", "at": "", "asr": "", "bad": "", "caller": "u1"}
    corpus = table(
        tmp_path / "a.csv",
        [{**usual, "session": "a"}, {**usual, "session": "b"}, {**usual, **broken}, {**usual, "session": "c"}],
        numerical=["asr"],
    )
    dialogues, (error,) = read(corpus)
    name = broken["session"] or None
    assert [dialogue.id for dialogue in dialogues] == (["a", "c"] if name else ["a", "b", "c"]), "a dialogue is read whole or not at all"
    assert (error.source, error.row, error.dialogue_id, error.field) == (str(tmp_path / "a.csv"), 3, name, column)
    with pytest.raises(RecordError, match=message):
        list(corpus.read())


def test_a_speaker_that_is_not_known_is_reported(tmp_path: Path) -> None:
    lines = [{"session": "a", "who": "ivr", "words": "Press 1"}, {"session": "b", "who": "bot", "words": "Hi"}]
    dialogues, (error,) = read(table(tmp_path / "a.csv", lines, MESSAGE))
    assert [dialogue.id for dialogue in dialogues] == ["b"]
    assert (error.row, error.field) == (1, "who")
    assert "'ivr'" in error.problem
    assert "speakers" in error.problem


@pytest.mark.parametrize("names", ["aabaa", "abab"])
@pytest.mark.parametrize("broken", [{}, {"asr": "high"}])
def test_a_table_whose_dialogues_stand_apart_stops_the_reading(tmp_path: Path, names: str, broken: Cells) -> None:
    lines = [{"session": name, "query": str(k), "asr": ""} for k, name in enumerate(names)]
    lines[0] |= broken  # a dialogue that is refused has come, too
    message = rf"a\.csv, row {names.rindex('ba') + 2}: the rows of dialogue 'a' are not adjacent.*sort the table by 'session' and time"
    with pytest.raises(ValueError, match=message) as caught:
        read(table(tmp_path / "a.csv", lines, numerical=["asr"]))
    assert not isinstance(caught.value, RecordError), "no row is at fault: none may be left out"


def test_one_value_where_a_list_belongs_is_refused() -> None:
    columns = {"dialogue": "session", "speaker": "who", "text": "words"}
    wrong: dict[str, Any] = {"speakers": {"user": "caller", "assistant": ["bot"]}, "categorical": "device", "numerical": "asr"}
    for key, value in wrong.items():
        with pytest.raises(
            ValueError, match=r"(speakers\.user: 'caller'|categorical: 'device'|numerical: 'asr') is one value; give a list"
        ):
            Table("logs.csv", **{"columns": columns, "speakers": SPEAKERS, key: value})


def test_a_dialogue_may_go_on_in_the_next_file(tmp_path: Path) -> None:
    table(tmp_path / "1.csv", [{"session": "a", "query": "1"}, {"session": "b", "query": "2"}])
    table(tmp_path / "2.parquet", [{"session": "b", "query": "3"}, {"session": "c", "query": "4"}])
    dialogues, errors = read(Table(str(tmp_path), {"dialogue": "session", "request": "query"}, SPEAKERS))
    assert not errors
    assert [[turn.request for turn in dialogue.turns] for dialogue in dialogues] == [["1"], ["2", "3"], ["4"]]


def test_a_row_that_cannot_be_read_spoils_the_dialogues_beside_it(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_bytes(b"session,query\na,1\nb,2\nb,3,4\nc,5\nd,6\n")
    dialogues, errors = read(Table(str(file), {"dialogue": "session", "request": "query"}, SPEAKERS))
    assert [dialogue.id for dialogue in dialogues] == ["a", "d"]
    assert [(error.row, error.dialogue_id) for error in errors] == [(3, "b"), (3, "c")]
    file.write_bytes("session,query\né,1\n".encode() + b"\xff,1\n")
    assert [
        (error.row, error.dialogue_id) for error in read(Table(str(file), {"dialogue": "session", "request": "query"}, SPEAKERS))[1]
    ] == [(2, "é")]


def test_a_parquet_file_that_is_cut_short_is_reported(tmp_path: Path) -> None:
    corpus = table(tmp_path / "a.parquet", [{"session": "a", "query": "x"}])
    (tmp_path / "a.parquet").write_bytes((tmp_path / "a.parquet").read_bytes()[:-20])
    dialogues, errors = read(corpus)
    assert not dialogues
    assert ["cut short" in error.problem for error in errors] == [True]


def test_rows_are_streamed(tmp_path: Path) -> None:
    corpus = table(tmp_path / "a.csv", [{"session": "a", "query": "x"}, {"session": "b", "query": "y"}, {"session": "", "query": "z"}])
    stream = corpus.read()
    assert next(stream).id == "a"
    assert next(stream).id == "b"
    with pytest.raises(RecordError):
        next(stream)


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_missing_column_is_reported_before_anything_is_read(tmp_path: Path, ending: str) -> None:
    file = tmp_path / f"a.{ending}"
    table(file, [{"session": "a", "query": "x"}])
    for columns, features in (({"request": "utterance"}, []), ({"request": "query"}, ["asr"])):
        with pytest.raises(ValueError, match=rf"a\.{ending}: no column '(utterance|asr)'; there are 'session', 'query'"):
            next(Table(str(file), {"dialogue": "session", **columns}, SPEAKERS, numerical=features).read())


@pytest.mark.parametrize(
    ("columns", "speakers", "message"),
    [
        ({"request": "query"}, SPEAKERS, "dialogue"),
        ({"dialogue": "session"}, SPEAKERS, "request or response"),
        ({"dialogue": "session", "utterance": "query"}, SPEAKERS, "'utterance'"),
        ({"dialogue": "session", "speaker": "who"}, SPEAKERS, "text"),
        ({"dialogue": "session", "speaker": "who", "text": "words", "request": "query"}, SPEAKERS, "'request'"),
        ({"dialogue": "session", "speaker": "who", "text": "words"}, {"user": ["u"]}, "assistant"),
    ],
)
def test_a_column_map_that_makes_no_sense_is_refused(columns: dict[str, str], speakers: dict[str, list[str]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Table("logs.csv", columns, speakers)


def test_a_missing_table_is_reported(tmp_path: Path) -> None:
    (tmp_path / "a.xlsx").touch()
    for path, message in ((tmp_path / "none.csv", "no such"), (tmp_path, "holds no"), (tmp_path / "a.xlsx", r"\.csv or \.parquet")):
        with pytest.raises(ValueError, match=message):
            list(Table(str(path), {"dialogue": "session", "request": "query"}, SPEAKERS).read())


COLUMNS = {"dialogue": "session", "request": "query"}


def test_how_a_file_is_read_is_logged_in_one_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    file = tmp_path / "a.csv"
    for content, words in (
        ("session,query\na,é\n".encode(), None),
        ("session\tquery\r\na\té\r\n".encode("utf-16"), "a.csv: CSV with tabs between the columns, in utf-16"),
        (
            "session;query\na;Café ?\n".encode("cp1252"),
            "in cp1252; the encoding is a guess: set `encoding` if this word of the file is wrong: 'Ca",
        ),
    ):
        file.write_bytes(content)
        caplog.clear()
        ((dialogue,), _) = read(Table(str(file), COLUMNS, SPEAKERS))
        assert "é" in str(dialogue.turns[0].request)
        assert [str(words) in record.message for record in caplog.records] == ([] if words is None else [True])
    assert read(Table(str(file), COLUMNS, SPEAKERS, encoding="cp1251"))[0][0].turns[0].request == "Cafй ?"
    file.write_text("session~query\na~x, y\n")
    assert read(Table(str(file), COLUMNS, SPEAKERS, delimiter="~"))[0][0].turns[0].request == "x, y"
    for settings, message in (
        ({"delimiter": "::"}, "one character"),
        ({"encoding": "klingon"}, "is not known"),
        ({"encoding": "hex"}, "is not known"),
    ):
        with pytest.raises(ValueError, match=message):
            Table(str(file), COLUMNS, SPEAKERS, **settings)


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("at", "yesterday", "'yesterday' is not a time.*`time_format` reads other formats"),
        ("at", "45000.5", "'45000.5' looks like the day number of a spreadsheet.*`time_format`.*with excel"),
        ("asr", "high", "'high' is not a finite number"),
        ("asr", "inf", "'inf' is not a finite number"),
        ("bad", "maybe", "'maybe' is neither true nor false"),
    ],
)
def test_a_cell_that_cannot_be_read_costs_the_field_and_is_counted(
    column: str, value: str, message: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    usual = {"session": "a", "query": "x", "at": "2024-05-01", "asr": "0.5", "bad": "no"}
    corpus = table(tmp_path / "a.csv", [usual, {**usual, column: value}, usual, {**usual, column: value}], numerical=["asr"])
    for _ in range(2):  # the second reading counts from nothing
        caplog.clear()
        ((dialogue,), errors) = read(corpus)
        assert not errors
        field, expected = {"at": ("timestamp", None), "asr": ("numerical", {}), "bad": ("defect", None)}[column]
        first, second, third, fourth = (getattr(turn, field) for turn in dialogue.turns)
        assert first == third != second == fourth == expected
        (record,) = caplog.records
        assert re.match(rf"2 values of column '{column}' were left out, such as .*a\.csv, row 2: {message}", record.message)


@pytest.mark.parametrize(
    ("time_format", "value", "minute"),
    [
        ("%d.%m.%Y %H:%M", "01.05.2024 12:30", 30), ("%m/%d/%Y %I:%M %p", " 05/01/2024 12:30 PM ", 30), ("excel", "45413.5", 0),
        ("excel", "45413,5", 0), ("excel", 45413.5, 0), ("%H", datetime(2024, 5, 1, 12, 30), 30),
        ("%d.%m.%Y %H:%M%z", "01.05.2024 14:30+0200", 30),
    ],
)  # fmt: skip
def test_times_have_the_format_that_is_set(tmp_path: Path, time_format: str, value: Any, minute: int) -> None:
    corpus = table(tmp_path / "a.parquet", [{"session": "a", "query": "x", "at": value}])
    ((dialogue,), _) = read(replace(corpus, time_format=time_format))
    assert dialogue.turns[0].timestamp == datetime(2024, 5, 1, 12, minute, tzinfo=UTC)


@pytest.mark.parametrize(
    ("time_format", "value"), [("%d.%m.%Y", "2024-05-01"), ("excel", "noon"), ("excel", "1e99"), ("excel", "45,123"), ("excel", "1_000")]
)
def test_a_time_of_another_format_is_counted(tmp_path: Path, time_format: str, value: str, caplog: pytest.LogCaptureFixture) -> None:
    ((dialogue,), _) = read(replace(table(tmp_path / "a.csv", [{"session": "a", "query": "x", "at": value}]), time_format=time_format))
    assert dialogue.turns[0].timestamp is None
    assert f"'{value}' does not have the `time_format` {time_format}" in caplog.text


def test_a_time_format_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"time_format='%Q': 'Q' is a bad directive.*; give one such as '%d\.%m\.%Y %H:%M', or excel"):
        replace(table(tmp_path / "a.csv", [{"session": "a", "query": "x"}]), time_format="%Q")


def test_rows_of_speakers_to_ignore_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    lines = [
        ("a", "caller", "A taxi"),
        ("a", "ivr", "Please hold"),
        ("a", "bot", "Where to?"),
        ("b", "ivr", "Bye"),
        ("c", "", "?"),
        ("c", "bot", "Hi"),
    ]
    corpus = table(tmp_path / "a.csv", [dict(zip(("session", "who", "words"), line, strict=True)) for line in lines], MESSAGE)
    dialogues, errors = read(replace(corpus, speakers={**SPEAKERS, "ignore": ["ivr", ""]}))
    assert not errors
    assert [(d.id, [(t.request, t.response) for t in d.turns]) for d in dialogues] == [
        ("a", [("A taxi", "Where to?")]),
        ("c", [(None, "Hi")]),
    ]
    assert sorted(record.message for record in caplog.records) == [
        "1 dialogue without a message was left out", "1 row of speaker '' was left out", "2 rows of speaker 'ivr' were left out"
    ]  # fmt: skip


@pytest.mark.parametrize("ending", ENDINGS)
def test_rows_that_stand_apart_are_gathered(tmp_path: Path, ending: str) -> None:
    lines = [("b", "1"), ("a", "1"), ("b", "2"), ("c", "1"), ("a", "2"), ("b", "3")]
    corpus = table(tmp_path / f"a.{ending}", [{"session": name, "query": query} for name, query in lines])
    dialogues, errors = read(replace(corpus, sort=True))
    assert not errors
    assert [(d.id, [turn.request for turn in d.turns]) for d in dialogues] == [("a", ["1", "2"]), ("b", ["1", "2", "3"]), ("c", ["1"])]


def test_rows_that_stand_apart_are_in_the_order_of_their_times(tmp_path: Path) -> None:
    lines = [("a", "3", "12:03"), ("b", "x", ""), ("a", "after 3", ""), ("a", "1", "12:01"), ("a", "2", "12:02"), ("a", "also 2", "12:02")]
    corpus = table(tmp_path / "a.csv", [{"session": s, "query": q, "at": at and f"2024-05-01 {at}"} for s, q, at in lines])
    dialogues, _ = read(replace(corpus, sort=True))
    assert [turn.request for turn in dialogues[0].turns] == ["1", "2", "also 2", "3", "after 3"]


def test_a_row_that_cannot_be_read_is_rejected_alone_where_rows_stand_apart(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("session,query\na,1\nb,2\nb,3,4\na,5\n,6\n")
    dialogues, errors = read(Table(str(tmp_path / "a.csv"), COLUMNS, SPEAKERS, sort=True))
    assert [(d.id, [turn.request for turn in d.turns]) for d in dialogues] == [("a", ["1", "5"]), ("b", ["2"])]
    assert [(error.row, error.field) for error in errors] == [(3, "record"), (5, "session")]
    assert "The dialogue of this row is read without it" in errors[0].problem


@given(st.lists(st.tuples(st.sampled_from("abcdé"), st.integers(0, 9)), max_size=40))
def test_gathering_is_a_stable_sort(keys: list[tuple[str, int]]) -> None:
    rows = [Line("a.csv", k, {"session": name, "k": number}) for k, (name, number) in enumerate(keys)]
    groups = list(gathered(rows, lambda row: row["session"], lambda row: None))
    assert [line for group in groups for line in group.lines] == sorted(rows, key=lambda line: line.row["session"])
    assert [group.identity for group in groups] == sorted({name for name, _ in keys})


def test_gathering_takes_little_memory() -> None:
    rows = (Line("a.csv", k, {"session": f"{k * 7919 % 10007 % 500}", "words": "x" * 1000}) for k in range(20_000))
    tracemalloc.start()
    assert sum(len(group.lines) for group in gathered(rows, lambda row: row["session"], lambda row: None)) == 20_000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * 2**20, "the rows have 20 MB"


def test_columns_without_a_use_cost_nothing(tmp_path: Path) -> None:
    beyond = pa.array([2**62, 1], pa.timestamp("us"))  # the year 148107: Python has no such time
    columns = {"session": ["a", "a"], "query": ["x", "y"], "expires": beyond, "at": pa.array([1714564800123456789] * 2, pa.timestamp("ns"))}
    pq.write_table(pa.table(columns), tmp_path / "a.parquet", version="2.6")
    ((dialogue,), errors) = read(Table(str(tmp_path / "a.parquet"), {**COLUMNS, "timestamp": "at"}, SPEAKERS))
    assert not errors
    assert dialogue.turns[1].timestamp == datetime(2024, 5, 1, 12, microsecond=123456, tzinfo=UTC)


def test_a_message_without_anything_is_no_turn_and_cells_of_the_other_speaker_are_counted(tmp_path: Path) -> None:
    rows: list[Cells] = [
        {"session": 1, "who": "caller", "words": "", "nlu": "", "bad": ""},
        {"session": 1, "who": "caller", "words": "hi", "nlu": "Greet", "bad": "true"},
        {"session": 1, "who": "bot", "words": "hello", "nlu": "Greet", "bad": "false"},
        {"session": 2, "who": "caller", "words": ""},
    ]
    corpus = table(tmp_path / "a.csv", rows, MESSAGE)
    (dialogue,), errors = read(corpus)
    assert [(turn.request, turn.response, turn.intent, turn.defect) for turn in dialogue.turns] == [("hi", "hello", "Greet", False)]
    assert not errors
    assert corpus.left_out == {
        "rows of the user without a text": 2,
        "dialogues without a message": 1,
        "values of column 'bad' in rows of the user": 1,
        "values of column 'nlu' in rows of the assistant": 1,
    }


def test_a_number_with_underscores_is_left_out(tmp_path: Path) -> None:
    corpus = table(tmp_path / "a.csv", [{"session": 1, "query": "hi", "asr": "1_000"}], numerical=["asr"])
    (dialogue,), _ = read(corpus)
    assert not dialogue.turns[0].numerical
    assert corpus.left_out == {"values of column 'asr'": 1}


# -- rows without anything, and ids ----------------------------------------------------------------------------------------------


def written_rows(path: Path, lines: Sequence[tuple[str | None, str | None]]) -> Path:
    """A table with the columns session and query, and a row number that the corpus does not read."""
    if path.suffix == ".csv":
        rows = ["" if line == (None, None) else ",".join(cell or "" for cell in line) + "," for line in lines]
        path.write_text("session,query,note\n" + "\n".join(rows) + "\n")
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps({"session": session, "query": query, "note": "x"}) + "\n" for session, query in lines))
    else:
        pq.write_table(
            pa.table({"session": [line[0] for line in lines], "query": [line[1] for line in lines], "note": ["x"] * len(lines)}), path
        )
    return path


@pytest.mark.parametrize("sort", [False, True])
@pytest.mark.parametrize("ending", [*ENDINGS, "jsonl"])
def test_rows_without_anything_are_no_turns_and_are_counted(
    ending: str, sort: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Blank ones, also in the middle of a dialogue and at the end; and those that have an id alone."""
    lines = [("a", "1"), (None, None), ("", " "), ("a", "2"), ("b", None), ("c", ""), ("c", "3"), (None, None), ("", "")]
    dialogues, errors = read(Table(str(written_rows(tmp_path / f"a.{ending}", lines)), COLUMNS, SPEAKERS, sort=sort))
    assert not errors
    assert [(d.id, [turn.request for turn in d.turns]) for d in dialogues] == [("a", ["1", "2"]), ("c", ["3"])]
    file = tmp_path / f"a.{ending}"
    assert [record.message for record in caplog.records] == [
        "1 dialogue without a message was left out",
        f"2 rows without a request or a response were left out, such as {file}, row 5",
        f"4 rows without a value were left out, such as {file}, row 2",
    ]


def test_rows_that_say_something_besides_words_are_turns(tmp_path: Path) -> None:
    lines = [
        {"session": "a", "query": "", "bad": "no"},
        {"session": "a", "wav": "a.wav"},
        {"session": "a", "asr": "0"},
        {"session": "a", "nlu": "X"},
    ]
    ((dialogue,), _) = read(table(tmp_path / "a.csv", [*lines, {"session": "a", "at": "2024-05-01", "caller": "u"}], numerical=["asr"]))
    assert [(t.defect, t.audio, t.numerical, t.intent) for t in dialogue.turns] == [
        (False, None, {}, None), (None, "a.wav", {}, None), (None, None, {"asr": 0.0}, None), (None, None, {}, "X")
    ]  # fmt: skip
    assert dialogue.user == "u"


@pytest.mark.parametrize("ids", [["1", "1 ", " 1"], [1, "1", 1.0]])
def test_an_id_is_its_text_without_the_space_around_it(ids: list[Any], tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text("".join(json.dumps({"session": name, "query": "x"}) + "\n" for name in [*ids, "1 1"]))
    dialogues, errors = read(Table(str(file), COLUMNS, SPEAKERS))
    assert not errors
    assert [(d.id, len(d.turns)) for d in dialogues] == [("1", 3), ("1 1", 1)]


def test_ids_that_have_lost_digits_are_refused(tmp_path: Path) -> None:
    """As pandas writes whole numbers next to missing ones."""
    pq.write_table(pa.table({"session": [1.0, float(2**53), 2.0**53 + 2], "query": ["x", "y", "z"]}), tmp_path / "a.parquet")
    dialogues, errors = read(Table(str(tmp_path / "a.parquet"), COLUMNS, SPEAKERS, sort=True))
    assert [d.id for d in dialogues] == ["1"]
    assert [error.row for error in errors] == [2, 3]
    assert "is a float that may have lost digits; write ids as text" in errors[0].problem
    pq.write_table(pa.table({"session": [2**53, 2**53 + 1], "query": ["x", "y"]}), tmp_path / "a.parquet")
    assert [d.id for d in read(Table(str(tmp_path / "a.parquet"), COLUMNS, SPEAKERS))[0]] == [str(2**53), str(2**53 + 1)]


def test_binary_columns_hold_text(tmp_path: Path) -> None:
    pq.write_table(pa.table({"session": [b"a", b"b"], "query": ["é".encode(), b"\xff"]}), tmp_path / "a.parquet")
    (dialogue,), (error,) = read(Table(str(tmp_path / "a.parquet"), COLUMNS, SPEAKERS))
    assert (dialogue.id, dialogue.turns[0].request) == ("a", "é")
    assert (error.row, error.dialogue_id, error.field) == (2, "b", "turns.0.request")
