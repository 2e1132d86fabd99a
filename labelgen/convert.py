"""Entry: any corpus -> a file of records, to look into, to label (`backfill`) or to read faster."""

from __future__ import annotations

import logging
from collections.abc import Iterator

from tqdm import tqdm

from labelgen.corpora import Corpus, place
from labelgen.dialogue import Dialogue
from labelgen.io.files import RejectedFile, write
from labelgen.io.paths import check_output

log = logging.getLogger(__name__)


def convert(corpus: Corpus, output: str) -> None:
    """Streams `corpus` into the file `output` (.jsonl or .parquet), with its annotations.

    What cannot be used goes to OUTPUT.rejected.jsonl with its reason and reading goes on; ValueError if nothing is usable, or
    if the output is the corpus's own file or lies in its folder.
    """
    check_output(output, place(corpus))
    rejected = RejectedFile(f"{output}.rejected.jsonl")

    def dialogues() -> Iterator[Dialogue]:
        found = False
        for dialogue in tqdm(corpus.read(rejected), "reading", unit="dialogue"):
            found = True
            yield dialogue
        if not found:
            raise ValueError("no usable dialogue; " + (f"reasons in {rejected.path}" if rejected.count else f"{corpus!r} holds none"))

    count = write(dialogues(), output)
    log.info("wrote %d dialogues to %s", count, output)
    if rejected.count:
        log.warning("%d records were not usable; reasons in %s", rejected.count, rejected.path)
