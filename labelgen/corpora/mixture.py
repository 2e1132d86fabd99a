"""Several corpora as one: a model learns from each what it annotates.

- `corpora`: name -> corpus. The id of a dialogue becomes `NAME/ID`, and NAME is a slice, so that evaluation gives figures for each corpus.
- What a corpus does not annotate stays unannotated, and no task learns from it.
- `limit`: at most so many dialogues of each corpus, so that large ones do not crowd out small ones: examples-proportional mixing with an
  artificial limit (Raffel et al. 2020, section 3.5.2). Which ones depends on `seed` and their ids. A smaller limit takes a subset.
"""

from __future__ import annotations

import heapq
import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from labelgen.corpora import Corpus, hash_fraction
from labelgen.dialogue import Dialogue, Reject

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Mixture:
    """The dialogues of several corpora, one corpus after another."""

    corpora: Mapping[str, Corpus] = field(default_factory=dict)
    limit: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.corpora:
            raise ValueError(
                "mixture: names no corpus; give +corpus@corpus.corpora.NAME=... for each, and its settings corpus.corpora.NAME..."
            )
        if self.limit is not None and self.limit < 1:
            raise ValueError(f"mixture: limit={self.limit}; give a number of dialogues, or null for all")

    def read(self, reject: Reject | None = None) -> Iterator[Dialogue]:
        """Yields dialogues in a stable order. ValueError if a corpus is not there, or has no usable dialogue."""
        for name, corpus in self.corpora.items():
            count = 0
            for dialogue in self._chosen(corpus.read(reject)):
                count += 1
                yield dialogue.model_copy(update={"id": f"{name}/{dialogue.id}", "slices": [name, *dialogue.slices]})
            if not count:
                raise ValueError(f"mixture: {name} has no usable dialogue; check its settings, or leave it out")
            log.info("mixture: %s, %s dialogues", name, f"{count:,}")

    def _chosen(self, dialogues: Iterable[Dialogue]) -> Iterable[Dialogue]:
        """The dialogues up to the limit, in their order."""
        if self.limit is None:
            return dialogues
        lowest = heapq.nsmallest(self.limit, enumerate(dialogues), lambda numbered: hash_fraction(numbered[1].id, f"mixture {self.seed}"))
        return (dialogue for _, dialogue in sorted(lowest, key=lambda numbered: numbered[0]))
