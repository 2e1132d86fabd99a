"""Intent: what the user wants done, Domain/Intent, at each request."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from labelgen.dialogue import Dialogue
from labelgen.io.display import DISPLAYS, INTENT
from labelgen.tasks import Classification


@dataclass(frozen=True)
class Intent(Classification):
    """One class per request, from the record's `intent`. The label space is learned if none is configured."""

    name: ClassVar[str] = INTENT
    display: ClassVar = DISPLAYS[name]

    labels: Sequence[str] = ()

    def annotated(self, dialogue: Dialogue) -> list[str | None]:
        return [turn.intent for turn in dialogue.turns]
