"""Offsets in UTF-16 units, which cut words after an emoji, are noticed; other slots are not suspected."""

from __future__ import annotations

from pathlib import Path

import pytest

from labelgen.dialogue import Dialogue, Slot, Turn
from labelgen.io.files import read, write


def logged(tmp_path: Path, caplog: pytest.LogCaptureFixture, *turns: Turn) -> str:
    write([Dialogue(id="a", turns=list(turns))], tmp_path / "a.jsonl")
    caplog.clear()
    assert len(list(read(tmp_path / "a.jsonl"))) == 1
    return caplog.text


def turn(text: str, start: int, end: int) -> Turn:
    return Turn(request=text, request_slots=[Slot(name="city", start=start, end=end)])


def test_offsets_in_utf16_are_counted_with_an_example(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert "'Lisbon 😀😀 Porto n' for 'Lisbon 😀😀 Porto'" in logged(tmp_path, caplog, turn("Lisbon 😀😀 Porto now", 0, 17))
    text = "😀 Lisbon now"
    words = "counted UTF-16 units: 2, such as 'isbon ' for 'Lisbon' (dialogue 'a', request of turn 0); offsets count Unicode code points"
    assert words in logged(tmp_path, caplog, turn(text, 3, 9), turn("😀😀 to Rome today", 8, 12), turn("no emoji", 0, 2))


@pytest.mark.parametrize(
    ("text", "start", "end"),
    [
        ("😀 Lisbon now", 2, 8),  # right
        ("Lisbon 😀 now", 0, 6),
        ("in Lisbon now", 4, 10),  # cuts a word, but there is no emoji
        ("Lisbon 😀 now", 1, 6),  # cuts a word before the emoji
        ("😀 我想去里斯本看看", 5, 8),  # words are not separated
        ("é Lisbon", 3, 8),
    ],
)
def test_other_slots_are_not_suspected(text: str, start: int, end: int, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert "UTF-16" not in logged(tmp_path, caplog, turn(text, start, end))
