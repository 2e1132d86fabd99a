"""What dynamic int8 does to every task's figures, and how far its labels agree with those of fp32.

    python experiments/backfill/int8.py EXPORT SGD_FOLDER [SPLIT] [EVERY]

Scores every EVERY-th dialogue of an SGD split (default: dev, 4) with both, and prints a row a figure; intervals by dialogue, of the
difference paired: each resample draws the same dialogues for both.
"""

from __future__ import annotations

import sys
import time
from itertools import islice
from typing import Any

import numpy as np

import labelgen
from labelgen.annotator import agreement
from labelgen.corpora.sgd import SGD
from labelgen.evaluate import Scores, score
from labelgen.export import load

RESAMPLES = 2000


def main() -> None:
    export, root = sys.argv[1:3]
    split, every = (sys.argv[3:] + ["dev", "4"][len(sys.argv) - 3 :])[:2]
    split_name: Any = split
    dialogues = list(islice(SGD(root, split_name).read(), 0, None, int(every)))
    scores: dict[str, Scores] = {}
    rate, labelled = {}, {}
    for precision in ("fp32", "int8"):
        annotator = load(export, precision=precision)
        annotator(dialogues[:5])
        annotator.memory.forget()
        start = time.process_time()
        predicted = list(annotator.predict(dialogues))
        rate[precision] = len(dialogues) / (time.process_time() - start)
        scores[precision] = score(annotator.network.tasks, predicted)
        labelled[precision] = [
            d.model_copy(update={"labels": [label for p in said.values() for label in p.labels]}) for d, said in predicted
        ]
    metrics = {f"{name}/{key}": metric for name, task in annotator.network.tasks.items() for key, metric in task.metrics().items()}
    draws = np.random.default_rng(0)
    times = np.stack([np.bincount(draws.integers(len(dialogues), size=len(dialogues)), minlength=len(dialogues)) for _ in range(RESAMPLES)])
    print("| figure | fp32 | int8 | difference |\n|---|---|---|---|")
    for name, metric in metrics.items():
        if scores["fp32"].metrics[name].value is None:
            continue
        exact, small = (scores[precision].statistics[name] for precision in ("fp32", "int8"))
        low, high = np.nanquantile(metric.value(times @ small) - metric.value(times @ exact), [0.025, 0.975])
        a, b = (float(metric.value(rows.sum(0))) for rows in (exact, small))
        print(f"| {name} | {a:.3f} | {b:.3f} | {b - a:+.3f} [{low:+.3f}, {high:+.3f}] |")
    found = agreement(labelled["fp32"], labelled["int8"])
    print("\nagreement of the labels (F1):", ", ".join(f"{task} {share:.3f}" for task, share in found.items()))
    told = ", ".join(f"{name} {value:.1f}" for name, value in rate.items())
    print(f"{len(dialogues)} dialogues of SGD {split}; dialogues a second of one core: {told}; labelgen {labelgen.__version__}")


if __name__ == "__main__":
    main()
