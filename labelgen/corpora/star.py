"""STAR (Mosig, Mehri, Kober 2020, https://arxiv.org/abs/2010.11853): the publisher's folder of task-oriented dialogues -> dialogues.

Where to get it: github.com/RasaHQ/STAR, licence MIT. `root` is the clone, with `dialogues/1.json`, ...: a person plays the user, another
(the wizard) the assistant. Dialogues of fewer than four utterances, whose user left at once, are left out: 581 of 5,312. No split is
published: `test` is tenth `fold` of the dialogues, by a hash of the id.

A user's utterance and the wizard's answer to it are one turn; consecutive ones of the user are turns without response, consecutive
ones of the wizard turns without request.

What is labelled, and by which rule:

- Goals: an utterance of the wizard serves the task that the wizard selected last (`select_task`), in a dialogue about a single task
  that one; the user's utterance serves that of the wizard's next, after the last the last. While the wizard only says what fits
  any task (free text, "goodbye_1", "anything_else", "trivia_bye", ...) and queries nothing, another selection does not count: the former
  task goes on. A task is one goal with all its turns: goals interleave and are resumed. Turns before the first selection have no goal;
  without any selection the dialogue's goals are not annotated.
- Intent: the task that the request serves (`doctor_followup`); None where the turn has no goal or no request.
- Outcome: the last decisive evidence for a goal, among the labels of the wizard's utterances in its turns (`TOLD`) and the messages that
  its own API returned, in whichever turn or after the last (`REPORTED`). Success after an earlier failure is `recovered`; without any
  evidence: unknown. "spaceship_inform_outcome" is no evidence: it labels "The door is now unlocked." and "Sorry, you are not
  authorized" alike. (A reference conversion takes it for success, 15 outcomes, and counts a message for the goal of the next response,
  32 of the 6,754 outcomes.)
- Votes of the dialogue: `goal_success`, 1.0 or 0.0 by "user": the user's own answer to a question like "Did the AI Assistant schedule your
  meeting?". It was asked in dialogues about a single task only, so that it judges the only goal. `hotel_search` has none: most of its
  users were asked whether a hotel was reserved, which nobody wanted. Answer and outcome agree in 95.7% where both decide.
- `timestamp`: when the request was sent, in UTC.
- `categorical["api"]`: the API that the assistant called last before its response; None: none. As in a real log, its name is close to
  the intent.
- `response_acts`: the label of the wizard's utterance; None for free text. Labels and API messages decide outcomes, so no feature holds
  them.
- `user`: the publisher's pseudonym. `metadata`: `tasks` that the wizard could do, `multitask`, `happy` (nothing was meant to go wrong)
  and `completion`.

Not labelled: slots and defects. Left out: the answers on whether the assistant was calm and whether the task was fun.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

from labelgen.corpora import Fold, Raw, convert_each, in_fold
from labelgen.dialogue import Dialogue, Outcome, RecordError, Reject, reject_or_raise

FEWEST = 4  # utterances of a dialogue
UTTERANCES = {"utter", "pick_suggestion"}
GENERIC = {None, "custom", "hello", "ask_name", "out_of_scope", "anything_else", "goodbye_1", "ride_bye", "trivia_bye"}

TOLD = {  # label of the wizard's utterance -> did the task succeed?
    **dict.fromkeys(
        (
            "bank_inform_balance", "bank_inform_fraud_report_submitted", "doctor_inform_booking_successful",
            "doctor_inform_doctors_instructions", "hotel_provide_search_result", "hotel_reservation_succeeded",
            "meeting_inform_confirmed", "party_booking_successful", "party_confirm_rsvp", "restaurant_inform_booking_successful",
            "ride_confirm_booking", "ride_inform_changes_successful", "ride_provide_driver_details", "trip_inform_detailed_step",
            "trip_inform_last_step_and_done", "trip_inform_simple_step_ask_proceed", "trip_instructions_done", "trivia_bye",
            "trivia_inform_answer_2_ask_next", "trivia_inform_answer_correct_ask_next", "trivia_inform_answer_incorrect_ask_next",
            "weather_inform_forecast",
        ),
        True,
    ),
    **dict.fromkeys(
        (
            "bank_inform_cannot_authenticate", "doctor_inform_booking_unavailable", "hotel_reservation_failed", "hotel_unavailable",
            "meeting_inform_unavailable_ask_different_time", "party_booking_failed", "party_no_venue_available",
            "party_venue_not_available", "restaurant_inform_booking_failed", "restaurant_inform_unavailable", "ride_inform_changes_failed",
            *(f"{domain}_inform_nothing_found" for domain in (
                "bank", "doctor", "hotel", "meeting", "restaurant", "ride", "spaceship", "trip", "trivia", "weather",
            )),
        ),
        False,
    ),
}  # fmt: skip
REPORTED = {  # how an API's message begins -> did the task succeed? ("Available" says neither)
    "Ride booked": True,
    "Reservation Confirmed": True,
    "Your event has been success": True,
    "Your meeting has been success": True,
    "Your appointment has been success": True,
    "Thank you for your RSVP": True,
    "Take your medicine": True,
    "You must take your medicine": True,
    "The door is now unlocked": True,
    "Successful!": True,
    "Unavailable": False,
    "Reservation Failed": False,
    "The doctor has a conflicting": False,
    "That person has a conflicting": False,
    "The venue is booked": False,
    "The venue is too small": False,
    "You must provide either": False,
    "Sorry, you are not authorized": False,
}


class Line(NamedTuple):
    """An utterance, and for the wizard's what was done since the one before."""

    user: bool
    text: str
    sent: int  # seconds since 1970
    task: str | None = None  # that it serves, or (see `find_lines`) that is selected
    act: str | None = None  # its label
    apis: tuple[str, ...] = ()  # queried
    reports: tuple[tuple[str, str], ...] = ()  # (API, message), as returned


class Said(NamedTuple):
    """The lines of a dialogue, and what APIs returned after the last of the wizard's."""

    lines: list[Line]
    reports: tuple[tuple[str, str], ...]


class Exchange(NamedTuple):
    """A request and its response; either may be missing."""

    user: Line | None
    wizard: Line | None


@dataclass(frozen=True)
class STAR:
    """The corpus below `root`, all of it or one side of a split (`fold`: 0 to 9)."""

    root: str
    split: Fold = "all"
    fold: int = 0

    def read(self, reject: Reject | None = None) -> Iterator[Dialogue]:
        """Streams the dialogues by number; ids are `star:1`.

        Malformed dialogues go to `reject`; without it the first one raises RecordError. ValueError: the folder is not the corpus.
        """
        folder = Path(self.root) / "dialogues"
        files = sorted(folder.glob("*.json"), key=lambda file: (len(file.stem), file.stem))
        if not files:
            raise ValueError(f"{folder}: no dialogues there; clone github.com/RasaHQ/STAR (MIT) and give its folder as `root`")
        for file in files:
            identity = f"star:{file.stem}"
            if in_fold(identity, self.split, self.fold):
                rows = [raw for raw in _load(file, identity, reject) if not _is_short(raw)]
                yield from convert_each(rows, convert, partial(_name, identity), str(file), reject)


def _name(identity: str, raw: Raw) -> str:
    return identity


def _load(file: Path, identity: str, reject: Reject | None) -> list[Any]:
    """The one row of a file; a file that is no JSON is a rejected record."""
    try:
        return [json.loads(file.read_text(encoding="utf-8"))]
    except ValueError as error:  # UnicodeDecodeError and JSONDecodeError are ValueErrors
        failure = RecordError(str(file), 0, identity, "file", f"not UTF-8 JSON ({error}); clone the repository again")
    reject_or_raise(failure, reject)
    return []


def _is_short(raw: Any) -> bool:
    try:
        return sum(event["Action"] in UTTERANCES for event in raw["Events"]) < FEWEST
    except (KeyError, TypeError):
        return False  # not in the format, which `convert` tells


def convert(raw: Raw) -> dict[str, Any]:
    """One published dialogue -> the fields of our record, without the id. Raises KeyError, TypeError, ... where the format is another."""
    scenario = raw["Scenario"]
    tasks = [capability["Task"] for capability in scenario["WizardCapabilities"]]
    found = find_lines(raw["Events"], None if scenario["MultiTask"] else tasks[0])
    lines = assign(found.lines)
    turns: list[dict[str, Any]] = []
    members: dict[str, list[int]] = {}
    for turn, (request, response) in enumerate(pair(lines)):
        task = next(line.task for line in (response, request) if line)
        if task is not None:
            members.setdefault(task, []).append(turn)
        turns.append({
            "request": request and request.text, "response": response and response.text,
            "timestamp": request and request.sent, "intent": request and task,
            "categorical": {"api": response.apis[-1] if response and response.apis else None},
            "response_acts": [response.act] if response and response.act else None,
        })  # fmt: skip
    evidence = find_evidence(lines, found.reports)
    goals = [{"turns": where, "name": task, "outcome": outcome(evidence.get(task, ()))} for task, where in members.items()]
    return {
        "turns": turns, "goals": goals or None, "user": raw.get("AnonymizedUserWorkerID"),
        "votes": [] if scenario["MultiTask"] else find_votes(raw["UserQuestionnaire"], tasks[0]),
        "metadata": {
            "tasks": tasks, "multitask": scenario["MultiTask"], "happy": scenario["Happy"], "completion": raw["CompletionLevel"],
        },
    }  # fmt: skip


def find_lines(events: Iterable[Raw], task: str | None) -> Said:
    """What was said, in order, each wizard's line with the selected task; `task` is the one at the start."""
    lines: list[Line] = []
    apis: list[str] = []
    reports: list[tuple[str, str]] = []
    for event in events:
        action = event["Action"]
        if action == "select_task":
            task = event["Task"]
        elif action == "query":
            apis.append(event["APIName"])
        elif action == "return_item" and event.get("Item"):
            item = event["Item"]
            reports.append((event["APIName"], item.get("Message") or item.get("ReservationStatus") or ""))
        elif action in UTTERANCES:
            lines.append(_line(event))
            if not lines[-1].user:
                lines[-1] = lines[-1]._replace(task=task, apis=tuple(apis), reports=tuple(reports))
                apis, reports = [], []
    return Said(lines, tuple(reports))


def _line(event: Raw) -> Line:
    speaker, text = event["Agent"], event["Text"]
    if speaker not in ("User", "Wizard"):
        raise ValueError(f"Agent {speaker!r} is neither User nor Wizard")
    if not isinstance(text, str):
        raise ValueError(f"Text {text!r} of an utterance is no text")
    return Line(speaker == "User", text, event["UnixTime"], act=event.get("ActionLabel"))


def assign(lines: list[Line]) -> list[Line]:
    """The lines, each with the task that it serves instead of the selected one."""
    served: list[str | None] = [None] * len(lines)
    running = None
    wizard = [k for k, line in enumerate(lines) if not line.user]
    for selected, group in groupby(wizard, key=lambda k: lines[k].task):
        stretch = list(group)
        if running is None or any(lines[k].apis or lines[k].act not in GENERIC for k in stretch):
            running = selected
        for k in stretch:
            served[k] = running
    for k in reversed(range(len(lines))):
        if lines[k].user:
            served[k] = running
        running = served[k]
    return [line._replace(task=task) for line, task in zip(lines, served, strict=True)]


def pair(lines: Iterable[Line]) -> list[Exchange]:
    """Lines -> exchanges; a line whose partner is missing stands alone."""
    exchanges: list[Exchange] = []
    for line in lines:
        if line.user:
            exchanges.append(Exchange(line, None))
        elif exchanges and exchanges[-1].wizard is None:
            exchanges[-1] = exchanges[-1]._replace(wizard=line)
        else:
            exchanges.append(Exchange(None, line))
    return exchanges


def find_evidence(lines: Iterable[Line], reports: Iterable[tuple[str, str]]) -> dict[str | None, list[bool]]:
    """Per task what labels and messages say of its success, in order; `reports` came after the lines."""
    evidence: dict[str | None, list[bool]] = {}
    for returned, line in (*((line.reports, line) for line in lines), (reports, None)):
        for api, message in returned:
            evidence.setdefault(api, []).extend(success for start, success in REPORTED.items() if message.startswith(start))
        if line is not None and line.act in TOLD:
            evidence.setdefault(line.task, []).append(TOLD[line.act])
    return evidence


def outcome(evidence: Iterable[bool]) -> Outcome | None:
    """What the evidence says of a goal; None: it says nothing."""
    told = list(evidence)
    if not told:
        return None
    if not told[-1]:
        return "failure"
    return "success" if all(told) else "recovered"


def find_votes(questionnaire: Iterable[Raw], task: str) -> list[dict[str, Any]]:
    """The user's answer on whether the assistant did the task: to the first question, unless that asks for manners ("stay calm")."""
    answers = [(entry["Question"], entry["Answer"]) for entry in questionnaire]
    if task == "hotel_search" or not answers or "calm" in answers[0][0]:
        return []
    return [{"question": "goal_success", "value": float(answers[0][1]), "annotator": "user"}]
