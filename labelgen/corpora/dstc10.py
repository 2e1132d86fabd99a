"""DSTC10 track 2 (Kim et al. 2021, https://arxiv.org/abs/2109.13489): spoken dialogues, as a recogniser transcribed them.

Where to get it: github.com/alexa/alexa-with-dstc10-track2-dataset, licence Apache-2.0. `root` is `task1/data` or `task2/data` of the
clone, with `SPLIT/logs.json` for the splits val and test.

A user's utterance and the answer to it are one turn. An utterance without a partner stands alone. A published instance is a dialogue up to
some request, so the same dialogue appears several times. Instances that another one continues, and duplicates, are left out.

What is logged:

- Request: the recogniser's best hypothesis.
- `numerical["recogniser_confidence"]`: its probability among the n best (at most 10), by a softmax over the published log scores. It says
  how clear the choice among them is, not whether the words are right. It is missing where the best hypothesis is not listed.
- `numerical["recogniser_alternatives"]`: the number of other hypotheses that are listed.

Not labelled: intents, slots, goals, outcomes, defects, rewrites and votes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from labelgen.corpora import Raw, convert_each, is_user, pair_utterances, read_rows
from labelgen.dialogue import Dialogue, Reject

SOURCE = "github.com/alexa/alexa-with-dstc10-track2-dataset (Apache-2.0)"


class Instance(NamedTuple):
    """A dialogue up to some request, and its position in the file, from 0."""

    number: int
    turns: Sequence[Raw]


@dataclass(frozen=True)
class DSTC10:
    """One split below `root`."""

    root: str
    split: str = "val"

    def read(self, reject: Reject | None = None) -> Iterator[Dialogue]:
        """Yields the dialogues in the publisher's order. Ids are `dstc10:SPLIT/0`, by the position of the instance in the file.

        Malformed instances go to `reject`; without it the first one raises RecordError. ValueError: the folder is not the corpus.
        """
        file = Path(self.root) / self.split / "logs.json"
        if not file.is_file():
            raise ValueError(f"{file}: no such file; clone {SOURCE} and give task1/data or task2/data as `root`, val or test as `split`")
        rows = read_rows(file, f"get the file again from {SOURCE}")
        yield from convert_each(longest(rows), convert, lambda instance: f"dstc10:{self.split}/{instance.number}", str(file), reject)


def longest(rows: Sequence[Any]) -> list[Instance]:
    """The instances that no other one continues, each once. Malformed ones are kept, so that `convert` rejects them."""
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
    """An instance -> the fields of the record, without the id. KeyError, TypeError, ...: not in the publisher's format."""
    exchanges = pair_utterances(instance.turns, lambda utterance: is_user(utterance["speaker"], "U", "S"))
    return {"turns": [_turn(user, system) for user, system in exchanges]}


def _turn(user: Raw | None, system: Raw | None) -> dict[str, Any]:
    turn: dict[str, Any] = {"response": system and system["text"]}
    return turn if user is None else turn | {"request": user["text"], "numerical": recognised(user["text"], user.get("nbest") or ())}


def recognised(text: str, nbest: Sequence[Raw]) -> dict[str, float | None]:
    """The probability of the hypothesis `text` among the `nbest`, and the number of the others."""
    if not nbest:
        return {"recogniser_confidence": None, "recogniser_alternatives": None}
    best = max(hypothesis["score"] for hypothesis in nbest)
    weights = [math.exp(hypothesis["score"] - best) for hypothesis in nbest]
    own = [weight for hypothesis, weight in zip(nbest, weights, strict=True) if hypothesis["hyp"] == text]
    return {
        "recogniser_confidence": sum(own) / sum(weights) if own else None,
        "recogniser_alternatives": float(len(nbest) - len(own)),
    }
