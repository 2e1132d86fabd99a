"""Categorical and numerical features of a turn, which are logged with its words. Training data gives their vocabularies and statistics.

A value may be missing (not logged), and a category may be unseen in training. The two are distinct, and both are legal everywhere. Features
may have any name (device type, locale, recogniser confidence, ...). DERIVED holds numbers that are computed instead of logged.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import log1p
from typing import Any

import numpy as np

from labelgen.dialogue import Dialogue

MISSING, UNSEEN, FIRST = 0, 1, 2  # category indices; the vocabulary starts at FIRST
TOKEN = re.compile(r"\w+|[^\w\s]")


def num_tokens(text: str | None) -> float | None:
    """Words and punctuation marks."""
    return None if text is None else float(len(TOKEN.findall(text)))


def time_gap(dialogue: Dialogue, turn: int) -> float | None:
    """ln(1 + seconds) since the last turn with a timestamp. None if a timestamp is missing or time runs backwards."""
    after = dialogue.turns[turn].timestamp
    before = next((earlier.timestamp for earlier in reversed(dialogue.turns[:turn]) if earlier.timestamp is not None), None)
    if after is None or before is None or after < before:
        return None
    return log1p((after - before).total_seconds())


DERIVED: Mapping[str, Callable[[Dialogue, int], float | None]] = {
    "request_tokens": lambda dialogue, turn: num_tokens(dialogue.turns[turn].request),
    "response_tokens": lambda dialogue, turn: num_tokens(dialogue.turns[turn].response),
    "time_gap": time_gap,
}


def number(dialogue: Dialogue, turn: int, name: str) -> float | None:
    """The value of a numerical feature, logged or else derived."""
    logged = dialogue.turns[turn].numerical
    return DERIVED[name](dialogue, turn) if name in DERIVED and name not in logged else logged.get(name)


@dataclass(frozen=True)
class FeatureSpace:
    """Names, vocabularies and statistics: `categorical` name -> values, `numerical` name -> (mean, standard deviation).

    `response` lists the names of those that are not known before the response. A causal model must not see them at the request.
    """

    categorical: Mapping[str, Sequence[str]] = field(default_factory=dict)
    numerical: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    response: Sequence[str] = ()

    def encode_categorical(self, dialogues: Sequence[Dialogue]) -> np.ndarray:
        """Category indices [T, C]."""
        tables = {name: {value: k for k, value in enumerate(values, FIRST)} for name, values in self.categorical.items()}
        rows = [[_category(turn.categorical.get(name), table) for name, table in tables.items()] for d in dialogues for turn in d.turns]
        return np.array(rows, np.int64).reshape(len(rows), len(tables))

    def encode_numerical(self, dialogues: Sequence[Dialogue]) -> np.ndarray:
        """Standardised values [T, F]; NaN where missing."""
        turns = [(dialogue, t) for dialogue in dialogues for t in range(len(dialogue.turns))]
        rows = [[_standardised(number(*turn, name), *moments) for name, moments in self.numerical.items()] for turn in turns]
        return np.array(rows, np.float32).reshape(len(rows), len(self.numerical))

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for a checkpoint or an export."""
        return {
            "categorical": {name: list(values) for name, values in self.categorical.items()},
            "numerical": {name: [float(value) for value in moments] for name, moments in self.numerical.items()},
            "response": list(self.response),
        }


def _category(value: str | None, table: Mapping[str, int]) -> int:
    return MISSING if value is None else table.get(value, UNSEEN)


def _standardised(value: float | None, mean: float, deviation: float) -> float:
    return float("nan") if value is None else (value - mean) / deviation


@dataclass(frozen=True)
class Features:
    """The names of the features to read. `fit` learns their vocabularies and statistics. A name that never occurs in the data is left out.

    `response`: the names of those that are not known before the response. `response_tokens` is always one of them.
    """

    categorical: Sequence[str] = ()
    numerical: Sequence[str] = ()
    response: Sequence[str] = ()
    min_count: int = 2  # rarer categories count as unseen, so that "unseen" is itself trained

    def __post_init__(self) -> None:
        for name in ("categorical", "numerical", "response"):
            if isinstance(getattr(self, name), str):
                raise ValueError(f"features.{name}={getattr(self, name)}: give a list, [{getattr(self, name)}]")

    def fit(self, dialogues: Iterable[Dialogue]) -> FeatureSpace:
        """Reads the training dialogues once."""
        counts: dict[str, Counter[str]] = {name: Counter() for name in self.categorical}
        values: dict[str, list[float]] = {name: [] for name in self.numerical}
        for dialogue in dialogues:
            for t, turn in enumerate(dialogue.turns):
                for name, counter in counts.items():
                    if (category := turn.categorical.get(name)) is not None:
                        counter[category] += 1
                for name, seen in values.items():
                    if (value := number(dialogue, t, name)) is not None:
                        seen.append(value)
        named = {*self.categorical, *self.numerical}
        if unknown := sorted({*self.response} - named):
            raise ValueError(f"features.response: {', '.join(unknown)} are not among the features that are read")
        return FeatureSpace(
            {name: sorted(v for v, n in counter.items() if n >= self.min_count) for name, counter in counts.items() if counter},
            {name: _statistics(name, seen) for name, seen in values.items() if seen},
            sorted({*self.response, "response_tokens"} & named),
        )


def _statistics(name: str, values: Sequence[float]) -> tuple[float, float]:
    """Mean and standard deviation. The deviation of a constant is 1, not its rounding errors."""
    with np.errstate(over="ignore", invalid="ignore"):
        mean, deviation = float(np.mean(values)), float(np.std(values))
    if not np.isfinite([mean, deviation]).all():
        raise ValueError(
            f"features.numerical: {name} has values as large as {max(map(abs, values)):.3g}; correct them or leave the name out"
        )
    return mean, deviation if deviation > 1e-9 * max(1.0, abs(mean)) else 1.0
