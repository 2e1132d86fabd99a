"""Entry: an export against the annotations of a corpus, with bootstrap intervals by dialogue, beside what needs no model."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from labelgen.corpora import Corpus
from labelgen.dialogue import Dialogue, Rejected
from labelgen.export import Annotator, load
from labelgen.metrics import Interval, bootstrap

log = logging.getLogger(__name__)
Figures = dict[str, Interval]  # "task/metric" -> figure


def evaluate(export: str, corpus: Corpus, output: str, device: str = "cpu", limit: int | None = None) -> float:
    """Prints the table and writes OUTPUT/metrics.json; returns the mean over tasks of each task's first metric (0.0 without labels).

    `metrics` is over all dialogues; `slices` over those whose metadata names the slice (`metadata["slice"]`, set by the corpus).
    """
    annotator = load(export, device=device)
    folder = Path(output)
    rejected = Rejected(folder / "rejected.jsonl")
    dialogues = list(corpus.read(rejected))[:limit]
    if not dialogues:
        raise ValueError(f"no dialogue to evaluate on; {rejected.count} were rejected, reasons in {rejected.path}")
    figures, slices = score(annotator, tqdm(dialogues, desc="evaluating", unit="dialogue"))
    told = {
        "metrics": {name: vars(figure) for name, figure in figures.items()},
        "slices": {part: {name: vars(figure) for name, figure in rows.items()} for part, rows in slices.items()},
        "dialogues": len(dialogues),
        "rejected": rejected.count,
        "model": annotator.source,
        "corpus": repr(corpus),
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "metrics.json").write_text(json.dumps(told, indent=1), "utf-8")
    Console().print(table(figures, slices, f"{len(dialogues)} dialogues of {corpus!r}"))
    firsts = {name.split("/")[0]: figure.value for name, figure in reversed(figures.items()) if figure.value is not None}
    return float(np.mean(list(firsts.values()))) if firsts else 0.0


def score(annotator: Annotator, dialogues: Iterable[Dialogue]) -> tuple[Figures, dict[str, Figures]]:
    """Figures over all dialogues, and over each slice."""
    metrics = {f"{name}/{key}": metric for name, task in annotator.network.tasks.items() for key, metric in task.metrics().items()}
    rows: dict[str, list[Any]] = {name: [] for name in metrics}
    parts: list[str | None] = []
    for dialogue, said in annotator.predict(dialogues):
        parts.append(dialogue.metadata.get("slice"))
        for name, metric in metrics.items():
            rows[name].append(metric.observe(dialogue, said[name.split("/")[0]]))
    statistics = {name: np.stack(values) for name, values in rows.items()}
    where = {part: np.array([p == part for p in parts]) for part in sorted({p for p in parts if p is not None})}
    return (
        {name: bootstrap(metric, statistics[name]) for name, metric in metrics.items()},
        {part: {name: bootstrap(metric, statistics[name][mask]) for name, metric in metrics.items()} for part, mask in where.items()},
    )


def table(figures: Figures, slices: Mapping[str, Figures], title: str) -> Table:
    """Figures with their 95% intervals, a column a slice."""
    made = Table(title=title)
    for column in ("metric", "all", *slices, "labelled"):
        made.add_column(column, justify="left" if column == "metric" else "right")
    for name, figure in figures.items():
        made.add_row(name, *(written(column[name]) for column in (figures, *slices.values())), f"{figure.count:,}")
    return made


def written(figure: Interval) -> str:
    """`.934 [.921, .946]`, or `no labels`."""
    if figure.value is None:
        return "no labels"
    return f"{figure.value:.3f} [{figure.low or 0.0:.3f}, {figure.high or 0.0:.3f}]"
