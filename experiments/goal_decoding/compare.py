"""Greedy decoding of goals against the most probable partition that is found, on the same probabilities.

    labelgen convert corpus=star corpus.root=FOLDER corpus.split=dev output=CORPUS.jsonl
    python experiments/goal_decoding/compare.py EXPORT CORPUS.jsonl

Prints boundary F1 and pairwise F1 of both, how many dialogues are decoded otherwise, and the log-probability of both partitions.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

import labelgen
from labelgen.dialogue import Dialogue
from labelgen.metrics import BoundaryF1, PairwiseF1
from labelgen.tasks.goal_segmentation import GoalSegmentation, choice_probabilities, greedy, partition

Decode = Callable[[np.ndarray], np.ndarray]


class Decoding(NamedTuple):
    """One way of decoding all dialogues: its goals, their log-probabilities, and the time it took."""

    goals: list[np.ndarray]  # [T] goal numbers of each dialogue
    log_probabilities: np.ndarray  # [dialogues]
    seconds: float


def decode_all(decode: Decode, probabilities: Sequence[np.ndarray]) -> Decoding:
    """Decodes each dialogue's pointer probabilities."""
    start = time.process_time()
    goals = [decode(rows) for rows in probabilities]
    seconds = time.process_time() - start
    logs = [np.log(choice_probabilities(rows, found)).sum() for rows, found in zip(probabilities, goals, strict=True)]
    return Decoding(goals, np.array(logs), seconds)


def f1(kind: type[BoundaryF1] | type[PairwiseF1], dialogues: Sequence[Dialogue], goals: Sequence[np.ndarray]) -> float:
    """A figure of decoded goals over the dialogues."""
    metric = kind()
    for dialogue, found in zip(dialogues, goals, strict=True):
        metric.update(found.tolist(), dialogue.goal_of_turns())
    return float(metric.compute())


def main(export: str, corpus: str) -> None:
    """Prints a row a decoding."""
    annotator = labelgen.load(export)
    dialogues = [dialogue for dialogue in labelgen.read(corpus) if dialogue.goals]
    predicted = tqdm(annotator.predict(dialogues), "predicting", len(dialogues), unit="dialogue")
    probabilities = [predictions[GoalSegmentation.name].probabilities for _, predictions in predicted]
    ways = {"greedy": decode_all(greedy, probabilities), "most probable": decode_all(partition, probabilities)}
    better = ways["most probable"].log_probabilities > ways["greedy"].log_probabilities + 1e-9
    print(f"{len(dialogues)} dialogues with annotated goals; a more probable partition in {better.sum()} ({better.mean():.2%})")
    print(f"{'decoding':15}{'boundary F1':>12}{'pairwise F1':>12}{'mean log-probability':>22}{'ms a dialogue':>15}")
    for name, way in ways.items():
        figures = [f1(kind, dialogues, way.goals) for kind in (BoundaryF1, PairwiseF1)]
        pace = 1000 * way.seconds / len(dialogues)
        print(f"{name:15}{figures[0]:12.4f}{figures[1]:12.4f}{way.log_probabilities.mean():22.4f}{pace:15.3f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
