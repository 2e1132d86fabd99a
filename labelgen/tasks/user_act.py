"""User act: what a request does in the dialogue (inform, affirm, thank), as USS has it.

Learned beside satisfaction by Deng et al. 2022, "User Satisfaction Estimation with Sequential Dialogue Act Modeling" (USDA).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from labelgen.dialogue import Dialogue
from labelgen.tasks.intent import RequestClass


@dataclass(frozen=True)
class UserAct(RequestClass):
    """One class a request, from `metadata["user_acts"]`: a text or null for each turn."""

    name: ClassVar[str] = "user_act"

    def annotated(self, dialogue: Dialogue) -> list[str | None]:
        acts = dialogue.metadata.get("user_acts", [None] * len(dialogue.turns))
        if not isinstance(acts, list) or len(acts) != len(dialogue.turns) or not all(isinstance(act, str | None) for act in acts):
            raise ValueError(
                f"dialogue {dialogue.id!r}: metadata.user_acts is {acts!r}; give a list with an act (a text) or null for each of "
                f"the {len(dialogue.turns)} turns"
            )
        return list(acts)
