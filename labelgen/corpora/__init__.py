"""Corpora: one file a format, each an iterator of dialogues over a folder as its publisher ships it.

A corpus is a frozen dataclass whose fields are its yaml's keys (`conf/corpus/NAME.yaml`) and whose `read` streams records.
Nothing here imports torch: records are read on machines that label nothing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, Protocol

from labelgen.dialogue import Dialogue, RecordError, Reject, parse, reject_or_raise

__all__ = ["Corpus", "Fold", "Raw", "convert_each", "in_fold", "place", "read_rows", "share"]

Raw = Mapping[str, Any]  # an object of a publisher's JSON
Fold = Literal["all", "train", "test"]


class Corpus(Protocol):
    """What a corpus can do. A new one: this method, one yaml, one test."""

    def read(self, reject: Reject | None = None) -> Iterator[Dialogue]:
        """Dialogues, streamed in a stable order.

        `reject` takes what cannot be used and reading goes on; without it the first such dialogue raises its RecordError.
        A corpus that is not there raises ValueError that says where to get it.
        """
        ...


def place(corpus: Corpus) -> str | None:
    """The file or folder that a corpus reads: its `path` or `root`; None: it has neither, as where dialogues are made."""
    match corpus:
        case object(path=str(where)) | object(root=str(where)):
            return where
    return None


def read_rows(file: Path, remedy: str) -> list[Any]:
    """The list that a publisher's JSON file holds. ValueError, with the remedy, where it is another."""
    try:
        rows = json.loads(file.read_text(encoding="utf-8-sig"))
    except ValueError as error:  # UnicodeDecodeError and JSONDecodeError are ValueErrors
        raise ValueError(f"{file}: not UTF-8 JSON ({error}); {remedy}") from None
    if not isinstance(rows, list):
        raise ValueError(f"{file}: a JSON {type(rows).__name__}, not a list of dialogues; {remedy}")
    return rows


def convert_each(
    rows: Iterable[Any], convert: Callable[[Any], Raw], name: Callable[[Any], str], source: str, reject: Reject | None
) -> Iterator[Dialogue]:
    """A publisher's rows -> dialogues: `convert` makes the fields of the record, `name` its id.

    Rows that are not in the publisher's format go to `reject`, with the row number (from 0) and the reason; without it the first raises.
    """
    for number, row in enumerate(rows):
        identity = None
        try:
            try:
                identity = name(row)
                fields = {"id": identity, **convert(row)}
            except (KeyError, TypeError, AttributeError, ValueError, IndexError) as error:
                field = str(error.args[0]) if isinstance(error, KeyError) else "record"
                told = f"not in the publisher's format ({type(error).__name__}: {error}); unpack the release again, or leave it out"
                raise RecordError(source, number, identity, field, told) from error
            dialogue = parse(fields, source, number)
        except RecordError as error:
            reject_or_raise(error, reject)
        else:
            yield dialogue


def share(identity: str, salt: str) -> float:
    """A number in [0, 1) that depends on the id and the salt alone, so that splits survive reordering and growth of a corpus."""
    return int.from_bytes(hashlib.blake2b(f"{salt}\0{identity}".encode(), digest_size=6).digest(), "big") / 2**48


def in_fold(identity: str, split: Fold, fold: int) -> bool:
    """For corpora without a published split: `test` is tenth `fold` (0 to 9) of the dialogues, by a hash of the id, `train` the rest."""
    if split not in ("all", "train", "test"):
        raise ValueError(f"split {split!r}: give all, train or test")
    if not isinstance(fold, int) or not 0 <= fold < 10:
        raise ValueError(f"fold {fold!r}: give 0 to 9, the tenth of the dialogues that is `test`")
    return split == "all" or (int(10 * share(identity, "fold")) == fold) == (split == "test")
