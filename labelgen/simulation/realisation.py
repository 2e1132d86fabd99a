"""How the simulated corpus puts things: phrasings -> pieces (words and slots) -> text with exact offsets; values; mishearing and typing.

Texts are joined from pieces, so that every slot's offsets are right by construction, whatever is done to the words before.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from functools import cache
from typing import NamedTuple

from labelgen.dialogue import Slot
from labelgen.simulation import templates


class Piece(NamedTuple):
    """Some words of a text; with a name they are a slot's."""

    words: str
    slot: str | None = None
    normalised: str | None = None


Values = dict[str, Piece]
Phrasing = tuple["str | Hole | tuple[Phrasing, ...]", ...]  # words, a slot, or alternatives


class Hole(str):
    """The name of a slot in a phrasing."""


@cache
def compile_phrasing(text: str) -> Phrasing:
    """`{slot}`, `@` (a slot as well) and nested `[a|b]` -> parts that `fill` walks."""
    tokens = re.findall(r"\{[^}]+\}|[\[\]|@]|[^\[\]|{}@]+", text)
    parsed, end = _parse(tokens, 0)
    assert end == len(tokens), text
    assert len(parsed) == 1, text
    return parsed[0]


def _parse(tokens: Sequence[str], at: int) -> tuple[tuple[Phrasing, ...], int]:
    """The alternatives from token `at` to the bracket that closes them (or the end), and where that is."""
    found: list[Phrasing] = []
    parts: list[str | Hole | tuple[Phrasing, ...]] = []
    while at < len(tokens) and tokens[at] != "]":
        token = tokens[at]
        if token == "[":
            inner, at = _parse(tokens, at + 1)
            parts.append(inner)
        elif token == "|":
            found.append(tuple(parts))
            parts = []
        else:
            parts.append(Hole(token.strip("{}")) if token[0] in "{@" else token)
        at += 1
    return (*found, tuple(parts)), at


def fill(phrasing: Phrasing, rng: random.Random, values: Values, split: str, pieces: list[Piece] | None = None) -> list[Piece]:
    """Chooses alternatives and puts values in; draws those that are not there yet (and keeps them)."""
    pieces = [] if pieces is None else pieces
    for part in phrasing:
        if isinstance(part, tuple):
            fill(part[int(rng.random() * len(part))], rng, values, split, pieces)
        elif isinstance(part, Hole):
            if part not in values:
                values[part] = draw(part, rng, split)
            pieces.append(values[part])
        else:
            pieces.append(Piece(part))
    return pieces


def join(pieces: Sequence[Piece]) -> tuple[str, list[Slot]]:
    """Pieces -> the text and its slots, in code points; doubled spaces of left-out alternatives go."""
    text, slots = "", []
    for piece, name, normalised in pieces:
        words = piece.lstrip(" ") if not text or text[-1] == " " else piece
        if name and words:
            slots.append(Slot(name=name, start=len(text), end=len(text) + len(words), value=words, normalised=normalised))
        text += words
    return text.rstrip(" "), slots


@cache
def share(items: tuple[str, ...], split: str) -> tuple[str, ...]:
    """What a split may say: of each five, three are common to all, the fourth is valid's and the fifth test's own."""
    own = {"valid": 3, "test": 4}.get(split)
    return tuple(item for k, item in enumerate(items) if k % 5 < 3 or k % 5 == own)


def draw(slot: str, rng: random.Random, split: str) -> Piece:
    """A value of a slot: from its list, or made up where it is a number, a time or a date."""
    if slot in templates.VALUES:
        words = rng.choice(share(templates.VALUES[slot], split))
        return Piece(words, slot, words)
    words, normalised = _GENERATED[slot](rng)
    return Piece(words, slot, normalised)


def _time(rng: random.Random) -> tuple[str, str]:
    hour, minute = rng.randrange(24), rng.choice((0, 0, 0, 15, 30, 30, 45, rng.randrange(60)))
    half, twelve = ("am", "pm")[hour >= 12], hour % 12 or 12
    forms = [f"{twelve}:{minute:02d} {half}", f"{twelve}:{minute:02d}{half}", f"{hour}:{minute:02d}"]
    if minute == 0:
        part = "in the morning" if hour < 12 else "in the afternoon" if hour < 18 else "in the evening"
        forms = [f"{twelve} {half}", f"{twelve}{half}", f"{_NUMBERS[twelve]} {half}", f"{_NUMBERS[twelve]} {part}", forms[0]]
    elif minute in (15, 30, 45):
        quarters = {
            15: f"quarter past {_NUMBERS[twelve]}",
            30: f"half past {_NUMBERS[twelve]}",
            45: f"quarter to {_NUMBERS[twelve % 12 + 1]}",
        }
        forms += [quarters[minute], f"{_NUMBERS[twelve]} {_NUMBERS[minute]}"]
    return rng.choice(forms), f"{hour:02d}:{minute:02d}"


def _date(rng: random.Random) -> tuple[str, str]:
    kind, day = rng.random(), rng.randrange(1, 29)
    if kind < 0.35:
        words = rng.choice(("today", "tomorrow", "tonight", "this weekend", "next week", "the day after tomorrow", "tomorrow morning"))
    elif kind < 0.7:
        words = rng.choice(("", "", "this ", "next ")) + rng.choice(_DAYS)
    else:
        ordinal = f"{day}{'th' if 4 <= day <= 20 else {1: 'st', 2: 'nd', 3: 'rd'}.get(day % 10, 'th')}"
        month = rng.choice(_MONTHS)
        words = rng.choice((f"{month} {ordinal}", f"the {ordinal} of {month}", f"{month} {day}", f"{day} {month}"))
        return words, f"{_MONTHS.index(month) + 1:02d}-{day:02d}"
    return words, words.lower()


def _count(rng: random.Random, low: int, high: int, units: Sequence[str], spelt: float = 0.5) -> tuple[str, str]:
    number = rng.randrange(low, high)
    words = _NUMBERS[number] if number in _NUMBERS and rng.random() < spelt else str(number)
    unit = rng.choice(units)
    if number == 1:
        unit = unit.removesuffix("s")
    return words + unit, f"{number}{unit}"


_NUMBERS = {
    1: "one", 2: "two", 3: "three", 4: "four", 5: "five", 6: "six", 7: "seven", 8: "eight", 9: "nine", 10: "ten", 11: "eleven",
    12: "twelve", 13: "thirteen", 14: "fourteen", 15: "fifteen", 17: "seventeen", 20: "twenty", 30: "thirty", 40: "forty",
    45: "forty five", 50: "fifty",
}  # fmt: skip
_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_MONTHS = ("January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November", "December")
_GENERATED: dict[str, Callable[[random.Random], tuple[str, str]]] = {
    "time": _time,
    "date": _date,
    "duration": lambda rng: _count(rng, 1, 60, (" minutes", " minutes", " seconds", " hours")),
    "degrees": lambda rng: _count(rng, 5, 31, (" degrees", "°C", "")),
    "nights": lambda rng: _count(rng, 1, 10, (" nights",)),
    "party_size": lambda rng: _count(rng, 2, 11, ("", "", " people", " guests")),
    "quantity": lambda rng: _count(rng, 2, 13, ("", "", "", " packs")),
}


def capitalised(pieces: Sequence[Piece]) -> list[Piece]:
    """With a capital at the start."""
    first = next((k for k, piece in enumerate(pieces) if piece.words), 0)
    words = pieces[first].words
    return [*pieces[:first], pieces[first]._replace(words=words[:1].upper() + words[1:]), *pieces[first + 1 :]]


def spoken(pieces: Sequence[Piece]) -> list[Piece]:
    """As a recogniser writes: small letters, no punctuation."""
    return [piece._replace(words=piece.words.translate(_SPOKEN if piece.slot else _SPOKEN_PLAIN).lower()) for piece in pieces]


def garbled(pieces: Sequence[Piece], rng: random.Random) -> list[Piece]:
    """As a recogniser mishears: some words become others that sound alike, a slot's first of all; such a slot has no normalised value."""
    words = [(k, w) for k, piece in enumerate(pieces) for w, word in enumerate(piece.words.split(" ")) if word]
    in_slots = [place for place in words if pieces[place[0]].slot]
    chosen = {rng.choice(in_slots or words)} | {(k, w) for k, w in words if len(pieces[k].words.split(" ")[w]) > 2 and rng.random() < 0.3}
    heard: list[Piece] = []
    for k, piece in enumerate(pieces):
        parts = piece.words.split(" ")
        new = [_misheard(part, rng) if (k, w) in chosen else part for w, part in enumerate(parts)]
        heard.append(piece if new == parts else Piece(" ".join(new), piece.slot))
    return heard


def _misheard(word: str, rng: random.Random) -> str:
    known = templates.MISHEARD.get(word)
    if known and rng.random() < 0.7:
        return known
    vowels = [k for k, letter in enumerate(word) if letter in "aeiou"]
    if vowels and rng.random() < 0.6:
        at = rng.choice(vowels)
        word = word[:at] + rng.choice([vowel for vowel in "aeiou" if vowel != word[at]]) + word[at + 1 :]
    if not vowels or rng.random() < 0.6:
        word = rng.choice([letter for letter in "bdfgklmnprst" if letter != word[0]]) + word[1:]
    return word if rng.random() < 0.7 or len(word) < 5 else word[: len(word) // 2] + " " + word[len(word) // 2 :]


def mistyped(pieces: Sequence[Piece], rng: random.Random) -> list[Piece]:
    """One pair of letters swapped outside the slots."""
    places = [
        (k, at)
        for k, piece in enumerate(pieces)
        if not piece.slot
        for at in range(1, len(piece.words) - 1)
        if piece.words[at].isalpha() and piece.words[at + 1].isalpha()
    ]
    if not places:
        return list(pieces)
    k, at = rng.choice(places)
    words = pieces[k].words
    swapped = words[:at] + words[at + 1] + words[at] + words[at + 2 :]
    return [*pieces[:k], Piece(swapped), *pieces[k + 1 :]]


_SPOKEN = {ord("°"): " degrees ", ord("&"): "and"}  # a slot keeps its colon: 7:30
_SPOKEN_PLAIN = str.maketrans(dict.fromkeys(",.?!:;", ""))
