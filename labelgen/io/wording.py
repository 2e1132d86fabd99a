"""Numbers with their nouns, for messages."""

from __future__ import annotations


def counted(number: int, one: str, many: str | None = None) -> str:
    """`1 row`, `2,000 rows`. `many`: the plural, if it is not `one` with an s ("rows were" for "row was")."""
    return f"{number:,} {one if number == 1 else many or f'{one}s'}"
