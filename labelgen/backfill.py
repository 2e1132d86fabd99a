"""Entry: labels a file or folder of dialogues with an export; the same dialogues come out, with labels, confidence and provenance."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping

from tqdm import tqdm

from labelgen.dialogue import Dialogue
from labelgen.export import load, task_classes
from labelgen.files import Rejected, check_output, read, write

log = logging.getLogger(__name__)


def backfill(export: str, input: str, output: str, device: str = "cpu", tasks: Mapping[str, str] | None = None) -> None:
    """Streams `input` (.jsonl, .parquet, or a folder of them) through the Annotator into the file `output` (.jsonl or .parquet).

    Each label's `source` is the model's fingerprint. Unusable records go to OUTPUT.rejected.jsonl with their reasons and the run goes on;
    ValueError if none is usable. Records keep their annotations; labels of an earlier model are replaced.
    `tasks`: name -> dotted path of the class, for tasks that are not labelgen's own.
    """
    check_output(output, input)
    annotator = load(export, task_classes(tasks or {}), device)
    rejected = Rejected(f"{output}.rejected.jsonl")

    def labelled() -> Iterator[Dialogue]:
        bar = tqdm(annotator.stream(read(input, rejected)), desc="labelling", unit="dialogue")
        done = 0
        for done, dialogue in enumerate(bar, 1):
            yield dialogue
            if rejected.count and not done % 100:
                bar.set_postfix(rejected=rejected.count)
        if not done:
            raise ValueError(f"{input}: no usable dialogue; " + (f"reasons in {rejected.path}" if rejected.count else "it holds no record"))

    count = write(labelled(), output)
    log.info("labelled %d dialogues into %s with model %s", count, output, annotator.source)
    if rejected.count:
        log.warning("%d records were not usable; reasons in %s", rejected.count, rejected.path)
    if annotator.unusable_recordings:
        log.warning("%d recordings could not be read; their turns were labelled by their words alone", annotator.unusable_recordings)
