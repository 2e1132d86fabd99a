"""Taskmaster rewards: each rule on files made here in the publisher's format, the published TM-3, and a reference conversion of TM-4."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from labelgen.corpora.taskmaster import FOLDERS, TaskmasterRewards
from labelgen.dialogue import Dialogue, RecordError

Json = dict[str, Any]

DATA = os.environ.get("LABELGEN_DATA")


def user(text: str) -> Json:
    return {"role": "user", "text": text}


def agent(text: str) -> Json:
    return {"role": "agent", "text": text}


def call(name: str, /, **arguments: str) -> Json:
    return {"role": "agent", "api": {name: arguments}}


def result(name: str, /, **found: Any) -> Json:
    return {"role": "api", "response": {name: found}}


def row(*context: Json, judged: Json | None = None, reward: Any = 1.0, identity: str = "dlg-a") -> Json:
    """A row as published: the conversation and the judged action are JSON within JSON."""
    generation = json.dumps(judged or agent("Where?"))
    return {"conversation_id": identity, "context": json.dumps(context), "generation": generation, "reward": reward}


def published(root: Path, *rows: Any, name: str = "TM-3", **fields: Any) -> TaskmasterRewards:
    folder = root / FOLDERS[name] / "reward"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "reward_00.json").write_text(json.dumps(rows), encoding="utf-8")
    return TaskmasterRewards(str(root), name, **fields)


def only(root: Path, raw: Json) -> Dialogue:
    (dialogue,) = published(root, raw).read()
    return dialogue


def test_the_reward_judges_the_last_response_alone(tmp_path: Path) -> None:
    context = [agent("Hi."), user("A film?"), agent("Which?"), user("Dune.")]
    right = only(tmp_path, row(*context, judged=agent("When?"), reward=1.0))
    wrong = only(tmp_path, row(*context, judged=agent("Bye."), reward=0.0))
    assert (right.id, right.slices) == ("taskmaster:TM-3/dlg-a", ["text"])
    assert [(turn.request, turn.response, turn.defect) for turn in right.turns] == [
        (None, "Hi.", None),
        ("A film?", "Which?", None),
        ("Dune.", "When?", False),
    ]
    assert [turn.defect for turn in wrong.turns] == [None, None, True]
    assert (right.goals, right.metadata, right.turns[1].intent, right.turns[1].request_slots) == (None, {}, None, None)


def test_calls_are_features_of_their_turn_and_stay_in_the_metadata(tmp_path: Path) -> None:
    dialogue = only(
        tmp_path,
        row(
            agent("Hi."), user("Dune in Ulm?"),
            call("find", film="Dune"), result("find", name=["Dune"]), call("place", where="Ulm"), result("place"), call("find"),
            user("Hello?"), agent("Soon."), user("Two tickets."), call("book"), result("book"),
        ),
    )  # fmt: skip
    assert [(turn.request, turn.response) for turn in dialogue.turns] == [
        (None, "Hi."), ("Dune in Ulm?", None), ("Hello?", "Soon."), ("Two tickets.", "Where?"),
    ]  # fmt: skip
    assert [turn.categorical["tool"] for turn in dialogue.turns] == [None, "find+place", None, "book"]
    assert [turn.numerical["tool_calls"] for turn in dialogue.turns] == [0, 3, 0, 1]
    assert dialogue.metadata["tool_calls"] == [
        {"turn": 1, "name": "find", "arguments": {"film": "Dune"}, "result": {"find": {"name": ["Dune"]}}},
        {"turn": 1, "name": "place", "arguments": {"where": "Ulm"}, "result": {"place": {}}},
        {"turn": 1, "name": "find", "arguments": {}},
        {"turn": 3, "name": "book", "arguments": {}, "result": {"book": {}}},
    ]


def test_a_judged_call_is_the_response(tmp_path: Path) -> None:
    dialogue = only(tmp_path, row(user("Café?"), call("place"), result("place"), judged=call("find", film="Café"), reward=0.0))
    (turn,) = dialogue.turns
    assert (turn.request, turn.response, turn.defect) == ("Café?", '{"find": {"film": "Café"}}', True)
    assert (turn.categorical, turn.numerical, dialogue.slices) == ({"tool": "place"}, {"tool_calls": 1}, ["call"])


def test_judged_keeps_texts_or_calls(tmp_path: Path) -> None:
    root = published(tmp_path, row(user("A?"), identity="a"), row(user("B?"), judged=call("find"), identity="b")).root
    assert [dialogue.id[-1] for dialogue in TaskmasterRewards(root, "TM-3").read()] == ["a", "b"]
    assert [dialogue.id[-1] for dialogue in TaskmasterRewards(root, "TM-3", judged="text").read()] == ["a"]
    assert [dialogue.id[-1] for dialogue in TaskmasterRewards(root, "TM-3", judged="call").read()] == ["b"]


def test_steps_of_a_conversation_fall_into_one_fold(tmp_path: Path) -> None:
    first = [row(agent("Hi."), user(f"Film {k}?"), identity=f"{k}") for k in range(60)]
    second = [row(agent("Hi."), user(f"Film {k}?"), agent("Where?"), user("Ulm."), identity=f"{k}+") for k in range(60)]
    root = published(tmp_path, *first, *second).root

    def ids(*fold: Any) -> list[str]:
        return [dialogue.id for dialogue in TaskmasterRewards(root, "TM-3", "all", *fold).read()]

    assert sorted(identity for fold in range(10) for identity in ids("test", fold)) == sorted(ids())
    tested = ids("test", 1)
    assert 0 < len(tested) < 120
    assert sorted(ids("train", 1) + tested) == sorted(ids())
    assert {identity.removesuffix("+") for identity in tested} | {f"{identity.removesuffix('+')}+" for identity in tested} == set(tested)


@pytest.mark.parametrize(
    ("raw", "field", "problem"),
    [
        (row(user("Hi."), reward=0.5), "record", "reward 0.5 is neither 1 nor 0"),
        (row(user("Hi."), reward=None), "record", "reward None is neither 1 nor 0"),
        (row(user("Hi."), judged=user("Hm.")), "record", "generation is the user's"),
        (row({"role": "wizard", "text": "Hi."}), "record", "speaker 'wizard' is neither user nor agent"),
        (row(user("Hi."), result("find")), "record", "the result of an API without a call"),
        (row(call("find")), "record", "a call of an API before the first utterance"),
        (row(user("Hi."), {"role": "agent", "api": {}}), "record", "not enough values"),
        (row({"role": "user"}), "text", "KeyError"),
        (row(user("Hi.")) | {"context": "["}, "record", "JSONDecodeError"),
        (row(user(None)), "record", "text None is not a text"),  # type: ignore[arg-type]
        ({key: value for key, value in row(user("Hi.")).items() if key != "reward"}, "reward", "KeyError"),
    ],
)
def test_malformed_rows_are_rejected_and_reading_continues(tmp_path: Path, raw: Json, field: str, problem: str) -> None:
    corpus = published(tmp_path, raw, row(user("Hi."), identity="dlg-b"))
    errors: list[RecordError] = []
    assert [dialogue.id for dialogue in corpus.read(errors.append)] == ["taskmaster:TM-3/dlg-b"]
    assert [(error.dialogue_id, error.row, error.field) for error in errors] == [("taskmaster:TM-3/dlg-a", 0, field)]
    assert problem in errors[0].problem
    with pytest.raises(RecordError):
        list(corpus.read())


def test_what_is_not_the_corpus_says_where_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="give one of TM-3, TM-4"):
        list(TaskmasterRewards(str(tmp_path), "TM-1").read())
    with pytest.raises(ValueError, match="give all, text or call"):
        list(TaskmasterRewards(str(tmp_path), "TM-3", judged="api").read())  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"no reward_\*\.json there; clone github\.com/google-research-datasets/Taskmaster"):
        list(TaskmasterRewards(str(tmp_path), "TM-3").read())


@pytest.mark.skipif(DATA is None, reason="LABELGEN_DATA is not set")
def test_the_published_tm_3_has_its_known_counts() -> None:
    read = list(TaskmasterRewards(str(Path(DATA or "") / "tm3"), "TM-3").read())
    assert len({dialogue.id for dialogue in read}) == len(read) == 3667
    assert Counter(dialogue.turns[-1].defect for dialogue in read) == {True: 3094, False: 573}
    assert all(turn.defect is None for dialogue in read for turn in dialogue.turns[:-1])
    assert Counter(tuple(dialogue.slices) for dialogue in read) == {("call",): 1972, ("text",): 1695}
    assert sum(turn.request is not None for dialogue in read for turn in dialogue.turns) == 14759
    assert sum(len(dialogue.metadata.get("tool_calls", ())) for dialogue in read) == 20665


def raw_row(there: Json) -> Json:
    """A row of the reference in the publisher's format. The texts of calls and of their results are JSON objects."""

    def utterance(turn: Json) -> Json:
        if turn["speaker"] == "api":
            return {"role": "api", "response": json.loads(turn["text"])}
        if turn["speaker"] == "system" and turn["text"].startswith("{") and turn.get("defect", {}).get("kind") != "text":
            return {"role": "agent", "api": json.loads(turn["text"])}
        return user(turn["text"]) if turn["speaker"] == "user" else agent(turn["text"])

    *context, judged = there["turns"]
    reward = 0.0 if judged["defect"]["label"] else 1.0
    return row(*map(utterance, context), judged=utterance(judged), reward=reward, identity=there["id"].removeprefix("tm4r:"))


@pytest.mark.skipif(DATA is None, reason="LABELGEN_DATA is not set")
def test_the_reference_put_back_into_the_publishers_format_reads_the_same(tmp_path: Path) -> None:
    with (Path(DATA or "") / "dlog" / "tm4_reward.jsonl").open(encoding="utf-8") as lines:
        there = [json.loads(line) for line in lines]
    read = list(published(tmp_path, *map(raw_row, there), name="TM-4").read())
    assert Counter((dialogue.turns[-1].defect, *dialogue.slices) for dialogue in read) == {
        (False, "call"): 2077, (False, "text"): 698, (True, "call"): 356, (True, "text"): 97,
    }  # fmt: skip
    for dialogue, other in zip(read, there, strict=True):
        judged = other["turns"][-1]
        assert dialogue.id == other["id"].replace("tm4r:", "taskmaster:TM-4/")
        assert (dialogue.turns[-1].response, dialogue.turns[-1].defect) == (judged["text"], judged["defect"]["label"])
        assert dialogue.slices == [{"api": "call"}.get(judged["defect"]["kind"], "text")]
        assert len(dialogue.metadata.get("tool_calls", ())) == sum(turn["speaker"] == "api" for turn in other["turns"])
        assert [turn.request for turn in dialogue.turns if turn.request] == [t["text"] for t in other["turns"] if t["speaker"] == "user"]
