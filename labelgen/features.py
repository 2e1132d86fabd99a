"""What was logged beside the words: categorical and numerical features of a turn, with vocabularies and statistics of the training data.

A value may be missing (not logged) or, for categories, unseen in training; the two are told apart and both are legal everywhere.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from labelgen.dialogue import Dialogue, Turn

MISSING, UNSEEN, FIRST = 0, 1, 2  # category indices; the vocabulary starts at FIRST


@dataclass(frozen=True)
class FeatureSpace:
    """Names, vocabularies and statistics: `categorical` name -> values, `numerical` name -> (mean, standard deviation)."""

    categorical: Mapping[str, Sequence[str]] = field(default_factory=dict)
    numerical: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    def categories(self, turns: Sequence[Turn]) -> np.ndarray:
        """Category indices [T, C]."""
        tables = {name: {value: k for k, value in enumerate(values, FIRST)} for name, values in self.categorical.items()}
        rows = [[_category(turn.categorical.get(name), table) for name, table in tables.items()] for turn in turns]
        return np.array(rows, np.int64).reshape(len(turns), len(tables))

    def numbers(self, turns: Sequence[Turn]) -> np.ndarray:
        """Standardised values [T, F]; NaN where missing."""
        rows = [[_standard(turn.numerical.get(name), *shape) for name, shape in self.numerical.items()] for turn in turns]
        return np.array(rows, np.float32).reshape(len(turns), len(self.numerical))

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for a checkpoint or an export."""
        return {
            "categorical": {name: list(values) for name, values in self.categorical.items()},
            "numerical": {name: [float(value) for value in shape] for name, shape in self.numerical.items()},
        }


def _category(value: str | None, table: Mapping[str, int]) -> int:
    return MISSING if value is None else table.get(value, UNSEEN)


def _standard(value: float | None, mean: float, deviation: float) -> float:
    return float("nan") if value is None else (value - mean) / deviation


@dataclass(frozen=True)
class Features:
    """The features to read, by name; `fit` learns their vocabularies and statistics. A name that the data never holds is left out."""

    categorical: Sequence[str] = ()
    numerical: Sequence[str] = ()
    min_count: int = 2  # rarer categories count as unseen, so that "unseen" is itself trained

    def fit(self, dialogues: Iterable[Dialogue]) -> FeatureSpace:
        """Reads the training dialogues once."""
        counts: dict[str, Counter[str]] = {name: Counter() for name in self.categorical}
        values: dict[str, list[float]] = {name: [] for name in self.numerical}
        for turn in (turn for dialogue in dialogues for turn in dialogue.turns):
            for name, counter in counts.items():
                if (category := turn.categorical.get(name)) is not None:
                    counter[category] += 1
            for name, seen in values.items():
                if (number := turn.numerical.get(name)) is not None:
                    seen.append(number)
        return FeatureSpace(
            {name: sorted(v for v, n in counter.items() if n >= self.min_count) for name, counter in counts.items() if counter},
            {name: (float(np.mean(seen)), float(np.std(seen)) or 1.0) for name, seen in values.items() if seen},
        )
