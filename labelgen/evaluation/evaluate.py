"""Entry: an export against the annotations of a corpus, with bootstrap intervals by dialogue, beside what needs no model."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from labelgen.corpora import Corpus
from labelgen.dialogue import Dialogue
from labelgen.evaluation.baselines import BASELINES, Baselines
from labelgen.io.files import RejectedFile
from labelgen.labelling.export import load, task_classes
from labelgen.metrics import Figure, Interval, Prediction, Result, bootstrap, selection_score
from labelgen.tasks import Task

log = logging.getLogger(__name__)
Figures = dict[str, Interval]  # "task/metric" -> figure with its interval


class Scores(NamedTuple):
    """Figures over all dialogues, and over those of each slice; and what they are made of: each metric's statistics, [N, S]."""

    metrics: Figures
    slices: dict[str, Figures]
    statistics: dict[str, np.ndarray]

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "metrics": {name: vars(figure) for name, figure in self.metrics.items()},
            "slices": {part: {name: vars(figure) for name, figure in rows.items()} for part, rows in self.slices.items()},
        }


def evaluate(
    export: str,
    corpus: Corpus,
    output: str,
    reference: Corpus | None = None,
    device: str = "cpu",
    limit: int | None = None,
    tasks: Mapping[str, str] | None = None,
) -> float:
    """Prints the table and writes OUTPUT/metrics.json; returns the `selection_score` of the tasks' scores.

    `metrics` is over all dialogues; `slices` over those that the record's `slices` name;
    OUTPUT/statistics.npz holds what each dialogue adds to each metric, to pool runs or to find the dialogues that fail.
    `baselines` holds both for each trivial prediction fitted on `reference`, the corpus that the model was trained on.
    `tasks`: name -> dotted path of the class, for tasks that are not labelgen's own.
    """
    annotator = load(export, task_classes(tasks or {}), device)
    own = annotator.network.tasks
    folder = Path(output)
    rejected = RejectedFile(folder / "rejected.jsonl")
    dialogues = list(corpus.read(rejected))[:limit]
    if not dialogues:
        raise ValueError(f"no dialogue to evaluate on; {rejected.count} were rejected, reasons in {rejected.path}")
    scores = score(own, tqdm(annotator.predict(dialogues), "evaluating", len(dialogues), unit="dialogue"))
    known = list(reference.read(lambda error: None)) if reference else []
    trivial = {kind: Baselines(kind, own, known) for kind in BASELINES if known}
    baselines = {name: score(baseline.tasks, baseline.predict(dialogues)) for name, baseline in trivial.items()}
    told = {
        **scores.as_dict(),
        "baselines": {name: trivial.as_dict() for name, trivial in baselines.items()},
        "dialogues": len(dialogues),
        "rejected": rejected.count,
        "model": annotator.source,
        "corpus": repr(corpus),
    }
    folder.mkdir(parents=True, exist_ok=True)
    names = np.array([dialogue.id for dialogue in dialogues])
    np.savez_compressed(folder / "statistics.npz", allow_pickle=False, ids=names, **scores.statistics)
    (folder / "metrics.json").write_text(json.dumps(told, indent=1), "utf-8")
    _print(table(own, scores, baselines, f"{len(dialogues)} dialogues of {corpus!r}"))
    return selection_score(result(scores.metrics[f"{name}/{task.score}"], task.metrics()[task.score]) for name, task in own.items())


def result(interval: Interval, figure: Figure) -> Result:
    """An interval's figure as `selection_score` takes it."""
    return Result(math.nan if interval.value is None else interval.value, interval.positives, figure.metric.higher_is_better)


def _print(made: Table) -> None:
    """Wider than the screen rather than cut."""
    screen = Console()
    wide = max(screen.width, screen.measure(made, options=screen.options.update(max_width=1000)).maximum)
    Console(width=wide).print(made)


def score(tasks: Mapping[str, Task], predicted: Iterable[tuple[Dialogue, Mapping[str, Prediction]]]) -> Scores:
    """Annotated dialogues with what was said of them -> figures."""
    figures = _figures(tasks)
    rows: dict[str, list[Any]] = {name: [] for name in figures}
    slices: list[list[str]] = []
    for dialogue, said in predicted:
        slices.append(dialogue.slices)
        for name, figure in figures.items():
            rows[name].append(figure.statistics(dialogue, said[name.split("/")[0]]))
    statistics = {name: np.stack(values) for name, values in rows.items()}
    where = {part: np.array([part in names for names in slices]) for part in sorted({name for names in slices for name in names})}
    return Scores(
        {name: bootstrap(figure.metric, statistics[name]) for name, figure in figures.items()},
        {
            part: {name: bootstrap(figure.metric, statistics[name][mask]) for name, figure in figures.items()}
            for part, mask in where.items()
        },
        statistics,
    )


def _figures(tasks: Mapping[str, Task]) -> dict[str, Figure]:
    return {f"{name}/{key}": figure for name, task in tasks.items() for key, figure in task.metrics().items()}


def table(tasks: Mapping[str, Task], scores: Scores, baselines: Mapping[str, Scores], title: str) -> Table:
    """Figures with their 95% intervals, a column a slice, each beside the best of the baselines."""
    told = "\ntrivial: the better of the majority's labels and of saying always failure, defect, new goal, known value" if baselines else ""
    made = Table(title=title, caption=f"95% intervals; ↓ lower is better{told}", title_justify="left", caption_justify="left")
    columns = {"all": scores.metrics, **scores.slices}
    made.add_column("metric", no_wrap=True)
    for name in columns:
        made.add_column(name, justify="right", no_wrap=True)
        if baselines:
            made.add_column("trivial", justify="right", no_wrap=True)
    made.add_column("positives", justify="right", no_wrap=True)
    made.add_column("labelled", justify="right", no_wrap=True)
    for name, figure in _figures(tasks).items():
        better = max if figure.metric.higher_is_better else min
        row = []
        for part, intervals in columns.items():
            row.append(written(intervals[name]))
            trivial = [(rows.metrics if part == "all" else rows.slices[part]).get(name) for rows in baselines.values()]
            if baselines:
                values = (interval.value for interval in trivial if interval is not None and interval.value is not None)
                row.append(short(better(values, default=None)))
        positives, count = scores.metrics[name].positives, scores.metrics[name].count
        made.add_row(name if figure.metric.higher_is_better else f"{name} ↓", *row, f"{positives:,}", f"{count:,}")
    return made


def written(figure: Interval) -> str:
    """`.934 [.921, .946]`, `no labels`, or `undefined` (nothing positive among the labels nor predicted)."""
    if figure.value is None:
        return "undefined" if figure.count else "no labels"
    return f"{short(figure.value)} [{short(figure.low)}, {short(figure.high)}]"


def short(value: float | None) -> str:
    """`.934`; `-` where it is undefined."""
    return "-" if value is None else f"{value:.3f}".removeprefix("0") if value < 1 else "1.000"
