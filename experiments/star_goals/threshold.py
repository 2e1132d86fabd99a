"""Would another threshold find more goal boundaries? Scores thresholds on the dialogues that were held out of training, never on the test.

    python experiments/star_goals/threshold.py STAR_FOLDER [runs/star_goals/longer]

A turn keeps the goal of the turn before where the probability of that exceeds 1 - THRESHOLD; otherwise it takes the most probable other
goal, an earlier one or a new one. `decoded` is what the library does: the most probable goal.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

import labelgen
from labelgen.corpora import hash_fraction
from labelgen.corpora.star import STAR
from labelgen.metrics import BoundaryF1, PairwiseF1, Prediction

TASK = "goal_segmentation"
FOLDS = 3
HELD_OUT = 0.05  # data.valid_fraction of experiment=star_goals, whose seed is 0
THRESHOLDS = (0.6, 0.5, 0.45, 0.4, 0.35, 0.3, 0.2)


def goals_of(prediction: Prediction, turns: int) -> list[int | None]:
    """The goal of each turn, as decoded."""
    found: list[int | None] = [None] * turns
    for label in prediction.labels:
        for turn in label.turns:
            found[turn] = int(label.value)
    return found


def with_threshold(probabilities: np.ndarray, threshold: float) -> list[int | None]:
    """The goal of each turn, from each turn's probabilities of a new goal and of each earlier turn."""
    goals, found = [[0]], [0]
    for t, row in enumerate(probabilities[1:], 1):
        choices = [*(row[[1 + turn for turn in goal]].sum() for goal in goals), row[0]]
        before = found[-1]
        stays = choices[before] > 1 - threshold
        best = before if stays else max((g for g in range(len(choices)) if g != before), key=choices.__getitem__)
        if best == len(goals):
            goals.append([])
        goals[best].append(t)
        found.append(best)
    return list(found)


def main() -> None:
    """Labels the held-out dialogues of each tenth with its own model, and prints a line a threshold."""
    root, cell = sys.argv[1], Path(sys.argv[2] if sys.argv[2:] else "runs/star_goals/longer")
    gold: list[list[int | None]] = []
    predictions: list[Prediction] = []
    for fold in range(FOLDS):
        annotator = labelgen.load(cell / f"fold{fold}" / "export")
        held = [d for d in STAR(root=root, split="train", fold=fold).read() if hash_fraction(d.id, "valid 0") < HELD_OUT]
        for dialogue, (_, found) in zip(held, annotator.predict(d.content() for d in held), strict=True):
            gold.append(dialogue.goal_of_turns())
            predictions.append(found[TASK])
    print(f"{len(gold)} held-out dialogues of {FOLDS} tenths")
    print("| | precision | recall | goal boundary F1 | pairwise membership F1 |\n|---|---|---|---|---|")
    report("decoded", gold, [goals_of(one, len(turns)) for one, turns in zip(predictions, gold, strict=True)])
    for threshold in THRESHOLDS:
        report(f"threshold {threshold}", gold, [with_threshold(one.probabilities, threshold) for one in predictions])


def report(name: str, gold: Sequence[list[int | None]], found: Sequence[list[int | None]]) -> None:
    figures = []
    for metric in (BoundaryF1, PairwiseF1):
        judge = metric()
        right, extra, missed = np.sum([judge.statistics(f, g) for g, f in zip(gold, found, strict=True)], axis=0)[:3]
        figures.append((right / (right + extra), right / (right + missed), 2 * right / (2 * right + extra + missed)))
    (precision, recall, boundary), (_, _, pairwise) = figures
    print(f"| {name} | {precision:.3f} | {recall:.3f} | {boundary:.3f} | {pairwise:.3f} |")


if __name__ == "__main__":
    main()
