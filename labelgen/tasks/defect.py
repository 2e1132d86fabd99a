"""Defect: was the response wrong, as the user would see it?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from labelgen.dialogue import Dialogue
from labelgen.io.display import DEFECT, DISPLAYS
from labelgen.tasks import Classification


@dataclass(frozen=True)
class Defect(Classification):
    """Two classes per response, from the record's `defect`."""

    name: ClassVar[str] = DEFECT
    display: ClassVar = DISPLAYS[name]
    score: ClassVar[str] = "f1"
    utterance: ClassVar = "response"
    rare: ClassVar = "defect"
    labels = ("ok", "defect")

    def annotated(self, dialogue: Dialogue) -> list[str | None]:
        return [None if turn.defect is None else "defect" if turn.defect else "ok" for turn in dialogue.turns]
