"""Corpus of simulated dialogues (labelgen/simulation), with the truth of every label: no download needed."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

from labelgen.dialogue import Dialogue, Reject
from labelgen.simulation.conversation import SPLITS, Conversation, unlabel


@dataclass(frozen=True)
class Simulated:
    """`num_dialogues` dialogues; the n-th depends on `seed`, `split` and n alone, so that fewer are a prefix of more.

    `split` (train, valid, test) also keeps phrasings and values for itself; users never cross splits. `labelled` is the share of
    annotations that are kept: each label type of each dialogue is dropped on its own, and the dialogues' content stays as it is.
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
            raise ValueError(f"labelled={self.labelled}: give a share from 0 to 1")

    def read(self, reject: Reject | None = None) -> Iterator[Dialogue]:
        """Streams the dialogues; nothing is ever rejected."""
        for number in range(self.num_dialogues):
            name = f"{self.split}/{self.seed}/{number:07d}"
            dialogue = Conversation(f"simulated:{name}", self.split, self.seed, random.Random(name)).dialogue()
            yield dialogue if self.labelled == 1.0 else unlabel(dialogue, random.Random(f"labelled/{name}"), self.labelled)
