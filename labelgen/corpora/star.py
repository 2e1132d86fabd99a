"""STAR (Mosig, Mehri, Kober 2020, https://arxiv.org/abs/2010.11853): the publisher's folder of task-oriented dialogues -> dialogues.

Where to get it: github.com/RasaHQ/STAR, licence MIT. `root` is the clone, with `dialogues/1.json`, ...: one person plays the user, another
(the wizard) the assistant. Dialogues of fewer than four utterances, whose user left at once, are left out: 581 of 5,312. No split is
published: see `labelgen.corpora.in_fold`.

A user's utterance and the wizard's answer to it are one turn. An utterance without a partner stands alone.

What is labelled, and by which rule:

- Goals: an utterance of the wizard serves the task that the wizard selected last (`select_task`), or the only task of the dialogue. An
  utterance of the user serves the task of the wizard's next utterance, or of the last one. A selection does not count while the wizard
  only says what fits any task (free text, "goodbye_1", "anything_else", "trivia_bye", ...) and queries nothing: the former task continues.
  All turns of a task are one goal, so goals interleave and are resumed. Turns before the first selection have no goal. Without any
  selection the goals are not annotated.
- Intent: the task that the request serves (`doctor_followup`). None where the turn has no goal or no request.
- Outcome: the last decisive evidence for a goal. Evidence is the labels of the wizard's utterances in its turns (`ACT_OUTCOMES`) and the
  messages that its own API returned, in any turn or after the last one (`MESSAGE_OUTCOMES`). Success after an earlier failure is
  `recovered`. Without evidence the outcome is not known. "spaceship_inform_outcome" is not evidence: it labels both "The door is now
  unlocked." and "Sorry, you are not authorized". (A reference conversion counts it as success, in 15 outcomes, and counts a message for
  the goal of the next response, in 32 of the 6,754 outcomes.)
- Votes of the dialogue: `goal_success`, 1.0 or 0.0 by "user": the user's own answer to a question like "Did the AI Assistant schedule your
  meeting?". Only users with a single task were asked, so that the answer judges the only goal. `hotel_search` has no such vote: most of
  its users were asked whether a hotel was reserved, which was not their task. Answer and outcome agree in 95.7% where both decide.
- `timestamp`: when the request was sent, in UTC.
- `categorical["api"]`: the API that the assistant called last before its response. None: it called none. As in a real log, the name is
  close to the intent.
- `response_acts`: the label of the wizard's utterance. None for free text. Labels and API messages decide outcomes, so they are not
  features.
- `user`: the publisher's pseudonym. `metadata`: `tasks` that the wizard could do, `multitask`, `happy` (nothing was meant to go wrong)
  and `completion`.

Not labelled: slots and defects. Left out: the answers on whether the assistant was calm and whether the task was fun.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

from labelgen.corpora import Fold, Raw, convert_each, in_fold, is_user, pair_utterances
from labelgen.dialogue import Dialogue, Outcome, RecordError, Reject, reject_or_raise
from labelgen.io.paths import plain_file

MIN_UTTERANCES = 4  # of a dialogue
UTTERANCE_ACTIONS = {"utter", "pick_suggestion"}
GENERIC_ACTS = {  # they fit any task
    None,
    "custom",
    "hello",
    "ask_name",
    "out_of_scope",
    "anything_else",
    "goodbye_1",
    "ride_bye",
    "trivia_bye",
}

ACT_OUTCOMES = {  # label of the wizard's utterance -> whether the task succeeded
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
MESSAGE_OUTCOMES = {  # beginning of an API's message -> whether the task succeeded ("Available" decides nothing)
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


class Message(NamedTuple):
    """What an API returned."""

    api: str
    text: str


class Line(NamedTuple):
    """An utterance. For the wizard's, also what happened since the wizard's utterance before."""

    user: bool
    text: str
    sent: int  # seconds since 1970
    task: str | None = None  # the task that it serves; before `assign_tasks`, the selected one
    act: str | None = None  # its label
    apis: tuple[str, ...] = ()  # queried
    messages: tuple[Message, ...] = ()


class Transcript(NamedTuple):
    """The lines of a dialogue, and what APIs returned after the wizard's last line."""

    lines: list[Line]
    late_messages: tuple[Message, ...]


@dataclass(frozen=True)
class STAR:
    """The corpus below `root`. `split` and `fold`: see `labelgen.corpora.in_fold`."""

    root: str
    split: Fold = "all"
    fold: int = 0

    def read(self, reject: Reject | None = None) -> Iterator[Dialogue]:
        """Yields the dialogues by number. Ids are `star:1`.

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
                yield from convert_each(rows, convert, partial(_identity, identity), str(file), reject)


def _identity(identity: str, raw: Raw) -> str:
    return identity


def _load(file: Path, identity: str, reject: Reject | None) -> list[Any]:
    """The one row of a file. A file that is not JSON counts as a rejected record."""
    try:
        return [json.loads(plain_file(file).read_text(encoding="utf-8"))]
    except ValueError as error:  # UnicodeDecodeError and JSONDecodeError are ValueErrors
        problem = f"not UTF-8 JSON ({error}); clone the repository again"
    reject_or_raise(RecordError(str(file), 0, identity, "file", problem), reject)
    return []


def _is_short(raw: Any) -> bool:
    try:
        return sum(event["Action"] in UTTERANCE_ACTIONS for event in raw["Events"]) < MIN_UTTERANCES
    except (KeyError, TypeError):
        return False  # not in the format: `convert` raises


def convert(raw: Raw) -> dict[str, Any]:
    """A published dialogue -> the fields of the record, without the id. KeyError, TypeError, ...: not in the publisher's format."""
    scenario = raw["Scenario"]
    tasks = [capability["Task"] for capability in scenario["WizardCapabilities"]]
    transcript = find_lines(raw["Events"], None if scenario["MultiTask"] else tasks[0])
    lines = assign_tasks(transcript.lines)
    turns: list[dict[str, Any]] = []
    turns_of: dict[str, list[int]] = {}
    for turn, (request, response) in enumerate(pair_utterances(lines, lambda line: line.user)):
        task = next(line.task for line in (response, request) if line)
        if task is not None:
            turns_of.setdefault(task, []).append(turn)
        turns.append({
            "request": request and request.text, "response": response and response.text,
            "timestamp": request and request.sent, "intent": request and task,
            "categorical": {"api": response.apis[-1] if response and response.apis else None},
            "response_acts": [response.act] if response and response.act else None,
        })  # fmt: skip
    evidence = find_evidence(lines, transcript.late_messages)
    goals = [{"turns": of_task, "name": task, "outcome": outcome(evidence.get(task, ()))} for task, of_task in turns_of.items()]
    return {
        "turns": turns, "goals": goals or None, "user": raw.get("AnonymizedUserWorkerID"),
        "votes": [] if scenario["MultiTask"] else find_votes(raw["UserQuestionnaire"], tasks[0]),
        "metadata": {
            "tasks": tasks, "multitask": scenario["MultiTask"], "happy": scenario["Happy"], "completion": raw["CompletionLevel"],
        },
    }  # fmt: skip


def find_lines(events: Iterable[Raw], task: str | None) -> Transcript:
    """The lines in order. The wizard's have the task that is selected; `task` is selected at the start."""
    lines: list[Line] = []
    apis: list[str] = []
    messages: list[Message] = []
    for event in events:
        action = event["Action"]
        if action == "select_task":
            task = event["Task"]
        elif action == "query":
            apis.append(event["APIName"])
        elif action == "return_item" and event.get("Item"):
            item = event["Item"]
            messages.append(Message(event["APIName"], item.get("Message") or item.get("ReservationStatus") or ""))
        elif action in UTTERANCE_ACTIONS:
            lines.append(_line(event))
            if not lines[-1].user:
                lines[-1] = lines[-1]._replace(task=task, apis=tuple(apis), messages=tuple(messages))
                apis, messages = [], []
    return Transcript(lines, tuple(messages))


def _line(event: Raw) -> Line:
    speaker, text = event["Agent"], event["Text"]
    if not isinstance(text, str):
        raise ValueError(f"Text {text!r} of an utterance is not a string")
    return Line(is_user(speaker, "User", "Wizard"), text, event["UnixTime"], act=event.get("ActionLabel"))


def assign_tasks(lines: list[Line]) -> list[Line]:
    """The lines, each with the task that it serves instead of the selected one."""
    served: list[str | None] = [None] * len(lines)
    running = None
    wizard = [k for k, line in enumerate(lines) if not line.user]
    for selected, group in groupby(wizard, key=lambda k: lines[k].task):
        stretch = list(group)
        if running is None or any(lines[k].apis or lines[k].act not in GENERIC_ACTS for k in stretch):
            running = selected
        for k in stretch:
            served[k] = running
    for k in reversed(range(len(lines))):
        if lines[k].user:
            served[k] = running
        running = served[k]
    return [line._replace(task=task) for line, task in zip(lines, served, strict=True)]


def find_evidence(lines: Iterable[Line], late_messages: Iterable[Message]) -> dict[str | None, list[bool]]:
    """For each task, whether it succeeded according to each label and message, in order. The late messages come after the lines."""
    evidence: defaultdict[str | None, list[bool]] = defaultdict(list)
    for line in lines:
        for message in line.messages:
            evidence[message.api] += _outcomes(message)
        if line.act in ACT_OUTCOMES:
            evidence[line.task].append(ACT_OUTCOMES[line.act])
    for message in late_messages:
        evidence[message.api] += _outcomes(message)
    return evidence


def _outcomes(message: Message) -> list[bool]:
    return [success for start, success in MESSAGE_OUTCOMES.items() if message.text.startswith(start)]


def outcome(evidence: Iterable[bool]) -> Outcome | None:
    """The outcome of a goal by its evidence, in order. None: there is none."""
    successes = list(evidence)
    if not successes:
        return None
    if not successes[-1]:
        return "failure"
    return "success" if all(successes) else "recovered"


def find_votes(questionnaire: Iterable[Raw], task: str) -> list[dict[str, Any]]:
    """The user's answer to whether the assistant did the task. It is the first one, unless that question is about manners ("stay calm")."""
    answers = [(entry["Question"], entry["Answer"]) for entry in questionnaire]
    if task == "hotel_search" or not answers or "calm" in answers[0][0]:
        return []
    return [{"question": "goal_success", "value": float(answers[0][1]), "annotator": "user"}]
