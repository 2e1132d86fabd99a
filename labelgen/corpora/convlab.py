"""ConvLab-3's unified format (Zhu et al. 2023, https://arxiv.org/abs/2211.17148): one of its data sets -> dialogues.

Where to get it: github.com/ConvLab/ConvLab-3, `data/unified_datasets/NAME/data.zip` (MultiWOZ, SGD, Taskmaster, CrossWOZ, KVRET, ... in
one format; the code is Apache-2.0, each data set has its own licence, in its README.md). `root` is data.zip, or the folder that holds it
or its unpacked `dialogues.json` and `ontology.json`. Any data set that was converted to the format reads the same. One file is held in
memory.

A user's utterance and the system's answer to it are one turn.

What is labelled, and by which rule:

- Whether a speaker is annotated, ontology.json says: it lists the dialogue acts that the user and the system use. Of a speaker without
  any, no slots and no intents are known. Of one with some, a turn without acts carries no slots, and no known intent.
- Slots: the spans of the non-categorical acts, in requests and responses, named `domain-slot`: the format defines slots within domains,
  and a hotel's name is not a restaurant's. A span that several acts share is one slot. Values without a span, categorical ones among
  them, are no spans and are not labelled; neither can be located without guessing.
- Intent: `domain/intent` of the user's acts, where all of them agree (an act without a domain: the intent alone). "inform" and "request"
  in one turn, or two domains, are ambiguous: unknown.
- `metadata`: `dataset`, `domains`, the user's `goal` as published, and the last `state` and `booked` where there are any.

Not labelled: goals and outcomes (the format says which domains a dialogue visits, not which turn serves which), defects, votes.
"""

from __future__ import annotations

import ast
import json
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from labelgen.corpora import Raw, convert_each
from labelgen.dialogue import Dialogue, Reject

WHERE = "github.com/ConvLab/ConvLab-3 has data/unified_datasets/NAME/data.zip; give it, or the folder with dialogues.json, as `root`"
KINDS = ("categorical", "non-categorical", "binary")


class Annotated(NamedTuple):
    """Whose dialogue acts a data set has."""

    user: bool
    system: bool


@dataclass(frozen=True)
class ConvLab:
    """One split (train, validation, test, or what else the data set has) of the data set at `root`."""

    root: str
    split: str = "train"

    def read(self, reject: Reject | None = None) -> Iterator[Dialogue]:
        """Yields the dialogues in the publisher's order, under their `dialogue_id` (`multiwoz21-train-0`).

        Malformed dialogues go to `reject`; without it the first one raises RecordError. ValueError: there is no such data set or split.
        """
        source = f"{self.root}, dialogues.json"
        rows = load(Path(self.root), "dialogues.json")
        if not isinstance(rows, list):
            raise ValueError(f"{source}: a JSON {type(rows).__name__}, not a list of dialogues; unpack the release again")
        splits = {str(row.get("data_split")) for row in rows if isinstance(row, dict)}
        if self.split not in splits:
            raise ValueError(f"{source}: no split {self.split!r}; there are {', '.join(sorted(splits)) or 'no dialogues'}")
        known = annotated(load(Path(self.root), "ontology.json"), self.root)
        wanted = [row for row in rows if not isinstance(row, dict) or str(row.get("data_split")) == self.split]
        yield from convert_each(wanted, partial(convert, known=known), lambda row: str(row["dialogue_id"]), source, reject)


def load(root: Path, name: str) -> Any:
    """A JSON file of the data set. ValueError where there is none or it cannot be read."""
    try:
        return json.loads(find(root, name).decode("utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError, zipfile.BadZipFile, zlib.error, EOFError, OSError, RecursionError) as error:
        raise ValueError(f"{root}: {name} cannot be read ({error}); fetch it again") from None


def find(root: Path, name: str) -> bytes:
    """The file as it is in the folder, in its folder `data`, or in data.zip."""
    for file in (root / name, root / "data" / name):
        if file.is_file():
            return file.read_bytes()
    packed = root / "data.zip" if root.is_dir() else root
    if not packed.is_file():
        raise ValueError(f"{root}: no {name} and no data.zip there; {WHERE}")
    with zipfile.ZipFile(packed) as archive:
        for inner in (f"data/{name}", name):
            if inner in archive.namelist():
                return archive.read(inner)
    raise ValueError(f"{packed}: no data/{name} in it; {WHERE}")


def annotated(ontology: Any, root: str) -> Annotated:
    """Whose acts the ontology lists. ValueError where it is not in the format."""
    try:
        acts = [ast.literal_eval(act) if isinstance(act, str) else act for kind in KINDS for act in ontology["dialogue_acts"][kind]]
        return Annotated(any(act["user"] for act in acts), any(act["system"] for act in acts))
    except (KeyError, TypeError, ValueError, SyntaxError) as error:
        told = f"{type(error).__name__}: {error}"
        raise ValueError(f"{root}, ontology.json: not in the unified format of ConvLab-3 ({told}); unpack the release again") from None


def convert(raw: Raw, known: Annotated) -> dict[str, Any]:
    """One published dialogue -> the fields of our record, without the id. KeyError, TypeError, ... where it is not in the format."""
    turns: list[dict[str, Any]] = []
    for said in raw["turns"]:
        if said["speaker"] == "user":
            turns.append({"request": said["utterance"]})
            if known.user:
                turns[-1] |= {"request_slots": spans(said), "intent": intent(said)}
        elif said["speaker"] == "system":
            if not turns or "response" in turns[-1]:
                turns.append({})
            turns[-1]["response"] = said["utterance"]
            if known.system:
                turns[-1]["response_slots"] = spans(said)
        else:
            raise ValueError(f"speaker {said['speaker']!r} is neither user nor system")
    metadata = {key: raw[key] for key in ("dataset", "domains", "goal") if raw.get(key)}
    metadata |= {key: found for key in ("state", "booked") if (found := last(raw["turns"], key))}
    return {"turns": turns, "metadata": metadata}


def last(turns: Iterable[Raw], key: str) -> Any:
    """What the last turn that has the key says of it."""
    return next((turn[key] for turn in reversed(list(turns)) if turn.get(key)), None)


def spans(said: Raw) -> list[dict[str, Any]]:
    """The slots of one utterance, in the order of its words."""
    acts = [act for act in said["dialogue_acts"]["non-categorical"] if act.get("start") is not None]
    found = {
        (act["start"], act["end"], name): {"name": name, "start": act["start"], "end": act["end"], "value": act["value"]}
        for act in acts
        for name in ["-".join(part for part in (act["domain"], act["slot"]) if part)]
    }
    return [found[key] for key in sorted(found)]


def intent(said: Raw) -> str | None:
    """What all acts of a user's utterance agree on; None: nothing."""
    acts = said["dialogue_acts"]
    names = {"/".join(part for part in (act["domain"], act["intent"]) if part) for kind in KINDS for act in acts[kind]}
    return names.pop() if len(names) == 1 else None
