"""One simulated dialogue: a user with goals, an assistant whose components fail on purpose, and therefore the truth of every label.

A dialogue serves one to four goals, one after another or interleaved. The assistant misrecognises, answers from another domain, takes
another value or gives up. The user rephrases, changes their mind or leaves. The logged features carry evidence: a component is less
confident where it failed, a typed request has no recogniser's confidence, and a car is noisier than a phone.
"""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from labelgen.dialogue import Dialogue, Goal, Turn, Vote
from labelgen.simulation import templates
from labelgen.simulation.assistant import MISRECOGNISED, NO_FAILURE, UNDERSTANDING_FAILURES, Assistant, Failure, GoalState
from labelgen.simulation.intents import INTENTS
from labelgen.simulation.noise import add_typo, misrecognise, transcribe
from labelgen.simulation.realisation import Segment, SlotValues, Utterance, capitalise, join_segments, realise, sample_segment
from labelgen.simulation.users import NUM_USERS, user_profile

NO_INTENT = "NONE"  # the intent of turns that ask for nothing
START = datetime(2025, 1, 1, tzinfo=UTC)
DIALOGUE_STATUS = {  # as the assistant logs it; it does not notice all of its failures
    "slot_requested": "awaiting_slot",
    "confirmation_requested": "awaiting_confirmation",
    "no_result": "no_result",
    "done": "completed",
    "error": "error",
}


class Next(NamedTuple):
    """The goal of the next turn (None: the dialogue ends), and the words that introduce it."""

    goal: GoalState | None
    introduction: list[Segment]


class Conversation:
    """Makes one dialogue. Every draw comes from `rng`."""

    def __init__(self, name: str, split: str, seed: int, rng: random.Random) -> None:
        self.name, self.split, self.rng = name, split, rng
        self.user = user_profile(split, seed, rng.randrange(NUM_USERS))
        self.clock = START + timedelta(seconds=rng.randrange(365 * 24 * 3600))
        self.turns: list[Turn] = []
        self.assistant = Assistant(rng, split)
        self.waiting = self._sample_goals()
        self.paused: list[GoalState] = []
        self.started: list[GoalState] = []

    def dialogue(self) -> Dialogue:
        """The dialogue with all annotations. Call it once."""
        self._greet(self.waiting[0])
        self._close(self._serve_goals())
        self.started.sort(key=lambda goal: goal.turns)
        goals = [Goal(turns=goal.turns, name=goal.intent.name, outcome=goal.outcome) for goal in self.started]
        return Dialogue(id=self.name, user=self.user.name, turns=self.turns, goals=goals, metadata={"split": self.split})

    def _sample_goals(self) -> list[GoalState]:
        """One to four goals. Some repeat the intent of the goal before, or share its values."""
        goals: list[GoalState] = []
        for _ in range(self.rng.choices((1, 2, 3, 4), (30, 38, 21, 11))[0]):
            same_intent = bool(goals) and self.rng.random() < 0.12
            goal = GoalState(goals[-1].intent if same_intent else self.rng.choice(INTENTS))
            if goals and not same_intent and self.rng.random() < 0.3:
                goal.values.update(goals[-1].values)
            for slot in goal.intent.required_slots:
                if slot not in goal.values:
                    goal.values[slot] = sample_segment(slot, self.rng, self.split)
            if "destination" in goal.values and goal.values["destination"].words == goal.values["origin"].words:
                goal.values["destination"] = self.assistant.other_value(goal.values["destination"])
            goals.append(goal)
        return goals

    # -- The order of turns.

    def _serve_goals(self) -> GoalState:
        """Adds the turns of all goals. Returns the goal of the last turn."""
        goal: GoalState | None = self.waiting.pop(0)
        introduction = self._realise(templates.NEW_GOAL[:2])
        while goal is not None:
            last = goal
            if goal not in self.started:
                self.started.append(goal)
            self._exchange(goal, introduction)
            goal, introduction = self._next(goal)
        return last

    def _next(self, goal: GoalState) -> Next:
        """Continues the goal, interrupts it by another, or leaves it."""
        chance = self.rng.random()
        if goal.status in ("slot_requested", "confirmation_requested"):
            if not (self.waiting and chance < 0.22):
                return Next(goal, [])
            self.paused.append(goal)
            return Next(self.waiting.pop(0), self._realise(templates.INTERRUPTION))
        if goal.status == "error":
            if chance > 0.18 + 0.1 * goal.num_failures:
                return Next(goal, [])
            if chance > 0.12:  # otherwise the user leaves silently
                self._add_small_talk(goal, templates.ABANDONMENTS, templates.ABANDONMENT_RESPONSES, "abandoned")
        elif (goal.status == "no_result" and chance < 0.6) or (goal.status == "done" and chance < 0.07):
            return Next(goal, [])
        if goal.status != "done":
            goal.status = "abandoned"
        return self._next_goal(goal)

    def _next_goal(self, goal: GoalState) -> Next:
        """Resumes a paused goal, returns to one that is done, or starts a new one."""
        if self.paused and (not self.waiting or self.rng.random() < 0.7):
            resumed = self.paused.pop()
            if self.rng.random() < 0.92:
                return self._resume(resumed)
            resumed.status = "abandoned"
        done = [earlier for earlier in self.started if earlier is not goal and earlier.status == "done"]
        if done and self.rng.random() < 0.15:
            return self._resume(self.rng.choice(done))
        if self.waiting:
            return Next(self.waiting.pop(0), self._realise(templates.NEW_GOAL))
        return self._resume(self.paused.pop()) if self.paused else Next(None, [])

    def _resume(self, goal: GoalState) -> Next:
        return Next(goal, self._realise(templates.RESUMPTION, {"@": Segment(goal.intent.topic)}))

    def _greet(self, goal: GoalState) -> None:
        """Sometimes the assistant speaks first. The turn counts for the first goal."""
        if self.rng.random() < 0.06:
            self._add_turn(goal, NO_FAILURE, "in_progress", None, join_segments(self._realise(templates.GREETINGS)), NO_INTENT)

    def _close(self, goal: GoalState) -> None:
        """Sometimes the user says goodbye, or hangs up before the last response."""
        if self.rng.random() < (0.55 if goal.status == "done" else 0.12):
            self._add_small_talk(goal, templates.THANKS, templates.THANKS_RESPONSES, "closing")
        if self.rng.random() < 0.03:
            unanswered: dict[str, Any] = {"response": None, "response_slots": None, "defect": None, "votes": []}
            self.turns[-1] = self.turns[-1].model_copy(update=unanswered)

    # -- One turn.

    def _exchange(self, goal: GoalState, introduction: list[Segment]) -> None:
        """Adds one turn that serves the goal."""
        request = self._request(goal)
        goal.informed.update(segment.slot for segment in request if segment.slot)
        heard = self._as_logged([*introduction, *request])
        failure = self._sample_failure(goal)
        if failure is MISRECOGNISED:
            heard = misrecognise(heard, self.rng)
        response = self.assistant.respond(goal, failure, heard)
        if self.user.uses_emoji and not self.user.speaks and self.rng.random() < 0.3:
            heard = [*heard, Segment(self.rng.choice((" 🙏", " 😊", " 👍🏽", " 🎉", " 🤔")))]
        reply = join_segments(capitalise(response.segments))
        self._add_turn(goal, failure, DIALOGUE_STATUS[response.status], join_segments(heard), reply, goal.intent.name)

    def _request(self, goal: GoalState) -> list[Segment]:
        """What the user says next. May change the values of the goal."""
        if goal.status in ("done", "no_result") or (goal.status == "confirmation_requested" and self.rng.random() < 0.12):
            slot = self.rng.choice(goal.intent.required_slots)
            goal.values[slot], goal.confirmed = self.assistant.other_value(goal.values[slot]), False
            return self._realise(templates.SLOT_CHANGES, {"%": goal.values[slot]})
        if goal.status == "confirmation_requested":
            goal.confirmed = True
            return self._realise(templates.CONFIRMATIONS)
        correction = self._realise(templates.CORRECTION) if goal.status == "error" else []
        slot_asked = goal.requested_slot
        if slot_asked is not None and (goal.status == "slot_requested" or self.rng.random() < 0.6):
            own = templates.SLOT_ANSWERS.get(slot_asked, ())
            answers = own if own and self.rng.random() < 0.5 else templates.SLOT_ANSWERS[""]
            return correction + self._realise(answers, {"%": goal.values[slot_asked]})
        return correction + self._realise(goal.intent.requests, goal.values)

    def _sample_failure(self, goal: GoalState) -> Failure:
        repeated = 0.08 if goal.status == "error" else 0.0  # failures come in series
        if self.user.speaks and self.rng.random() < 0.06 + self.user.misrecognition + repeated:
            return MISRECOGNISED
        return self.rng.choice(UNDERSTANDING_FAILURES) if self.rng.random() < 0.07 + repeated else NO_FAILURE

    def _realise(self, choices: tuple[str, ...], values: SlotValues | None = None) -> list[Segment]:
        return realise(choices, self.rng, {} if values is None else values, self.split)

    def _as_logged(self, segments: list[Segment]) -> list[Segment]:
        """What reaches the log of what the user says or types, if nothing fails."""
        if self.user.speaks:
            return transcribe(segments)
        if self.rng.random() < 0.08:
            segments = add_typo(segments, self.rng)
        if not self.user.types_carefully:
            return [segment._replace(words=segment.words.lower()) for segment in segments]
        return [*capitalise(segments), Segment(self.rng.choice((".", ".", "!", "", "")))]

    def _add_small_talk(self, goal: GoalState, requests: tuple[str, ...], responses: tuple[str, ...], status: str) -> None:
        """Adds a turn that asks for nothing."""
        request = join_segments(self._as_logged(self._realise(requests)))
        self._add_turn(goal, NO_FAILURE, status, request, join_segments(self._realise(responses)), NO_INTENT)

    def _add_turn(
        self, goal: GoalState, failure: Failure, status: str, request: Utterance | None, response: Utterance, intent: str
    ) -> None:
        """Appends the turn with its annotations and its logged features."""
        numerical: dict[str, float | None] = {}
        if request is not None:
            numerical["understanding_confidence"] = self._confidence(failure.understanding_confidence)
            if self.user.speaks:
                numerical["recogniser_confidence"] = self._confidence(failure.recogniser_confidence)
        defect = failure is not NO_FAILURE
        votes = self._votes(2.0 if defect else 4.2) if self.rng.random() < (0.5 if defect else 0.12) else []
        turn = Turn(
            request=request and request.text, request_slots=request and request.slots,
            response=response.text, response_slots=response.slots,
            timestamp=self.clock, numerical=numerical, intent=intent, defect=defect, votes=votes,
            categorical={"device_type": self.user.device, "locale": self.user.locale, "dialogue_status": status},
        )  # fmt: skip
        goal.turns.append(len(self.turns))
        self.turns.append(turn)
        self.clock += timedelta(seconds=self.rng.randrange(2, 12) if goal.status == "error" else self.rng.randrange(4, 30))

    def _confidence(self, mean: float) -> float | None:
        """A noisy confidence. Some are missing, and some say nothing about the failure."""
        chance = self.rng.random()
        if chance < 0.06:
            return None
        if chance < 0.1:
            mean = 0.7
        return round(min(0.99, max(0.02, self.rng.gauss(mean, 0.09))), 3)

    def _votes(self, mean: float) -> list[Vote]:
        """Ratings from 1 to 5 by three of twelve annotators, each with a bias."""
        votes = []
        for annotator in self.rng.sample(range(12), 3):
            rating = self.rng.gauss(mean + 0.15 * (annotator % 5 - 2), 0.8)
            votes.append(Vote(question="satisfaction", value=float(min(5, max(1, round(rating)))), annotator=f"annotator-{annotator:02d}"))
        return votes
