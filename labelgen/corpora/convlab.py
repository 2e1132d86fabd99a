"""ConvLab-3's unified format (Zhu et al. 2023, https://arxiv.org/abs/2211.17148): one of its data sets -> dialogues.

Where to get it: github.com/ConvLab/ConvLab-3, `data/unified_datasets/NAME/data.zip` (MultiWOZ, SGD, Taskmaster, CrossWOZ, KVRET, ... in
one format). The code is Apache-2.0. Each data set has its own licence, in its README.md. `root` is data.zip, or the folder that holds it
or its unpacked `dialogues.json` and `ontology.json`. Any other data set in this format can be read too. A file is read into memory whole.

A user's utterance and the system's answer to it are one turn. An utterance without a partner stands alone.

What is labelled, and by which rule:

- ontology.json decides whether a speaker is annotated: it lists the dialogue acts of the user and of the system. For a speaker without
  acts, slots and intents are not annotated. For a speaker with acts, an utterance without acts has no slots, and its intent is not known.
- Slots: the spans of the non-categorical acts, in requests and responses, named `domain-slot`. The format defines slots within domains: a
  hotel's name is not a restaurant's. A span that several acts share is one slot. Values without a span, such as all categorical values,
  are not labelled: locating them would be guessing.
- Intent: `domain/intent` of the user's acts where they all agree, or the intent alone for an act without a domain. "inform" and "request"
  in one turn, or two domains, are ambiguous: the intent is not known.
- `metadata`: `dataset`, `domains`, the user's `goal` as published, and the last `state` and `booked` where there are any.

Not labelled: goals and outcomes (the format says which domains a dialogue visits, not which turn serves which), defects, votes.
"""

from __future__ import annotations

import ast
import json
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from labelgen.corpora import Raw, convert_each, is_user, pair_utterances
from labelgen.dialogue import Dialogue, Reject
from labelgen.io.json_values import type_of
from labelgen.io.paths import error_reason

WHERE = "github.com/ConvLab/ConvLab-3 has data/unified_datasets/NAME/data.zip; give it, or the folder with dialogues.json, as `root`"
KINDS = ("categorical", "non-categorical", "binary")


class AnnotatedSpeakers(NamedTuple):
    """Whose dialogue acts a data set has."""

    user: bool
    system: bool


@dataclass(frozen=True)
class ConvLab:
    """One split (train, validation, test, or another one that the data set has) of the data set at `root`."""

    root: str
    split: str = "train"

    def read(self, reject: Reject | None = None) -> Iterator[Dialogue]:
        """Yields the dialogues in the publisher's order, under their `dialogue_id` (`multiwoz21-train-0`).

        Malformed dialogues go to `reject`; without it the first one raises RecordError. ValueError: there is no such data set or split.
        """
        source = f"{self.root}, dialogues.json"
        rows = load(Path(self.root), "dialogues.json")
        if not isinstance(rows, list):
            raise ValueError(f"{source}: a JSON {type_of(rows)}, not a list of dialogues; unpack the release again")
        splits = {str(row.get("data_split")) for row in rows if isinstance(row, dict)}
        if self.split not in splits:
            raise ValueError(f"{source}: no split {self.split!r}; there are {', '.join(sorted(splits)) or 'no dialogues'}")
        annotated = annotated_speakers(load(Path(self.root), "ontology.json"), self.root)
        wanted = [row for row in rows if not isinstance(row, dict) or str(row.get("data_split")) == self.split]
        yield from convert_each(wanted, partial(convert, annotated=annotated), lambda row: str(row["dialogue_id"]), source, reject)


def load(root: Path, name: str) -> Any:
    """The content of a JSON file of the data set. ValueError: there is no such file, or it cannot be read."""
    try:
        return json.loads(find(root, name).decode("utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError, zipfile.BadZipFile, zlib.error, EOFError, OSError, RecursionError) as error:
        raise ValueError(f"{root}: {name} cannot be read ({error_reason(error)}); fetch it again") from None


def find(root: Path, name: str) -> bytes:
    """The bytes of a file in the folder, in its folder `data`, or in data.zip. ValueError: there is no such file."""
    for file in (root / name, root / "data" / name):
        if file.is_file():
            return file.read_bytes()
    packed = root / "data.zip" if root.is_dir() else root
    if not packed.is_file():
        raise ValueError(f"{root}: no {name} and no data.zip there; {WHERE}")
    if not zipfile.is_zipfile(packed):
        raise ValueError(f"{packed}: no zip file, or one that was cut short; {WHERE}")
    with zipfile.ZipFile(packed) as archive:
        for inner in (f"data/{name}", name):
            if inner in archive.namelist():
                return archive.read(inner)
    raise ValueError(f"{packed}: no data/{name} in it; {WHERE}")


def annotated_speakers(ontology: Any, root: str) -> AnnotatedSpeakers:
    """Whose acts the ontology lists. ValueError: it is not in the format."""
    try:
        acts = [ast.literal_eval(act) if isinstance(act, str) else act for kind in KINDS for act in ontology["dialogue_acts"][kind]]
        return AnnotatedSpeakers(any(act["user"] for act in acts), any(act["system"] for act in acts))
    except (KeyError, TypeError, ValueError, SyntaxError) as error:
        problem = f"{type(error).__name__}: {error}"
        raise ValueError(f"{root}, ontology.json: not in the unified format of ConvLab-3 ({problem}); unpack the release again") from None


def convert(raw: Raw, annotated: AnnotatedSpeakers) -> dict[str, Any]:
    """A published dialogue -> the fields of the record, without the id. KeyError, TypeError, ...: not in the format."""
    exchanges = pair_utterances(raw["turns"], lambda utterance: is_user(utterance["speaker"], "user", "system"))
    turns = [_turn(user, system, annotated) for user, system in exchanges]
    metadata = {key: raw[key] for key in ("dataset", "domains", "goal") if raw.get(key)}
    metadata |= {key: found for key in ("state", "booked") if (found := last(raw["turns"], key))}
    return {"turns": turns, "metadata": metadata}


def _turn(user: Raw | None, system: Raw | None, annotated: AnnotatedSpeakers) -> dict[str, Any]:
    turn: dict[str, Any] = {"request": user and user["utterance"], "response": system and system["utterance"]}
    if user is not None and annotated.user:
        turn |= {"request_slots": spans(user), "intent": intent(user)}
    if system is not None and annotated.system:
        turn["response_slots"] = spans(system)
    return turn


def last(turns: Sequence[Raw], key: str) -> Any:
    """The value of the key in the last turn that has one."""
    return next((turn[key] for turn in reversed(turns) if turn.get(key)), None)


def spans(utterance: Raw) -> list[dict[str, Any]]:
    """The slots of an utterance, in order."""
    acts = [act for act in utterance["dialogue_acts"]["non-categorical"] if act.get("start") is not None]
    found = {
        (act["start"], act["end"], name): {"name": name, "start": act["start"], "end": act["end"], "value": act["value"]}
        for act in acts
        for name in ["-".join(part for part in (act["domain"], act["slot"]) if part)]
    }
    return [found[key] for key in sorted(found)]


def intent(utterance: Raw) -> str | None:
    """The intent that all acts of a user's utterance share. None: they share none."""
    acts = utterance["dialogue_acts"]
    names = {"/".join(part for part in (act["domain"], act["intent"]) if part) for kind in KINDS for act in acts[kind]}
    return names.pop() if len(names) == 1 else None
