"""Corpora: one file per format. A corpus yields dialogues from the files that its publisher ships, or from your own logs.

A corpus is a frozen dataclass. Its fields are the keys of its yaml (`conf/corpus/NAME.yaml`), and `read` yields records.
Nothing here imports torch: machines that label nothing can read records.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Generic, Literal, NamedTuple, Protocol, TypeVar

from pydantic import TypeAdapter, ValidationError

from labelgen.dialogue import Dialogue, RecordError, Reject, UTCDatetime, parse, problem_of, reject_or_raise
from labelgen.io.json_values import type_of
from labelgen.io.paths import plain_file

__all__ = [
    "Corpus",
    "Exchange",
    "Fold",
    "LeftOut",
    "Raw",
    "convert_each",
    "hash_fraction",
    "in_fold",
    "is_user",
    "pair_utterances",
    "parse_time",
    "path_of",
    "read_rows",
    "text_in",
]

log = logging.getLogger(__name__)
Raw = Mapping[str, Any]  # an object of a publisher's JSON
Fold = Literal["all", "train", "test"]
Utterance = TypeVar("Utterance")
_TIME: TypeAdapter[datetime] = TypeAdapter(UTCDatetime)


class Corpus(Protocol):
    """A source of dialogues. A new corpus needs this method, one yaml and one test."""

    def read(self, reject: Reject | None = None) -> Iterator[Dialogue]:
        """Yields dialogues in a stable order.

        `reject` receives the RecordError of each dialogue that cannot be used, and reading continues. Without `reject` the first such
        error is raised. ValueError: the corpus is not there; the message says where to get it.
        """
        ...


def path_of(corpus: Corpus) -> str | None:
    """The file or folder that a corpus reads: its `path` or `root`. None: it has neither, as with simulated dialogues."""
    match corpus:
        case object(path=str(path)) | object(root=str(path)):
            return path
    return None


def read_rows(file: Path, remedy: str) -> list[Any]:
    """The list that a publisher's JSON file holds. ValueError, with the remedy: the file holds something else."""
    try:
        rows = json.loads(plain_file(file).read_text(encoding="utf-8-sig"))
    except ValueError as error:  # UnicodeDecodeError and JSONDecodeError are ValueErrors
        raise ValueError(f"{file}: not UTF-8 JSON ({error}); {remedy}") from None
    if not isinstance(rows, list):
        raise ValueError(f"{file}: a JSON {type_of(rows)}, not a list of dialogues; {remedy}")
    return rows


def convert_each(
    rows: Iterable[Any], convert: Callable[[Any], Raw], identify: Callable[[Any], str], source: str, reject: Reject | None
) -> Iterator[Dialogue]:
    """Converts a publisher's rows into dialogues. `convert` returns the fields of the record, `identify` its id.

    Rows that are not in the publisher's format go to `reject`, with the row number (from 0) and the reason. Without `reject` the first
    such row raises its RecordError.
    """
    for number, row in enumerate(rows):
        identity = None
        try:
            try:
                identity = identify(row)
                fields = {"id": identity, **convert(row)}
            except (KeyError, TypeError, AttributeError, ValueError, IndexError) as error:
                field = str(error.args[0]) if isinstance(error, KeyError) else "record"
                problem = f"not in the publisher's format ({type(error).__name__}: {error}); unpack the release again, or leave it out"
                raise RecordError(source, number, identity, field, problem) from error
            dialogue = parse(fields, source, number)
        except RecordError as error:
            reject_or_raise(error, reject)
        else:
            yield dialogue


class LeftOut(Counter[str]):
    """What reading leaves out: how many of each kind. The kinds are named in the plural ("rows of speaker 'ivr'")."""

    def __init__(self) -> None:
        super().__init__()
        self.examples: dict[str, str] = {}  # by kind; not every kind has one

    def add(self, kind: str, example: str) -> None:
        """Counts one more. The log gives the first example."""
        self[kind] += 1
        self.examples.setdefault(kind, example)

    def clear(self) -> None:
        super().clear()
        self.examples.clear()

    def log(self) -> None:
        """One line per kind."""
        for kind, number in sorted(self.items()):
            counted = f"{number:,} {kind} were left out" if number > 1 else f"1 {kind.replace('s ', ' ', 1)} was left out"
            log.warning("%s%s", counted, f", such as {self.examples[kind]}" if kind in self.examples else "")


class Exchange(NamedTuple, Generic[Utterance]):
    """An utterance of the user and the system's answer, which become one turn. Either may be missing."""

    user: Utterance | None
    system: Utterance | None


def pair_utterances(utterances: Iterable[Utterance], by_user: Callable[[Utterance], bool]) -> list[Exchange[Utterance]]:
    """Pairs each utterance of the user with the system's utterance right after it. An utterance without a partner stands alone."""
    exchanges: list[Exchange[Utterance]] = []
    for utterance in utterances:
        if by_user(utterance):
            exchanges.append(Exchange(utterance, None))
        elif exchanges and exchanges[-1].system is None:
            exchanges[-1] = exchanges[-1]._replace(system=utterance)
        else:
            exchanges.append(Exchange(None, utterance))
    return exchanges


def is_user(speaker: Any, user: str, system: str) -> bool:
    """Whether a publisher's `speaker` is the user. ValueError: it is neither `user` nor `system`."""
    if speaker not in (user, system):
        raise ValueError(f"speaker {speaker!r} is neither {user} nor {system}")
    return bool(speaker == user)


def text_in(raw: Any, key: str | int) -> str:
    """The text under `key`, which a record must not lack. ValueError: it is null or something else. KeyError: there is no such key."""
    if not isinstance(raw[key], str):
        raise ValueError(f"{key} {raw[key]!r} is not a text")
    return str(raw[key])


def parse_time(value: Any) -> datetime:
    """A time in UTC, from ISO 8601 or seconds since 1970. ValueError: it is neither."""
    try:
        return _TIME.validate_python(value)
    except ValidationError as error:
        raise ValueError(problem_of(error.errors(include_url=False)[0])) from None


def hash_fraction(identity: str, salt: str) -> float:
    """A number in [0, 1) that depends on the id and the salt alone, so that splits survive when a corpus grows or is reordered."""
    return int.from_bytes(hashlib.blake2b(f"{salt}\0{identity}".encode(), digest_size=6).digest(), "big") / 2**48


def in_fold(identity: str, split: Fold, fold: int) -> bool:
    """Whether a dialogue is in `split`, for corpora without a published split.

    `test` is one tenth of the dialogues, chosen by `fold` (0 to 9) and a hash of the id. `train` is the rest.
    """
    if split not in ("all", "train", "test"):
        raise ValueError(f"split {split!r}: give all, train or test")
    if not isinstance(fold, int) or not 0 <= fold < 10:
        raise ValueError(f"fold {fold!r}: give 0 to 9, the tenth of the dialogues that is `test`")
    return split == "all" or (int(10 * hash_fraction(identity, "fold")) == fold) == (split == "test")
