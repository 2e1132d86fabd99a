"""Noise between the user and the log: speech recognition and its errors, and typing errors."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import NamedTuple

from labelgen.simulation.realisation import Segment


class WordPosition(NamedTuple):
    """The position of a word: its segment, and its index in the segment's words."""

    segment: int
    word: int


def transcribe(segments: Sequence[Segment]) -> list[Segment]:
    """What a recogniser writes where it makes no errors: lower case, without punctuation."""
    return [segment._replace(words=segment.words.translate(_IN_SLOTS if segment.slot else _OUTSIDE).lower()) for segment in segments]


_IN_SLOTS = {ord("°"): " degrees ", ord("&"): "and"}  # a slot keeps its colon: 7:30
_OUTSIDE = str.maketrans(dict.fromkeys(",.?!:;", ""))


def misrecognise(segments: Sequence[Segment], rng: random.Random) -> list[Segment]:
    """Replaces some words by words that sound alike, one of a slot if there is one. A slot that changes loses its normalised value."""
    words = [segment.words.split(" ") for segment in segments]
    positions = [WordPosition(k, w) for k, of_segment in enumerate(words) for w, word in enumerate(of_segment) if word]
    in_slots = [position for position in positions if segments[position.segment].slot]
    chosen = {rng.choice(in_slots or positions)}
    chosen |= {position for position in positions if len(words[position.segment][position.word]) > 2 and rng.random() < 0.3}
    heard: list[Segment] = []
    for k, segment in enumerate(segments):
        changed = [_similar_word(word, rng) if (k, w) in chosen else word for w, word in enumerate(words[k])]
        heard.append(segment if changed == words[k] else Segment(" ".join(changed), segment.slot))
    return heard


def _similar_word(word: str, rng: random.Random) -> str:
    similar = _SOUNDS_LIKE.get(word)
    if similar and rng.random() < 0.7:
        return similar
    vowels = [k for k, letter in enumerate(word) if letter in "aeiou"]
    if vowels and rng.random() < 0.6:
        at = rng.choice(vowels)
        word = word[:at] + rng.choice([vowel for vowel in "aeiou" if vowel != word[at]]) + word[at + 1 :]
    if not vowels or rng.random() < 0.6:
        word = rng.choice([letter for letter in "bdfgklmnprst" if letter != word[0]]) + word[1:]
    return word if rng.random() < 0.7 or len(word) < 5 else word[: len(word) // 2] + " " + word[len(word) // 2 :]


def add_typo(segments: Sequence[Segment], rng: random.Random) -> list[Segment]:
    """Swaps two neighbouring letters outside the slots."""
    candidates = [
        (k, at)
        for k, segment in enumerate(segments)
        if not segment.slot
        for at in range(1, len(segment.words) - 1)
        if segment.words[at].isalpha() and segment.words[at + 1].isalpha()
    ]
    if not candidates:
        return list(segments)
    k, at = rng.choice(candidates)
    words = segments[k].words
    swapped = words[:at] + words[at + 1] + words[at] + words[at + 2 :]
    return [*segments[:k], Segment(swapped), *segments[k + 1 :]]


# Tables: many short strings per line.
# fmt: off

_SOUNDS_LIKE = {
    "play": "pay", "alarm": "a farm", "weather": "whether", "set": "said", "timer": "time her", "light": "right", "lights": "nights",
    "lock": "luck", "door": "floor",
    "table": "cable", "flight": "fright", "hotel": "motel", "book": "look", "order": "border", "remind": "rewind", "list": "lift",
    "ride": "right", "four": "for",
    "two": "too", "ten": "then", "five": "fire", "six": "sticks", "seven": "heaven", "eight": "ate", "nine": "fine", "rain": "train",
    "room": "broom", "volume": "column",
    "milk": "silk", "eggs": "legs", "bread": "red", "cheese": "please", "kitchen": "chicken", "jazz": "chess", "blues": "shoes",
    "thai": "tie", "greek": "creek",
    "french": "fresh", "boston": "austin", "oslo": "also", "paris": "pears", "berlin": "merlin", "london": "landing",
    "tomorrow": "to marrow", "monday": "some day",
    "friday": "fry day", "call": "cold", "water": "what are", "wake": "make", "find": "fine", "cancel": "council", "morning": "mourning",
    "please": "peas",
}
