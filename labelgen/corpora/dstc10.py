"""DSTC10 track 2 (Kim et al. 2021, https://arxiv.org/abs/2109.13489): spoken dialogues, as a recogniser wrote them down.

Where to get it: github.com/alexa/alexa-with-dstc10-track2-dataset, licence Apache-2.0. `root` is `task1/data` or `task2/data` of the
clone, with `SPLIT/logs.json` for the splits val and test.

A user's words and the answer to them are one turn; one without a partner stands alone. An instance is a dialogue up to some request, so
one dialogue comes several times: an instance that another one continues, or that came before, is left out.

What is logged:

- Request: the recogniser's best hypothesis.
- `numerical["recogniser_confidence"]`: its share of the n best (10 at most), the softmax over the published log scores. It says how sure
  the choice among them is, not whether the words are right. Missing where the best hypothesis is not among those listed.
- `numerical["recogniser_alternatives"]`: how many other hypotheses are listed.

Not labelled: intents, slots, goals, outcomes, defects, rewrites and votes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from labelgen.corpora import Raw, convert_each, read_rows
from labelgen.dialogue import Dialogue, Reject

SOURCE = "github.com/alexa/alexa-with-dstc10-track2-dataset (Apache-2.0)"


class Instance(NamedTuple):
    """A dialogue up to some request, and its place in the file, from 0."""

    number: int
    turns: Sequence[Raw]


@dataclass(frozen=True)
class DSTC10:
    """One split below `root`."""

    root: str
    split: str = "val"

    def read(self, reject: Reject | None = None) -> Iterator[Dialogue]:
        """Streams the dialogues in the publisher's order; ids are `dstc10:SPLIT/0`, by the place of the instance in the file.

        Malformed instances go to `reject`; without it the first one raises RecordError. ValueError: the folder is not the corpus.
        """
        file = Path(self.root) / self.split / "logs.json"
        if not file.is_file():
            raise ValueError(f"{file}: no such file; clone {SOURCE} and give task1/data or task2/data as `root`, val or test as `split`")
        rows = read_rows(file, f"get the file again from {SOURCE}")
        yield from convert_each(longest(rows), convert, lambda instance: f"dstc10:{self.split}/{instance.number}", str(file), reject)


def longest(rows: Sequence[Any]) -> list[Instance]:
    """The instances that no other one continues, each once; malformed ones are kept, to be told."""
    keys = [tuple(map(_words, row)) if isinstance(row, list) else () for row in rows]
    seen = {key[:length] for key in keys for length in range(1, len(key))}
    kept = []
    for number, (key, row) in enumerate(zip(keys, rows, strict=True)):
        if not key or key not in seen:
            kept.append(Instance(number, row))
        seen.add(key)
    return kept


def _words(turn: Any) -> str:
    return repr((turn.get("speaker"), turn.get("text")) if isinstance(turn, dict) else turn)


def convert(instance: Instance) -> dict[str, Any]:
    """One instance -> the fields of our record, without the id. KeyError, TypeError, ...: not in the publisher's format."""
    turns: list[dict[str, Any]] = []
    for said in instance.turns:
        if said["speaker"] == "U":
            turns.append({"request": said["text"], "numerical": recognised(said["text"], said.get("nbest") or ())})
        elif said["speaker"] != "S":
            raise ValueError(f"speaker {said['speaker']!r} is neither U nor S")
        elif turns and "response" not in turns[-1]:
            turns[-1]["response"] = said["text"]
        else:
            turns.append({"response": said["text"]})
    return {"turns": turns}


def recognised(text: str, nbest: Sequence[Raw]) -> dict[str, float | None]:
    """What the recogniser says of its hypothesis `text`: its probability among the `nbest`, and how many others there are."""
    if not nbest:
        return {"recogniser_confidence": None, "recogniser_alternatives": None}
    best = max(hypothesis["score"] for hypothesis in nbest)
    weights = [math.exp(hypothesis["score"] - best) for hypothesis in nbest]
    own = [weight for hypothesis, weight in zip(nbest, weights, strict=True) if hypothesis["hyp"] == text]
    return {
        "recogniser_confidence": sum(own) / sum(weights) if own else None,
        "recogniser_alternatives": float(len(nbest) - len(own)),
    }
