"""Dialogue Breakdown Detection Challenge 3, English (Higashinaka et al. 2017): chats with five systems, each response judged by 30 people.

Where to get it: https://dbd-challenge.github.io/dbdc3/data/DBDC3.zip, licence MIT. `root` is its folder `dbdc3`, as at the workshop, or
`dbdc3_revised`, where two of the four sources were annotated again. Below it are `en/SPLIT/SOURCE/ID.log.json`, a dialogue per file. The
splits are dev (CIC_115, IRIS_100, TKTK_100, YI_100: 415 dialogues) and test (CIC_50, IRIS_50, TKTK_50, YI_50: 200 dialogues).

A user's utterance ("U") and the system's utterance right after it ("S") are one turn. Other utterances become turns without a request or
without a response. Ten of the system's utterances are annotated; one that opens the dialogue is not.

What is labelled, and by which rule:

- Votes of a turn: question "breakdown", "O" (not a breakdown), "T" (possible breakdown) or "X" (breakdown), by the crowd worker
  `annotator-id`. They judge the response of the turn.
- Defects: more than half of the votes X: True. More than half O: False. Otherwise None. Of the 4,150 judged responses of dev, 568 are True
  and 560 False. (The challenge scored the most frequent label instead, which makes a third of the votes enough.)
- `user`: the publisher's `speaker-id`.

Not labelled: goals, outcomes, intents, slots and the dialogue as a whole. Not read: the contexts that the users of CIC had before them. The
publisher's description of the format and its programs were followed; a reference conversion of dev was put back into that format.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from labelgen.corpora import Raw, convert_each, is_user, pair_utterances, text_in
from labelgen.dialogue import Dialogue, RecordError, Reject, reject_or_raise
from labelgen.io.paths import plain_file

SPLITS = ("dev", "test")
BREAKDOWNS = ("O", "T", "X")
ENDING = ".log.json"
PUBLISHER = "https://dbd-challenge.github.io/dbdc3/data/DBDC3.zip (MIT)"


class Log(NamedTuple):
    """A published dialogue and its id in the record."""

    identity: str
    content: Any


@dataclass(frozen=True)
class DBDC3:
    """One split of the corpus below `root`."""

    root: str
    split: str = "dev"

    def read(self, reject: Reject | None = None) -> Iterator[Dialogue]:
        """Yields the dialogues by source and file name. Ids are `dbdc3:dev/IRIS_100/iris_00030`, after the file.

        Malformed dialogues go to `reject`; without it the first one raises RecordError. ValueError: the folder is not the corpus.
        """
        if self.split not in SPLITS:
            raise ValueError(f"split {self.split!r}: give one of {', '.join(SPLITS)}")
        folder = Path(self.root) / "en" / self.split
        files = sorted(folder.glob(f"*/*{ENDING}"))
        if not files:
            raise ValueError(f"{folder}: no SOURCE/*{ENDING} there; unzip {PUBLISHER} and give its folder `dbdc3` as `root`")
        for file in files:
            identity = f"dbdc3:{self.split}/{file.parent.name}/{file.name.removesuffix(ENDING)}"
            yield from convert_each(_load(file, identity, reject), convert, lambda log: log.identity, str(file), reject)


def _load(file: Path, identity: str, reject: Reject | None) -> list[Log]:
    """The one dialogue of a file. A file that is not JSON counts as a rejected record."""
    try:
        return [Log(identity, json.loads(plain_file(file).read_text(encoding="utf-8-sig")))]
    except ValueError as error:  # UnicodeDecodeError and JSONDecodeError are ValueErrors
        problem = f"not UTF-8 JSON ({error}); unzip the release again"
    reject_or_raise(RecordError(str(file), 0, identity, "file", problem), reject)
    return []


def convert(log: Log) -> dict[str, Any]:
    """A published dialogue -> the fields of the record, without the id. KeyError, ValueError, ...: not in the publisher's format."""
    turns: list[dict[str, Any]] = []
    for user, system in pair_utterances(log.content["turns"], lambda turn: is_user(turn["speaker"], "U", "S")):
        turns.append({"request": user and text_in(user, "utterance"), "response": system and text_in(system, "utterance")})
        if system:
            turns[-1]["votes"] = find_votes(system.get("annotations") or ())
            turns[-1]["defect"] = is_defect(vote["value"] for vote in turns[-1]["votes"])
    return {"turns": turns, "user": log.content["speaker-id"] or None}


def find_votes(annotations: Iterable[Raw]) -> list[dict[str, Any]]:
    """The annotations of a response as votes. ValueError: one is none of O, T and X."""
    votes = []
    for annotation in annotations:
        if annotation["breakdown"] not in BREAKDOWNS:
            raise ValueError(f"breakdown {annotation['breakdown']!r} is none of {', '.join(BREAKDOWNS)}")
        votes.append({"question": "breakdown", "value": annotation["breakdown"], "annotator": annotation["annotator-id"]})
    return votes


def is_defect(breakdowns: Iterable[str]) -> bool | None:
    """Whether most annotators saw a breakdown. True: more than half X. False: more than half O. None: neither, or no votes."""
    counts = Counter(breakdowns)
    return True if 2 * counts["X"] > counts.total() else False if 2 * counts["O"] > counts.total() else None
