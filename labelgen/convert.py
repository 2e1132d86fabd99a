"""Entry `convert`: any corpus -> a file of records, to look into, to label (`backfill`) or to read faster."""

from __future__ import annotations

import logging
from itertools import chain
from typing import NamedTuple

from labelgen.corpora import Corpus, path_of
from labelgen.io.files import REJECTED_STATUS, RejectedFile, write
from labelgen.io.paths import REJECTED_SUFFIX, check_output
from labelgen.io.progress import progress
from labelgen.io.wording import counted

log = logging.getLogger(__name__)


class Converted(NamedTuple):
    """Numbers of records."""

    written: int
    rejected: int

    @property
    def exit_status(self) -> int:
        """0: every record was written; 3: some were rejected."""
        return REJECTED_STATUS if self.rejected else 0


def convert(corpus: Corpus, output: str) -> Converted:
    """Streams `corpus` into the file `output` (.jsonl or .parquet), with its annotations.

    Unusable records go to OUTPUT.rejected.jsonl with the reason, and reading continues. ValueError if nothing is usable, or if the output
    is the corpus's own file or lies in its folder.
    """
    check_output(output, path_of(corpus))
    rejected = RejectedFile(f"{output}{REJECTED_SUFFIX}")
    dialogues = corpus.read(rejected)
    first = next(dialogues, None)
    if first is None:
        raise ValueError("no usable dialogue; " + (rejected.summary() if rejected.count else f"{corpus!r} holds none"))
    count = write(progress(chain([first], dialogues), "reading", "dialogue"), output, reject=rejected)
    log.info("wrote %s to %s", counted(count, "dialogue"), output)
    rejected.log()
    return Converted(count, rejected.count)
