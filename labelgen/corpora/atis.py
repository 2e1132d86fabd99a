"""ATIS (Hemphill et al. 1990), SNIPS (Coucke et al. 2018) and other folders in their layout: single requests with intent and slots.

Where to get them: github.com/monologg/JointBERT, `data/atis` and `data/snips`, in the layout of Slot-Gated (Goo et al. 2018). ATIS belongs
to the Linguistic Data Consortium (LDC93S5 and LDC94S19, their terms). SNIPS is CC0 1.0. `root` is the folder with `SPLIT/seq.in` (words),
`SPLIT/seq.out` (one tag per word) and `SPLIT/label` (the intent), one request per line, for the splits train, dev and test.

Each request is a dialogue of one turn without a response. Its words are joined by single spaces.

What is labelled, and by which rule:

- Intent: the line of `label`, unchanged. ATIS joins two intents of one request by "#".
- Slots: B- starts a span and I- continues it. An I- that follows neither B- nor I- of the same name starts a span. This is the rule of
  conlleval, which scored the published figures. ATIS has no such tag.

Not labelled: goals, outcomes, defects, rewrites and votes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from labelgen.corpora import convert_each
from labelgen.dialogue import Dialogue, Reject
from labelgen.io.paths import plain_file

FILES = ("seq.in", "seq.out", "label")


class Request(NamedTuple):
    """The same line of the three files. `number` counts from 0."""

    number: int
    words: str
    tags: str
    intent: str


@dataclass(frozen=True)
class SlotFilling:
    """One split of the folder `root`."""

    root: str
    split: str = "train"

    def read(self, reject: Reject | None = None) -> Iterator[Dialogue]:
        """Yields the requests in the publisher's order. Ids are `atis:train/0`: the name of `root`, the split, the line from 0.

        Malformed lines go to `reject`; without it the first one raises RecordError. ValueError: the folder has another layout.
        """
        root = Path(self.root).resolve()
        requests = _requests(root / self.split)
        yield from convert_each(
            requests, convert, lambda request: f"{root.name}:{self.split}/{request.number}", str(root / self.split), reject
        )


def _requests(folder: Path) -> list[Request]:
    """The lines of the three files, aligned. ValueError: a file is missing, or the files differ in length."""
    if missing := [name for name in FILES if not (folder / name).is_file()]:
        raise ValueError(
            f"{folder}: no {' and no '.join(missing)} there; get data/atis or data/snips of github.com/monologg/JointBERT "
            "and give that folder as `root`, train, dev or test as `split`"
        )
    lines = [_lines(folder / name) for name in FILES]
    if len({len(file_lines) for file_lines in lines}) > 1:
        counts = ", ".join(f"{name} {len(file_lines)}" for name, file_lines in zip(FILES, lines, strict=True))
        raise ValueError(f"{folder}: the files differ in their number of lines ({counts}); get them again")
    return [Request(number, *row) for number, row in enumerate(zip(*lines, strict=True))]


def _lines(file: Path) -> list[str]:
    """Splits at line feeds alone: words may hold other characters that `splitlines` takes for line ends."""
    try:
        return plain_file(file).read_text(encoding="utf-8").removesuffix("\n").split("\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{file}: not UTF-8 ({error.reason} at byte {error.start}); get the file again") from None


def convert(request: Request) -> dict[str, Any]:
    """A request -> the fields of the record, without the id. ValueError: the tags do not fit the words, or something is missing."""
    words, tags = request.words.split(), request.tags.split()
    if len(words) != len(tags):
        raise ValueError(f"seq.in has {len(words)} words, seq.out {len(tags)} tags")
    if not words or not (intent := request.intent.strip()):
        raise ValueError("no intent in label" if words else "no words in seq.in")
    return {"turns": [{"request": " ".join(words), "intent": intent, "request_slots": spans(words, tags)}]}


def spans(words: list[str], tags: list[str]) -> list[dict[str, Any]]:
    """Words and their BIO tags -> slots in the words joined by single spaces. ValueError: a tag is malformed."""
    found: list[dict[str, Any]] = []
    running: str | None = None  # the slot that an I- continues
    start = 0
    for word, tag in zip(words, tags, strict=True):
        prefix, _, name = tag.partition("-")
        if tag != "O" and (prefix not in ("B", "I") or not name):
            raise ValueError(f"tag {tag!r} is neither O nor B- or I- with a name")
        end = start + len(word)
        if prefix == "I" and name == running:
            found[-1]["end"] = end
        elif name:
            found.append({"name": name, "start": start, "end": end})
        running = name or None
        start = end + 1
    return found
