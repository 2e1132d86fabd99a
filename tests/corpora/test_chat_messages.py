"""Chat messages: each rule on rows made here, in both formats; bad rows reported by message and field."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from labelgen.corpora.chat_messages import ChatMessages
from labelgen.dialogue import Dialogue, RecordError, Turn

Json = dict[str, Any]
NOON = datetime(2024, 5, 1, 12, tzinfo=UTC)


def user(content: Any, **more: Any) -> Json:
    return {"role": "user", "content": content, **more}


def assistant(content: Any, *tools: str, **more: Any) -> Json:
    called = [{"id": f"c{k}", "type": "function", "function": {"name": name, "arguments": "{}"}} for k, name in enumerate(tools)]
    return {"role": "assistant", "content": content, **({"tool_calls": called} if tools else {}), **more}


def tool(content: str, identity: str = "c0") -> Json:
    return {"role": "tool", "tool_call_id": identity, "content": content}


def read(path: Path, *rows: Any) -> tuple[list[Dialogue], list[RecordError]]:
    file = path / "chat.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    errors: list[RecordError] = []
    return list(ChatMessages(str(file)).read(errors.append)), errors


def only(path: Path, *messages: Json, **columns: Any) -> Dialogue:
    (dialogue,), errors = read(path, {"id": "a", "messages": list(messages), **columns})
    assert not errors
    return dialogue


def words(dialogue: Dialogue) -> list[tuple[str | None, str | None]]:
    return [(turn.request, turn.response) for turn in dialogue.turns]


def test_requests_and_responses(tmp_path: Path) -> None:
    dialogue = only(
        tmp_path, {"role": "system", "content": "Be kind."}, assistant("Welcome."), user("Are"), user("you there?"), assistant("Yes."),
        assistant("Still here."), {"role": "developer", "content": "Be brief."}, user("Bye"),
    )  # fmt: skip
    assert words(dialogue) == [(None, "Welcome."), ("Are", None), ("you there?", "Yes."), (None, "Still here."), ("Bye", None)]
    assert dialogue.metadata == {"messages": {"system": "Be kind.\nBe brief."}}
    assert [turn.numerical.get("tool_calls") for turn in dialogue.turns] == [0, None, 0, 0, None]


def test_messages_around_tool_calls_are_one_response(tmp_path: Path) -> None:
    dialogue = only(
        tmp_path,
        user("Weather and time?"), assistant("Let me look."), assistant(None, "weather", "clock"), tool("noon", "c1"), tool("rain", "c0"),
        assistant("And again.", "weather"), tool("sun"), assistant("Sun at noon."), assistant("Anything else?"),
        user("No"), assistant("Fine."),
    )  # fmt: skip
    assert words(dialogue) == [
        ("Weather and time?", "Let me look.\nAnd again.\nSun at noon."), (None, "Anything else?"), ("No", "Fine."),
    ]  # fmt: skip
    assert [turn.categorical for turn in dialogue.turns] == [{"tool": "weather+clock"}, {}, {}]
    assert [turn.numerical for turn in dialogue.turns] == [{"tool_calls": 3}, {"tool_calls": 0}, {"tool_calls": 0}]
    calls = dialogue.metadata["messages"]["tool_calls"]
    assert [(call["turn"], call["name"], call["arguments"], call["result"]) for call in calls] == [
        (0, "weather", "{}", "rain"), (0, "clock", "{}", "noon"), (0, "weather", "{}", "sun"),
    ]  # fmt: skip


def test_a_call_without_words_is_a_turn_and_the_older_form_is_read(tmp_path: Path) -> None:
    dialogue = only(
        tmp_path, user("Lights"), {"role": "assistant", "content": None, "function_call": {"name": "switch", "arguments": '{"on": 1}'}},
        {"role": "function", "name": "switch", "content": "ok"},
    )  # fmt: skip
    assert words(dialogue) == [("Lights", None)]
    assert dialogue.turns[0].categorical == {"tool": "switch"}
    assert dialogue.metadata["messages"]["tool_calls"] == [{"turn": 0, "name": "switch", "arguments": '{"on": 1}', "result": "ok"}]


def test_a_log_that_begins_with_a_result_is_read(tmp_path: Path) -> None:
    dialogue = only(tmp_path, tool("rain", "c9"), assistant("It rains."))
    assert words(dialogue) == [(None, "It rains.")]
    assert dialogue.metadata["messages"]["tool_calls"] == [{"turn": 0, "name": None, "id": "c9", "result": "rain"}]


@pytest.mark.parametrize(
    "part",
    [
        {"type": "audio", "audio": "a.wav"}, {"type": "audio", "path": "a.wav"}, {"type": "audio", "url": "a.wav"},
        {"type": "audio_url", "audio_url": {"url": "a.wav"}}, {"type": "audio", "audio": {"path": "a.wav", "bytes": None}},
    ],
)  # fmt: skip
def test_parts(tmp_path: Path, part: Json) -> None:
    dialogue = only(
        tmp_path,
        user([{"type": "text", "text": "What"}, {"type": "input_text", "text": "is this?"}, {"type": "image_url", "url": "x"}]),
        assistant([{"type": "output_text", "text": "A cat."}, {"type": "refusal", "refusal": "No more."}, part]),
        user([part, {"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}}]),
    )  # fmt: skip
    assert words(dialogue) == [("What\nis this?", "A cat.\nNo more."), (None, None)]
    assert [turn.audio for turn in dialogue.turns] == [None, "a.wav"]
    noted = [(note["message"], note["type"]) for note in dialogue.metadata["messages"]["parts"]]
    assert noted == [(0, "image_url"), (1, part["type"]), (2, "input_audio")]


def test_recordings_within_the_row_are_left_out(tmp_path: Path) -> None:
    part = {"type": "audio_url", "audio_url": {"url": "data:audio/wav;base64,UklGRg=="}}
    dialogue = only(tmp_path, user([part]))
    assert dialogue.turns[0].audio is None
    assert dialogue.metadata["messages"]["parts"] == [{"message": 0, "type": "audio_url"}]


def test_words_beside_null_content(tmp_path: Path) -> None:
    spoken = assistant(None, audio={"id": "x", "transcript": "Spoken."})
    assert words(only(tmp_path, user("Hi"), spoken, user("Do"), assistant(None, refusal="I will not."))) == [
        ("Hi", "Spoken."), ("Do", "I will not."),
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["timestamp", "created_at", "created"])
def test_times(tmp_path: Path, name: str) -> None:
    messages = [user("a"), assistant("b"), user("c", **{name: "2024-05-01T14:00:00+02:00"}), assistant("d", **{name: 1714564999})]
    dialogue = only(tmp_path, *messages, assistant("e", **{name: 1714564800}), **{name: 1714564800})
    assert [turn.timestamp for turn in dialogue.turns] == [NOON, NOON, NOON]


def test_ids_users_and_other_columns(tmp_path: Path) -> None:
    messages = [user("hi", rating=1), assistant("hello")]
    rows = [
        {"id": 3, "session_id": "s", "messages": messages}, {"conversation_id": "c", "user": "u", "messages": messages},
        {"session_id": "s", "messages": messages}, {"messages": json.dumps(messages[:1])},
        {"messages": messages, "source": "web", "tools": [{"name": "x"}], "nothing": None},
    ]  # fmt: skip
    dialogues, errors = read(tmp_path, *rows)
    assert not errors
    assert [dialogue.id for dialogue in dialogues[:3]] == ["3", "c", "s"]
    assert [dialogue.user for dialogue in dialogues[:2]] == [None, "u"]
    assert dialogues[4].metadata == {"source": "web", "tools": [{"name": "x"}], "messages": {"other": [{"message": 0, "rating": 1}]}}
    assert all(dialogue.id.startswith("chat:") for dialogue in dialogues[3:])
    assert dialogues[3].id != dialogues[4].id
    assert words(dialogues[3]) == [("hi", None)]


def test_equal_conversations_without_ids_are_one(tmp_path: Path) -> None:
    dialogues, (error,) = read(
        tmp_path, {"messages": [user("hi")]}, {"messages": [user("hi")], "source": "web"}, {"messages": [user("ho")]}
    )
    assert len(dialogues) == 2
    assert (error.row, error.dialogue_id, error.field) == (2, dialogues[0].id, "id")


def test_parquet_reads_as_jsonl(tmp_path: Path) -> None:
    row = {"id": "a", "messages": [user("Weather?", created_at=NOON), assistant(None, "weather"), tool("rain"), assistant("Rain.")]}
    pq.write_table(pa.Table.from_pylist([{**row, "day": NOON.date(), "score": float("nan"), "raw": b"12"}]), tmp_path / "1.parquet")
    plain = [{**message, "created_at": NOON.isoformat()} if "created_at" in message else message for message in row["messages"]]
    (tmp_path / "2.jsonl").write_text(json.dumps({**row, "id": "b", "messages": plain}) + "\n")
    first, second = ChatMessages(str(tmp_path)).read()
    assert first.turns == second.turns
    assert first.turns == [
        Turn(request="Weather?", response="Rain.", timestamp=NOON, categorical={"tool": "weather"}, numerical={"tool_calls": 1})
    ]
    assert first.metadata == {**second.metadata, "day": "2024-05-01", "score": None, "raw": "2 bytes"}


@pytest.mark.parametrize(
    ("row", "field", "message"),
    [
        ({"conversations": []}, "messages", "conversations"),
        ({"messages": "[{"}, "messages", "JSON"),
        ({"messages": {"role": "user"}}, "messages", "list"),
        ({"messages": ["hi"]}, "messages", "list of objects"),
        ({"messages": []}, "messages", "no message"),
        ({"messages": [{"role": "system", "content": "x"}]}, "messages", "no message"),
        ({"messages": [user("x"), {"role": "human", "content": "x"}]}, "messages.1.role", "'human'"),
        ({"messages": [{"content": "x"}]}, "messages.0.role", "None"),
        ({"messages": [user(3)]}, "messages.0.content", "int"),
        ({"messages": [user([{"text": "x"}])]}, "messages.0.content.0", "type"),
        ({"messages": [user([{"type": "text"}])]}, "messages.0.content.0", "text"),
        ({"messages": [assistant(None, tool_calls={"name": "x"})]}, "messages.0.tool_calls", "list"),
        ({"messages": [assistant(None, tool_calls=[{"id": "c"}])]}, "messages.0.tool_calls", "names no function"),
        ({"messages": [user("x", created_at="soon")]}, "messages.0.created_at", "'soon'"),
        ({"messages": [user("x")], "timestamp": "soon"}, "timestamp", "ISO 8601"),
    ],
)
def test_bad_rows_name_the_field_and_reading_continues(tmp_path: Path, row: Json, field: str, message: str) -> None:
    dialogues, (error,) = read(tmp_path, {"id": "bad", **row}, {"id": "good", "messages": [user("hi")]})
    assert [dialogue.id for dialogue in dialogues] == ["good"]
    assert (error.source, error.row, error.dialogue_id, error.field) == (str(tmp_path / "chat.jsonl"), 1, "bad", field)
    assert message in error.problem
    with pytest.raises(RecordError):
        list(ChatMessages(str(tmp_path)).read())


def test_a_row_that_is_nested_too_deep_does_not_stop_the_run(tmp_path: Path) -> None:
    deep = json.loads("[" * 900 + "]" * 900)
    dialogues, errors = read(tmp_path, {"id": "bad", "deep": deep, "messages": [user("x")]}, {"id": "good", "messages": [user("hi")]})
    assert [dialogue.id for dialogue in dialogues] == ["good"]
    assert [error.dialogue_id for error in errors] == ["bad"]


def test_a_missing_path_is_reported(tmp_path: Path) -> None:
    (tmp_path / "a.csv").touch()
    for path, message in ((tmp_path / "none", "no such"), (tmp_path, "holds no"), (tmp_path / "a.csv", "`messages`")):
        with pytest.raises(ValueError, match=message):
            list(ChatMessages(str(path)).read())
