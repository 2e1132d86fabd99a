"""MultiDoGO (Peskov et al. 2019, https://aclanthology.org/D19-1460): customers' turns of six domains, with intents and slots.

Where to get it: github.com/awslabs/multi-domain-goal-oriented-dialogues-dataset. A version of its README says Apache-2.0, others who use it
say CDLA-Permissive-1.0; the LICENSE.txt of your clone decides. `root` is the clone, with
`data/paper_splits/splits_annotated_at_turn_level/DOMAIN/SPLIT.tsv` for the domains airline, fastfood, finance, insurance, media and
software and the splits train, dev and test. `domain` chooses one; null: all six. The columns are conversationId, turnNumber, utteranceId,
utterance, slot-labels and intent. Fields that hold a tab or a line break are in double quotes, as in CSV. (A reference conversion cuts them
at the tab and drops those with a line break.)

The annotated files have the customers' turns only, so that no turn has a response. Consecutive rows of a conversation are a dialogue.

What is labelled, and by which rule:

- Intent: the published one. Several are separated by "<div>": the first holds (272 of 80,619 rows of four domains have more than one).
  Besides intents (`bookflight`) the publisher has `contentonly` (an answer to the agent's question), `openinggreeting`, `confirmation`,
  `outofdomain` and the like.
- Slots: one label per word, words being separated by single spaces, "O" outside of slots. Neighbours with the same label are one span,
  because nothing marks where a span begins.
- `metadata`: the `domain`, and the publisher's `turn_numbers` (the agent's turns are missing there).

Not labelled: goals, outcomes, defects and votes. Not read: the files that are annotated by sentence, and `data/unannotated`, the
conversations with both speakers.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

from labelgen.corpora import Raw, convert_each
from labelgen.dialogue import Dialogue, Reject
from labelgen.io.paths import plain_file

DOMAINS = ("airline", "fastfood", "finance", "insurance", "media", "software")
SPLITS = ("train", "dev", "test")
FOLDER = "data/paper_splits/splits_annotated_at_turn_level"
COLUMNS = ["conversationId", "turnNumber", "utteranceId", "utterance", "slot-labels", "intent"]
PUBLISHER = "github.com/awslabs/multi-domain-goal-oriented-dialogues-dataset"
INTENT_SEPARATOR = "<div>"


class Conversation(NamedTuple):
    """The rows of a conversation."""

    domain: str
    identity: str
    rows: list[Raw]


@dataclass(frozen=True)
class MultiDoGO:
    """One split of a domain below `root`, or of all domains."""

    root: str
    domain: str | None = None
    split: str = "train"

    def read(self, reject: Reject | None = None) -> Iterator[Dialogue]:
        """Yields the dialogues in the publisher's order. Ids are `multidogo:airline/train/ID`, by the publisher's id.

        Malformed dialogues go to `reject`; without it the first one raises RecordError. ValueError: the folder is not the corpus.
        """
        if self.domain not in (None, *DOMAINS):
            raise ValueError(f"domain {self.domain!r}: give one of {', '.join(DOMAINS)}, or null for all")
        if self.split not in SPLITS:
            raise ValueError(f"split {self.split!r}: give one of {', '.join(SPLITS)}")
        for domain in DOMAINS if self.domain is None else (self.domain,):
            file = Path(self.root) / FOLDER / domain / f"{self.split}.tsv"
            if not file.is_file():
                raise ValueError(f"{file}: no such file; clone {PUBLISHER} and give its folder as `root`")
            yield from convert_each(_conversations(file, domain), convert, self._name, str(file), reject)

    def _name(self, conversation: Conversation) -> str:
        return f"multidogo:{conversation.domain}/{self.split}/{conversation.identity}"


def _conversations(file: Path, domain: str) -> Iterator[Conversation]:
    """The conversations of a file. ValueError: it has other columns, or is not UTF-8."""
    try:
        with plain_file(file).open(encoding="utf-8-sig", newline="") as lines:
            reader = csv.DictReader(lines, dialect="excel-tab")
            if reader.fieldnames != COLUMNS:
                raise ValueError(f"{file}: the columns are not {', '.join(COLUMNS)}; get the file again from {PUBLISHER}")
            for identity, rows in groupby(reader, key=lambda row: row["conversationId"]):
                yield Conversation(domain, identity, list(rows))
    except UnicodeDecodeError as error:
        raise ValueError(f"{file}: not UTF-8 ({error.reason} at byte {error.start}); get the file again from {PUBLISHER}") from None


def convert(conversation: Conversation) -> dict[str, Any]:
    """The rows of a conversation -> the fields of the record, without the id. ValueError: the labels do not fit the words."""
    return {
        "turns": [_turn(row) for row in conversation.rows],
        "metadata": {"domain": conversation.domain, "turn_numbers": [int(row["turnNumber"]) for row in conversation.rows]},
    }


def _turn(row: Raw) -> dict[str, Any]:
    intent = row["intent"].split(INTENT_SEPARATOR)[0].strip()
    if not intent or row.get(None):  # type: ignore[call-overload]  # DictReader keeps the cells beyond the columns under None
        raise ValueError(f"turn {row['turnNumber']}: {'cells beyond the columns' if intent else 'no intent'}")
    words, labels = row["utterance"].split(" "), row["slot-labels"].split(" ")
    if len(words) != len(labels):
        raise ValueError(f"turn {row['turnNumber']}: {len(words)} words, {len(labels)} slot labels")
    return {"request": row["utterance"], "intent": intent, "request_slots": spans(words, labels)}


def spans(words: list[str], labels: list[str]) -> list[dict[str, Any]]:
    """Words and their labels -> slots in the words joined by single spaces."""
    found: list[dict[str, Any]] = []
    running = "O"
    start = 0
    for word, label in zip(words, labels, strict=True):
        end = start + len(word)
        if label != "O" and label == running:
            found[-1]["end"] = end
        elif label != "O":
            found.append({"name": label, "start": start, "end": end})
        running = label
        start = end + 1
    return found
