"""Surface realisation: templates and values -> the segments of an utterance -> its text, with the exact spans of its slots.

A template is text with `{slot}` for a slot's value and `[a|b|]` for one of several alternatives. Alternatives nest and may be empty.
`@` is a slot as well: callers use it for a topic or a list of values.

Texts are joined from segments, so that spans are exact whatever happened to the words before (`labelgen.simulation.noise`).
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

from labelgen.dialogue import Slot
from labelgen.simulation.splits import in_split
from labelgen.simulation.values import sample_value


class Segment(NamedTuple):
    """Some words of an utterance. With `slot`, they are its value."""

    words: str
    slot: str | None = None
    normalised: str | None = None


class Utterance(NamedTuple):
    """A text and its slots, whose spans count code points."""

    text: str
    slots: list[Slot]


class Placeholder(str):
    """The name of a slot in a template."""


SlotValues = dict[str, Segment]
Template = tuple["str | Placeholder | tuple[Template, ...]", ...]  # words, a slot, or alternatives


class Alternatives(NamedTuple):
    """What stands between two brackets, and the position of the closing one."""

    templates: tuple[Template, ...]
    end: int


@cache
def parse_template(text: str) -> Template:
    """The text of a template -> its parts."""
    tokens = re.findall(r"\{[^}]+\}|[\[\]|@]|[^\[\]|{}@]+", text)
    parsed = _parse_alternatives(tokens, 0)
    assert parsed.end == len(tokens), f"{text}: a bracket is closed that was not opened"
    assert len(parsed.templates) == 1, f"{text}: alternatives outside brackets"
    return parsed.templates[0]


def _parse_alternatives(tokens: Sequence[str], position: int) -> Alternatives:
    """The alternatives from token `position` to the bracket that closes them, or to the end."""
    finished: list[Template] = []
    parts: list[str | Placeholder | tuple[Template, ...]] = []
    while position < len(tokens) and tokens[position] != "]":
        token = tokens[position]
        if token == "[":
            inner = _parse_alternatives(tokens, position + 1)
            parts.append(inner.templates)
            position = inner.end
        elif token == "|":
            finished.append(tuple(parts))
            parts = []
        else:
            parts.append(Placeholder(token.strip("{}")) if token[0] in "{@" else token)
        position += 1
    return Alternatives((*finished, tuple(parts)), position)


def realise(templates: tuple[str, ...], rng: random.Random, values: SlotValues, split: str) -> list[Segment]:
    """Realises one of the templates that the split may use. Slots without a value get one, which is added to `values`."""
    segments: list[Segment] = []
    _realise(parse_template(rng.choice(in_split(templates, split))), rng, values, split, segments)
    return segments


def _realise(template: Template, rng: random.Random, values: SlotValues, split: str, segments: list[Segment]) -> None:
    for part in template:
        if isinstance(part, tuple):
            _realise(part[int(rng.random() * len(part))], rng, values, split, segments)
        elif isinstance(part, Placeholder):
            if part not in values:
                values[part] = sample_segment(part, rng, split)
            segments.append(values[part])
        else:
            segments.append(Segment(part))


def sample_segment(slot: str, rng: random.Random, split: str) -> Segment:
    """A random value of a slot, as a segment."""
    value = sample_value(slot, rng, split)
    return Segment(value.words, slot, value.normalised)


def join_segments(segments: Sequence[Segment]) -> Utterance:
    """Segments -> text and slots. Double spaces, which empty alternatives leave, are dropped."""
    text, slots = "", []
    for segment in segments:
        words = segment.words.lstrip(" ") if not text or text[-1] == " " else segment.words
        if segment.slot and words:
            end = len(text) + len(words)
            slots.append(Slot(name=segment.slot, start=len(text), end=end, value=words, normalised=segment.normalised))
        text += words
    return Utterance(text.rstrip(" "), slots)


def capitalise(segments: Sequence[Segment]) -> list[Segment]:
    """The segments with a capital at the start."""
    first = next((k for k, segment in enumerate(segments) if segment.words), 0)
    words = segments[first].words
    return [*segments[:first], segments[first]._replace(words=words[:1].upper() + words[1:]), *segments[first + 1 :]]
