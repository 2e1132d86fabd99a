"""DSTC2 (Henderson et al. 2014) as confusion networks, in the format of WCN-BERT (Liu et al. 2020, https://arxiv.org/abs/2005.11640).

Where to get it: github.com/simplc/WCN-BERT makes the files from the challenge's release, github.com/matthen/dstc (no licence stated), by
`helpers/process_dstc2_data.py` with the options of its README: pruned at 0.001, normalised, without nulls. `root` is the folder with the
files train, valid and test, a request a line: what the system did before it, the network, the semantics that annotators gave.

    <cls>:-1:0:1 request:0:0:2 area:1:0:3 \\t<=>\\t <s>:1:1.0 north:2:0.9 nor:2:0.05 please:3:0.4 </s>:4:1.0 \\t<=>\\t inform-area-north

The lines do not say where a dialogue begins: one begins where the system welcomes the user. Requests whose network was empty are not in
the files, so a system's acts may follow a request that they did not answer. Acts are words ("request area"), not sentences; they are
the response of the turn before, and the welcome is a turn without a request.

What is logged:

- Request: the best word of each position of the network ("north" above), but none where it is likelier that nothing was said, which has
  what is left to 1 (as at "please"). Marks of the sentence's ends are no words. The recogniser may have heard nothing: "".
- `numerical["recogniser_confidence"]`: the mean posterior of these words; missing where there are none.
- `numerical["recogniser_alternatives"]`: how many other words their positions hold, on average; missing where there are none.

What is labelled: `request_acts`, the user's acts as published (`inform-area-north`, `request-phone`, `bye`; the annotators heard the
user). Acts are not slots: they have no spans, and none of the words may hold a value that the recogniser lost. Not labelled: intents,
slots, goals, outcomes, defects, rewrites and votes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

from labelgen.corpora import convert_each
from labelgen.dialogue import Dialogue, Reject

SEPARATOR = "\t<=>\t"
WELCOME = "welcome message"
NO_WORDS = ("<s>", "</s>", "!null")


class Line(NamedTuple):
    """A line of the file, and its number from 1."""

    number: int
    text: str


class Session(NamedTuple):
    """The lines of one dialogue, and its place in the file, from 0."""

    number: int
    lines: list[Line]


class Heard(NamedTuple):
    """The best word of one position of a network, its posterior, and how many others there are."""

    word: str
    posterior: float
    others: int


@dataclass(frozen=True)
class DSTC2:
    """One split of the folder `root`."""

    root: str
    split: str = "train"

    def read(self, reject: Reject | None = None) -> Iterator[Dialogue]:
        """Streams the dialogues in the publisher's order; ids are `dstc2:SPLIT/0`, by their place in the file.

        Dialogues with a malformed line go to `reject`; without it the first one raises RecordError. ValueError: the folder is not such.
        """
        file = Path(self.root) / self.split
        if not file.is_file():
            raise ValueError(
                f"{file}: no such file; make it from github.com/matthen/dstc with github.com/simplc/WCN-BERT (process_dstc2_data.py) "
                "and give the folder of its files as `root`, train, valid or test as `split`"
            )
        try:
            text = file.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise ValueError(f"{file}: not UTF-8 ({error.reason} at byte {error.start}); make the file again") from None
        yield from convert_each(sessions(text), convert, lambda session: f"dstc2:{self.split}/{session.number}", str(file), reject)


def sessions(text: str) -> list[Session]:
    """The file's lines, cut where the system welcomes the user."""
    found: list[Session] = []
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            if not found or acts(line.split(SEPARATOR)[0]) == WELCOME:
                found.append(Session(len(found), []))
            found[-1].lines.append(Line(number, line))
    return found


def convert(session: Session) -> dict[str, Any]:
    """One dialogue -> the fields of our record, without the id. ValueError: a line is not in the format."""
    turns: list[dict[str, Any]] = []
    for line in session.lines:
        try:
            system, network, labels = line.text.split(SEPARATOR)
            heard = best_words(network)
        except ValueError as error:
            raise ValueError(f"line {line.number}: {error}") from None
        if done := acts(system):
            if not turns:
                turns.append({})
            turns[-1]["response"] = done
        numerical = {
            "recogniser_confidence": fmean(word.posterior for word in heard) if heard else None,
            "recogniser_alternatives": fmean(word.others for word in heard) if heard else None,
        }
        semantics = [act for act in labels.strip().split(";") if act]
        turns.append({"request": " ".join(word.word for word in heard), "request_acts": semantics, "numerical": numerical})
    return {"turns": turns}


def acts(system: str) -> str:
    """`<cls>:-1:0:1 request:0:0:2 area:1:0:3` -> "request area"."""
    words = [token.rsplit(":", 3)[0] for token in system.split()]
    return " ".join(word for word in words if word != "<cls>")


def best_words(network: str) -> list[Heard]:
    """`word:position:posterior ...` -> the best path. ValueError: an item is not of this form."""
    positions: defaultdict[int, list[tuple[float, str]]] = defaultdict(list)
    for item in network.split():
        word, position, score = item.rsplit(":", 2)
        posterior = float(score)
        if not 0 <= posterior <= 1.001:  # a sum of rounded numbers may be a little more than 1
            raise ValueError(f"{item!r} has no probability")
        positions[int(position)].append((posterior, word))
    best = []
    for arcs in positions.values():
        posterior, word = max(arcs, key=lambda arc: arc[0])
        nothing = 1 - sum(other for other, _ in arcs)
        if word not in NO_WORDS and posterior >= nothing:
            best.append(Heard(word, posterior, len(arcs) - 1))
    return best
