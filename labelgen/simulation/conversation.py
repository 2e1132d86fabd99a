"""One simulated dialogue: a user, an assistant whose parts fail on purpose, and hence the truth of every label.

A dialogue serves one to four goals that follow one another or interleave. The assistant mishears, answers from another domain, takes
another value or gives up; the user says it anew, changes their mind or leaves. What was logged beside the words carries evidence:
confidences are lower where a component erred, a recogniser has none where the user typed, a car is noisier than a phone.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, NamedTuple

from labelgen.dialogue import Dialogue, Goal, Outcome, Turn, Vote
from labelgen.simulation import templates
from labelgen.simulation.realisation import Piece, Values, capitalised, compile_phrasing, draw, fill, garbled, join, mistyped, share, spoken
from labelgen.simulation.templates import Intent

SPLITS = ("train", "valid", "test")
NONE = "NONE"  # the intent of turns that ask for nothing
NUM_USERS = 2000
ANNOTATION_TYPES = ("goals", "outcomes", "intents", "slots", "defects", "votes")
START = datetime(2025, 1, 1, tzinfo=UTC)


def unlabel(dialogue: Dialogue, rng: random.Random, labelled: float) -> Dialogue:
    """Removes each type of annotation from the dialogue with probability 1 - `labelled`."""
    dropped = {kind for kind in ANNOTATION_TYPES if rng.random() >= labelled}
    if "goals" in dropped:
        dialogue.goals = None
    for goal in dialogue.goals or ():
        goal.outcome = None if "outcomes" in dropped else goal.outcome
    for turn in dialogue.turns:
        turn.intent = None if "intents" in dropped else turn.intent
        turn.defect = None if "defects" in dropped else turn.defect
        if "slots" in dropped:
            turn.request_slots = turn.response_slots = None
        if "votes" in dropped:
            turn.votes = []
    return dialogue


# -- who speaks, and what about --------------------------------------------------------------------------------------------------


class Persona(NamedTuple):
    """A user: the same in each of their dialogues."""

    name: str
    device: str
    locale: str
    speaks: bool  # to a recogniser; else types
    tidy: bool  # types capitals and punctuation
    emoji: bool
    noise: float  # what the device and the accent add to the chance of being misheard


@lru_cache(maxsize=NUM_USERS)
def _persona(split: str, seed: int, number: int) -> Persona:
    rng = random.Random(f"user/{split}/{seed}/{number}")
    device = rng.choices(("speaker", "phone", "car", "tv", "watch", "web"), (35, 25, 12, 8, 5, 15))[0]
    locale = rng.choices(("en-US", "en-GB", "en-IN", "en-AU", "en-CA"), (50, 18, 14, 10, 8))[0]
    speaks = device != "web" and (device != "phone" or rng.random() < 0.5)
    noise = {"car": 0.08, "tv": 0.04, "watch": 0.04}.get(device, 0.0) + (0.03 if locale == "en-IN" else 0.0)
    return Persona(f"{split}-user-{number:04d}", device, locale, speaks, rng.random() < 0.5, rng.random() < 0.2, noise)


@dataclass(eq=False)
class _Aim:
    """A goal under way."""

    intent: Intent
    values: Values = field(default_factory=dict)
    given: set[str] = field(default_factory=set)  # slots that the user has named
    turns: list[int] = field(default_factory=list)
    state: str = "new"  # new, asked, confirming, wrong (the last response was), none (no result), done, left
    answers: str | None = None  # the slot that was asked for
    confirmed: bool = False
    troubles: int = 0  # responses that did not help

    @property
    def outcome(self) -> Outcome:
        if self.state != "done":
            return "failure"
        return "recovered" if self.troubles else "success"


class _Mishap(NamedTuple):
    """How a response goes wrong, and by how much each component's confidence shows it."""

    kind: str
    recogniser: float  # mean confidences, as far as the component knows
    understanding: float


RIGHT = _Mishap("right", 0.88, 0.88)
MISHEARD = _Mishap("misheard", 0.55, 0.6)
MISTAKES = (_Mishap("wrong_domain", 0.86, 0.52), _Mishap("wrong_value", 0.84, 0.68), _Mishap("cannot", 0.86, 0.45))
STATUS = {"new": "in_progress", "asked": "awaiting_slot", "confirming": "awaiting_confirmation", "none": "no_result", "done": "completed"}


class Conversation:
    """Makes one dialogue; every draw comes from `rng`."""

    def __init__(self, name: str, split: str, seed: int, rng: random.Random) -> None:
        self.name, self.split, self.rng = name, split, rng
        self.persona = _persona(split, seed, rng.randrange(NUM_USERS))
        self.clock = START + timedelta(seconds=rng.randrange(365 * 24 * 3600))
        self.turns: list[Turn] = []
        self.aims = self._aims()

    def dialogue(self) -> Dialogue:
        started: list[_Aim] = []
        self._greet(self.aims[0])
        self._close(self._converse(started))
        started.sort(key=lambda aim: aim.turns)
        goals = [Goal(turns=aim.turns, name=aim.intent.name, outcome=aim.outcome) for aim in started]
        return Dialogue(id=self.name, user=self.persona.name, turns=self.turns, goals=goals, metadata={"split": self.split})

    def _aims(self) -> list[_Aim]:
        """One to four goals; now and then a second one of the same kind, or one that takes up a value of the one before."""
        aims: list[_Aim] = []
        for _ in range(self.rng.choices((1, 2, 3, 4), (30, 38, 21, 11))[0]):
            again = bool(aims) and self.rng.random() < 0.12
            aim = _Aim(aims[-1].intent if again else self.rng.choice(templates.INTENTS))
            if aims and not again and self.rng.random() < 0.3:
                aim.values.update(aims[-1].values)
            for slot in aim.intent.required:
                if slot not in aim.values:
                    aim.values[slot] = draw(slot, self.rng, self.split)
            if "destination" in aim.values and aim.values["destination"].words == aim.values["origin"].words:
                aim.values["destination"] = self._other(aim.values["destination"])
            aims.append(aim)
        return aims

    # -- the order of turns

    def _converse(self, started: list[_Aim]) -> _Aim:
        """All turns of all goals; fills `started` in order and returns the goal of the last turn."""
        waiting, paused = list(self.aims), list[_Aim]()
        aim: _Aim | None = waiting.pop(0)
        link = self._say(templates.NEW[:2])
        while aim is not None:
            last = aim
            if aim not in started:
                started.append(aim)
            self._exchange(aim, link)
            aim, link = self._next(aim, waiting, paused, started)
        return last

    def _next(self, aim: _Aim, waiting: list[_Aim], paused: list[_Aim], started: list[_Aim]) -> tuple[_Aim | None, list[Piece]]:
        """Whose turn is next, and the words that lead there."""
        chance = self.rng.random()
        if aim.state in ("asked", "confirming"):
            if not (waiting and chance < 0.22):
                return aim, []
            paused.append(aim)
            return waiting.pop(0), self._say(templates.CUT_IN)
        if aim.state == "wrong":
            if chance > 0.18 + 0.1 * aim.troubles:
                return aim, []
            if chance > 0.12:  # else they leave without a word
                self._give_up(aim)
        elif (aim.state == "none" and chance < 0.6) or (aim.state == "done" and chance < 0.07):
            return aim, []
        if aim.state != "done":
            aim.state = "left"
        if paused and (not waiting or self.rng.random() < 0.7):
            resumed = paused.pop()
            if self.rng.random() < 0.92:
                return resumed, self._back_to(resumed)
            resumed.state = "left"
        earlier = [old for old in started if old is not aim and old.state == "done"]
        if earlier and self.rng.random() < 0.15:
            old = self.rng.choice(earlier)
            return old, self._back_to(old)
        if waiting:
            return waiting.pop(0), self._say(templates.NEW)
        return (paused[-1], self._back_to(paused.pop())) if paused else (None, [])

    def _back_to(self, aim: _Aim) -> list[Piece]:
        return self._say(templates.BACK, {"@": Piece(aim.intent.topic)})

    def _greet(self, aim: _Aim) -> None:
        if self.rng.random() < 0.06:
            response, slots = join(self._say(templates.GREETING))
            self._add(aim, RIGHT, "in_progress", request=None, response=response, response_slots=slots, intent=NONE)

    def _give_up(self, aim: _Aim) -> None:
        self._add_plain(aim, templates.GIVE_UP, templates.GIVE_UP_REPLY, "abandoned")

    def _close(self, aim: _Aim) -> None:
        if self.rng.random() < (0.55 if aim.state == "done" else 0.12):
            self._add_plain(aim, templates.THANKS, templates.THANKS_REPLY, "closing")
        if self.rng.random() < 0.03:  # hung up before the answer
            gone: dict[str, Any] = {"response": None, "response_slots": None, "defect": None, "votes": []}
            self.turns[-1] = self.turns[-1].model_copy(update=gone)

    # -- one turn

    def _exchange(self, aim: _Aim, link: list[Piece]) -> None:
        request = self._request(aim)
        aim.given.update(piece.slot for piece in request if piece.slot)
        heard = self._written([*link, *request])
        mishap = self._mishap(aim)
        if mishap is MISHEARD:
            heard = garbled(heard, self.rng)
        believed, response = self._wrong(aim, mishap, heard) if mishap is not RIGHT else self._right(aim)
        if self.persona.emoji and not self.persona.speaks and self.rng.random() < 0.3:
            heard = [*heard, Piece(self.rng.choice((" 🙏", " 😊", " 👍🏽", " 🎉", " 🤔")))]
        request_text, request_slots = join(heard)
        response_text, response_slots = join(capitalised(response))
        slots = {"request_slots": request_slots, "response_slots": response_slots}
        status = STATUS.get(believed, "error")
        self._add(aim, mishap, status, request=request_text, response=response_text, intent=aim.intent.name, **slots)

    def _request(self, aim: _Aim) -> list[Piece]:
        """What the user says, given where the goal stands; may change the goal's values."""
        if aim.state in ("done", "none") or (aim.state == "confirming" and self.rng.random() < 0.12):
            slot = self.rng.choice(aim.intent.required)
            aim.values[slot], aim.confirmed = self._other(aim.values[slot]), False
            return self._say(templates.CHANGE, {"%": aim.values[slot]})
        if aim.state == "confirming":
            aim.confirmed = True
            return self._say(templates.YES)
        again = self._say(templates.REPHRASE) if aim.state == "wrong" else []
        if aim.answers is not None and (aim.state == "asked" or self.rng.random() < 0.6):
            own = templates.ANSWERS.get(aim.answers, ())
            wording = own if own and self.rng.random() < 0.5 else templates.ANSWERS[""]
            return again + self._say(wording, {"%": aim.values[aim.answers]})
        return again + self._say(aim.intent.requests, aim.values)

    def _mishap(self, aim: _Aim) -> _Mishap:
        again = 0.08 if aim.state == "wrong" else 0.0  # trouble seldom comes alone
        if self.persona.speaks and self.rng.random() < 0.06 + self.persona.noise + again:
            return MISHEARD
        return self.rng.choice(MISTAKES) if self.rng.random() < 0.07 + again else RIGHT

    def _right(self, aim: _Aim) -> tuple[str, list[Piece]]:
        """The assistant does its part: asks, confirms, reports. Returns the state, too."""
        missing = [slot for slot in aim.intent.required if slot not in aim.given]
        aim.answers = None
        if missing:
            aim.state, aim.answers = "asked", missing[0]
            response = self._say(templates.ASKS[missing[0]])
        elif aim.intent.confirms and not aim.confirmed and self.rng.random() < 0.6:
            aim.state = "confirming"
            response = self._summary(aim)
        elif aim.intent.none and self.rng.random() < 0.07:
            aim.state, aim.troubles = "none", aim.troubles + 1
            response = self._say(aim.intent.none, aim.values)
        else:
            aim.state = "done"
            response = self._say(aim.intent.done, aim.values) + self._say(templates.ANYTHING_ELSE)
        return aim.state, response

    def _wrong(self, aim: _Aim, mishap: _Mishap, heard: list[Piece]) -> tuple[str, list[Piece]]:
        """A response that does not serve the user, and the state that the assistant believes in."""
        aim.state, aim.troubles = "wrong", aim.troubles + 1
        kind, chance = mishap.kind, self.rng.random()
        if kind == "misheard":
            if chance < 0.4:
                return "error", self._say(templates.UNHEARD)
            kind = "wrong_value" if chance < 0.75 else "wrong_domain"
        if kind == "cannot":
            return "error", self._say(templates.CANNOT)
        if kind == "wrong_domain":
            domain = aim.intent.name.split("/")[0]
            other = self.rng.choice([intent for intent in templates.INTENTS if not intent.name.startswith(domain)])
            if chance < 0.2:
                return "asked", self._say(templates.ASKS[other.required[0]])
            return "done", self._say(other.done, {})
        misread = {piece.slot: piece for piece in heard if piece.slot and piece.normalised is None}  # misheard words come back
        slot = self.rng.choice([piece.slot for piece in heard if piece.slot in aim.intent.required] or aim.intent.required)
        values: Values = {**aim.values, **(misread or {slot: self._other(aim.values[slot])})}
        for _ in range(6):  # until a phrasing names what is wrong
            response = self._say(aim.intent.done, dict(values))
            if any(piece.slot and piece == values.get(piece.slot) != aim.values.get(piece.slot) for piece in response):
                return "done", response
        return "error", self._say(templates.CANNOT)

    def _summary(self, aim: _Aim) -> list[Piece]:
        listed = [part for slot in aim.intent.required for part in (aim.values[slot], Piece(", "))][:-1]
        said = self._say(templates.CONFIRM, {"@": Piece("@")})
        return [part for piece in said for part in (listed if piece.words == "@" else [piece])]

    # -- words and what is logged beside them

    def _say(self, items: tuple[str, ...], values: Values | None = None) -> list[Piece]:
        chosen = self.rng.choice(share(items, self.split))
        return fill(compile_phrasing(chosen), self.rng, {} if values is None else values, self.split)

    def _other(self, piece: Piece) -> Piece:
        """Another value of the same slot."""
        assert piece.slot is not None
        while (other := draw(piece.slot, self.rng, self.split)).words == piece.words:
            pass
        return other

    def _written(self, pieces: list[Piece]) -> list[Piece]:
        """As this user's words reach the log."""
        if self.persona.speaks:
            return spoken(pieces)
        if self.rng.random() < 0.08:
            pieces = mistyped(pieces, self.rng)
        if not self.persona.tidy:
            return [piece._replace(words=piece.words.lower()) for piece in pieces]
        return [*capitalised(pieces), Piece(self.rng.choice((".", ".", "!", "", "")))]

    def _add_plain(self, aim: _Aim, requests: tuple[str, ...], responses: tuple[str, ...], status: str) -> None:
        request, _ = join(self._written(self._say(requests)))
        response, _ = join(self._say(responses))
        self._add(aim, RIGHT, status, request=request, response=response, request_slots=[], response_slots=[], intent=NONE)

    def _add(self, aim: _Aim, mishap: _Mishap, status: str, **said: Any) -> None:
        """Appends the turn: what was said and annotated, and what was logged beside it."""
        numerical: dict[str, float | None] = {}
        if said["request"] is not None:
            numerical["understanding_confidence"] = self._confidence(mishap.understanding)
            if self.persona.speaks:
                numerical["recogniser_confidence"] = self._confidence(mishap.recogniser)
        defect = mishap is not RIGHT
        votes = self._votes(2.0 if defect else 4.2) if self.rng.random() < (0.5 if defect else 0.12) else []
        categorical: dict[str, str | None] = {"device_type": self.persona.device, "locale": self.persona.locale, "dialogue_status": status}
        aim.turns.append(len(self.turns))
        self.turns.append(Turn(timestamp=self.clock, categorical=categorical, numerical=numerical, defect=defect, votes=votes, **said))
        self.clock += timedelta(seconds=self.rng.randrange(2, 12) if aim.state == "wrong" else self.rng.randrange(4, 30))

    def _confidence(self, mean: float) -> float | None:
        """Noisy, now and then missing or beside the point."""
        chance = self.rng.random()
        if chance < 0.06:
            return None
        if chance < 0.1:
            mean = 0.7
        return round(min(0.99, max(0.02, self.rng.gauss(mean, 0.09))), 3)

    def _votes(self, mean: float) -> list[Vote]:
        """Ratings 1 to 5 of three annotators of twelve, each with a leaning of their own."""
        votes = []
        for annotator in self.rng.sample(range(12), 3):
            rating = self.rng.gauss(mean + 0.15 * (annotator % 5 - 2), 0.8)
            votes.append(Vote(question="satisfaction", value=float(min(5, max(1, round(rating)))), annotator=f"annotator-{annotator:02d}"))
        return votes
