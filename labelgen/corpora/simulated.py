"""Simulated dialogues (labelgen/simulation) with the truth of every label. They need no download."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

from labelgen.dialogue import Dialogue, Reject
from labelgen.simulation.conversation import Conversation
from labelgen.simulation.splits import SPLITS

ANNOTATION_TYPES = ("goals", "outcomes", "intents", "slots", "defects", "votes")


@dataclass(frozen=True)
class Simulated:
    """`num_dialogues` dialogues. The n-th depends on `seed`, `split` and n alone, so that a smaller corpus is a prefix of a larger one.

    Each `split` (train, valid, test) has its own users, and templates and values that the others do not use. `labelled` is the
    probability of keeping an annotation type of a dialogue. The content does not depend on it.
    """

    num_dialogues: int = 1000
    seed: int = 0
    split: str = "train"
    labelled: float = 1.0

    def __post_init__(self) -> None:
        if self.split not in SPLITS:
            raise ValueError(f"split={self.split!r}: the simulated corpus has the splits {', '.join(SPLITS)}")
        if self.num_dialogues < 0:
            raise ValueError(f"num_dialogues={self.num_dialogues}: give a number that is not negative")
        if not 0.0 <= self.labelled <= 1.0:
            raise ValueError(f"labelled={self.labelled}: give a probability from 0 to 1")

    def read(self, reject: Reject | None = None) -> Iterator[Dialogue]:
        """Yields the dialogues. `reject` is never called."""
        for number in range(self.num_dialogues):
            name = f"{self.split}/{self.seed}/{number:07d}"
            dialogue = Conversation(f"simulated:{name}", self.split, self.seed, random.Random(name)).dialogue()
            if self.labelled < 1.0:
                drop_annotations(dialogue, random.Random(f"labelled/{name}"), self.labelled)
            yield dialogue


def drop_annotations(dialogue: Dialogue, rng: random.Random, labelled: float) -> None:
    """Drops each annotation type of the dialogue with probability 1 - `labelled`, independently of the others."""
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
