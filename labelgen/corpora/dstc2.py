"""DSTC2 (Henderson et al. 2014) as confusion networks, in the format of WCN-BERT (Liu et al. 2020, https://arxiv.org/abs/2005.11640).

Where to get it: github.com/simplc/WCN-BERT makes the files from the challenge's release, github.com/matthen/dstc (no licence stated), by
`helpers/process_dstc2_data.py` with the options of its README: pruned at 0.001, normalised, without nulls. `root` is the folder with the
files train, valid and test. Each line is a request: the system's acts before it, the confusion network, the annotated semantics.

    <cls>:-1:0:1 request:0:0:2 area:1:0:3 \\t<=>\\t <s>:1:1.0 north:2:0.9 nor:2:0.05 please:3:0.4 </s>:4:1.0 \\t<=>\\t inform-area-north

The lines do not mark where a dialogue begins. It begins where the system welcomes the user. Requests with an empty network are not in the
files, so the system's acts may follow a request that they did not answer. Acts are words ("request area"), not sentences. They are the
response of the turn before. The welcome is a turn without a request.

What is logged:

- Request: the best word of each position of the network ("north" above). A position has no word where silence is more probable: silence has
  the probability that the words leave (as at "please"). Sentence boundaries are not words. An empty request means that nothing was heard.
- `numerical["recogniser_confidence"]`: the mean posterior of these words. Missing where there are none.
- `numerical["recogniser_alternatives"]`: the mean number of other words at their positions. Missing where there are none.

What is labelled: `request_acts`, the user's acts as published (`inform-area-north`, `request-phone`, `bye`; the annotators heard the
user). Acts are not slots: they have no spans, and the recogniser may have lost their values. Not labelled: intents,
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
from labelgen.io.paths import plain_file

SEPARATOR = "\t<=>\t"
WELCOME = "welcome message"
NO_WORDS = ("<s>", "</s>", "!null")


class Line(NamedTuple):
    """A line of the file. `number` counts from 1."""

    number: int
    text: str


class Session(NamedTuple):
    """The lines of a dialogue, and its position in the file, from 0."""

    number: int
    lines: list[Line]


class Hypothesis(NamedTuple):
    """The best word at a position of a network, its posterior, and the number of other words there."""

    word: str
    posterior: float
    others: int


@dataclass(frozen=True)
class DSTC2:
    """One split of the folder `root`."""

    root: str
    split: str = "train"

    def read(self, reject: Reject | None = None) -> Iterator[Dialogue]:
        """Yields the dialogues in the publisher's order. Ids are `dstc2:SPLIT/0`, by their position in the file.

        Dialogues with a malformed line go to `reject`; without it the first one raises RecordError. ValueError: no such file.
        """
        file = Path(self.root) / self.split
        if not file.is_file():
            raise ValueError(
                f"{file}: no such file; make it from github.com/matthen/dstc with github.com/simplc/WCN-BERT (process_dstc2_data.py) "
                "and give the folder of its files as `root`, train, valid or test as `split`"
            )
        try:
            text = plain_file(file).read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise ValueError(f"{file}: not UTF-8 ({error.reason} at byte {error.start}); make the file again") from None
        yield from convert_each(sessions(text), convert, lambda session: f"dstc2:{self.split}/{session.number}", str(file), reject)


def sessions(text: str) -> list[Session]:
    """The lines of the file, by dialogue: a new one begins where the system welcomes the user."""
    found: list[Session] = []
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            if not found or acts(line.split(SEPARATOR)[0]) == WELCOME:
                found.append(Session(len(found), []))
            found[-1].lines.append(Line(number, line))
    return found


def convert(session: Session) -> dict[str, Any]:
    """A dialogue -> the fields of the record, without the id. ValueError: a line is not in the format."""
    turns: list[dict[str, Any]] = []
    for line in session.lines:
        try:
            system, network, labels = line.text.split(SEPARATOR)
            heard = best_words(network)
        except ValueError as error:
            raise ValueError(f"line {line.number}: {error}") from None
        if system_acts := acts(system):
            if not turns:
                turns.append({})
            turns[-1]["response"] = system_acts
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


def best_words(network: str) -> list[Hypothesis]:
    """The best path through a network `word:position:posterior ...`. ValueError: an item has another form."""
    positions: defaultdict[int, list[tuple[float, str]]] = defaultdict(list)
    for item in network.split():
        word, position, score = item.rsplit(":", 2)
        posterior = float(score)
        if not 0 <= posterior <= 1.001:  # rounding may add a little to 1
            raise ValueError(f"{item!r}: {score} is not a probability")
        positions[int(position)].append((posterior, word))
    best = []
    for arcs in positions.values():
        posterior, word = max(arcs, key=lambda arc: arc[0])
        silence = 1 - sum(other for other, _ in arcs)
        if word not in NO_WORDS and posterior >= silence:
            best.append(Hypothesis(word, posterior, len(arcs) - 1))
    return best
