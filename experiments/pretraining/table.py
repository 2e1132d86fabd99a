"""The table of README.md: exports with and without pretraining on SGD dev. table.py SGD_FOLDER RUNS_FOLDER [EVERY]

All exports share one frozen turn encoder, so that the states of dev are computed once. EVERY=6 takes every sixth dialogue.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

import labelgen
from labelgen.corpora.sgd import SGD
from labelgen.dialogue import Dialogue
from labelgen.inputs.batch import Collator
from labelgen.inputs.features import FeatureSpace
from labelgen.training.cache import FrozenStates
from labelgen.training.data import texts_of

DIALOGUES_A_BATCH = 32


@torch.inference_mode()
def figures(export: Path, dialogues: list[Dialogue], cache: Path) -> dict[str, float]:
    """Task/metric -> value."""
    annotator = labelgen.load(export)
    network = annotator.network
    space = FeatureSpace(**annotator.info["features"])
    texts = network.text_encoder()
    tokens = texts(sorted({text for dialogue in dialogues for text in texts_of(dialogue)}))
    states = FrozenStates(network.encoder.turn_encoder, tokens, cache)
    states.prepare(torch.device("cpu"))
    states.open()
    collate = Collator(texts, space, {}, states)
    figures = {f"{name}/{key}": figure for name, task in network.tasks.items() for key, figure in task.metrics().items()}
    for start in tqdm(range(0, len(dialogues), DIALOGUES_A_BATCH), desc=export.parent.name):
        batch = collate(dialogues[start : start + DIALOGUES_A_BATCH])
        for dialogue, predictions in zip(batch.dialogues, network.predict(network(batch), batch, "evaluation"), strict=True):
            for name, figure in figures.items():
                figure.observe(dialogue, predictions[name.split("/")[0]])
    return {name: float(figure.metric.compute()) for name, figure in figures.items()}


def main() -> None:
    """Prints the table as Markdown: mean and standard deviation over the seeds."""
    root, runs, every = sys.argv[1], Path(sys.argv[2]), int([*sys.argv, "1"][3])
    dialogues = list(SGD(root=root, split="dev").read())[::every]
    columns: dict[str, dict[str, list[float]]] = {"without": defaultdict(list), "with": defaultdict(list)}
    for export in sorted(runs.glob("with*_*/export")):
        for name, value in figures(export, dialogues, runs / "states").items():
            columns[export.parent.name.split("_")[0]][name].append(value)
    print(f"{len(dialogues)} dialogues of dev\n\n| metric | without | with | difference, seed by seed |\n|---|---|---|---|")
    for name, values in columns["without"].items():
        pairs = [np.array(values), np.array(columns["with"][name])]
        cells = [f"{pair.mean():.3f} ± {pair.std(ddof=1):.3f}" for pair in pairs]
        print(f"| {name} | {cells[0]} | {cells[1]} | {', '.join(f'{d:+.3f}' for d in pairs[1] - pairs[0])} |")


if __name__ == "__main__":
    main()
