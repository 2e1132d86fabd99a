"""How often texts of real dialogues repeat: the share of tokens that need not be encoded again, by the size of a shard.

    python experiments/backfill/memory.py EXPORT sgd|star FOLDER [SPLIT]

The memory is the Annotator's: bounded, and empty at the start of each shard. Nothing is encoded.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import Any

import labelgen
from labelgen.corpora.sgd import SGD
from labelgen.corpora.star import STAR
from labelgen.dialogue import PARTS, Dialogue
from labelgen.labelling.annotator import StateCache

PIECE = 14  # dialogues that are encoded together, about
BYTES = (0, 64 * 2**20, 256 * 2**20, 2**40)


def cut(dialogues: Sequence[Dialogue], size: int) -> Iterator[Sequence[Dialogue]]:
    """Runs of `size` dialogues."""
    return (dialogues[start : start + size] for start in range(0, len(dialogues), size))


def main() -> None:
    export, name, folder, *rest = sys.argv[1:]
    corpora: dict[str, Any] = {"sgd": SGD, "star": STAR}
    corpus = corpora[name](folder, *rest)
    annotator = labelgen.load(export)
    dialogues = list(corpus.read())
    texts = annotator.network.text_encoder()
    texts.keep(turn.text(utterance) or "" for dialogue in dialogues for turn in dialogue.turns for utterance in PARTS)
    print(f"{len(dialogues):,} dialogues of {corpus!r}: share of the tokens that is remembered\n")
    print("| dialogues of a part | " + " | ".join("within a piece" if not b else f"{b / 2**20:,.0f} MB" for b in BYTES) + " |")
    print("|---|" + "---|" * len(BYTES))
    for part in (100, 500, 2000, 10**6):
        shares = []
        for room in BYTES:
            cache = StateCache(texts, room // (4 * annotator.network.encoder.width))
            for some in cut(dialogues, part):
                cache.clear()
                for piece in cut(some, PIECE):
                    words = (turn.text(utterance) for dialogue in piece for turn in dialogue.turns for utterance in PARTS)
                    cache.get([text for text in words if text is not None])
            shares.append(f"{1 - cache.tokens_encoded / cache.tokens_requested:.1%}")
        print(f"| {'all' if part > len(dialogues) else f'{part:,}'} | {' | '.join(shares)} |")


if __name__ == "__main__":
    main()
