"""The effect of int8 or bf16 on every figure, and the agreement of its labels with those of fp32 and with its own for a dialogue alone.

    python experiments/backfill/precision.py EXPORT SGD_FOLDER [PRECISION] [EVERY] [SPLIT]

Scores every EVERY-th dialogue of an SGD split (default: int8 4 dev) with both, and prints a row per figure. Intervals are over dialogues.
The difference is paired: both are scored on the same dialogues.
"""

from __future__ import annotations

import sys
import time
from itertools import islice
from typing import Any, NamedTuple

import labelgen
from labelgen.corpora.sgd import SGD
from labelgen.dialogue import Dialogue
from labelgen.evaluation.evaluate import Scores, score
from labelgen.evaluation.intervals import difference
from labelgen.labelling.annotator import Annotator, agreement
from labelgen.labelling.export import load

ALONE = 30  # dialogues that are also labelled one at a time


class Made(NamedTuple):
    """What a precision gives: figures, labels, dialogues a second of the processor."""

    scores: Scores
    labelled: list[Dialogue]
    rate: float


def label(annotator: Annotator, dialogues: list[Dialogue]) -> Made:
    annotator(dialogues[:5])
    annotator.cache.clear()
    start = time.process_time()
    predicted = list(annotator.predict(dialogues))
    rate = len(dialogues) / (time.process_time() - start)
    labelled = [d.model_copy(update={"labels": [label for p in found.values() for label in p.labels]}) for d, found in predicted]
    return Made(score(annotator.network.tasks, predicted), labelled, rate)


def alone(annotator: Annotator, dialogues: list[Dialogue]) -> list[Dialogue]:
    found = []
    for dialogue in dialogues:
        annotator.cache.clear()
        found += annotator([dialogue])
    return found


def agree(ones: list[Dialogue], others: list[Dialogue]) -> str:
    return ", ".join(f"{task} {share:.3f}" for task, share in agreement(ones, others).items())


def main() -> None:
    export, root = sys.argv[1:3]
    name, every, split = (sys.argv[3:] + ["int8", "4", "dev"][len(sys.argv) - 3 :])[:3]
    precision: Any = name
    part: Any = split
    dialogues = list(islice(SGD(root, part).read(), 0, None, int(every)))
    annotator = load(export, precision=precision)
    exact, small = label(load(export), dialogues), label(annotator, dialogues)
    metrics = {f"{task}/{key}": figure.metric for task, kind in annotator.network.tasks.items() for key, figure in kind.metrics().items()}
    print(f"| figure | fp32 | {precision} | difference |\n|---|---|---|---|")
    for key, metric in metrics.items():
        if exact.scores.metrics[key].value is None:
            continue
        one, other = (made.scores.statistics[key] for made in (exact, small))
        a, b = (float(metric.value(metric.merge(rows))) for rows in (one, other))
        apart = difference(metric, other, one)
        print(f"| {key} | {a:.3f} | {b:.3f} | " + (f"{apart.value:+.3f} [{apart.low:+.3f}, {apart.high:+.3f}] |" if apart else "|"))
    print(f"\nagreement of the labels (F1) with those of fp32: {agree(exact.labelled, small.labelled)}")
    few = dialogues[:: max(1, len(dialogues) // ALONE)][:ALONE]
    together, one_by_one = annotator(few), alone(annotator, few)
    what = [[label.model_copy(update={"confidence": 0.0}) for label in d.labels or ()] for d in (*together, *one_by_one)]
    other_labels = sum(a != b for a, b in zip(what[: len(few)], what[len(few) :], strict=True))
    print(f"of {len(few)} dialogues {other_labels} have other labels when labelled alone; agreement: {agree(together, one_by_one)}")
    rates = f"{exact.rate:.1f} in fp32, {small.rate:.1f} in {precision}"
    print(f"{len(dialogues)} dialogues of SGD {split}; dialogues a second of one core: {rates}; labelgen {labelgen.__version__}")


if __name__ == "__main__":
    main()
