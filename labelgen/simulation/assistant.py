"""The simulated assistant: goals, how far it has served them, and its responses, right or defective."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from labelgen.dialogue import Outcome
from labelgen.simulation import templates
from labelgen.simulation.intents import INTENTS, Intent
from labelgen.simulation.realisation import Segment, SlotValues, realise, sample_segment

Status = Literal["new", "slot_requested", "confirmation_requested", "no_result", "done", "error"]
FailureKind = Literal["none", "misrecognised", "wrong_domain", "wrong_value", "unsupported"]


@dataclass(eq=False)
class GoalState:
    """A goal of the user while the dialogue serves it."""

    intent: Intent
    values: SlotValues = field(default_factory=dict)
    informed: set[str] = field(default_factory=set)  # slots whose values the user has given
    turns: list[int] = field(default_factory=list)
    status: Literal[Status, "abandoned"] = "new"  # "error": the last response was defective
    requested_slot: str | None = None
    confirmed: bool = False
    num_failures: int = 0  # responses that did not help

    @property
    def outcome(self) -> Outcome:
        """Success only where the assistant reported one; recovered where a response before that did not help."""
        if self.status != "done":
            return "failure"
        return "recovered" if self.num_failures else "success"


class Failure(NamedTuple):
    """What went wrong in a turn, and how confident the components still are on average."""

    kind: FailureKind
    recogniser_confidence: float
    understanding_confidence: float


NO_FAILURE = Failure("none", 0.88, 0.88)
MISRECOGNISED = Failure("misrecognised", 0.55, 0.6)
UNDERSTANDING_FAILURES = (Failure("wrong_domain", 0.86, 0.52), Failure("wrong_value", 0.84, 0.68), Failure("unsupported", 0.86, 0.45))


class Response(NamedTuple):
    """A response, and the status that the assistant believes the goal to have."""

    status: Status
    segments: list[Segment]


class Assistant:
    """Responds to requests. Every draw comes from `rng`."""

    def __init__(self, rng: random.Random, split: str) -> None:
        self.rng, self.split = rng, split

    def respond(self, goal: GoalState, failure: Failure, heard: list[Segment]) -> Response:
        """The response to a request that was `heard`. Updates the goal."""
        return self._right_response(goal) if failure is NO_FAILURE else self._defective_response(goal, failure.kind, heard)

    def _right_response(self, goal: GoalState) -> Response:
        """Requests a slot or a confirmation, or reports a result."""
        missing = [slot for slot in goal.intent.required_slots if slot not in goal.informed]
        goal.requested_slot = missing[0] if missing else None
        if missing:
            response = Response("slot_requested", self._realise(templates.SLOT_QUESTIONS[missing[0]]))
        elif goal.intent.confirms and not goal.confirmed and self.rng.random() < 0.6:
            response = Response("confirmation_requested", self._confirmation_question(goal))
        elif goal.intent.no_result_responses and self.rng.random() < 0.07:
            goal.num_failures += 1
            response = Response("no_result", self._realise(goal.intent.no_result_responses, goal.values))
        else:
            report = self._realise(goal.intent.success_responses, goal.values)
            response = Response("done", report + self._realise(templates.FURTHER_HELP))
        goal.status = response.status
        return response

    def _defective_response(self, goal: GoalState, kind: FailureKind, heard: list[Segment]) -> Response:
        """A response that does not serve the user."""
        goal.status = "error"
        goal.num_failures += 1
        chance = self.rng.random()
        if kind == "misrecognised":
            if chance < 0.4:
                return Response("error", self._realise(templates.NOT_UNDERSTOOD))
            kind = "wrong_value" if chance < 0.75 else "wrong_domain"
        if kind == "wrong_domain":
            return self._other_domain(goal, asks=chance < 0.2)
        return self._other_values(goal, heard) if kind == "wrong_value" else Response("error", self._realise(templates.UNSUPPORTED))

    def _other_domain(self, goal: GoalState, asks: bool) -> Response:
        domain = goal.intent.name.split("/")[0]
        other = self.rng.choice([intent for intent in INTENTS if not intent.name.startswith(domain)])
        if asks:
            return Response("slot_requested", self._realise(templates.SLOT_QUESTIONS[other.required_slots[0]]))
        return Response("done", self._realise(other.success_responses))

    def _other_values(self, goal: GoalState, heard: list[Segment]) -> Response:
        """Reports success with the values that were misrecognised, or else with another value of one slot."""
        misrecognised = {segment.slot: segment for segment in heard if segment.slot and segment.normalised is None}
        informed = [segment.slot for segment in heard if segment.slot in goal.intent.required_slots]
        slot = self.rng.choice(informed or goal.intent.required_slots)
        values: SlotValues = {**goal.values, **(misrecognised or {slot: self.other_value(goal.values[slot])})}
        for _ in range(6):  # until a template names a wrong value
            segments = self._realise(goal.intent.success_responses, dict(values))
            if any(segment.slot and segment == values.get(segment.slot) != goal.values.get(segment.slot) for segment in segments):
                return Response("done", segments)
        return Response("error", self._realise(templates.UNSUPPORTED))

    def _confirmation_question(self, goal: GoalState) -> list[Segment]:
        values = [segment for slot in goal.intent.required_slots for segment in (goal.values[slot], Segment(", "))][:-1]
        question = self._realise(templates.CONFIRMATION_QUESTIONS, {"@": Segment("@")})
        return [part for segment in question for part in (values if segment.words == "@" else [segment])]

    def other_value(self, segment: Segment) -> Segment:
        """A different value of the same slot."""
        assert segment.slot is not None
        while (other := sample_segment(segment.slot, self.rng, self.split)).words == segment.words:
            pass
        return other

    def _realise(self, choices: tuple[str, ...], values: SlotValues | None = None) -> list[Segment]:
        return realise(choices, self.rng, {} if values is None else values, self.split)
