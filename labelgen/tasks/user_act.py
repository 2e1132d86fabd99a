"""User act: what a request does in the dialogue (inform, affirm, thank), as annotated in USS.

Deng et al. 2022 learn it together with satisfaction ("User Satisfaction Estimation with Sequential Dialogue Act Modeling", USDA).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from labelgen.dialogue import Dialogue
from labelgen.tasks import Classification


@dataclass(frozen=True)
class UserAct(Classification):
    """One class per request, from the record's `request_acts`. Several acts form one class: their names, sorted and joined by "+"."""

    name: ClassVar[str] = "user_act"

    labels: Sequence[str] = ()

    def annotated(self, dialogue: Dialogue) -> list[str | None]:
        return ["+".join(sorted(turn.request_acts)) if turn.request_acts else None for turn in dialogue.turns]
