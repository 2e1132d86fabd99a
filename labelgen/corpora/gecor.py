"""GECOR (Quan et al. 2019, https://arxiv.org/abs/1909.12086): CamRest676's dialogues, with rewritten requests.

Where to get it: github.com/terryqj0107/GECOR. Its README puts the annotations under CC BY 4.0. `root` is the clone, with
`CamRest676_for_coreference_and_ellipsis_resolution/CamRest676_annotated.json`, or the folder that holds this file. The dialogues are
those of CamRest676 (Wen et al. 2016). No split is published.

The publisher's turns are kept: what the user wrote, and the system's answer.

What is labelled, and by which rule:

- Rewrites: one per request, the complete version. A request that needs none is its own rewrite. The annotators also corrected spelling, so
  a rewrite that differs does not prove that the request depended on its context.
- Paraphrases: `ellipsis`, the version that leaves words out, and `coreference`, the version that refers to them, where the annotators
  wrote one. Often one of them is the request. All of them mean the same as the rewrite.

Not labelled: intents, slots (the publisher's have no spans), goals, outcomes, defects and votes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labelgen.corpora import Fold, Raw, convert_each, in_fold, read_rows
from labelgen.dialogue import Dialogue, Reject

FOLDER, FILE = "CamRest676_for_coreference_and_ellipsis_resolution", "CamRest676_annotated.json"


@dataclass(frozen=True)
class GECOR:
    """The corpus below `root`. `split` and `fold`: see `labelgen.corpora.in_fold`."""

    root: str
    split: Fold = "all"
    fold: int = 0

    def read(self, reject: Reject | None = None) -> Iterator[Dialogue]:
        """Yields the dialogues in the publisher's order. Ids are `gecor:0`.

        Malformed dialogues go to `reject`; without it the first one raises RecordError. ValueError: the folder is not the corpus.
        """
        file = next((path for path in (Path(self.root) / FOLDER / FILE, Path(self.root) / FILE) if path.is_file()), None)
        if file is None:
            raise ValueError(f"{self.root}: no {FOLDER}/{FILE} there; clone github.com/terryqj0107/GECOR and give its folder as `root`")
        rows = read_rows(file, "get the file again")
        for dialogue in convert_each(rows, convert, lambda raw: f"gecor:{raw['dialogue_id']}", str(file), reject):
            if in_fold(dialogue.id, self.split, self.fold):
                yield dialogue


def convert(raw: Raw) -> dict[str, Any]:
    """A published dialogue -> the fields of the record, without the id. KeyError, TypeError, ...: not in the publisher's format."""
    return {"turns": [_turn(published["usr"], published["sys"]["sent"]) for published in raw["dial"]]}


def _turn(user: Raw, response: str) -> dict[str, Any]:
    complete = user["transcript_complete"]
    versions = {kind: user[f"transcript_with_{kind}"] for kind in ("ellipsis", "coreference")}
    return {
        "request": user["transcript"],
        "response": response,
        "rewrites": [complete] if complete else None,
        "paraphrases": {kind: words for kind, words in versions.items() if words},
    }
