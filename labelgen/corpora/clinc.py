"""CLINC150 (Larson et al. 2019, https://arxiv.org/abs/1909.02027): single requests with one of 150 intents, or out of scope.

Where to get it: github.com/clinc/oos-eval, licence CC BY 3.0. `root` is the clone, with `data/data_full.json`, `data_small.json`,
`data_imbalanced.json` and `data_oos_plus.json`: objects with a list of [text, intent] for each of train, val, test, oos_train, oos_val and
oos_test. `name` chooses the file; data_full has 15,000, 3,000 and 4,500 requests in scope, and 100, 100 and 1,000 out of scope.

Each request is a dialogue of one turn without a response.

What is labelled, and by which rule:

- Intent: the published one (`transfer`, `translate`). A request out of scope has none.
- Slices: "out_of_scope", for the requests of the lists `oos_train`, `oos_val` and `oos_test`, which belong to the split. Only the slice
  says that such a request was annotated, because a missing intent is not "no intent" in the record.

Not labelled: slots, goals, outcomes, defects, rewrites and votes. The domains of `data/domains.json` are not read.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from labelgen.corpora import convert_each, text_in
from labelgen.dialogue import Dialogue, Reject
from labelgen.io.paths import plain_file

NAMES = ("full", "small", "imbalanced", "oos_plus")
SPLITS = ("train", "val", "test")
OUT_OF_SCOPE = "oos"
PUBLISHER = "github.com/clinc/oos-eval (CC BY 3.0)"


class Row(NamedTuple):
    """A published [text, intent], with the list that it is in and its number there (from 0)."""

    listed: str
    number: int
    published: Any


@dataclass(frozen=True)
class CLINC150:
    """One split of a file (`name`) below `root`, with its requests out of scope."""

    root: str
    name: str = "full"
    split: str = "train"

    def read(self, reject: Reject | None = None) -> Iterator[Dialogue]:
        """Yields the requests in the publisher's order, those in scope first. Ids are `clinc150:full/train/0`, `clinc150:full/oos_train/0`.

        Malformed requests go to `reject`; without it the first one raises RecordError. ValueError: the folder is not the corpus.
        """
        for field, value, known in (("name", self.name, NAMES), ("split", self.split, SPLITS)):
            if value not in known:
                raise ValueError(f"{field} {value!r}: give one of {', '.join(known)}")
        file = Path(self.root) / "data" / f"data_{self.name}.json"
        if not file.is_file():
            raise ValueError(f"{file}: no such file; clone {PUBLISHER} and give its folder as `root`")
        rows = _rows(file, (self.split, f"{OUT_OF_SCOPE}_{self.split}"))
        yield from convert_each(rows, convert, lambda row: f"clinc150:{self.name}/{row.listed}/{row.number}", str(file), reject)


def _rows(file: Path, lists: tuple[str, ...]) -> list[Row]:
    """The rows of these lists. ValueError: the file has another form."""
    try:
        content = json.loads(plain_file(file).read_text(encoding="utf-8-sig"))
    except ValueError as error:  # UnicodeDecodeError and JSONDecodeError are ValueErrors
        raise ValueError(f"{file}: not UTF-8 JSON ({error}); get the file again from {PUBLISHER}") from None
    for listed in lists:
        if not isinstance(content, dict) or not isinstance(content.get(listed), list):
            raise ValueError(f"{file}: no list {listed!r} there; get the file again from {PUBLISHER}")
    return [Row(listed, number, published) for listed in lists for number, published in enumerate(content[listed])]


def convert(row: Row) -> dict[str, Any]:
    """A published row -> the fields of the record, without the id. ValueError: the intent does not fit its list."""
    text, intent = text_in(row.published, 0), text_in(row.published, 1)
    out_of_scope = row.listed.startswith(OUT_OF_SCOPE)
    if not intent or (intent == OUT_OF_SCOPE) != out_of_scope:
        raise ValueError(f"intent {intent!r} in the list {row.listed!r}")
    return {
        "turns": [{"request": text, "intent": None if out_of_scope else intent}],
        "slices": ["out_of_scope"] if out_of_scope else [],
    }
