"""Free-text human feedback (Petrak et al. 2023, https://aclanthology.org/2023.emnlp-main.1011): errors of responses, and users' reactions.

Where to get it: github.com/UKPLab/emnlp2023-learning-from-free-text-human-feedback, licence Apache-2.0. `root` is the clone, with
`data/analysis/filtered_dialogs/SOURCE/checked` and `/unchecked`, one dialogue per file. The sources are SGD, MWoZ, BABI, SelfFeeding, WoW
and Personachat, each with terms of its own: 552 dialogues, in which a filter found a request that may react to an error. No split is
published: see `labelgen.corpora.in_fold`.

The publisher's turns are kept: an utterance and the response to it. "<SILENCE>" (BABI) is no request, "-" (SelfFeeding) no response, and
the line numbers before Personachat's utterances are not words.

What is labelled, and by which rule:

- Votes on a response: question "error_type", the code of the paper's taxonomy (E1 to E10; once I1, of the taxonomy before) or "none". The
  publisher names the request that may react; its annotators, up to three, judged the response before it. An entry counts if it names an
  error type, or if it says that there is no feedback (C2). In the checked dialogues of SelfFeeding the request is the only one
  that holds the filter's phrase; without such a request nothing is labelled.
- Defects of the judged responses: more than half of their votes name an error: True. Fewer than a third: False. Otherwise None.
- Votes on that request: question "user_reaction", UR1 to UR5. (The unchecked dialogues of SelfFeeding have codes of another taxonomy, B1
  to B6, which are left out.)
- Slices: the source, and "checked" or "unchecked" (where mostly one annotator answered). `metadata`: the publisher's `unique_id`, which
  names the dialogue and the split of its source. Three dialogues stand there twice, and both are in the same fold.

Not labelled: goals, outcomes, intents and slots. Not read: the comments, and `random_dialogs`, whose files number turns in different ways.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from labelgen.corpora import Fold, Raw, convert_each, in_fold, text_in
from labelgen.dialogue import Dialogue, RecordError, Reject, reject_or_raise
from labelgen.io.paths import plain_file

FOLDER = "data/analysis/filtered_dialogs"
SUBSETS = ("checked", "unchecked")
PUBLISHER = "github.com/UKPLab/emnlp2023-learning-from-free-text-human-feedback (Apache-2.0)"
ERROR_TYPE, REACTION = re.compile(r"[EI]\d+"), re.compile(r"UR\d")
NO_ERROR, NO_FEEDBACK = "none", "C2"  # as a vote; as published
LINE_NUMBER = re.compile(r"^\d+ ")


class Log(NamedTuple):
    """A published dialogue, with its id in the record, its source and its subset."""

    identity: str
    source: str
    subset: str
    content: Any


@dataclass(frozen=True)
class FreeTextFeedback:
    """The corpus below `root`. `split` and `fold`: see `labelgen.corpora.in_fold`."""

    root: str
    split: Fold = "all"
    fold: int = 0

    def read(self, reject: Reject | None = None) -> Iterator[Dialogue]:
        """Yields the dialogues by source, subset and file name. Ids are `ukp:SGD/checked/100_9_00026_sgd_valid`, after the file.

        Malformed dialogues go to `reject`; without it the first one raises RecordError. ValueError: the folder is not the corpus.
        """
        folder = Path(self.root) / FOLDER
        files = sorted(file for subset in SUBSETS for file in folder.glob(f"*/{subset}/*.json"))
        if not files:
            raise ValueError(f"{folder}: no SOURCE/checked/*.json there; clone {PUBLISHER} and give its folder as `root`")
        for file in files:
            for dialogue in convert_each(_load(file, reject), convert, lambda log: log.identity, str(file), reject):
                if in_fold(dialogue.metadata["unique_id"], self.split, self.fold):
                    yield dialogue


def _load(file: Path, reject: Reject | None) -> list[Log]:
    """The one dialogue of a file. A file that is not JSON counts as a rejected record."""
    source, subset = file.parent.parent.name, file.parent.name
    identity = f"ukp:{source}/{subset}/{file.stem}"
    try:
        return [Log(identity, source, subset, json.loads(plain_file(file).read_text(encoding="utf-8")))]
    except ValueError as error:  # UnicodeDecodeError and JSONDecodeError are ValueErrors
        problem = f"not UTF-8 JSON ({error}); clone the repository again"
    reject_or_raise(RecordError(str(file), 0, identity, "file", problem), reject)
    return []


def convert(log: Log) -> dict[str, Any]:
    """A published dialogue -> the fields of the record, without the id. KeyError, ValueError, ...: not in the publisher's format."""
    turns: list[dict[str, Any]] = [_turn(log.source, turn) for turn in log.content["turns"]]
    for number, entries in find_annotations(log.content).items():
        if number < len(turns):
            reactions = [entry["user_reaction"] for entry in entries if REACTION.fullmatch(entry["user_reaction"] or "")]
            turns[number]["votes"] += _votes("user_reaction", reactions)
        if 0 < number <= len(turns):
            errors = error_types(entries)
            turns[number - 1]["votes"] += _votes("error_type", errors)
            turns[number - 1]["defect"] = is_defect(errors)
    return {"turns": turns, "slices": [log.source, log.subset], "metadata": {"unique_id": text_in(log.content, "unique_id")}}


def _turn(source: str, published: Raw) -> dict[str, Any]:
    request, response = text_in(published, "utterance"), text_in(published, "response")
    if source == "Personachat":
        request = LINE_NUMBER.sub("", request)
    return {"request": None if request == "<SILENCE>" else request, "response": None if response == "-" else response, "votes": []}


def _votes(question: str, values: Iterable[str]) -> list[dict[str, Any]]:
    return [{"question": question, "value": value} for value in values]


def find_annotations(content: Raw) -> dict[int, list[Raw]]:
    """The annotators' entries by the number of the request that may react to an error. Of two lists for a request the first holds."""
    if "correction" not in content:
        return {entry["turn"]: entry["annotation"] for entry in reversed(content["annotations"])}
    phrase = content["correction"]["phrase"][1].strip().casefold()
    holding = [number for number, turn in enumerate(content["turns"]) if phrase in turn["utterance"].casefold()]
    return {holding[0]: content["annotations"]} if len(holding) == 1 else {}


def error_types(entries: Iterable[Raw]) -> list[str]:
    """The answer of each annotator who judged the response."""
    types = []
    for entry in entries:
        if ERROR_TYPE.fullmatch(entry["error_type"] or ""):
            types.append(entry["error_type"])
        elif entry["user_correction"] == NO_FEEDBACK:
            types.append(NO_ERROR)
    return types


def is_defect(types: list[str]) -> bool | None:
    """Whether most annotators saw an error. True: more than half of them. False: fewer than a third. None: between these, or no votes."""
    errors = sum(kind != NO_ERROR for kind in types)
    return True if 2 * errors > len(types) else False if 3 * errors < len(types) else None
