"""What one annotator is worth on USS: each vote against the mean of the others, its own left out; and the majority class.

    python experiments/uss/one_human.py FOLDER_OF_USS SGD 0 1 2      (the tenths to score, as in matrix.yaml)

Each vote stands for an annotator of the turn, so that a turn with n votes gives n items; intervals draw dialogues.
Columns are exchangeable in USS: there is no annotator to follow through a corpus.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator

import numpy as np

from labelgen.corpora.uss import USS
from labelgen.dialogue import Dialogue
from labelgen.metrics import Accuracy, MacroF1, bootstrap
from labelgen.tasks.satisfaction import CLASSES, Satisfaction, of_mean


def label(ratings: list[float]) -> str:
    return CLASSES[int(of_mean(ratings).argmax())]


def votes(dialogue: Dialogue) -> Iterator[tuple[str, str]]:
    """(the class of the others' mean, the class of the one left out)."""
    for ratings in Satisfaction().ratings(dialogue):
        for k in range(len(ratings)):
            if others := ratings[:k] + ratings[k + 1 :]:
                yield label(others), label([ratings[k]])


def report(name: str, pairs: Iterable[list[tuple[str, str]]]) -> None:
    rows = [pair for pair in pairs if pair]
    for metric in (Accuracy(lambda *_: ([], [])), MacroF1(lambda *_: ([], []), CLASSES)):
        figure = bootstrap(metric, np.stack([metric.statistics(*zip(*row, strict=True)) for row in rows]), 2000)
        print(f"{name:22} {type(metric).__name__:9} {figure.value:.3f} [{figure.low:.3f}, {figure.high:.3f}] of {figure.count:,}")


def main(root: str, name: str, *folds: str) -> None:
    tests = [dialogue for fold in folds for dialogue in USS(root, name, split="test", fold=int(fold)).read()]
    gold = [list(Satisfaction().values(dialogue)) for dialogue in tests]
    most = max(CLASSES, key=lambda value: sum(row.count(value) for row in gold))
    report("one human, left out", (list(votes(dialogue)) for dialogue in tests))
    report(f"always {most}", ([(value, most) for value in row] for row in gold))


if __name__ == "__main__":
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    main(*sys.argv[1:])
