"""User act: what a request does in the dialogue (inform, affirm, thank), as USS has it.

Learned together with satisfaction by Deng et al. 2022, "User Satisfaction Estimation with Sequential Dialogue Act Modeling" (USDA).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from labelgen.dialogue import Dialogue
from labelgen.tasks import Classification


@dataclass(frozen=True)
class UserAct(Classification):
    """One class a request, from the record's `request_acts`. Several acts are one class: their names, sorted and joined by "+"."""

    name: ClassVar[str] = "user_act"

    labels: Sequence[str] = ()

    def annotated(self, dialogue: Dialogue) -> list[str | None]:
        return ["+".join(sorted(turn.request_acts)) if turn.request_acts else None for turn in dialogue.turns]
