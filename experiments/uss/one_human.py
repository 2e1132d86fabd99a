"""How good one annotator of USS is, compared with a model: each vote against the mean of the other votes.

    python experiments/uss/one_human.py FOLDER_OF_USS SGD 0 2 [--cell runs/uss/sgd/causal_adapted]

0 2: the tenths to score, as in matrix.yaml. Each vote stands for an annotator of the turn, so that a turn with n votes gives n items: the
class of the others' mean is what annotator and model are judged by. Intervals draw dialogues, differences are paired. Columns are
exchangeable in USS: there is no annotator to follow through a corpus. It also scores the majority class against the mean of all votes.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

import labelgen
from labelgen.corpora.uss import USS
from labelgen.dialogue import Dialogue
from labelgen.evaluation.intervals import interval
from labelgen.metrics import Accuracy, DialogueMetric, MacroF1
from labelgen.tasks.satisfaction import CLASSES, Satisfaction, of_mean

sys.path.insert(0, str(Path(__file__).parents[1]))
from matrix import paired

METRICS: tuple[DialogueMetric, ...] = (Accuracy(), MacroF1(CLASSES))


def label(ratings: list[float]) -> str:
    return CLASSES[int(of_mean(ratings).argmax())]


def votes(dialogue: Dialogue) -> Iterator[tuple[int, str, str]]:
    """The turn, the class of the others' mean, the class of the one left out."""
    for turn, ratings in enumerate(Satisfaction().ratings(dialogue)):
        for k in range(len(ratings)):
            if others := ratings[:k] + ratings[k + 1 :]:
                yield turn, label(others), label([ratings[k]])


def statistics(metric: DialogueMetric, rows: Sequence[list[tuple[str, str]]]) -> dict[str, np.ndarray]:
    """Of each dialogue, by its number; `rows`: its pairs of the right and the predicted class."""
    return {str(k): metric.statistics(*reversed(list(zip(*row, strict=True)))) for k, row in enumerate(rows) if row}


def report(name: str, rows: Sequence[list[tuple[str, str]]], baseline: Sequence[list[tuple[str, str]]] | None = None) -> None:
    for metric in METRICS:
        found = statistics(metric, rows)
        figure = interval(metric, list(found.values()))
        apart = f", compared with the human {paired(metric, found, statistics(metric, baseline))}" if baseline else ""
        print(f"{name:22} {type(metric).__name__:9} {figure.value:.3f} [{figure.low:.3f}, {figure.high:.3f}] of {figure.count:,}{apart}")


def predicted(cell: Path, fold: str, tests: Sequence[Dialogue]) -> Iterator[list[str]]:
    """The model's class of each turn."""
    annotator = labelgen.load(cell / f"fold{fold}" / "export")
    for _, found in annotator.predict(dialogue.content() for dialogue in tests):
        yield [CLASSES[k] for k in found["satisfaction"].probabilities.argmax(1)]


def main() -> None:
    """Scores the votes, and the model of each tenth on the same items."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root")
    parser.add_argument("name", choices=("SGD", "ReDial"))
    parser.add_argument("folds", nargs="+")
    parser.add_argument("--cell", type=Path, help="the runs of a model, one folder per tenth")
    options = parser.parse_args()
    tests = {fold: list(USS(options.root, options.name, split="test", fold=int(fold)).read()) for fold in options.folds}
    every = [dialogue for some in tests.values() for dialogue in some]
    gold = [list(Satisfaction().values(dialogue)) for dialogue in every]
    most = max(CLASSES, key=lambda value: sum(row.count(value) for row in gold))
    human = [[(others, one) for _, others, one in votes(dialogue)] for dialogue in every]
    report("one human, left out", human)
    if options.cell:
        labels = [one for fold, some in tests.items() for one in predicted(options.cell, fold, some)]
        model = [[(others, row[turn]) for turn, others, _ in votes(d)] for d, row in zip(every, labels, strict=True)]
        report("the model, same items", model, human)
    report(f"always {most}", [[(value, most) for value in row] for row in gold])


if __name__ == "__main__":
    main()
