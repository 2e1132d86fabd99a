"""Which checkpoint of a run on few dialogues is the best one? python experiments/small_data/run.py OUTPUT [SEEDS [DIALOGUES ...]]

Trains on 10 to 600 simulated dialogues and scores the checkpoint of each validation on 200 test dialogues. Results are kept in
OUTPUT/results.jsonl. The same command continues, and prints the table of all results so far.
"""

from __future__ import annotations

import csv
import json
import logging
import shutil
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.stats import t as student

from labelgen.config import load_config, run
from labelgen.corpora.simulated import Simulated
from labelgen.evaluation.evaluate import result, score
from labelgen.labelling.export import export, load
from labelgen.metrics import selection_score
from labelgen.tasks import align_annotations

SIZES = (10, 30, 100, 300, 600)  # dialogues; one in twenty is held out
SETTINGS = ("corpus=simulated", "encoder.frozen_layers=6", "min_valid_dialogues=0")
WHOLE_RUN = (  # ends at the budget, and keeps the checkpoint of each validation
    "callbacks.early_stopping=null",
    "+callbacks.each._target_=pytorch_lightning.callbacks.ModelCheckpoint",
    "+callbacks.each.save_top_k=-1",
    "+callbacks.each.filename='{step}'",
)
BUDGETS: dict[str, Sequence[str]] = {"3 epochs": ("trainer.max_epochs=3",), "300 steps": ()}  # the first was the default for any size
TEST = Simulated(num_dialogues=200, split="test")
PATIENCE = 5  # validations, as in conf/callbacks/default.yaml


class Cell(NamedTuple):
    """One training run."""

    dialogues: int
    seed: int
    budget: str


class Validation(NamedTuple):
    """A step of a run, and the score of its weights on the dialogues held out and on the test dialogues."""

    step: int
    held_out: float
    test: float


def test_score(checkpoint: Path) -> float:
    """The score of a checkpoint on the test dialogues: the mean over the tasks that a run chooses by."""
    folder = checkpoint.parent / "export"
    export(str(checkpoint), str(folder))
    annotator = load(str(folder))
    tasks = annotator.network.tasks
    dialogues = align_annotations(tasks, list(TEST.read(lambda error: None)), annotator.network.text_encoder()).dialogues
    metrics = score(tasks, annotator.predict(dialogues)).metrics
    return selection_score(result(metrics[f"{name}/{task.score}"], task.metrics()[task.score]) for name, task in tasks.items())


def train(cell: Cell, folder: Path) -> dict[str, Any]:
    """Trains, and scores the checkpoint of each validation."""
    data = [f"corpus.num_dialogues={cell.dialogues}", f"corpus.seed={cell.seed}", f"seed={cell.seed}", f"data.cache={folder.parent}/cache"]
    run(load_config("train", *SETTINGS, *WHOLE_RUN, *BUDGETS[cell.budget], *data, f"output={folder}"))
    checkpoints = folder / "checkpoints"
    with (folder / "metrics.csv").open(encoding="utf-8") as file:
        rows = [(int(row["step"]) + 1, float(row["valid/score"])) for row in csv.DictReader(file) if row.get("valid/score")]
    validations = [Validation(step, held_out, test_score(checkpoints / f"step={step}.ckpt")) for step, held_out in rows]
    last = torch.load(checkpoints / "last.ckpt", weights_only=True)
    if not validations:  # no dialogue was held out
        validations.append(Validation(last["global_step"], 0.0, test_score(checkpoints / "last.ckpt")))
    return {
        **cell._asdict(),
        "held_out": last["labelgen"]["data"]["valid_dialogues"],
        "steps": last["global_step"],
        "validations": validations,
    }


def stopped(validations: Sequence[Validation]) -> Sequence[Validation]:
    """The validations of a run that ends after PATIENCE of them without a higher score on the dialogues held out."""
    best = 0
    for number, validation in enumerate(validations):
        if validation.held_out > validations[best].held_out:
            best = number
        elif number - best >= PATIENCE:
            return validations[: number + 1]
    return validations


def choices(validations: Sequence[Validation]) -> dict[str, float]:
    """The test score of each way to choose. The oracle chooses by the test score itself: no way to choose can exceed it."""
    best = max(validations, key=lambda validation: (validation.held_out, validation.step))
    best_stopped = max(stopped(validations), key=lambda validation: (validation.held_out, validation.step))
    oracle = max(validation.test for validation in validations)
    return {"last": validations[-1].test, "best": best.test, "best, stopped early": best_stopped.test, "oracle": oracle}


def mean(values: Sequence[float]) -> str:
    """The mean over seeds with its 95% interval (Student's t)."""
    if len(values) < 2:
        return f"{np.mean(values):.3f}"
    half = float(student.ppf(0.975, len(values) - 1)) * float(np.std(values, ddof=1)) / len(values) ** 0.5
    return f"{np.mean(values):.3f} ± {half:.3f}"


def table(results: Sequence[dict[str, Any]]) -> str:
    """Markdown: a row for each number of dialogues and budget, with the test score of `last` and the paired differences of the others."""
    names = ["best", "best, stopped early", "oracle"]
    head = ["dialogues", "held out", "budget", "steps", "seeds", "last", *(f"{name} - last" for name in names)]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    rows = defaultdict(list)
    for one in results:
        rows[one["dialogues"], list(BUDGETS).index(one["budget"])].append(one)
    for (dialogues, number), found in sorted(rows.items()):
        chosen = [choices([Validation(*validation) for validation in one["validations"]]) for one in found]
        held_out, steps = (
            " to ".join(map(str, sorted({min(v), max(v)}))) for v in ([r["held_out"] for r in found], [r["steps"] for r in found])
        )
        differences = [mean([row[name] - row["last"] for row in chosen]) for name in names]
        last = mean([row["last"] for row in chosen])
        lines.append(f"| {' | '.join([str(dialogues), held_out, list(BUDGETS)[number], steps, str(len(found)), last, *differences])} |")
    return "\n".join(lines)


def main(output: str, seeds: str = "5", *sizes: str) -> None:
    """Runs the cells that have no result yet, the seeds in turn."""
    folder = Path(output)
    folder.mkdir(parents=True, exist_ok=True)
    results = folder / "results.jsonl"
    results.touch()
    done = {Cell(r["dialogues"], r["seed"], r["budget"]) for r in map(json.loads, results.read_text("utf-8").splitlines())}
    cells = [Cell(dialogues, seed, budget) for seed in range(int(seeds)) for dialogues in map(int, sizes or SIZES) for budget in BUDGETS]
    for cell in cells:
        if cell not in done:
            shutil.rmtree(folder / "run", ignore_errors=True)
            one = train(cell, folder / "run")
            with results.open("a", encoding="utf-8") as file:
                file.write(json.dumps(one) + "\n")
    print(table([json.loads(line) for line in results.read_text("utf-8").splitlines()]))


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    main(*sys.argv[1:])
