"""Taskmaster-3 and -4 rewards (Google Research): conversations with a system that books films or takes coffee orders, and whether its last
action was right.

Where to get them: github.com/google-research-datasets/Taskmaster, licence CC BY 4.0. `root` is the clone, with `TM-3-2020/reward` and
`TM-4-2024/reward`: lists of {conversation_id, context, generation, reward} in `reward_00.json`, ... `name` chooses one of the two, TM-3
(3,667 conversations) or TM-4 (3,228). Their other folders, conversations that one person wrote for both sides, are not read.

A user's utterance and the agent's text after it are one turn. Between them the agent may call APIs.

What is labelled, and by which rule:

- Defects: the agent's last action (`generation`) alone. Reward 0: True. Reward 1: False. TM-3 has 3,094 defects among 3,667, TM-4 453 among
  3,228. The publisher does not say who judged.
- Slices: "text", where that action says something to the user, and "call", where it calls an API. `judged` keeps one of the two. The
  response is then the call as JSON, which no user would see.

Features and metadata, as for `labelgen.corpora.chat_messages`: the turn's `tool` (the names of the APIs that were called before the
response, each once, joined by "+") and `tool_calls` (their number), and `metadata["tool_calls"]` with their arguments and results. A call
that is the response is not among them.

Not labelled: goals, outcomes, intents, slots and votes. No split is published: see `labelgen.corpora.in_fold`. Conversations with the same
first request fall into the same fold, because many are steps of one conversation under different ids. TM-3 was checked on the publisher's
files. For TM-4 a reference conversion was put back into the publisher's format.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from labelgen.corpora import Fold, Raw, convert_each, in_fold, is_user, pair_utterances, read_rows, text_in
from labelgen.dialogue import Dialogue, Reject

FOLDERS = {"TM-3": "TM-3-2020", "TM-4": "TM-4-2024"}
PUBLISHER = "github.com/google-research-datasets/Taskmaster (CC BY 4.0)"
REWARDS = {1.0: False, 0.0: True}  # reward -> whether the action is a defect


@dataclass
class Utterance:
    """An utterance of the user or the agent, and the calls of APIs after it."""

    user: bool
    text: str
    calls: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class TaskmasterRewards:
    """One corpus (`name`) below `root`. `judged`: dialogues whose judged action is a "text", a "call", or "all" of them."""

    root: str
    name: str
    judged: Literal["all", "text", "call"] = "all"
    split: Fold = "all"
    fold: int = 0

    def read(self, reject: Reject | None = None) -> Iterator[Dialogue]:
        """Yields the dialogues in the publisher's order. Ids are `taskmaster:TM-3/ID`, by the publisher's id.

        Malformed dialogues go to `reject`; without it the first one raises RecordError. ValueError: the folder is not the corpus.
        """
        if self.name not in FOLDERS:
            raise ValueError(f"name {self.name!r}: give one of {', '.join(FOLDERS)}")
        if self.judged not in ("all", "text", "call"):
            raise ValueError(f"judged {self.judged!r}: give all, text or call")
        folder = Path(self.root) / FOLDERS[self.name] / "reward"
        files = sorted(folder.glob("reward_*.json"))
        if not files:
            raise ValueError(f"{folder}: no reward_*.json there; clone {PUBLISHER} and give its folder as `root`")
        for file in files:
            rows = read_rows(file, f"get the file again from {PUBLISHER}")
            for dialogue in convert_each(rows, convert, self._name, str(file), reject):
                if self.judged in ("all", *dialogue.slices) and in_fold(first_request(dialogue), self.split, self.fold):
                    yield dialogue

    def _name(self, raw: Raw) -> str:
        return f"taskmaster:{self.name}/{raw['conversation_id']}"


def first_request(dialogue: Dialogue) -> str:
    """The user's first words. Steps of one conversation share them."""
    return next((turn.request for turn in dialogue.turns if turn.request is not None), "")


def convert(raw: Raw) -> dict[str, Any]:
    """A published row -> the fields of the record, without the id. KeyError, ValueError, ...: not in the publisher's format."""
    judged = json.loads(raw["generation"])
    if is_user(judged["role"], "user", "agent"):
        raise ValueError("generation is the user's; the agent's last action is judged")
    if raw["reward"] not in REWARDS:
        raise ValueError(f"reward {raw['reward']!r} is neither 1 nor 0")
    text = json.dumps(judged["api"], ensure_ascii=False) if "api" in judged else text_in(judged, "text")
    utterances = [*read_utterances(json.loads(raw["context"])), Utterance(user=False, text=text)]
    turns: list[dict[str, Any]] = []
    calls: list[dict[str, Any]] = []
    for user, system in pair_utterances(utterances, lambda utterance: utterance.user):
        called = [call for utterance in (user, system) if utterance for call in utterance.calls]
        calls += ({"turn": len(turns), **call} for call in called)
        turns.append({
            "request": user and user.text, "response": system and system.text,
            "categorical": {"tool": "+".join(dict.fromkeys(call["name"] for call in called)) if called else None},
            "numerical": {"tool_calls": len(called) if called or system else None},
        })  # fmt: skip
    turns[-1]["defect"] = REWARDS[raw["reward"]]
    return {"turns": turns, "slices": ["call" if "api" in judged else "text"], "metadata": {"tool_calls": calls} if calls else {}}


def read_utterances(published: Iterable[Raw]) -> list[Utterance]:
    """The utterances of a context. Each has the calls that follow it. ValueError: a call or a result is out of place."""
    utterances: list[Utterance] = []
    for raw in published:
        if raw["role"] == "api":
            if not utterances or not utterances[-1].calls:
                raise ValueError("the result of an API without a call before it")
            utterances[-1].calls[-1]["result"] = raw["response"]
        elif is_user(raw["role"], "user", "agent") or "api" not in raw:
            utterances.append(Utterance(raw["role"] == "user", text_in(raw, "text")))
        elif not utterances:
            raise ValueError("a call of an API before the first utterance")
        else:
            ((name, arguments),) = raw["api"].items()
            utterances[-1].calls.append({"name": name, "arguments": arguments})
    return utterances
