"""Contextual Query Rewrite (Regan et al. 2019, https://arxiv.org/abs/1903.11783): dialogues in a car, with rewritten requests.

Where to get it: github.com/alexa/alexa-dataset-contextual-query-rewrite, licence MIT-0; the dialogues are KVRET's (Eric et al. 2017).
`root` is the clone, with one JSON file each for the splits train, dev and test (`modified_kvret_dev_public.no_mturk_ids`; any name that
holds `kvret_SPLIT_public` will do).

A driver's utterance and the assistant's answer to it are one turn; one without a partner stands alone.

What is labelled, and by which rule:

- Rewrites: the publisher's rewrite first, then the crowd's. Requests that the publisher gives no rewrite for are not annotated: they are
  not all free of context ("yes please" is among them). Where a request was rewritten twice, the later rewrite holds.
- `metadata["rewritten_with_hindsight"]`, where there are any: turns whose rewrite also draws on what the driver said afterwards, as when
  the assistant asked back. What runs while the dialogue does cannot know these rewrites.
- Intent: the dialogue's task (navigate, schedule, weather), of each request; a dialogue was written for one task.
- Goals: one a dialogue, named by the task; its outcome is unknown.

Not labelled: slots (the publisher's have no spans), defects and votes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labelgen.corpora import Raw, convert_each, read_rows
from labelgen.dialogue import Dialogue, Reject

SOURCE = "github.com/alexa/alexa-dataset-contextual-query-rewrite (MIT-0)"


@dataclass(frozen=True)
class CQR:
    """One split of the corpus in `root`."""

    root: str
    split: str = "train"

    def read(self, reject: Reject | None = None) -> Iterator[Dialogue]:
        """Streams the dialogues in the publisher's order; ids are `cqr:SPLIT/UUID`.

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
    """One published dialogue -> the fields of our record, without the id. KeyError, ValueError, ...: not in the publisher's format."""
    intent = raw["scenario"]["task"]["intent"]
    turns: list[dict[str, Any]] = []
    places = []  # of each utterance, the turn that it is in
    for utterance in raw["dialogue"]:
        speaker, text = utterance["turn"], utterance["data"]["utterance"]
        if speaker not in ("driver", "assistant"):
            raise ValueError(f"turn {speaker!r} is neither driver nor assistant")
        if speaker == "driver":
            turns.append({"request": text, "intent": intent})
        elif turns and "response" not in turns[-1]:
            turns[-1]["response"] = text
        else:
            turns.append({"response": text})
        places.append(len(turns) - 1)
    hindsight: set[int] = set()
    for place, utterance in enumerate(raw["dialogue"]):
        said = utterance.get("reformulation") or {}
        if gold := said.get("reformulated_utt"):
            base = said["base_utt_idx"]
            if not 0 <= base <= place or raw["dialogue"][base]["turn"] != "driver":
                raise ValueError(f"base_utt_idx {base} at utterance {place} is no earlier utterance of the driver")
            turns[places[base]]["rewrites"] = list(dict.fromkeys([gold, *(said.get("mturk_reformulations") or ())]))
            later = (other["turn"] == "driver" for other in raw["dialogue"][base + 1 : place + 1])
            (hindsight.add if any(later) else hindsight.discard)(places[base])
    goal = {"turns": list(range(len(turns))), "name": intent}
    return {
        "turns": turns,
        "goals": [goal] if turns else [],
        "metadata": {"rewritten_with_hindsight": sorted(hindsight)} if hindsight else {},
    }
