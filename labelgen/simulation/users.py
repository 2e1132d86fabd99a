"""User profiles: what stays the same over all dialogues of a simulated user."""

from __future__ import annotations

import random
from functools import lru_cache
from typing import NamedTuple

NUM_USERS = 2000  # per split and seed


class UserProfile(NamedTuple):
    """A simulated user."""

    name: str
    device: str
    locale: str
    speaks: bool  # to a recogniser; otherwise the user types
    types_carefully: bool  # with capitals and punctuation
    uses_emoji: bool
    misrecognition: float  # what device and accent add to the probability of a recognition error


@lru_cache(maxsize=NUM_USERS)
def user_profile(split: str, seed: int, number: int) -> UserProfile:
    """The user with this number. It depends on the arguments alone."""
    rng = random.Random(f"user/{split}/{seed}/{number}")
    device = rng.choices(("speaker", "phone", "car", "tv", "watch", "web"), (35, 25, 12, 8, 5, 15))[0]
    locale = rng.choices(("en-US", "en-GB", "en-IN", "en-AU", "en-CA"), (50, 18, 14, 10, 8))[0]
    speaks = device != "web" and (device != "phone" or rng.random() < 0.5)
    misrecognition = {"car": 0.08, "tv": 0.04, "watch": 0.04}.get(device, 0.0) + (0.03 if locale == "en-IN" else 0.0)
    return UserProfile(f"{split}-user-{number:04d}", device, locale, speaks, rng.random() < 0.5, rng.random() < 0.2, misrecognition)
