"""Chat messages: each rule on rows made here, in both formats; bad rows reported by message and field."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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


def corpus_of(path: Path, *rows: Any, **settings: Any) -> ChatMessages:
    file = path / "chat.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return ChatMessages(str(file), **settings)


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


@pytest.mark.parametrize(
    "part",
    [
        {"type": "audio_url", "audio_url": {"url": "data:audio/wav;base64,UklGRg=="}},
        {"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}},
        {"type": "audio", "audio": "UklGRg==" * 600},
        {"type": "file", "mediaType": "audio/wav", "url": "data:audio/wav;base64,UklGRg=="},
        {"type": "blob", "modality": "audio", "mime_type": "audio/wav", "content": "UklGRg=="},
    ],
)
def test_recordings_within_the_row_are_left_out_and_counted(tmp_path: Path, part: Json) -> None:
    corpus = corpus_of(tmp_path, {"id": "a", "messages": [user([{"type": "text", "text": "Hear this."}, part])]})
    (dialogue,) = corpus.read()
    assert dialogue.turns == [Turn(request="Hear this.")]
    assert dialogue.metadata["messages"]["parts"] == [{"message": 0, "type": part["type"]}]
    assert corpus.summary.left_out == {f"parts of type {part['type']}": 1}


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


def test_times_that_cannot_be_read_are_counted_and_kept(tmp_path: Path) -> None:
    local = "25.11.2026 10:00"
    corpus = corpus_of(tmp_path, {"id": "a", "created": local, "messages": [user("x", timestamp=local), user("y", timestamp=1714564800)]})
    (dialogue,) = corpus.read()
    assert [turn.timestamp for turn in dialogue.turns] == [None, NOON]
    assert dialogue.metadata == {"created": local, "messages": {"other": [{"message": 0, "timestamp": local}]}}
    assert corpus.summary.left_out == {"times in 'created'": 1, "times in 'timestamp'": 1}
    assert "a, messages.0.timestamp" in corpus.summary.left_out.examples["times in 'timestamp'"]


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
    assert dialogues[0].metadata["session_id"] == "s", "an id that is not the dialogue's is kept"
    assert dialogues[4].metadata == {"source": "web", "tools": [{"name": "x"}], "messages": {"other": [{"message": 0, "rating": 1}]}}
    assert all(dialogue.id.startswith("chat:") for dialogue in dialogues[3:])
    assert dialogues[3].id != dialogues[4].id
    assert words(dialogues[3]) == [("hi", None)]


def test_equal_conversations_without_ids_are_kept_under_ids_of_their_own(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = [{"messages": [user("hi")], "source": name} for name in "abc"]
    corpus = corpus_of(tmp_path, rows[0], {"messages": [user("ho")]}, *rows[1:])
    dialogues = list(corpus.read())
    first = dialogues[0].id
    assert [dialogue.id for dialogue in dialogues] == [first, dialogues[1].id, f"{first}-2", f"{first}-3"]
    assert [dialogue.metadata["source"] for dialogue in dialogues if "source" in dialogue.metadata] == ["a", "b", "c"]
    assert list(corpus.read()) == dialogues, "the same at each reading"
    assert (corpus.summary.without_id, corpus.summary.repeated) == (4, 2)
    assert "conversations without an id that equal an earlier one: 2" in caplog.text


def test_a_repeated_id_of_the_log_itself_is_rejected(tmp_path: Path) -> None:
    dialogues, (error,) = read(tmp_path, {"id": "a", "messages": [user("hi")]}, {"id": "a", "messages": [user("ho")]})
    assert len(dialogues) == 1
    assert (error.row, error.dialogue_id, error.field) == (2, "a", "id")


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
        ({"turns": [{"who": "x"}], "day": 1}, "messages", "set corpus.messages=turns"),
        ({"day": 1}, "messages", "the columns: day, id"),
        ({"input": "a", "output": "b"}, "messages", "set corpus.messages"),
        ({"conversations": []}, "conversations", "no message"),
        ({"conversations": [], "messages": []}, "messages", "set corpus.format"),
        ({"messages": "[{"}, "messages", "JSON"),
        ({"messages": {"role": "user"}}, "messages", "list"),
        ({"messages": ["hi"]}, "messages", "list of objects"),
        ({"messages": []}, "messages", "no message"),
        ({"messages": [{"role": "system", "content": "x"}]}, "messages", "no message"),
        ({"messages": [user("x"), {"role": "agent", "content": "x"}]}, "messages.1.role", "{agent: user}"),
        ({"messages": [{"content": "x"}]}, "messages.0.role", "None"),
        ({"messages": [user(3)]}, "messages.0.content", "int"),
        ({"messages": [user([{"words": "x"}])]}, "messages.0.content.0", "type"),
        ({"messages": [user([{"type": "text"}])]}, "messages.0.content.0", "text"),
        ({"messages": [assistant(None, tool_calls={"name": "x"})]}, "messages.0.tool_calls", "list"),
        ({"messages": [assistant(None, tool_calls=[{"id": "c"}])]}, "messages.0.tool_calls", "names no function"),
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


# -- nothing is lost in silence --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "words_of_it"),
    [
        ({"parts": ["one", "two"]}, "one\ntwo"),
        ({"parts": [{"type": "text", "text": "one"}, {"type": "text", "content": "two"}]}, "one\ntwo"),
        ({"parts": [{"text": "one"}]}, "one"),
        ({"content": {"content_type": "text", "parts": ["one"]}}, "one"),
        ({"content": "", "text": "one"}, "one"),
        ({"content": None, "value": "one"}, "one"),
        ({"content": "one", "parts": [{"type": "text", "text": "one"}]}, "one"),
    ],
)
def test_words_under_other_keys_are_read(tmp_path: Path, message: Json, words_of_it: str) -> None:
    dialogue = only(tmp_path, {"role": "user", **message}, {"role": "assistant", **message})
    assert words(dialogue) == [(words_of_it, words_of_it)]
    assert not dialogue.metadata


def test_fields_that_are_not_read_are_kept(tmp_path: Path) -> None:
    dialogue = only(tmp_path, user("a", name="Ann", tool_call_id="c9", type="message"), assistant("b", function_call=None, tool_calls=[]))
    assert dialogue.metadata["messages"] == {"other": [{"message": 0, "name": "Ann", "tool_call_id": "c9"}]}


def test_words_that_differ_from_the_content_are_kept(tmp_path: Path) -> None:
    dialogue = only(tmp_path, user("one", text="<b>uno</b>"), tool("rain", "c1") | {"text": "rain!"})
    assert words(dialogue) == [("one", None)]
    assert dialogue.metadata["messages"]["other"] == [{"message": 0, "text": "<b>uno</b>"}, {"message": 1, "text": "rain!"}]


@pytest.mark.parametrize(
    ("message", "held"),
    [
        (user(""), "without words"), (user(None), "without words"), (user("  \n"), "without words"), (user([]), "without words"),
        (assistant(""), "without words"), (user([{"type": "image_url", "image_url": {"url": "x"}}]), "only image_url"),
        (assistant([{"type": "thinking", "thinking": "hm"}]), "only reasoning"),
        (assistant([{"type": "audio", "audio": "a.wav"}]), "only audio"), ({"role": "user"}, "without words"),
    ],
)  # fmt: skip
def test_a_message_without_words_is_rejected_or_skipped_on_request(tmp_path: Path, message: Json, held: str) -> None:
    row = {"id": "bad", "messages": [user("hi"), message, assistant("hello")]}
    dialogues, (error,) = read(tmp_path, row)
    assert not dialogues
    assert (error.row, error.field) == (1, "messages.1.content")
    assert held in error.problem and "without_words=skip" in error.problem
    corpus = ChatMessages(str(tmp_path / "chat.jsonl"), without_words="skip")
    (dialogue,) = corpus.read()
    assert words(dialogue) == [("hi", "hello")]
    assert corpus.summary.left_out[f"messages of {message['role']} without words"] == 1


def test_parts_that_are_left_out_are_counted_in_one_line_per_kind(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    image, encrypted = {"type": "image_url", "image_url": {"url": "x"}}, {"type": "redacted_thinking", "data": "Zm9v"}
    text = {"type": "text", "text": "see"}
    rows = [[user([text, image, image]), assistant([encrypted, text])], [user([text, image])], [user([text, image]), user("")]]
    corpus = corpus_of(tmp_path, *({"id": f"{k}", "messages": row} for k, row in enumerate(rows)))
    assert len(list(corpus.read(lambda error: None))) == 2
    assert corpus.summary.left_out == {"parts of type image_url": 3, "parts of type redacted_thinking": 1}
    assert corpus.summary.parts == {"text": 3, "image_url": 3, "redacted_thinking": 1}
    assert caplog.messages == ["3 parts of type image_url were left out", "1 part of type redacted_thinking was left out"]


@pytest.mark.parametrize(
    "message",
    [
        assistant([{"type": "reasoning_text", "text": "hm"}, {"type": "output_text", "text": "Yes."}]),
        assistant([{"type": "thinking", "thinking": "hm", "signature": "s"}, {"type": "text", "text": "Yes."}]),
        assistant([{"type": "reasoning", "text": "hm"}, {"type": "text", "text": "Yes."}]),
        assistant([{"type": "reasoning", "reasoning": "hm", "details": []}, {"type": "text", "text": "Yes."}]),
        assistant([{"type": "reasoning", "content": "hm"}, {"type": "text", "content": "Yes."}]),
        assistant([{"text": "hm", "thought": True}, {"text": "Yes."}]),
        assistant("Yes.", reasoning_content="hm"), assistant("Yes.", thinking="hm"), assistant("Yes.", reasoning="hm"),
    ],
)  # fmt: skip
def test_reasoning_is_never_the_response(tmp_path: Path, message: Json) -> None:
    dialogue = only(tmp_path, user("Really?"), message)
    assert words(dialogue) == [("Really?", "Yes.")]
    assert dialogue.metadata["messages"]["reasoning"] == [{"message": 1, "text": "hm"}]


WEATHER = {"city": "Rome"}
OUTPUT = {"type": "json", "value": {"sky": "rain"}}
SAME_CALL: dict[str, list[Json]] = {
    "openai": [
        {
            "role": "assistant",
            "content": "Let me look.",
            "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "weather", "arguments": WEATHER}}],
        },
        {"role": "tool", "tool_call_id": "c1", "content": {"sky": "rain"}},
        assistant("Rain."),
    ],
    "responses": [
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Let me look."}]},
        {"type": "function_call", "id": "fc", "call_id": "c1", "name": "weather", "arguments": WEATHER},
        {"type": "function_call_output", "call_id": "c1", "output": {"sky": "rain"}},
        {"type": "reasoning", "summary": []},
        assistant("Rain."),
    ],
    "anthropic": [
        assistant([{"type": "text", "text": "Let me look."}, {"type": "tool_use", "id": "c1", "name": "weather", "input": WEATHER}]),
        user([{"type": "tool_result", "tool_use_id": "c1", "content": {"sky": "rain"}}]),
        assistant([{"type": "text", "text": "Rain."}]),
    ],
    "anthropic server tools": [
        assistant(
            [
                {"type": "text", "text": "Let me look."},
                {"type": "server_tool_use", "id": "c1", "name": "weather", "input": WEATHER},
                {"type": "web_search_tool_result", "tool_use_id": "c1", "content": {"sky": "rain"}},
                {"type": "text", "text": "Rain."},
            ]
        ),
    ],
    "ai sdk model messages": [
        assistant(
            [{"type": "text", "text": "Let me look."}, {"type": "tool-call", "toolCallId": "c1", "toolName": "weather", "input": WEATHER}]
        ),
        {"role": "tool", "content": [{"type": "tool-result", "toolCallId": "c1", "toolName": "weather", "output": OUTPUT}]},
        assistant("Rain."),
    ],
    "ai sdk 4": [
        {
            "role": "assistant",
            "content": "Let me look.\nRain.",
            "parts": [
                {"type": "text", "text": "Let me look."},
                {"type": "step-start"},
                {
                    "type": "tool-invocation",
                    "toolInvocation": {
                        "state": "result",
                        "toolCallId": "c1",
                        "toolName": "weather",
                        "args": WEATHER,
                        "result": {"sky": "rain"},
                    },
                },
                {"type": "text", "text": "Rain."},
            ],
            "toolInvocations": [{"state": "result", "toolCallId": "c1", "toolName": "weather", "args": WEATHER, "result": {"sky": "rain"}}],
        },
    ],
    "ai sdk static": [
        {
            "role": "assistant",
            "parts": [
                {"type": "text", "text": "Let me look."},
                {"type": "tool-weather", "toolCallId": "c1", "state": "output-available", "input": WEATHER, "output": {"sky": "rain"}},
                {"type": "step-start"},
                {"type": "text", "text": "Rain."},
            ],
        },
    ],
    "ai sdk dynamic": [
        {
            "role": "assistant",
            "parts": [
                {"type": "text", "text": "Let me look."},
                {
                    "type": "dynamic-tool",
                    "toolName": "weather",
                    "toolCallId": "c1",
                    "state": "output-available",
                    "input": WEATHER,
                    "output": {"sky": "rain"},
                },
                {"type": "text", "text": "Rain."},
            ],
        },
    ],
    "opentelemetry": [
        {
            "role": "assistant",
            "parts": [
                {"type": "text", "content": "Let me look."},
                {"type": "tool_call", "id": "c1", "name": "weather", "arguments": WEATHER},
            ],
        },
        {"role": "tool", "parts": [{"type": "tool_call_response", "id": "c1", "response": {"sky": "rain"}}]},
        {"role": "assistant", "parts": [{"type": "text", "content": "Rain."}]},
    ],
    "gemini": [
        {"role": "model", "parts": [{"text": "Let me look."}, {"functionCall": {"id": "c1", "name": "weather", "args": WEATHER}}]},
        {"role": "user", "parts": [{"functionResponse": {"id": "c1", "name": "weather", "response": {"sky": "rain"}}}]},
        {"role": "model", "parts": [{"text": "Rain."}]},
    ],
    "a user's own": [
        assistant("Let me look."),
        {"role": "user", "tool_calls": [{"id": "c1", "function": {"name": "weather", "arguments": WEATHER}}]},
        {"role": "tool", "tool_call_id": "c1", "content": {"sky": "rain"}},
        assistant("Rain."),
    ],
}


@pytest.mark.parametrize("messages", SAME_CALL.values(), ids=SAME_CALL)
def test_tool_calls_of_all_formats_land_in_the_same_place(tmp_path: Path, messages: list[Json]) -> None:
    dialogue = only(tmp_path, user("Weather?"), *messages, user("Thanks"))
    assert words(dialogue) == [("Weather?", "Let me look.\nRain."), ("Thanks", None)]
    assert dialogue.metadata["messages"]["tool_calls"] == [
        {"turn": 0, "name": "weather", "arguments": WEATHER, "id": "c1", "result": {"sky": "rain"}}
    ]
    assert dialogue.turns[0].categorical == {"tool": "weather"}
    assert dialogue.turns[0].numerical == {"tool_calls": 1}


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        (
            {"type": "tool-book", "toolCallId": "c", "state": "output-error", "input": {}, "errorText": "full"},
            {"arguments": {}, "result": "full", "error": True},
        ),
        (
            {"type": "tool-book", "toolCallId": "c", "state": "output-denied", "input": {}, "approval": {"id": "x"}},
            {"arguments": {}, "result": "denied", "error": True},
        ),
        ({"type": "tool-book", "toolCallId": "c", "state": "input-available", "input": {"n": 1}}, {"arguments": {"n": 1}}),
        ({"type": "tool-call", "toolCallId": "c", "toolName": "book", "args": {"n": 1}}, {"arguments": {"n": 1}}),
    ],
)
def test_calls_without_a_result_or_that_fail(tmp_path: Path, part: Json, expected: Json) -> None:
    dialogue = only(tmp_path, user("Book"), {"role": "assistant", "parts": [part]}, user("And?"))
    assert words(dialogue) == [("Book", None), ("And?", None)]
    assert dialogue.metadata["messages"]["tool_calls"] == [{"turn": 0, "name": "book", "id": "c", **expected}]


def test_a_failed_result_and_its_parts(tmp_path: Path) -> None:
    content = [{"type": "text", "text": "no"}, {"type": "text", "text": "seats"}, {"type": "image", "source": {"data": "Zm9v"}}]
    corpus = corpus_of(tmp_path, {"id": "a", "messages": [
        user("Book"), assistant([{"type": "tool_use", "id": "c", "name": "book", "input": {}}]),
        user([{"type": "tool_result", "tool_use_id": "c", "content": content, "is_error": True}, {"type": "text", "text": "And now?"}]),
        assistant("It is full."),
    ]})  # fmt: skip
    (dialogue,) = corpus.read()
    assert words(dialogue) == [("Book", None), ("And now?", "It is full.")]
    (call,) = dialogue.metadata["messages"]["tool_calls"]
    assert (call["result"], call["error"]) == ("no\nseats", True)
    assert corpus.summary.left_out == {"parts of type image": 1}


def test_a_message_that_ends_in_words_after_a_call_is_a_whole_response(tmp_path: Path) -> None:
    part = {"type": "tool-book", "toolCallId": "c", "state": "output-available", "input": {}, "output": "ok"}
    both = {"role": "assistant", "parts": [part, {"type": "text", "text": "Booked."}]}
    assert words(only(tmp_path, user("Book"), both, assistant("Anything else?"))) == [("Book", "Booked."), (None, "Anything else?")]


def test_calls_that_share_an_id_are_kept_and_one_call_under_two_keys_is_one(tmp_path: Path) -> None:
    call = {"type": "tool_use", "id": "c", "name": "book", "input": {"n": 1}}
    again = {"id": "c", "type": "function", "function": {"name": "book", "arguments": '{"n": 1}'}}
    dialogue = only(tmp_path, user("x"), assistant([call, {**call, "input": {"n": 2}}], tool_calls=[again]))
    assert [made["arguments"] for made in dialogue.metadata["messages"]["tool_calls"]] == [{"n": 1}, {"n": 2}]


def test_tools_are_named_once_each(tmp_path: Path) -> None:
    dialogue = only(tmp_path, user("x"), assistant(None, "b+c", "a", "b+c"), assistant(None, "a"))
    assert dialogue.turns[0].categorical == {"tool": "b+c+a"}
    assert dialogue.turns[0].numerical == {"tool_calls": 4}


@pytest.mark.parametrize(
    "part",
    [
        {"type": "file", "mediaType": "audio/wav", "url": "s3://logs/a.wav"}, {"type": "uri", "modality": "audio", "uri": "s3://logs/a.wav"},
        {"type": "input_audio", "input_audio": {"url": "s3://logs/a.wav"}}, {"type": "input_audio", "input_audio": {"path": "s3://logs/a.wav"}},
    ],
)  # fmt: skip
def test_recordings_of_other_formats(tmp_path: Path, part: Json) -> None:
    assert only(tmp_path, user([part]), assistant("I hear you.")).turns[0].audio == "s3://logs/a.wav"
    assert only(tmp_path, user(None, audio={"url": "s3://logs/a.wav"})).turns[0].audio == "s3://logs/a.wav"


@pytest.mark.parametrize(
    "part",
    [
        {"type": "audio", "path": "a.wav", "transcript": "Turn left."},
        {"type": "input_audio", "input_audio": {"path": "a.wav", "transcript": "Turn left."}},
    ],
)
def test_the_transcript_of_a_recording_is_its_words(tmp_path: Path, part: Json) -> None:
    dialogue = only(tmp_path, user([part]), user([{"type": "text", "text": "Turn  left."}, part]))
    assert words(dialogue) == [("Turn left.", None), ("Turn  left.", None)], "the same words count once"
    assert [turn.audio for turn in dialogue.turns] == ["a.wav", "a.wav"]


@pytest.mark.parametrize(
    ("given_fields", "expected"),
    [
        ({"output": "half", "errorText": "full"}, {"result": {"output": "half", "errorText": "full"}, "error": True}),
        ({"output": "done", "errorText": ""}, {"result": "done"}),
        ({"output": "done", "result": "done"}, {"result": "done"}),
    ],
)
def test_an_output_and_an_error_of_one_call_are_kept(tmp_path: Path, given_fields: Json, expected: Json) -> None:
    part = {"type": "tool-book", "toolCallId": "c", "state": "output-error", "input": {}, **given_fields}
    dialogue = only(tmp_path, user("Book"), {"role": "assistant", "parts": [part]})
    assert dialogue.metadata["messages"]["tool_calls"] == [{"turn": 0, "name": "book", "arguments": {}, "id": "c", **expected}]


TEXTS = st.text(st.characters(categories=["L", "N"]), min_size=1, max_size=8).map(lambda text: f"«{text}»")
KINDS = [
    "text",
    "input_text",
    "output_text",
    "thinking",
    "reasoning",
    "reasoning_text",
    "image",
    "file",
    "data-note",
    "tool_result",
    "made_up",
]
PARTS = st.builds(lambda kind, text: {"type": kind, "text": text, "content": text, "thinking": text}, st.sampled_from(KINDS), TEXTS)
CALLS = st.builds(lambda name, text: {"type": "tool_use", "name": name, "id": name, "input": {"x": text}}, TEXTS, TEXTS)
MESSAGES = st.builds(
    lambda role, key, value, extra: {"role": role, key: value, **extra},
    st.sampled_from(["system", "user", "assistant", "tool"]),
    st.sampled_from(["content", "parts"]),
    TEXTS | st.lists(PARTS | CALLS, min_size=1, max_size=4),
    st.dictionaries(st.sampled_from(["text", "refusal", "note", "thinking"]), TEXTS),
)


def texts_in(value: Any) -> set[str]:
    return set(re.findall("«[^»]*»", json.dumps(value, ensure_ascii=False)))


@given(st.lists(MESSAGES, min_size=1, max_size=6))
@settings(max_examples=60, deadline=None)
def test_every_text_is_in_the_dialogue_or_counted(messages: list[Json]) -> None:
    messages.append(user("«end»"))
    with TemporaryDirectory() as folder:
        corpus = corpus_of(Path(folder), {"id": "a", "messages": messages}, without_words="skip")
        (dialogue,) = corpus.read()
    unread = {"image", "file", "data-note", "made_up"}
    lost = [part for message in messages for part in parts_of(message) if part.get("type") in unread]
    given_texts = texts_in(messages) - {text for part in lost for text in texts_in(part)}
    assert given_texts <= texts_in(dialogue.model_dump(mode="json")) | {"«»"}
    counted = sum(number for kind, number in corpus.summary.left_out.items() if kind.startswith("parts"))
    assert counted == len(lost)
    assert all(turn.request or turn.response or turn.numerical.get("tool_calls") for turn in dialogue.turns)


def parts_of(message: Json) -> list[Json]:
    value = message.get("content") or message.get("parts")
    return value if isinstance(value, list) else []
