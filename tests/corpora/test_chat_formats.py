"""The formats of chat logs: each is recognised by its rows, and gives the dialogue that its messages hold."""

from __future__ import annotations

import csv
import json
import logging
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labelgen.corpora import chat_formats, chat_groups
from labelgen.corpora.chat_fields import Keys, Message
from labelgen.corpora.chat_messages import ChatMessages
from labelgen.corpora.chat_opentelemetry import as_lists
from labelgen.corpora.chat_parts import Contents, Tool
from labelgen.corpora.chat_spans import overlap
from labelgen.corpora.chat_turns import Conversation
from labelgen.dialogue import Dialogue, RecordError
from labelgen.io.files import hash64

Json = dict[str, Any]
NOON = datetime(2024, 5, 1, 12, tzinfo=UTC)
RAIN = {"city": "Rome"}


def corpus_of(folder: Path, *rows: Any, name: str = "chats.jsonl", **settings: Any) -> ChatMessages:
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return ChatMessages(str(folder), **settings)


def only(folder: Path, *rows: Any, **settings: Any) -> Dialogue:
    (dialogue,) = corpus_of(folder, *rows, **settings).read()
    return dialogue


def words(dialogue: Dialogue) -> list[tuple[str | None, str | None]]:
    return [(turn.request, turn.response) for turn in dialogue.turns]


def calls(dialogue: Dialogue) -> list[tuple[Any, ...]]:
    listed = dialogue.metadata["messages"]["tool_calls"]
    return [(call["turn"], call["name"], call["arguments"], call.get("id"), call.get("result")) for call in listed]


# -- a conversation per row ------------------------------------------------------------------------------------------------------


def test_sharegpt(tmp_path: Path) -> None:
    call = json.dumps({"name": "weather", "arguments": RAIN})
    pairs = [("human", "Weather?"), ("function_call", call), ("observation", '{"sky": "rain"}'), ("gpt", "Rain."), ("human", "Thanks")]
    turns = [{"from": speaker, "value": text} for speaker, text in pairs]
    dialogue = only(tmp_path, {"id": 1, "conversations": turns, "system": "Be kind.", "tools": "[]"})
    assert words(dialogue) == [("Weather?", "Rain."), ("Thanks", None)]
    assert calls(dialogue) == [(0, "weather", RAIN, None, '{"sky": "rain"}')]
    assert dialogue.turns[0].categorical == {"tool": "weather"}
    assert dialogue.metadata["messages"]["system"] == "Be kind."
    assert dialogue.metadata["tools"] == "[]"


def test_indices_of_messages_are_those_of_the_list(tmp_path: Path) -> None:
    messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello!", "thinking": "hm"}]
    dialogue = only(tmp_path, {"id": "a", "system": "Be kind.", "messages": messages})
    assert dialogue.metadata["messages"] == {"system": "Be kind.", "reasoning": [{"message": 1, "text": "hm"}]}


def test_sharegpt_preferences_end_in_the_chosen_message(tmp_path: Path) -> None:
    row = {
        "conversations": [{"from": "human", "value": "Hi"}],
        "chosen": {"from": "gpt", "value": "Hello!"},
        "rejected": {"from": "gpt", "value": "What."},
    }
    dialogue = only(tmp_path, row)
    assert words(dialogue) == [("Hi", "Hello!")]
    assert dialogue.metadata == {"rejected": {"from": "gpt", "value": "What."}}


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [{"role": "user", "content": "Hi"}], "choices": [{"message": {"role": "assistant", "content": "Hello!"}}]},
        {
            "request": {"model": "m", "messages": [{"role": "user", "content": "Hi"}]},
            "response": {"choices": [{"message": {"role": "assistant", "content": "Hello!"}}]},
        },
        {
            "request": {"messages": [{"role": "user", "content": "Hi"}]},
            "response": {"type": "message", "role": "assistant", "content": [{"type": "text", "text": "Hello!"}]},
        },
        {
            "input": "Hi",
            "output": [
                {"type": "reasoning", "summary": []},
                {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Hello!"}]},
            ],
        },
        {
            "input": [{"role": "user", "content": [{"type": "input_text", "text": "Hi"}]}],
            "output": [{"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Hello!"}]}],
            "object": "response",
        },
        {"prompt": "Hi", "completion": "Hello!"},
        {"prompt": [{"role": "user", "content": "Hi"}], "completion": [{"role": "assistant", "content": "Hello!"}]},
        {"prompt": "Hi", "chosen": "Hello!", "rejected": "What."},
        {"prompt": "Hi", "response": "Hello!"},
        {"prompt": [{"role": "user", "content": "Hi"}], "chosen": [{"role": "assistant", "content": "Hello!"}], "rejected": []},
        {"chosen": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello!"}], "rejected": []},
        {"prompt": "Hi", "chosen": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello!"}], "rejected": []},
        {"chosen": "\n\nHuman: Hi\n\nAssistant: Hello!", "rejected": "\n\nHuman: Hi\n\nAssistant: What."},
        {"sender_id": "u", "events": [{"event": "user", "text": "Hi"}, {"event": "bot", "text": "Hello!", "data": {}}]},
        {"trace_id": "t", "input": "Hi", "output": "Hello!"},
        {"sessionId": "t", "input": {"question": "Hi"}, "output": {"answer": "Hello!"}},
        {"sessionId": "t", "input": '{"question": "Hi"}', "output": '"Hello!"'},
        {
            "traceId": "t",
            "input": json.dumps([{"role": "user", "content": "Hi"}]),
            "output": json.dumps({"role": "assistant", "content": "Hello!"}),
        },
        {
            "traceId": "t",
            "input": {"messages": [{"role": "user", "content": "Hi"}]},
            "output": {"choices": [{"message": {"role": "assistant", "content": "Hello!"}}]},
        },
        {
            "gen_ai.input.messages": '[{"role": "user", "parts": [{"type": "text", "content": "Hi"}]}]',
            "gen_ai.output.messages": '[{"role": "assistant", "parts": [{"type": "text", "content": "Hello!"}]}]',
        },
    ],
)
def test_one_request_and_its_response(tmp_path: Path, row: Json) -> None:
    corpus = corpus_of(tmp_path, row)
    (dialogue,) = corpus.read()
    assert words(dialogue) == [("Hi", "Hello!")]
    assert not corpus.summary.left_out
    assert sum(corpus.summary.formats.values()) == 1


def test_what_trl_rejects_is_metadata_and_a_text_without_turns_is_refused(tmp_path: Path) -> None:
    assert only(tmp_path, {"id": "a", "prompt": "Hi", "chosen": "Hello!", "rejected": "What.", "label": 1}).metadata == {
        "rejected": "What.",
        "label": 1,
    }
    with pytest.raises(RecordError, match="without a request"):
        only(tmp_path, {"chosen": "Hello!", "rejected": "What."})


def test_other_choices_are_counted(tmp_path: Path) -> None:
    choices = [{"message": {"role": "assistant", "content": text}} for text in ("Hello!", "Hey!", "Yo!")]
    corpus = corpus_of(tmp_path, {"messages": [{"role": "user", "content": "Hi"}], "choices": choices})
    assert [words(dialogue) for dialogue in corpus.read()] == [[("Hi", "Hello!")]]
    assert corpus.summary.left_out == {"choices after the first": 2}


RASA = {
    "sender_id": "caller 7",
    "slots": {"city": "Rome"},
    "latest_event_time": 1714564805.0,
    "events": [
        {"event": "action", "name": "action_session_start", "timestamp": 1714564799.0},
        {"event": "session_started", "timestamp": 1714564799.5},
        {"event": "action", "name": "action_listen"},
        {
            "event": "user",
            "text": "weather in Rome",
            "timestamp": 1714564800.0,
            "input_channel": "rest",
            "parse_data": {
                "intent": {"name": "ask_weather", "confidence": 0.9},
                "entities": [{"entity": "city", "start": 11, "end": 15, "value": "Rome"}],
            },
        },
        {"event": "slot", "name": "city", "value": "Rome"},
        {"event": "action", "name": "action_weather", "timestamp": 1714564801.0},
        {
            "event": "bot",
            "text": "It rains.",
            "timestamp": 1714564802.0,
            "data": {"buttons": [{"title": "More"}], "image": None},
            "metadata": {"utter_action": "utter_rain"},
        },
        {"event": "action", "name": "utter_ask_more"},
        {"event": "bot", "text": "Anything else?", "data": {}},
        {"event": "bot", "text": None, "data": {"image": "x.png"}},
        {"event": "user", "text": "no", "parse_data": {}},
    ],
}


def test_rasa_trackers(tmp_path: Path) -> None:
    corpus = corpus_of(tmp_path, RASA)
    (dialogue,) = corpus.read()
    assert dialogue.id == "caller 7"
    assert words(dialogue) == [("weather in Rome", "It rains."), (None, "Anything else?"), ("no", None)]
    assert dialogue.turns[0].timestamp == NOON
    assert calls(dialogue) == [(0, "action_weather", None, None, None)]
    assert all(turn.intent is None and turn.request_slots is None for turn in dialogue.turns), "a prediction is no annotation"
    held = dialogue.metadata["messages"]
    assert held["other"][0]["predicted_by_rasa"]["intent"] == "ask_weather"
    assert held["slots"] == [{"event": 4, "name": "city", "value": "Rome"}]
    assert dialogue.metadata["slots"] == {"city": "Rome"}
    assert corpus.summary.left_out == {"events of type session_started": 1, "parts of type buttons": 1, "parts of type image": 1}


ATOMS = st.none() | st.booleans() | st.integers(-2, 2) | st.sampled_from(["", "a", "user", "text", "[{", '{"a": 1}'])
KEYS = [
    "messages", "conversations", "events", "input", "output", "prompt", "chosen", "choices", "response", "request", "trace_id", "traces",
    "attributes", "resourceSpans", "scopeSpans", "spans", "key", "value", "gen_ai.input.messages", "role", "from", "content", "parts",
    "type", "event", "parse_data", "data", "tool_calls", "function", "name", "start_time", "id", "audio",
]  # fmt: skip
OBJECTS = st.dictionaries(st.sampled_from(KEYS), ATOMS, max_size=4)
VALUES = st.recursive(
    ATOMS | OBJECTS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4)
)


@given(st.lists(st.dictionaries(st.sampled_from(KEYS), VALUES, min_size=1, max_size=5), min_size=1, max_size=3))
@settings(max_examples=60, deadline=None)
def test_no_row_stops_the_reading(rows: list[Json]) -> None:
    errors: list[RecordError] = []
    with TemporaryDirectory() as folder:
        dialogues = list(corpus_of(Path(folder), *rows).read(errors.append))
    assert all(turn.request or turn.response or turn.audio or turn.numerical.get("tool_calls") for d in dialogues for turn in d.turns)


@pytest.mark.parametrize(
    "row",
    [
        {"id": "bad", "messages": [{"role": "user", "content": "Hi"}], "choices": [3]},
        {"id": "bad", "sender_id": "bad", "events": [{"event": "user", "text": "Hi", "parse_data": [1]}]},
        {"trace_id": "bad", "input": "Hi", "output": {"choices": [3]}},
    ],
)
def test_a_row_that_is_not_in_its_format_is_rejected(tmp_path: Path, row: Json) -> None:
    errors: list[RecordError] = []
    assert not list(corpus_of(tmp_path, row).read(errors.append))
    assert [(error.dialogue_id, error.field) for error in errors] == [("bad", "record")]
    assert "not in its format" in errors[0].problem


def test_attributes_that_are_no_pairs_do_not_stop_the_reading(tmp_path: Path) -> None:
    assert words(only(tmp_path, {"messages": [{"role": "user", "content": "Hi"}], "attributes": ["a", 1]})) == [("Hi", None)]


# -- settings and recognition ----------------------------------------------------------------------------------------------------


def test_settings_name_the_column_the_keys_and_the_roles(tmp_path: Path) -> None:
    turns = [
        {"author": {"role": "Customer"}, "body": "Hi"},
        {"author": {"role": "note"}, "body": "angry"},
        {"author": {"role": "agent"}, "body": "Hello!"},
    ]
    settings = {
        "messages": "log.turns",
        "role": "author.role",
        "text": "body",
        "roles": {"Customer": "user", "agent": "assistant", "note": "ignore"},
    }
    corpus = corpus_of(tmp_path, {"id": "a", "log": {"turns": turns}}, **settings)
    assert [words(dialogue) for dialogue in corpus.read()] == [[("Hi", "Hello!")]]
    assert corpus.summary.left_out == {"messages whose role is ignored": 1}


def test_settings_decide_what_the_columns_leave_open(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "Hi"}]
    row = {"id": "a", "messages": turns, "conversations": [{"from": "human", "value": "Ho"}]}
    with pytest.raises(RecordError, match=r"messages, sharegpt.*set corpus.format"):
        only(tmp_path, row)
    assert words(only(tmp_path, row, format="sharegpt")) == [("Ho", None)]
    assert words(only(tmp_path, row, messages="messages")) == [("Hi", None)]
    with pytest.raises(RecordError, match=r"set corpus\.messages to the column"):
        only(tmp_path, {"input": "Hi", "output": "Hello!"})
    assert words(only(tmp_path, {"input": "Hi", "output": "Hello!"}, format="langfuse")) == [("Hi", "Hello!")]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"format": "openai"}, "messages, sharegpt"),
        ({"roles": {"agent": "bot"}}, "{'agent': 'bot'}"),
        ({"without_words": "drop"}, "reject or skip"),
    ],
)
def test_wrong_settings_are_refused(settings: Json, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ChatMessages("x.jsonl", **settings)


def test_the_log_says_what_was_recognised_once_per_format(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    chats = [{"id": f"{k}", "messages": [{"role": "user", "content": "Hi"}]} for k in range(3)]
    corpus_of(tmp_path, *chats, name="a.jsonl")
    corpus_of(tmp_path, {"id": "x", "conversations": [{"from": "human", "value": "Hi"}]}, name="b.jsonl")
    corpus = corpus_of(tmp_path, {"trace_id": "t", "input": "Hi", "output": "Hello!"}, name="c.jsonl")
    assert len(list(corpus.read())) == 5
    assert caplog.messages == ["a.jsonl: chat messages", "b.jsonl: ShareGPT conversations", "c.jsonl: Langfuse traces or observations"]
    assert corpus.summary.formats == {"chat messages": 3, "ShareGPT conversations": 1, "Langfuse traces or observations": 1}


# -- several rows per conversation -----------------------------------------------------------------------------------------------


def said(role: str, *parts: Any) -> Json:
    return {"role": role, "parts": [{"type": "text", "content": part} if isinstance(part, str) else part for part in parts]}


CALL = {"type": "tool_call", "id": "c1", "name": "weather", "arguments": RAIN}
RESULT = {"type": "tool_call_response", "id": "c1", "response": "rain"}
HISTORY = [
    said("user", "Weather?"),
    said("assistant", CALL),
    said("tool", RESULT),
    said("assistant", "Rain."),
    said("user", "Thanks"),
    said("assistant", "Bye."),
]


def span(conversation: str, second: int, inputs: list[Json], outputs: list[Json], operation: str = "chat", **more: Any) -> Json:
    attributes = {"gen_ai.operation.name": operation, "gen_ai.conversation.id": conversation}
    attributes |= {"gen_ai.input.messages": json.dumps(inputs), "gen_ai.output.messages": json.dumps(outputs)}
    return {"name": "chat m", "start_time": f"2024-05-01T12:00:{second:02}Z", "attributes": {**attributes, **more}}


def full_history(conversation: str) -> list[Json]:
    """Each call is given the conversation so far."""
    ends = [(0, 1), (1, 3), (2, 5)]
    return [span(conversation, second, HISTORY[:end], [HISTORY[end]], **{"user.id": "u"}) for second, end in ends]


def expect_weather(dialogue: Dialogue) -> None:
    assert words(dialogue) == [("Weather?", "Rain."), ("Thanks", "Bye.")]
    assert calls(dialogue) == [(0, "weather", RAIN, "c1", "rain")]
    assert dialogue.turns[0].timestamp == NOON


def test_spans_of_interleaved_conversations_are_grouped(tmp_path: Path) -> None:
    a, b = full_history("a"), full_history("b")
    corpus = corpus_of(tmp_path, a[0], b[0], b[1], a[1], b[2], a[2])
    dialogues = list(corpus.read())
    assert [dialogue.id for dialogue in dialogues] == ["b", "a"], "in the order of their last rows"
    for dialogue in dialogues:
        expect_weather(dialogue)
        assert dialogue.user == "u"
        assert len(dialogue.metadata["spans"]) == 3
        assert dialogue.metadata["spans"][0]["name"] == "chat m"
    assert not corpus.summary.left_out


def test_spans_across_files_out_of_order(tmp_path: Path) -> None:
    rows = full_history("a")
    corpus_of(tmp_path, rows[2], name="1.jsonl")
    (dialogue,) = corpus_of(tmp_path, rows[1], rows[0], name="2.jsonl").read()
    expect_weather(dialogue)


def test_spans_that_hold_only_what_is_new(tmp_path: Path) -> None:
    rows = [span("a", k, HISTORY[start:end], [HISTORY[end]]) for k, (start, end) in enumerate([(0, 1), (2, 3), (4, 5)])]
    expect_weather(only(tmp_path, *rows))


def test_spans_of_agents_around_the_calls_are_left_out_and_counted(tmp_path: Path) -> None:
    agents = [span("a", 0, HISTORY[:1], HISTORY[3:4], "invoke_agent"), span("a", 2, HISTORY[4:5], HISTORY[5:], "invoke_agent")]
    corpus = corpus_of(tmp_path, agents[0], *full_history("a"), agents[1], {"attributes": {"gen_ai.conversation.id": "a"}})
    (dialogue,) = corpus.read()
    expect_weather(dialogue)
    assert corpus.summary.left_out == {"spans of type invoke_agent": 2, "spans without messages": 1}
    assert words(only(tmp_path, *agents)) == [("Weather?", "Rain."), ("Thanks", "Bye.")], "but read where they are all there is"


def test_calls_are_preferred_within_their_trace(tmp_path: Path) -> None:
    """What only the span of an agent holds in another trace of the conversation is read."""
    agents = [span("a", 0, HISTORY[:1], HISTORY[3:4], "invoke_agent"), span("a", 2, HISTORY[4:5], HISTORY[5:], "invoke_agent")]
    corpus = corpus_of(tmp_path, *({**row, "trace_id": "1"} for row in (agents[0], *full_history("a")[:2])), {**agents[1], "trace_id": "2"})
    (dialogue,) = corpus.read()
    expect_weather(dialogue)
    assert corpus.summary.left_out == {"spans of type invoke_agent": 1}
    row = {"sessionId": "s", "timestamp": "2024-05-01T12:00:00Z", "input": "Hi", "output": "Hello!"}
    traces = [{**row, "id": "t1"}, {**row, "id": "t2", "timestamp": "2024-05-01T12:00:01Z", "input": "Thanks", "output": "Bye."}]
    corpus = corpus_of(tmp_path, *traces, {**row, "id": "o", "traceId": "t1", "type": "GENERATION"})
    (dialogue,) = corpus.read()
    assert words(dialogue) == [("Hi", "Hello!"), ("Thanks", "Bye.")]


@pytest.mark.parametrize("name", ["gen_ai.input.messages", "gen_ai.output.messages", "gen_ai.system_instructions"])
def test_messages_that_were_cut_short_are_not_words(name: str, tmp_path: Path) -> None:
    row = span("a", 0, HISTORY[:1], HISTORY[3:4])
    row["attributes"]["gen_ai.system_instructions"] = json.dumps([{"type": "text", "content": "Be kind."}])
    expected = only(tmp_path, row)
    assert words(expected) == [("Weather?", "Rain.")]
    whole = row["attributes"][name]
    row["attributes"][name] = whole[:-9]
    with pytest.raises(RecordError, match="JSON text that is not whole; was it cut at the limit of an attribute's length") as raised:
        only(tmp_path, row)
    assert raised.value.field == name
    row["attributes"][name] = "a text"
    assert only(tmp_path, row).id == "a"


def test_a_response_that_was_generated_again_replaces_the_first(tmp_path: Path) -> None:
    rows = [*full_history("a"), span("a", 3, HISTORY[:5], [said("assistant", "See you.")])]
    corpus = corpus_of(tmp_path, *rows)
    (dialogue,) = corpus.read()
    assert words(dialogue) == [("Weather?", "Rain."), ("Thanks", "See you.")]
    assert corpus.summary.left_out == {"messages of an earlier version of the history": 1}


def test_a_system_prompt_that_changes_does_not_double_the_history(tmp_path: Path) -> None:
    rows = full_history("a")
    for k, row in enumerate(rows):
        row["attributes"]["gen_ai.system_instructions"] = json.dumps([{"type": "text", "content": f"It is {k} o'clock."}])
    dialogue = only(tmp_path, *rows)
    expect_weather(dialogue)
    assert dialogue.metadata["messages"]["system"] == "It is 0 o'clock.\nIt is 1 o'clock.\nIt is 2 o'clock."


def test_otlp_json_holds_many_spans_in_a_row(tmp_path: Path) -> None:
    spans = []
    for k, row in enumerate(full_history("a")):
        attributes = [{"key": key, "value": {"stringValue": value}} for key, value in row["attributes"].items()]
        spans.append({"traceId": f"{k}", "startTimeUnixNano": str(1714564800_000000000 + k), "attributes": attributes})
    expect_weather(only(tmp_path, {"resourceSpans": [{"scopeSpans": [{"spans": spans[:2]}]}, {"scopeSpans": [{"spans": spans[2:]}]}]}))


def test_spans_in_parquet_with_a_map_of_attributes(tmp_path: Path) -> None:
    rows = [{"Timestamp": row["start_time"], "SpanAttributes": list(row["attributes"].items())} for row in full_history("a")]
    schema = pa.schema([("Timestamp", pa.string()), ("SpanAttributes", pa.map_(pa.string(), pa.string()))])
    pq.write_table(pa.Table.from_pylist(rows, schema), tmp_path / "spans.parquet")
    (dialogue,) = ChatMessages(str(tmp_path)).read()
    expect_weather(dialogue)


def test_a_conversation_with_a_span_that_cannot_be_used_is_rejected(tmp_path: Path) -> None:
    bad = span("bad", 1, [{"role": "agent", "parts": []}], [])
    errors: list[RecordError] = []
    corpus = corpus_of(tmp_path, *full_history("good")[:2], *full_history("bad")[:1], bad, full_history("good")[2], {"day": 1})
    dialogues = list(corpus.read(errors.append))
    assert [dialogue.id for dialogue in dialogues] == ["good"]
    assert [(error.row, error.dialogue_id, error.field) for error in errors] == [
        (4, "bad", "gen_ai.input.messages.0.role"),
        (6, None, "record"),
    ]
    with pytest.raises(RecordError, match="agent"):
        list(corpus.read())


def test_langfuse_sessions_of_traces(tmp_path: Path) -> None:
    exchanges = [("Weather?", "Rain."), ("Thanks", "Bye.")]
    rows = [
        {
            "id": f"t{k}",
            "timestamp": f"2024-05-01 12:00:0{k}.000000",
            "session_id": "s",
            "user_id": "u",
            "name": "chat",
            "input": given,
            "output": answer,
        }
        for k, (given, answer) in enumerate(exchanges)
    ]
    dialogue = only(tmp_path, *reversed(rows))
    assert (dialogue.id, dialogue.user, words(dialogue)) == ("s", "u", exchanges)
    assert dialogue.turns[0].timestamp == NOON
    assert [row["id"] for row in dialogue.metadata["spans"]] == ["t0", "t1"]
    assert words(only(tmp_path, {"id": "s", "traces": rows})) == exchanges


def test_langfuse_observations_prefer_generations(tmp_path: Path) -> None:
    question = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Weather?"}]
    call = {"role": "assistant", "content": None, "tool_calls": [{"id": "c1", "function": {"name": "weather", "arguments": RAIN}}]}
    result = {"role": "tool", "tool_call_id": "c1", "content": "rain"}
    row = {"trace_id": "t", "session_id": "s"}
    corpus = corpus_of(
        tmp_path,
        {**row, "type": "SPAN", "start_time": "2024-05-01 12:00:00", "input": {"args": [1], "q": "Weather?"}, "output": "Rain."},
        {
            **row,
            "type": "GENERATION",
            "parent_observation_id": "p",
            "start_time": "2024-05-01 12:00:00",
            "input": json.dumps({"messages": question, "tools": [1]}),
            "output": json.dumps(call),
        },
        {**row, "type": "TOOL", "parent_observation_id": "p", "start_time": "2024-05-01 12:00:01", "input": "Rome", "output": "rain"},
        {
            **row,
            "type": "GENERATION",
            "parent_observation_id": "p",
            "start_time": "2024-05-01 12:00:02",
            "input": {"messages": [*question, call, result]},
            "output": {"role": "assistant", "content": "Rain."},
        },
    )
    (dialogue,) = corpus.read()
    assert words(dialogue) == [("Weather?", "Rain.")]
    assert calls(dialogue) == [(0, "weather", RAIN, "c1", "rain")]
    assert dialogue.metadata["messages"]["system"] == "Be kind."
    assert dialogue.metadata["spans"][0]["input"] == {"tools": [1]}
    assert corpus.summary.left_out == {"spans of type SPAN": 1, "spans of type TOOL": 1}


def test_the_state_of_an_agent_as_output_holds_its_input_once(tmp_path: Path) -> None:
    messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello!"}]
    assert words(only(tmp_path, {"trace_id": "t", "input": {"messages": messages[:1]}, "output": {"messages": messages}})) == [
        ("Hi", "Hello!")
    ]


def test_an_object_whose_words_are_not_clear_needs_the_setting(tmp_path: Path) -> None:
    row = {"trace_id": "t", "input": {"question": "Hi", "language": "en"}, "output": {"answer": "Hello!"}}
    with pytest.raises(RecordError, match=r"question, language; set corpus\.text"):
        only(tmp_path, row)
    assert words(only(tmp_path, row, text="question")) == [("Hi", "Hello!")]


def test_spans_that_call_no_model_are_counted(tmp_path: Path) -> None:
    other = {"name": "GET /", "context": {"trace_id": "t"}, "attributes": {"http.method": "GET"}}
    corpus = corpus_of(tmp_path, other, *full_history("a"), other)
    (dialogue,) = corpus.read()
    expect_weather(dialogue)
    assert corpus.summary.left_out == {"spans without messages": 2}


# -- nothing is lost in silence --------------------------------------------------------------------------------------------------


HI = {"role": "user", "content": "Hi"}
HELLO = {"role": "assistant", "content": "Hello!"}


@pytest.mark.parametrize(
    ("row", "kept"),
    [
        (
            {
                "request": {"model": "m", "tools": [{"name": "x"}], "system": "Be kind.", "messages": [HI]},
                "response": {"id": "r", "usage": {"n": 1}, "choices": [{"message": HELLO, "finish_reason": "stop"}]},
            },
            {
                "request": {"model": "m", "tools": [{"name": "x"}]},
                "response": {"id": "r", "usage": {"n": 1}, "choices": [{"finish_reason": "stop"}]},
            },
        ),
        ({"messages": [HI], "choices": [{"message": HELLO, "index": 0}]}, {"choices": [{"index": 0}]}),
        ({"prompt": {"messages": [HI], "model": "m"}, "completion": "Hello!"}, {"prompt": {"model": "m"}}),
    ],
)
def test_fields_of_a_request_and_a_response_that_are_not_read_are_kept(tmp_path: Path, row: Json, kept: Json) -> None:
    dialogue = only(tmp_path, {"id": "a", **row})
    assert words(dialogue) == [("Hi", "Hello!")]
    assert {key: value for key, value in dialogue.metadata.items() if key != "messages"} == kept


def test_the_other_fields_of_a_path_to_the_messages_are_kept(tmp_path: Path) -> None:
    dialogue = only(tmp_path, {"id": "a", "log": {"chat": {"turns": [HI], "model": "m"}, "lang": "en"}}, messages="log.chat.turns")
    assert dialogue.metadata == {"log": {"chat": {"model": "m"}, "lang": "en"}}


def test_a_column_messages_that_is_not_the_one_read_is_kept(tmp_path: Path) -> None:
    row = {"id": "a", "log": [{"role": "system", "content": "Be kind."}, HI], "messages": "two words"}
    assert only(tmp_path, row, messages="log").metadata == {"messages": {"system": "Be kind.", "column": "two words"}}


def test_keys_of_a_message_that_the_settings_replace_are_kept(tmp_path: Path) -> None:
    message = {"speaker": "user", "role": "VIP", "from": "Ann", "msg": "Hi", "content": "<b>Hi</b>", "timestamp": 1714564800, "created": 7}
    dialogue = only(tmp_path, {"id": "a", "messages": [message]}, role="speaker", text="msg")
    assert words(dialogue) == [("Hi", None)]
    other = {"role": "VIP", "from": "Ann", "content": "<b>Hi</b>", "created": 7}
    assert dialogue.metadata["messages"]["other"] == [{"message": 0, **other}]


def test_rasa_actions_without_a_name_are_responses_unless_a_bot_event_repeats_them(tmp_path: Path) -> None:
    ask, again = {"event": "user", "text": "Hi"}, {"event": "user", "text": "Bye"}
    action = {"event": "action", "name": None, "action_text": "Hello!"}
    events = [
        ask,
        action,
        again,
        {**action, "action_text": "See you."},
        {"event": "bot", "text": "See you.", "data": {}},
        {"event": "action"},
    ]
    corpus = corpus_of(tmp_path, {"sender_id": "u", "events": events})
    (dialogue,) = corpus.read()
    assert words(dialogue) == [("Hi", "Hello!"), ("Bye", "See you.")]
    assert all(turn.numerical == {"tool_calls": 0} for turn in dialogue.turns)
    assert corpus.summary.left_out == {"actions without a name or a text": 1}


def test_fields_that_only_the_repetition_of_a_message_has_are_kept(tmp_path: Path) -> None:
    first = {"trace_id": "t", "timestamp": 1714564800, "input": [{**HI, "lang": "en"}], "output": HELLO}
    second = {**first, "timestamp": 1714564801, "input": [{**HI, "lang": "de"}, {**HELLO, "rating": 5}, HI]}
    corpus = corpus_of(tmp_path, first, second)
    (dialogue,) = corpus.read()
    assert words(dialogue) == [("Hi", "Hello!"), ("Hi", "Hello!")]
    assert dialogue.metadata["messages"]["other"] == [{"message": 0, "lang": "en"}, {"message": 1, "rating": 5}]
    assert corpus.summary.left_out == {"fields with several values in repeated messages": 1}


def test_what_an_output_of_langfuse_holds_next_to_its_messages_is_kept_or_counted(tmp_path: Path) -> None:
    choices = [{"message": HELLO}, {"message": HELLO}]
    corpus = corpus_of(
        tmp_path,
        {"trace_id": "a", "input": "Hi", "output": {"messages": [HELLO], "output": "TEXT"}},
        {"trace_id": "b", "input": "Hi", "output": {"choices": choices, "model": "m"}},
    )
    first, second = corpus.read()
    assert first.metadata["spans"][0]["output"] == {"output": "TEXT"}
    assert second.metadata["spans"][0]["output"] == {"model": "m"}
    assert corpus.summary.left_out == {"choices after the first": 1}


def test_calls_without_ids_differ_by_their_arguments(tmp_path: Path) -> None:
    def call(city: str) -> Json:
        return {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "w", "arguments": {"city": city}}}]}

    result = {"role": "tool", "name": "w", "content": "12"}
    row = {"trace_id": "t", "timestamp": 1714564800}
    rome = {**row, "timestamp": 1714564801, "input": [HI, call("Rome"), result], "output": HELLO}
    dialogue = only(tmp_path, {**row, "input": [HI], "output": call("Paris")}, rome)
    made = [(call["arguments"]["city"], call.get("result")) for call in dialogue.metadata["messages"]["tool_calls"]]
    assert made == [("Paris", None), ("Rome", "12")]
    as_text = {"role": "assistant", "tool_calls": [{"function": {"name": "w", "arguments": '{"city":"Paris"}'}}]}
    dialogue = only(tmp_path, {**row, "input": [HI], "output": call("Paris")}, {**rome, "input": [HI, as_text, result]})
    made = [(call["arguments"], call.get("result")) for call in dialogue.metadata["messages"]["tool_calls"]]
    assert made == [({"city": "Paris"}, "12")], "arguments as JSON text are the same call"


def test_an_input_that_shares_only_the_first_message_replaces_nothing(tmp_path: Path) -> None:
    rows = [
        {"trace_id": "t", "timestamp": 1714564800 + k, "input": [HI, {**HELLO, "content": answer}, HI], "output": HELLO}
        for k, answer in enumerate(["Welcome.", "Good day."])
    ]
    corpus = corpus_of(tmp_path, *rows)
    (dialogue,) = corpus.read()
    assert words(dialogue) == [("Hi", "Welcome."), ("Hi", "Hello!"), ("Hi", "Good day."), ("Hi", "Hello!")]
    assert not corpus.summary.left_out


DEEP = json.loads("[" * 900 + "]" * 900)


@pytest.mark.parametrize(
    ("bad", "field"),
    [
        ({**span("bad", 0, [said("user", "Hi")], []), "startTimeUnixNano": "9" * 400}, "startTimeUnixNano"),
        ({"trace_id": "bad", "input": "Hi", "output": "Hello!", "metadata": DEEP}, "record"),
        ({"attributes": [{"key": "gen_ai.x", "value": {"kvlistValue": DEEP}}]}, "record"),
        ({"attributes": [{"key": "gen_ai.x", "value": {"arrayValue": 3}}]}, None),
        ({"attributes": [{"key": "gen_ai.x", "value": {"arrayValue": {"values": 3}}}]}, None),
    ],
)
def test_one_row_does_not_stop_the_reading_of_spans(tmp_path: Path, bad: Json, field: str | None) -> None:
    errors: list[RecordError] = []
    dialogues = list(corpus_of(tmp_path, bad, *full_history("good")).read(errors.append))
    assert [dialogue.id for dialogue in dialogues] == ["good"]
    assert [error.field for error in errors] == ([field] if field else [])


def test_traces_of_langfuse_need_no_value_in_each_column(tmp_path: Path) -> None:
    rows = [
        {"id": "t1", "session_id": None, "input": {"question": "Hi"}, "output": {"answer": "Hello!"}},
        {"id": "t2", "session_id": "s", "input": {"args": ["Hi"]}, "output": "Hello!"},
        {"id": "t3", "session_id": "r", "input": {"question": "Hi"}, "output": None},
        {"id": "t4"},
    ]
    errors: list[RecordError] = []
    dialogues = list(corpus_of(tmp_path, *rows).read(errors.append))
    assert {dialogue.id: words(dialogue) for dialogue in dialogues} == {"t1": [("Hi", "Hello!")], "r": [("Hi", None)]}
    problems = {error.field: error.problem for error in errors}
    assert problems["input"] == "an object with args; set corpus.text to the key that holds the words (in 't2')"
    assert "the columns: id" in problems["record"] and "corpus.format" in problems["record"]


# -- many rows per conversation --------------------------------------------------------------------------------------------------


class Compared:
    """A key of a message that counts how often one is compared."""

    count = 0

    def __init__(self, name: int) -> None:
        self.name = name

    def __eq__(self, other: object) -> bool:
        Compared.count += 1
        return isinstance(other, Compared) and self.name == other.name

    __hash__ = None  # type: ignore[assignment]


@given(st.lists(st.integers(0, 2), max_size=9), st.lists(st.integers(0, 2), max_size=9))
@settings(max_examples=300, deadline=None)
def test_what_an_input_repeats_is_the_longest_end_that_begins_it_or_a_common_beginning(old: list[int], new: list[int]) -> None:
    ends = [length for length in range(1, min(len(old), len(new)) + 1) if old[-length:] == new[:length]]
    common = next((k for k, (a, b) in enumerate(zip(old, new, strict=False)) if a != b), min(len(old), len(new)))
    expected = (max(ends), len(old)) if ends else (common, common) if common > 1 else (0, len(old))
    assert overlap([(name,) for name in old], [(name,) for name in new]) == expected


@pytest.mark.parametrize(("end", "size"), [(1, 50), (1, 400), (400, 1)])
def test_the_comparisons_are_linear_in_the_input(end: int, size: int) -> None:
    old, new = [Compared(0)] * size, [Compared(0) for _ in range(size)] + [Compared(k) for k in range(end)]
    Compared.count = 0
    overlap(old, new)  # type: ignore[arg-type]
    assert Compared.count <= 5 * len(new)


@pytest.mark.parametrize("whole", [True, False])
def test_messages_that_inputs_repeat_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: bool) -> None:
    history = [said(("user", "assistant")[k % 2], f"message {k}") for k in range(80)]
    rows = [span("a", k, history[: 2 * k + 1] if whole else history[2 * k : 2 * k + 1], [history[2 * k + 1]]) for k in range(40)]
    read, keyed = Counter[str](), Counter[str]()
    read_message, words_key = chat_formats.read_message, Message.__dict__["words_key"].func

    def counted(raw: Json, where: str, keys: Keys) -> Message:
        read["messages"] += 1
        return read_message(raw, where, keys)

    monkeypatch.setattr(chat_formats, "read_message", counted)

    def counted_key(message: Message) -> Any:
        keyed["messages"] += 1
        return words_key(message)

    monkeypatch.setattr(Message.__dict__["words_key"], "func", counted_key)
    dialogue = only(tmp_path, *rows)
    assert words(dialogue) == [(f"message {2 * k}", f"message {2 * k + 1}") for k in range(40)]
    assert read["messages"] <= 3 * len(rows)
    assert keyed["messages"] <= 3 * len(rows)


def test_messages_that_are_shared_keep_their_own_times_and_fields(tmp_path: Path) -> None:
    row = {"trace_id": "t", "output": HELLO}
    rows = [{**row, "timestamp": 1714564800 + k, "input": [{**HI, "lang": "en"}] if k == 1 else [HI]} for k in range(3)]
    dialogue = only(tmp_path, *rows)
    assert [turn.timestamp for turn in dialogue.turns] == [NOON + timedelta(seconds=k) for k in range(3)]
    assert dialogue.metadata["messages"]["other"] == [{"message": 2, "lang": "en"}]


def test_fields_of_an_output_are_not_those_of_the_next_input(tmp_path: Path) -> None:
    state = {"messages": [{**HI, "rating": 5}, HELLO]}
    rows = [{"trace_id": "t", "timestamp": 1714564800 + k, "input": [HI], "output": (state, HELLO)[k]} for k in range(2)]
    assert only(tmp_path, *rows).metadata["messages"]["other"] == [{"message": 0, "rating": 5}]


def test_open_conversations_are_not_searched_at_each_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"c{k}" for k in range(30)]
    rows = [span(name, k, [said("user", "Hi")], [said("assistant", "Hello!")]) for k in range(2) for name in names]
    hashed = Counter[str]()

    def counted(text: str) -> int:
        hashed[text] += 1
        return hash64(text)

    monkeypatch.setattr(chat_groups, "hash64", counted)
    dialogues = list(corpus_of(tmp_path, *rows).read())
    assert [dialogue.id for dialogue in dialogues] == names
    assert max(hashed.values()) <= 4, "twice per row: at the first reading, and at the second"


def test_calls_that_have_a_result_are_not_searched_again() -> None:
    conversation, waiting = Conversation(), list[int]()
    for k in range(50):
        call = Tool("weather", None if k % 2 else f"c{k}", called=True)
        conversation.add(Message("assistant", "", Contents(tools=[call])), 2 * k)
        waiting.append(len(conversation.unanswered))
        conversation.add(Message("tool", "", Contents(tools=[Tool(None, call.identity, answered=True, result=k)])), 2 * k + 1)
    assert [call["result"] for call in conversation.metadata["tool_calls"]] == list(range(50))
    assert set(waiting) == {1}
    assert not conversation.unanswered


# -- older conventions of OpenTelemetry --------------------------------------------------------------------------------------------

SYSTEM = ("gen_ai.system.message", {"content": "Be kind."})
ASK = ("gen_ai.user.message", {"content": "Weather?"})
WEATHER_CALL = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": RAIN}}
CALLED = ("gen_ai.choice", {"index": 0, "finish_reason": "tool_calls", "message": {"tool_calls": [WEATHER_CALL]}})
CALLED_BEFORE = ("gen_ai.assistant.message", {"tool_calls": [WEATHER_CALL]})
ANSWERED = ("gen_ai.tool.message", {"id": "c1", "content": "rain"})
FIRST = ("gen_ai.choice", {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "Rain."}})
SECOND = ("gen_ai.choice", {"index": 1, "finish_reason": "stop", "message": {"role": "assistant", "content": "Wet."}})
EVENTS = {"s1": [SYSTEM, ASK, CALLED], "s2": [SYSTEM, ASK, CALLED_BEFORE, ANSWERED, FIRST, SECOND]}


def typed(value: Any) -> Json:
    """A value as OTLP's AnyValue."""
    if isinstance(value, dict):
        return {"kvlistValue": {"values": [{"key": key, "value": typed(inner)} for key, inner in value.items()]}}
    if isinstance(value, list):
        return {"arrayValue": {"values": [typed(inner) for inner in value]}}
    return {"intValue": str(value)} if isinstance(value, int) else {"stringValue": value}


def as_attributes(fields: Json) -> Json:
    """Attributes hold no objects, but their JSON text."""
    return {key: value if isinstance(value, str | int) else json.dumps(value) for key, value in fields.items()}


def log_records(form: str) -> list[Json]:
    """The events of two calls, as one row each."""
    rows = []
    for span_id, events in EVENTS.items():
        for name, fields in events:
            second = len(rows)
            row: Json = {"trace_id": "t", "span_id": span_id, "timestamp": f"2024-05-01T12:00:{second:02}Z"}
            if form == "console":
                row |= {"event_name": name, "body": fields, "attributes": {"gen_ai.system": "openai"}}
            elif form == "attribute":
                row |= {"attributes": {"event.name": name}, "body": json.dumps(fields)}
            elif form == "clickhouse":
                row = {"TraceId": "t", "SpanId": span_id, "Timestamp": row["timestamp"], "Body": json.dumps(fields)}
                row |= {"EventName": name, "LogAttributes": {"gen_ai.system": "openai"}}
            elif form == "no span":
                row = {"trace_id": "t", "timestamp": row["timestamp"], "event_name": name, "body": fields}
            else:
                row = {"traceId": "t", "spanId": span_id, "timeUnixNano": str(1714564800_000000000 + second * 10**9)}
                row |= {"eventName": name, "body": typed(fields), "attributes": [{"key": "gen_ai.system", "value": {"stringValue": "x"}}]}
            rows.append(row)
    return [{"resourceLogs": [{"scopeLogs": [{"logRecords": rows}]}]}] if form == "otlp" else rows


def expect_one_call(corpus: ChatMessages) -> Dialogue:
    (dialogue,) = corpus.read()
    assert words(dialogue) == [("Weather?", "Rain.")]
    assert calls(dialogue) == [(0, "weather", RAIN, "c1", "rain")]
    assert dialogue.metadata["messages"]["system"] == "Be kind."
    return dialogue


@pytest.mark.parametrize("form", ["console", "attribute", "clickhouse", "no span", "otlp"])
def test_events_as_log_records(tmp_path: Path, form: str) -> None:
    corpus = corpus_of(tmp_path, *log_records(form))
    dialogue = expect_one_call(corpus)
    assert (dialogue.id, dialogue.turns[0].timestamp) == ("t", NOON)
    assert corpus.summary.left_out == {"choices after the first": 1}
    assert len(dialogue.metadata["spans"]) == 2
    assert dialogue.metadata["messages"]["other"][-1]["finish_reason"] == "stop"


def test_events_in_any_order_of_rows(tmp_path: Path) -> None:
    expect_one_call(corpus_of(tmp_path, *reversed(log_records("console"))))


@pytest.mark.parametrize("form", ["span events", "one attribute", "text choices"])
def test_events_within_a_span(tmp_path: Path, form: str) -> None:
    rows = []
    for k, (span_id, events) in enumerate(EVENTS.items()):
        row: Json = {"name": "chat m", "context": {"trace_id": "t", "span_id": span_id}, "start_time": f"2024-05-01T12:00:0{k}Z"}
        row["attributes"] = {"gen_ai.operation.name": "chat", "user.id": "u"}
        if form == "one attribute":
            row["attributes"]["events"] = json.dumps([{"event.name": name, **fields} for name, fields in events])
        else:
            row["events"] = [{"name": name, "attributes": as_attributes(fields)} for name, fields in events]
            row["events"] += [{"name": "exception", "attributes": {"exception.type": "ValueError"}}]
        if form == "text choices" and k == 1:
            row["events"][4] = {"name": "gen_ai.choice", "attributes": {"message": "Rain.", "finish_reason": "stop"}}
        rows.append(row)
    corpus = corpus_of(tmp_path, *rows)
    dialogue = expect_one_call(corpus)
    assert dialogue.user == "u"
    assert corpus.summary.left_out == {"choices after the first": 1}
    if form != "one attribute":
        assert dialogue.metadata["spans"][0]["events"] == [{"name": "exception", "exception.type": "ValueError"}]


def test_events_of_a_span_in_other_rows(tmp_path: Path) -> None:
    spans = [{"context": {"trace_id": "t", "span_id": name}, "start_time": "2024-05-01T11:00:00Z"} for name in ("s1", "s2")]
    empty = [{**row, "attributes": {"gen_ai.operation.name": "chat", "user.id": "u"}} for row in spans]
    corpus = corpus_of(tmp_path, *log_records("console"), *empty)
    assert expect_one_call(corpus).user == "u"
    assert corpus.summary.left_out == {"choices after the first": 1}
    parts = json.dumps([said("user", "Weather?")])
    whole = {**spans[0], "attributes": {"gen_ai.input.messages": parts, "gen_ai.output.messages": json.dumps([said("assistant", "Rain.")])}}
    corpus = corpus_of(tmp_path, whole, *log_records("console")[:3])
    (dialogue,) = corpus.read()
    assert words(dialogue) == [("Weather?", "Rain.")]
    assert corpus.summary.left_out == {"events of a span that has the messages itself": 3}


@pytest.mark.parametrize(("index", "is_read"), [(None, True), ("0", True), (0, True), (1, False), ("second", False)])
def test_the_first_choice_is_the_one_with_the_index_0_or_none(index: Any, is_read: bool, tmp_path: Path) -> None:
    ask = {"event_name": "gen_ai.user.message", "trace_id": "t", "body": {"content": "Hi"}}
    choice = {"event_name": "gen_ai.choice", "trace_id": "t", "body": {"index": index, "message": HELLO}}
    corpus = corpus_of(tmp_path, ask, choice)
    (dialogue,) = corpus.read()
    assert words(dialogue) == [("Hi", "Hello!" if is_read else None)]
    assert corpus.summary.left_out == ({} if is_read else {"choices after the first": 1})


@pytest.mark.parametrize("name", ["timestamp", "timeUnixNano"])
def test_a_time_that_is_none_is_named_once(name: str, tmp_path: Path) -> None:
    row = {"event_name": "gen_ai.user.message", "trace_id": "t", name: "soon", "body": {"content": "Hi"}}
    with pytest.raises(RecordError) as raised:
        only(tmp_path, row)
    assert raised.value.field == name
    assert raised.value.problem.count("'soon' is not a time") == 1 and "invalid literal" not in raised.value.problem


def test_parts_of_events_without_types(tmp_path: Path) -> None:
    ask = {"event_name": "gen_ai.user.message", "trace_id": "t", "body": {"role": "user", "content": [{"text": "Hi"}]}}
    answer = {
        "event_name": "gen_ai.choice",
        "trace_id": "t",
        "body": {"index": 0, "content": {"role": "model", "parts": [{"text": "Hello!"}]}},
    }
    assert words(only(tmp_path, ask, answer)) == [("Hi", "Hello!")]
    text = {"name": "gen_ai.user.message", "attributes": {"content": '[{"a": 1}]'}}
    assert words(only(tmp_path, {"trace_id": "t", "events": [text]})) == [('[{"a": 1}]', None)], "a text that is no list of parts"


NUMBERED = {
    "gen_ai.prompt.0.role": "system",
    "gen_ai.prompt.0.content": "Be kind.",
    "gen_ai.prompt.10.role": "tool",
    "gen_ai.prompt.10.tool_call_id": "c1",
    "gen_ai.prompt.10.content": "rain",
    "gen_ai.prompt.2.role": "assistant",
    "gen_ai.prompt.2.tool_calls.0.id": "c1",
    "gen_ai.prompt.2.tool_calls.0.name": "weather",
    "gen_ai.prompt.2.tool_calls.0.arguments": json.dumps(RAIN),
    "gen_ai.prompt.1.role": "user",
    "gen_ai.prompt.1.content": '[{"type": "text", "text": "Weather?"}, {"type": "image_url", "image_url": {"url": "x"}}]',
    "gen_ai.completion.0.content": "Rain.",
    "gen_ai.completion.0.finish_reason": "stop",
    "gen_ai.completion.1.content": "Wet.",
    "gen_ai.request.model": "m",
}


@pytest.mark.parametrize("in_column", [True, False])
def test_messages_as_numbered_attributes(tmp_path: Path, in_column: bool) -> None:
    corpus = corpus_of(tmp_path, {"traceId": "t", "attributes": NUMBERED} if in_column else {"traceId": "t", **NUMBERED})
    (dialogue,) = corpus.read()
    assert words(dialogue) == [("Weather?", "Rain.")]
    assert calls(dialogue) == [(0, "weather", json.dumps(RAIN), "c1", "rain")]
    assert dialogue.metadata["messages"]["system"] == "Be kind."
    assert dialogue.metadata["messages"]["other"] == [{"message": 4, "finish_reason": "stop"}]
    assert dialogue.metadata["spans"] == [{"traceId": "t", "gen_ai.request.model": "m"}]
    assert corpus.summary.left_out == {"choices after the first": 1, "parts of type image_url": 1}


def test_prompts_and_completions_as_json_text_and_the_fields_next_to_the_messages(tmp_path: Path) -> None:
    prompt = {"gen_ai.prompt": json.dumps([HI]), "gen_ai.completion": json.dumps([HELLO])}
    events = [{"name": "gen_ai.content.prompt", "attributes": {"gen_ai.prompt": prompt["gen_ai.prompt"]}}]
    events += [{"name": "gen_ai.content.completion", "attributes": {"gen_ai.completion": prompt["gen_ai.completion"]}}]
    for row in ({"attributes": prompt}, {"events": events}):
        assert words(only(tmp_path, row)) == [("Hi", "Hello!")]
    row = {
        "gen_ai.input.messages": {"messages": [HI], "model": "m"},
        "gen_ai.output.messages": {"choices": [{"message": HELLO}, {}], "n": 2},
    }
    corpus = corpus_of(tmp_path, row)
    (dialogue,) = corpus.read()
    assert words(dialogue) == [("Hi", "Hello!")]
    assert dialogue.metadata["spans"] == [{"gen_ai.input.messages": {"model": "m"}, "gen_ai.output.messages": {"n": 2}}]
    assert corpus.summary.left_out == {"choices after the first": 1}


# -- a row per event of Rasa -------------------------------------------------------------------------------------------------------


def rasa_rows(form: str) -> list[Json]:
    """The events of two trackers, mixed, as a broker or a tracker store writes them."""
    events = [{**event, "timestamp": 1714564797.0 + k} for k, event in enumerate(RASA["events"])]
    rows: list[Json] = []
    for k, event in enumerate(events):
        for sender in ("caller 7", "caller 8"):
            if form == "broker":
                rows.append({"sender_id": sender, **event})
            else:
                data = event if form == "json column" else json.dumps(event)
                rows.append({"id": k, "sender_id": sender, "type_name": event["event"], "timestamp": event["timestamp"], "data": data})
    return rows


def write_csv(folder: Path, rows: list[Json]) -> ChatMessages:
    with (folder / "events.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return ChatMessages(str(folder / "events.csv"))


@pytest.mark.parametrize("form", ["broker", "json column", "json text", "csv", "reversed"])
def test_events_of_rasa_as_rows(tmp_path: Path, form: str) -> None:
    rows = rasa_rows("broker" if form == "reversed" else form)
    corpus = write_csv(tmp_path, rows) if form == "csv" else corpus_of(tmp_path, *(reversed(rows) if form == "reversed" else rows))
    tracker = only(tmp_path, RASA) if form == "broker" else None
    corpus = corpus_of(tmp_path, *rows) if form == "broker" else corpus
    dialogues = {dialogue.id: dialogue for dialogue in corpus.read()}
    assert sorted(dialogues) == ["caller 7", "caller 8"]
    for dialogue in dialogues.values():
        assert words(dialogue) == [("weather in Rome", "It rains."), (None, "Anything else?"), ("no", None)]
        assert calls(dialogue) == [(0, "action_weather", None, None, None)]
        assert dialogue.metadata["messages"]["slots"] == [{"event": 4, "name": "city", "value": "Rome"}]
    assert corpus.summary.left_out == {"events of type session_started": 2, "parts of type buttons": 2, "parts of type image": 2}
    if tracker is not None:
        found = dialogues["caller 7"]
        assert (found.turns[0], found.metadata["messages"]) == (tracker.turns[0], tracker.metadata["messages"])


def test_fields_of_rasa_events_are_kept(tmp_path: Path) -> None:
    parsed = {"intent": {"name": "greet", "confidence": 0.9}, "entities": [], "text": "Hi", "intent_ranking": [{"name": "greet"}]}
    event = {"event": "user", "text": "Hi", "input_channel": "rest", "message_id": "m", "parse_data": parsed}
    dialogue = only(tmp_path, {"sender_id": "a", "events": [event]})
    predicted = {"intent": "greet", "confidence": 0.9, "intent_ranking": [{"name": "greet"}]}
    other = {"message": 0, "input_channel": "rest", "message_id": "m", "predicted_by_rasa": predicted}
    assert dialogue.metadata["messages"]["other"] == [other]


def test_cells_of_csv_may_hold_json(tmp_path: Path) -> None:
    corpus = write_csv(tmp_path, [{"id": "a", "messages": json.dumps([HI, HELLO]), "user": ""}])
    (dialogue,) = corpus.read()
    assert (words(dialogue), dialogue.user) == ([("Hi", "Hello!")], None)


# -- texts that look like JSON, and lists of rows ----------------------------------------------------------------------------------

LIKE_JSON = '[{"type": "text", "text": "not a part"}]'


@pytest.mark.parametrize("text", [LIKE_JSON, '{"role": "user", "content": "x"}', '{"messages": []}', '{"a": 1}'])
def test_a_text_that_looks_like_json_stays_a_text(tmp_path: Path, text: str) -> None:
    message = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": text}]}
    for row in (
        {"prompt": text, "completion": text},
        {"prompt": text, "chosen": text, "rejected": "x"},
        {"prompt": [{**HI, "content": text}], "response": text},
        {"messages": [{**HI, "content": text}, {**HELLO, "content": text}]},
        {"conversations": [{"from": "human", "value": text}, {"from": "gpt", "value": text}]},
        {"input": text, "output": [message]},
        {"sender_id": "u", "events": [{"event": "user", "text": text}, {"event": "bot", "text": text, "data": {}}]},
    ):
        assert words(only(tmp_path, row)) == [(text, text)]


def test_json_text_is_read_where_the_format_has_no_texts(tmp_path: Path) -> None:
    message = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Hello!"}]}
    row = {"input": json.dumps([{"role": "user", "content": "Hi"}]), "output": json.dumps([message])}
    assert words(only(tmp_path, row)) == [("Hi", "Hello!")]
    assert words(only(tmp_path, {"messages": json.dumps([HI]), "response": json.dumps({"choices": [{"message": HELLO}]})})) == [
        ("Hi", "Hello!")
    ]
    dialogue = only(tmp_path, {"messages": [HI], "response": '{"a": 1}'})
    assert (words(dialogue), dialogue.metadata) == ([("Hi", None)], {"response": '{"a": 1}'})


def test_traces_of_langfuse_with_few_columns(tmp_path: Path) -> None:
    trace = {"id": "t2", "name": "chat", "timestamp": "2024-05-01T12:00:00Z", "input": "Hi", "output": "Hello!"}
    corpus = corpus_of(tmp_path, trace, {"id": "t1", "session_id": "s", "input": "Ho", "output": "Hey!"})
    assert {dialogue.id: words(dialogue) for dialogue in corpus.read()} == {"t2": [("Hi", "Hello!")], "s": [("Ho", "Hey!")]}
    assert not corpus.summary.left_out


CHATS = [{"id": "a", "messages": [HI, HELLO]}, {"id": "b", "messages": [HI]}]


@pytest.mark.parametrize("name", ["data", "items", "conversations"])
@pytest.mark.parametrize("pages", [1, 2])
def test_an_object_that_holds_the_rows_in_one_list_is_read(tmp_path: Path, name: str, pages: int, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    lists = [CHATS] if pages == 1 else [CHATS[:1], CHATS[1:]]
    corpus = corpus_of(tmp_path, *({name: listed, "page": k} for k, listed in enumerate(lists)))
    assert [dialogue.id for dialogue in corpus.read()] == ["a", "b"]
    assert caplog.messages[0] == f"chats.jsonl: its rows are the items of {name!r}"
    assert corpus.summary.left_out == {f"columns next to the list {name!r}": 1}
    errors: list[RecordError] = []
    corpus = corpus_of(tmp_path, {name: [*CHATS, {"id": "c", "messages": 3}]}, {"id": "d", "messages": []})
    assert len(list(corpus.read(errors.append))) == 2
    assert [(error.row, error.dialogue_id) for error in errors] == [(3, "c"), (4, "d")]


def test_an_object_whose_lists_leave_a_doubt_is_not_taken_apart(tmp_path: Path) -> None:
    for row in ({"data": CHATS, "items": CHATS}, {"data": [*CHATS, {"day": 1}]}, {"data": [{"day": 1}]}):
        with pytest.raises(RecordError, match=r"set corpus\.messages=data.*or save the conversations of such a list as a file"):
            only(tmp_path, row)
    traces = [{"id": "t", "input": "Hi", "output": "Hello!", "session_id": "x"}]
    assert only(tmp_path, {"id": "s", "traces": traces}).id == "s", "a session of Langfuse"
    events = [{"sender_id": "u", "event": "user", "text": "Hi"}]
    assert only(tmp_path, {"sender_id": "v", "events": events}).id == "v", "a tracker of Rasa"


def test_roles_as_a_list(tmp_path: Path) -> None:
    row = {"id": "a", "messages": [{"role": "Kundin=Ä", "content": "Hi"}, {"role": "bot 1", "content": "Hello!"}]}
    assert words(only(tmp_path, row, roles=["Kundin=Ä=user", "bot 1=assistant"])) == [("Hi", "Hello!")]
    with pytest.raises(ValueError, match=r"roles: 'caller': give role=user"):
        ChatMessages("x.jsonl", roles=["caller"])
    with pytest.raises(ValueError, match=r"{'a': 'b'} is not known"):
        ChatMessages("x.jsonl", roles=["a=b"])


def test_counts_of_one_are_in_the_singular(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    choices = [{"message": HELLO}, {"message": HELLO}]
    list(corpus_of(tmp_path, {"data": [{"messages": [HI], "choices": choices}], "page": 1}).read())
    assert caplog.messages == ["1 choice after the first was left out", "1 column next to the list 'data' was left out"]


def test_results_of_tools_in_events_find_their_calls_by_id(tmp_path: Path) -> None:
    made = [{**WEATHER_CALL, "id": name} for name in ("c1", "c2")]
    events = [ASK, ("gen_ai.assistant.message", {"tool_calls": made})]
    events += [("gen_ai.tool.message", {"id": name, "content": name}) for name in ("c2", "c1")]
    row = {"trace_id": "t", "events": [{"name": name, "attributes": as_attributes(fields)} for name, fields in [*events, FIRST]]}
    dialogue = only(tmp_path, row)
    assert [(call["id"], call["result"]) for call in dialogue.metadata["messages"]["tool_calls"]] == [("c1", "c1"), ("c2", "c2")]
    assert dialogue.metadata["messages"]["other"] == [{"message": 4, "finish_reason": "stop"}]


def test_numbers_in_the_names_of_attributes_are_places_of_a_list() -> None:
    assert as_lists({"a": {str(k): {"n": k} for k in reversed(range(11))}, "b": 1}) == {"a": [{"n": k} for k in range(11)], "b": 1}


def test_fields_of_events_and_their_times(tmp_path: Path) -> None:
    shared = {"traceId": "t", "timeUnixNano": "0", "attributes": {"user.id": "u"}, "severity": 9}
    ask = {**shared, "eventName": ASK[0], "body": ASK[1], "observedTimeUnixNano": "1714564800000000000"}
    answer = {**shared, "eventName": FIRST[0], "body": FIRST[1], "observedTimeUnixNano": "1714564801000000000"}
    dialogue = only(tmp_path, answer, ask)
    assert (words(dialogue), dialogue.user, dialogue.turns[0].timestamp) == ([("Weather?", "Rain.")], "u", NOON)
    kept = {"severity": 9, "traceId": "t", "timeUnixNano": "0", "user.id": "u"}
    assert [set(event) - set(kept) for event in dialogue.metadata["spans"][0]["events"]] == [{"eventName", "observedTimeUnixNano"}] * 2
    assert all(kept.items() <= event.items() for event in dialogue.metadata["spans"][0]["events"])


def test_attributes_of_a_span_are_preferred_to_its_events(tmp_path: Path) -> None:
    row = span("a", 0, [said("user", "Hi")], [said("assistant", "Hello!")])
    dialogue = only(tmp_path, {**row, "events": [{"name": ASK[0], "attributes": ASK[1]}]})
    assert words(dialogue) == [("Hi", "Hello!")]
    assert dialogue.metadata["spans"][0]["events"] == [{"name": ASK[0], **ASK[1]}]


def test_spans_of_tools_are_left_out_next_to_those_of_agents(tmp_path: Path) -> None:
    rows = [span("a", k, [said("user", text)], [said("assistant", text)], operation) for k, (operation, text) in enumerate(
        [("invoke_agent", "Hi"), ("execute_tool", "Rome"), ("embeddings", "Hi")]
    )]  # fmt: skip
    corpus = corpus_of(tmp_path, *rows)
    assert [words(dialogue) for dialogue in corpus.read()] == [[("Hi", "Hi")]]
    assert corpus.summary.left_out == {"spans of type execute_tool": 1, "spans of type embeddings": 1}


def test_a_message_of_a_call_keeps_a_time_of_its_own(tmp_path: Path) -> None:
    given_at = {**HI, "timestamp": "2024-05-01T12:00:00Z"}
    row = {"trace_id": "t", "timestamp": "2024-05-01T12:00:09Z", "input": [given_at], "output": HELLO}
    assert only(tmp_path, row).turns[0].timestamp == NOON


def test_events_of_rasa_without_times_have_those_of_their_rows(tmp_path: Path) -> None:
    texts = [("user", "Hi"), ("bot", "Hello!")]
    rows = [{"sender_id": "a", "timestamp": k, "data": {"event": kind, "text": text}} for k, (kind, text) in enumerate(texts, 1)]
    assert words(only(tmp_path, *reversed(rows))) == [("Hi", "Hello!")]
