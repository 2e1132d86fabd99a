"""Schema-Guided Dialogue (Rastogi et al. 2020, https://arxiv.org/abs/1909.05855): the publisher's folder -> dialogues.

Where to get it: github.com/google-research-datasets/dstc8-schema-guided-dialogue, licence CC BY-SA 4.0. `root` is the clone, with
`train/schema.json` and `SPLIT/schema.json`, `SPLIT/dialogues_*.json` for the splits train, dev and test.

A user's utterance and the system's answer to it are one turn. The speakers alternate. If they do not, an utterance without a partner
becomes a turn without a request or without a response.

What is labelled, and by which rule:

- Intent: the active intent of the user's frame, as domain and intent without the service's version (`Restaurants/FindRestaurants`),
  so that it carries over services. "NONE": no frame has an active intent (closings, refused offers).
- Goals: a goal starts at a request whose active (service, intent), NONE aside, differs from that of the running goal. Where two frames
  are active, the turn belongs to the new goal. NONE turns belong to the running goal. Goals do not interleave, and a return is a new goal.
- Outcome: for a transactional intent, the last of NOTIFY_SUCCESS and NOTIFY_FAILURE that the goal's service gave within the goal; for
  a search, the last of OFFER and NOTIFY_FAILURE. Success after an earlier failure is `recovered`. Without any of these acts the outcome
  is not known.
- Slots, non-categorical: the publisher's spans, in requests and responses.
- Slots, categorical: the publisher marks no span. A value that the user informs is located at its first literal occurrence, ignoring case
  (`categorical=True`). About half of the values occur. "four people" for "4" does not and has no label. A digit may be found within a
  longer number (1.6% of those located), and such a span may overlap another. Responses have no categorical slots. Score them separately.
- `categorical["service"]`: the service that the assistant's answer acts for. It is a feature, not a label: a log would hold it.
- `normalised`: the canonical value, where an act gives one for the words of the span.
- Dialogue acts of requests and responses: the publisher's (`INFORM`, `REQUEST`, ...), each once, over all frames.
- Retry: the request states the running intent again right after a NOTIFY_FAILURE.
- `slices`, by the services that train's schema does not hold: "seen" (none), "mixed", "unseen" (all).
- `metadata`: `services` with their versions.

Not labelled: defects and votes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from labelgen.corpora import Exchange, Raw, convert_each, is_user, pair_utterances
from labelgen.dialogue import Dialogue, Outcome, RecordError, Reject, reject_or_raise
from labelgen.io.json_values import type_of
from labelgen.io.paths import plain_file

NONE = "NONE"
FAILURE = "NOTIFY_FAILURE"


class Intent(NamedTuple):
    """An intent under the publisher's names: the service with its version."""

    service: str
    name: str

    def __str__(self) -> str:
        return f"{re.sub(r'_[0-9]+$', '', self.service)}/{self.name}"


@dataclass
class GoalSpan:
    """A goal: its intent and its turns."""

    intent: Intent
    turns: list[int]


@dataclass(frozen=True)
class SGD:
    """One split of the corpus below `root`."""

    root: str
    split: str = "train"

    def read(self, reject: Reject | None = None) -> Iterator[Dialogue]:
        """Yields the dialogues in the publisher's order. Ids are `sgd:SPLIT/1_00000`.

        Malformed dialogues go to `reject`; without it the first one raises RecordError. ValueError: the folder is not the corpus.
        """
        folder = Path(self.root) / self.split
        files = sorted(folder.glob("dialogues_*.json"))
        if not files:
            raise ValueError(
                f"{folder}: no dialogues_*.json there; clone github.com/google-research-datasets/dstc8-schema-guided-dialogue "
                "(CC BY-SA 4.0) and give its folder as `root`, train, dev or test as `split`"
            )
        seen = {service["service_name"] for service in _schema(Path(self.root) / "train")}
        transactional = {
            Intent(service["service_name"], intent["name"]): bool(intent["is_transactional"])
            for service in _schema(folder)
            for intent in service["intents"]
        }
        for file in files:
            yield from convert_each(
                _dialogues(file, reject), partial(convert, seen=seen, transactional=transactional), self._name, str(file), reject
            )

    def _name(self, raw: Raw) -> str:
        return f"sgd:{self.split}/{raw['dialogue_id']}"


def _schema(folder: Path) -> list[dict[str, Any]]:
    file = folder / "schema.json"
    if not file.is_file():
        raise ValueError(f"{file}: no such file; see github.com/google-research-datasets/dstc8-schema-guided-dialogue (CC BY-SA 4.0)")
    schema: list[dict[str, Any]] = json.loads(plain_file(file).read_text(encoding="utf-8"))
    return schema


def _dialogues(file: Path, reject: Reject | None) -> list[Raw]:
    """The dialogues of a file. A file that does not hold a JSON list counts as one rejected record."""
    try:
        rows = json.loads(plain_file(file).read_text(encoding="utf-8"))
        if isinstance(rows, list):
            return rows
        problem = f"a JSON {type_of(rows)}, not a list of dialogues"
    except ValueError as error:  # UnicodeDecodeError and JSONDecodeError are ValueErrors
        problem = f"not UTF-8 JSON ({error})"
    reject_or_raise(RecordError(str(file), 0, None, "file", f"{problem}; unpack the release again"), reject)
    return []


def convert(raw: Raw, seen: set[str], transactional: Mapping[Intent, bool]) -> dict[str, Any]:
    """A published dialogue -> the fields of the record, without the id.

    `seen`: the services of train's schema. `transactional`: for each intent of the split's schema, whether it acts or only searches.
    Raises KeyError, TypeError, ... if the dialogue is not in the publisher's format.
    """
    exchanges = pair_utterances(raw["turns"], lambda turn: is_user(turn["speaker"], "USER", "SYSTEM"))
    active = [active_intents(exchange.user) for exchange in exchanges]
    goals = find_goals(active)
    if unknown := [goal.intent for goal in goals if goal.intent not in transactional]:
        raise ValueError(f"the split's schema.json has no {unknown[0]}")
    goal_of_turn = {turn: goal for goal in goals for turn in goal.turns}
    retries = find_retries(goals, exchanges)
    turns = []
    for number, (exchange, intents) in enumerate(zip(exchanges, active, strict=True)):
        goal = goal_of_turn.get(number)
        turns.append({
            "request": exchange.user and exchange.user["utterance"],
            "response": exchange.system and exchange.system["utterance"],
            "intent": None if intents is None else str(goal.intent) if intents and goal else NONE,
            "request_acts": find_acts(exchange.user), "response_acts": find_acts(exchange.system),
            "retry": None if intents is None else number in retries,
            "request_slots": find_slots(exchange.user, categorical=True),
            "response_slots": find_slots(exchange.system, categorical=False),
            "categorical": served(exchange.system),
        })  # fmt: skip
    outcomes = [outcome(goal, exchanges, transactional[goal.intent]) for goal in goals]
    named = [{"turns": goal.turns, "name": str(goal.intent), "outcome": found} for goal, found in zip(goals, outcomes, strict=True)]
    unseen = [service not in seen for service in raw["services"]]
    return {
        "turns": turns,
        "goals": None if all(intents is None for intents in active) else named,
        "slices": ["seen" if not any(unseen) else "unseen" if all(unseen) else "mixed"],
        "metadata": {"services": list(raw["services"])},
    }


def active_intents(user: Raw | None) -> list[Intent] | None:
    """The intents that are active in a user's turn, NONE aside. None: not annotated."""
    frames = (user or {}).get("frames") or []
    states = [(frame["service"], frame["state"]["active_intent"]) for frame in frames if "state" in frame]
    return [Intent(service, name) for service, name in states if name != NONE] if states else None


def find_goals(active: Iterable[list[Intent] | None]) -> list[GoalSpan]:
    """The active intents of each turn -> the goals, in order. Turns before the first intent have no goal."""
    goals: list[GoalSpan] = []
    for turn, intents in enumerate(active):
        running = goals[-1].intent if goals else None
        if new := [intent for intent in intents or () if intent != running]:
            goals.append(GoalSpan(new[0], []))
        if goals:
            goals[-1].turns.append(turn)
    return goals


def _acts(turn: Raw | None, service: str) -> set[str]:
    frames = (turn or {}).get("frames") or []
    return {action["act"] for frame in frames if frame["service"] == service for action in frame.get("actions") or ()}


def outcome(goal: GoalSpan, exchanges: Sequence[Exchange[Raw]], transactional: bool) -> Outcome | None:
    """The outcome that the system's acts report. None: they report none."""
    success = "NOTIFY_SUCCESS" if transactional else "OFFER"
    reported = [act for turn in goal.turns for act in (success, FAILURE) if act in _acts(exchanges[turn].system, goal.intent.service)]
    if not reported:
        return None
    if reported[-1] == FAILURE:
        return "failure"
    return "recovered" if FAILURE in reported else "success"


def find_acts(turn: Raw | None) -> list[str] | None:
    """The dialogue acts of an utterance, each once, in order. None: not annotated."""
    frames = [frame for frame in (turn or {}).get("frames") or () if "actions" in frame]
    return list(dict.fromkeys(action["act"] for frame in frames for action in frame["actions"])) if frames else None


def find_retries(goals: Iterable[GoalSpan], exchanges: Sequence[Exchange[Raw]]) -> set[int]:
    """Turns whose request states the running intent again after the system reported a failure."""
    return {
        turn
        for goal in goals
        for turn in goal.turns[1:]
        if "INFORM_INTENT" in _acts(exchanges[turn].user, goal.intent.service)
        and FAILURE in _acts(exchanges[turn - 1].system, goal.intent.service)
    }


def served(system: Raw | None) -> dict[str, str]:
    """The feature `service`: that of the answer's first frame."""
    frames = (system or {}).get("frames") or []
    return {"service": frames[0]["service"]} if frames else {}


def find_slots(turn: Raw | None, categorical: bool) -> list[dict[str, Any]] | None:
    """The slots of an utterance: the publisher's spans and, with `categorical`, the informed values that its text holds.

    None: not annotated.
    """
    frames = (turn or {}).get("frames") or []
    if turn is None or not any("slots" in frame for frame in frames):
        return None
    text: str = turn["utterance"]
    found = []
    for frame in frames:
        actions = frame.get("actions") or ()
        spans = frame.get("slots") or ()
        for span in spans:
            words = text[span["start"] : span["exclusive_end"]]
            found.append({
                "name": span["slot"], "start": span["start"], "end": span["exclusive_end"], "value": words,
                "normalised": _canonical(actions, span["slot"], words),
            })  # fmt: skip
        if categorical:
            spanned = {span["slot"] for span in spans}
            found += _located(text, [a for a in actions if a["act"] == "INFORM" and a["slot"] not in spanned])
    return found


def _canonical(actions: Iterable[Raw], slot: str, words: str) -> str | None:
    for action in actions:
        if action["slot"] == slot:
            for value, canonical in zip(action["values"], action.get("canonical_values") or (), strict=False):
                if value == words:
                    return str(canonical)
    return None


def _located(text: str, informs: Iterable[Raw]) -> Iterator[dict[str, Any]]:
    """The slots whose values occur in the text, each at its first occurrence, ignoring case."""
    for action in informs:
        for value in action["values"]:
            match = re.search(re.escape(value), text, re.IGNORECASE)
            if match and value:
                yield {
                    "name": action["slot"], "start": match.start(), "end": match.end(), "value": match.group(),
                    "normalised": _canonical([action], action["slot"], value), "categorical": True,
                }  # fmt: skip
