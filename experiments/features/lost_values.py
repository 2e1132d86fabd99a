"""DSTC2's records -> the same with `defect`: whether the recogniser lost a value that the user gave.

    labelgen convert corpus=dstc2 corpus.root=FOLDER corpus.split=valid output=dstc2.jsonl
    python experiments/features/lost_values.py dstc2.jsonl dstc2_lost.jsonl

A value is lost if its words are not in the recognised request ("dontcare" has no words and is left out). Turns whose acts give no
value are not labelled.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

from labelgen.dialogue import Dialogue
from labelgen.io import files


def lost(request: str | None, semantics: list[str] | None) -> bool | None:
    """None: no value to lose."""
    acts = [act.split("-", 2) for act in semantics or ()]
    values = [act[2] for act in acts if len(act) == 3 and act[0] == "inform" and act[2] != "dontcare"]
    if request is None or not values:
        return None
    heard = f" {request.casefold()} "
    return any(f" {value.casefold()} " not in heard for value in values)


def marked(path: str) -> Iterator[Dialogue]:
    for dialogue in files.read(path):
        for turn in dialogue.turns:
            turn.defect = lost(turn.request, turn.request_acts)
        yield dialogue


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    print(files.write(marked(sys.argv[1]), sys.argv[2]), "dialogues")
