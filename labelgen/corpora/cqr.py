"""Contextual Query Rewrite (Regan et al. 2019, https://arxiv.org/abs/1903.11783): dialogues in a car, with rewritten requests.

Where to get it: github.com/alexa/alexa-dataset-contextual-query-rewrite, licence MIT-0. The dialogues are those of KVRET (Eric et al.
2017). `root` is the clone, with one JSON file for each of the splits train, dev and test (`modified_kvret_dev_public.no_mturk_ids`, or any
name that contains `kvret_SPLIT_public`).

A driver's utterance and the assistant's answer to it are one turn. An utterance without a partner stands alone.

What is labelled, and by which rule:

- Rewrites: the publisher's rewrite first, then the crowd's. A request without a published rewrite is not annotated. It may still depend on
  its context, as "yes please" does. Where a request was rewritten twice, the later rewrite holds.
- `rewritten_with_hindsight`: the rewrite also draws on what the driver said later, for example after the assistant asked back. A running
  assistant cannot know such a rewrite.
- Intent: the dialogue's task (navigate, schedule, weather), for each request. Each dialogue was written for one task.
- Goals: one per dialogue, named after the task. Its outcome is not known.

Not labelled: slots (the publisher's have no spans), defects and votes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from labelgen.corpora import Raw, convert_each, is_user, pair_utterances, read_rows
from labelgen.dialogue import Dialogue, Reject

SOURCE = "github.com/alexa/alexa-dataset-contextual-query-rewrite (MIT-0)"


class Rewrite(NamedTuple):
    """Rewrites of an utterance, best first. `hindsight`: they draw on what the driver said after it."""

    utterance: int
    texts: list[str]
    hindsight: bool


@dataclass(frozen=True)
class CQR:
    """One split of the corpus in `root`."""

    root: str
    split: str = "train"

    def read(self, reject: Reject | None = None) -> Iterator[Dialogue]:
        """Yields the dialogues in the publisher's order. Ids are `cqr:SPLIT/UUID`.

        Malformed dialogues go to `reject`; without it the first one raises RecordError. ValueError: the folder is not the corpus.
        """
        files = sorted(Path(self.root).glob(f"*kvret_{self.split}_public*"))
        if len(files) != 1:
            raise ValueError(
                f"{self.root}: {len(files)} files named *kvret_{self.split}_public* there, not 1; "
                f"clone {SOURCE} and give its folder as `root`, train, dev or test as `split`"
            )
        rows = read_rows(files[0], f"get the file again from {SOURCE}")
        yield from convert_each(rows, convert, self._name, str(files[0]), reject)

    def _name(self, raw: Raw) -> str:
        return f"cqr:{self.split}/{raw['scenario']['uuid']}"


def convert(raw: Raw) -> dict[str, Any]:
    """A published dialogue -> the fields of the record, without the id. KeyError, ValueError, ...: not in the publisher's format."""
    intent = raw["scenario"]["task"]["intent"]
    exchanges = pair_utterances(enumerate(raw["dialogue"]), lambda numbered: is_user(numbered[1]["turn"], "driver", "assistant"))
    turns: list[dict[str, Any]] = []
    turn_of = {}  # number of a driver's utterance -> its turn
    for driver, assistant in exchanges:
        if driver is not None:
            turn_of[driver[0]] = len(turns)
        turns.append({
            "request": driver and driver[1]["data"]["utterance"], "response": assistant and assistant[1]["data"]["utterance"],
            "intent": intent if driver else None,
        })  # fmt: skip
    for number, utterance in enumerate(raw["dialogue"]):
        if rewrite := find_rewrite(raw["dialogue"], number, utterance.get("reformulation") or {}):
            turns[turn_of[rewrite.utterance]] |= {"rewrites": rewrite.texts, "rewritten_with_hindsight": rewrite.hindsight}
    return {"turns": turns, "goals": [{"turns": list(range(len(turns))), "name": intent}] if turns else []}


def find_rewrite(utterances: Sequence[Raw], number: int, published: Raw) -> Rewrite | None:
    """The rewrite that is published at utterance `number`. None: there is none. ValueError: it does not rewrite an earlier request."""
    best = published.get("reformulated_utt")
    if not best:
        return None
    base = published["base_utt_idx"]
    if not 0 <= base <= number or utterances[base]["turn"] != "driver":
        raise ValueError(f"base_utt_idx {base} at utterance {number} is not an earlier utterance of the driver")
    texts = list(dict.fromkeys([best, *(published.get("mturk_reformulations") or ())]))
    return Rewrite(base, texts, any(later["turn"] == "driver" for later in utterances[base + 1 : number + 1]))
