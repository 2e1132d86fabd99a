"""Your own logs in labelgen's record: a file of JSON or Parquet, or a folder of them. `labelgen schema` prints the record.

JSON is one dialogue per line, or one array of dialogues, in files that end in .jsonl, .ndjson or .json, also compressed (.gz). The content
of a file decides how it is read. An unknown field of JSON costs its dialogue. An unknown column of Parquet, which every row has, is not
read, and the log names it. A line or an element larger than 64 MiB is rejected.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

from labelgen.corpora import Fold, in_fold
from labelgen.corpora.recognition import foreign
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
        return (dialogue for dialogue in read(self.path, reject) if in_fold(dialogue.id, self.split, self.fold))


def read(path: str | os.PathLike[str], reject: Reject | None = None) -> Iterator[Dialogue]:
    """Dialogues of a file of records, of all such files of a folder, or of those that a pattern (`*`) names, streamed in order.

    `reject` takes what cannot be used (bad rows, repeated ids) and reading continues. Without `reject` the first such row raises
    RecordError. For rows in another format that is known, the error names the format and the command that converts the file.
    """
    return files.read(path, reject, foreign)
