"""Your own logs in labelgen's record: a file of JSON or Parquet, or a folder of them. `labelgen schema` prints the record.

JSON is one dialogue per line, or one array of dialogues, in files that end in .jsonl, .ndjson or .json, also compressed (.gz). The content
of a file decides how it is read.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from labelgen.corpora import Fold, in_fold
from labelgen.dialogue import Dialogue, Reject
from labelgen.io import files


@dataclass(frozen=True)
class Records:
    """Dialogues of the file or folder `path`. `split` and `fold`: see `labelgen.corpora.in_fold`."""

    path: str
    split: Fold = "all"
    fold: int = 0

    def read(self, reject: Reject | None = None) -> Iterator[Dialogue]:
        """Streams the dialogues. Bad rows and repeated ids go to `reject`; without it the first one raises RecordError."""
        return (dialogue for dialogue in files.read(self.path, reject) if in_fold(dialogue.id, self.split, self.fold))
