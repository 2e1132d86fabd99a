"""Finds slots whose offsets seem to count UTF-16 units (as in JavaScript and Java) instead of code points."""

from __future__ import annotations

import logging

from labelgen.dialogue import PARTS, Dialogue, Slot

log = logging.getLogger(__name__)
REMEDY = "offsets count Unicode code points (in JavaScript [...text].length, in Java text.codePointCount)"


class MisplacedSlots:
    """Counts the slots that cut a word, but would not if their offsets counted UTF-16 units. Emoji take two of these."""

    def __init__(self) -> None:
        self.count = 0
        self.example = ""

    def add(self, dialogue: Dialogue) -> None:
        """Looks at the slots of a dialogue."""
        for t, turn in enumerate(dialogue.turns):
            for part in PARTS:
                text = turn.text(part) or ""
                if text.isascii() or max(text) <= "\uffff":
                    continue
                for slot in turn.slots(part) or ():
                    if (meant := words_meant(text, slot)) is not None:
                        self.count += 1
                        self.example = self.example or f"{slot.value!r} for {meant!r} (dialogue {dialogue.id!r}, {part} of turn {t})"

    def log(self) -> None:
        """One line, if there are such slots."""
        if self.count:
            log.warning(
                "slots that cut a word, as if their offsets counted UTF-16 units: %d, such as %s; %s", self.count, self.example, REMEDY
            )


def words_meant(text: str, slot: Slot) -> str | None:
    """The words of a slot if its offsets count UTF-16 units. None: they do not seem to."""
    if not (_cuts_word(text, slot.start) or _cuts_word(text, slot.end)):
        return None
    units = text.encode("utf-16-le")
    try:
        start, end = (len(units[: 2 * at].decode("utf-16-le")) for at in (slot.start, slot.end))
    except UnicodeDecodeError:  # an offset in the middle of a character
        return None
    return None if _cuts_word(text, start) or _cuts_word(text, end) else text[start:end]


def _cuts_word(text: str, at: int) -> bool:
    return 0 < at < len(text) and text[at - 1].isalnum() and text[at].isalnum()
