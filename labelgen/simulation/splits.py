"""Splits of the simulated corpus: some templates and values belong to one split alone."""

from __future__ import annotations

from functools import cache

SPLITS = ("train", "valid", "test")


@cache
def in_split(items: tuple[str, ...], split: str) -> tuple[str, ...]:
    """The items that a split may use: of each five, the first three belong to all splits, the fourth to valid, the fifth to test."""
    own = {"valid": 3, "test": 4}.get(split)
    return tuple(item for k, item in enumerate(items) if k % 5 < 3 or k % 5 == own)
