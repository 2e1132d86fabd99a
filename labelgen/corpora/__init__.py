"""Corpora: one file a format, each an iterator of dialogues over a folder as its publisher ships it.

A corpus is a frozen dataclass whose fields are its yaml's keys (`conf/corpus/NAME.yaml`) and whose `read` streams records.
Nothing here imports torch: records are read on machines that label nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from labelgen.dialogue import Dialogue, Reject

__all__ = ["Corpus"]


class Corpus(Protocol):
    """What a corpus can do. A new one: this method, one yaml, one test."""

    def read(self, reject: Reject | None = None) -> Iterator[Dialogue]:
        """Dialogues, streamed in a stable order.

        `reject` takes what cannot be used and reading goes on; without it the first such dialogue raises its RecordError.
        A corpus that is not there raises ValueError that says where to get it.
        """
        ...
