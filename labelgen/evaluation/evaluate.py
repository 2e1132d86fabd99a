"""Entry `evaluate`: figures of an export on an annotated corpus, with intervals by dialogue, versus predictions that need no model."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from labelgen.corpora import Corpus
from labelgen.dialogue import Dialogue
from labelgen.evaluation.baselines import BASELINES, Baselines
from labelgen.evaluation.intervals import Interval, interval
from labelgen.io.files import RejectedFile
from labelgen.labelling.export import load, task_classes
from labelgen.metrics import Figure, Floats, Prediction, Result, selection_score
from labelgen.tasks import Task

Intervals = dict[str, Interval]  # "task/metric" -> figure with its interval


class Scores(NamedTuple):
    """Figures over all dialogues and over those of each slice, and the statistics of each dialogue that they are computed from."""

    metrics: Intervals
    slices: dict[str, Intervals]
    statistics: dict[str, list[Floats]]

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
    """Prints the table, writes OUTPUT/metrics.json and statistics.npz, and returns the `selection_score` of the tasks' scores.

    In metrics.json `metrics` is over all dialogues, `slices` over those whose record names the slice. `baselines` holds both for each
    trivial prediction fitted on `reference`, the corpus that the model was trained on. statistics.npz (`read_statistics`) holds what each
    dialogue adds to each metric, to pool runs or to find the dialogues that fail. `limit`: only the first so many dialogues.
    `tasks`: name -> dotted path of the class, for tasks that are not labelgen's own.

    Raises:
        ValueError: the corpus holds no dialogue that can be read.
    """
    annotator = load(export, task_classes(tasks or {}), device)
    own = annotator.network.tasks
    folder = Path(output)
    rejected = RejectedFile(folder / "rejected.jsonl")
    dialogues = list(corpus.read(rejected))[:limit]
    if not dialogues:
        raise ValueError(f"no dialogue to evaluate on; {rejected.count} were rejected, reasons in {rejected.path}")
    scores = score(own, tqdm(annotator.predict(dialogues), "evaluating", len(dialogues), unit="dialogue"))
    baselines = _score_baselines(own, dialogues, reference)
    report = {
        **scores.as_dict(),
        "baselines": {name: trivial.as_dict() for name, trivial in baselines.items()},
        "dialogues": len(dialogues),
        "rejected": rejected.count,
        "model": annotator.source,
        "corpus": repr(corpus),
    }
    folder.mkdir(parents=True, exist_ok=True)
    write_statistics(folder / "statistics.npz", [dialogue.id for dialogue in dialogues], scores.statistics)
    (folder / "metrics.json").write_text(json.dumps(report, indent=1), "utf-8")
    _print(table(own, scores, baselines, f"{len(dialogues)} dialogues of {corpus!r}"))
    return selection_score(result(scores.metrics[f"{name}/{task.score}"], task.metrics()[task.score]) for name, task in own.items())


def _score_baselines(tasks: Mapping[str, Task], dialogues: Sequence[Dialogue], reference: Corpus | None) -> dict[str, Scores]:
    """The scores of each trivial prediction; none without a reference that can be read."""
    training = list(reference.read(lambda error: None)) if reference else []
    trivial = {kind: Baselines(kind, tasks, training) for kind in BASELINES if training}
    return {name: score(baseline.tasks, baseline.predict(dialogues)) for name, baseline in trivial.items()}


def result(found: Interval, figure: Figure) -> Result:
    """A figure as `selection_score` takes it."""
    return Result(math.nan if found.value is None else found.value, found.positives, figure.metric.higher_is_better)


def write_statistics(file: Path, ids: Sequence[str], statistics: Mapping[str, Sequence[Floats]]) -> None:
    """An .npz with `ids` [N], and for each metric the statistics of the dialogues, [N, S].

    Where a dialogue has several rows (average precision: its items) they are below each other, [M, S], and NAME/dialogue [M] holds the
    number of each row's dialogue.
    """
    arrays: dict[str, np.ndarray] = {"ids": np.array(ids)}
    for name, each in statistics.items():
        if all(one.ndim == 1 for one in each):
            arrays[name] = np.stack(each)
        else:
            arrays[name] = np.concatenate(each)
            arrays[f"{name}/dialogue"] = np.repeat(np.arange(len(each)), [len(one) for one in each])
    np.savez_compressed(file, allow_pickle=False, **arrays)


def read_statistics(file: Path, name: str) -> dict[str, Floats]:
    """The statistics of each dialogue, by its id, as `write_statistics` wrote them; empty if the file does not hold the metric."""
    with np.load(file, allow_pickle=False) as arrays:
        if name not in arrays:
            return {}
        ids, rows = arrays["ids"].tolist(), arrays[name]
        of = arrays.get(f"{name}/dialogue")
    each = rows if of is None else np.split(rows, np.searchsorted(of, np.arange(1, len(ids))))
    return dict(zip(ids, each, strict=True))


def _print(made: Table) -> None:
    """Wider than the screen rather than cut."""
    screen = Console()
    wide = max(screen.width, screen.measure(made, options=screen.options.update(max_width=1000)).maximum)
    Console(width=wide).print(made)


def score(tasks: Mapping[str, Task], predicted: Iterable[tuple[Dialogue, Mapping[str, Prediction]]]) -> Scores:
    """Annotated dialogues with their predictions -> figures."""
    figures = _figures(tasks)
    statistics: dict[str, list[Floats]] = {name: [] for name in figures}
    slices: list[list[str]] = []
    for dialogue, predictions in predicted:
        slices.append(dialogue.slices)
        for name, figure in figures.items():
            statistics[name].append(figure.statistics(dialogue, predictions[name.split("/")[0]]))

    def over(chosen: Sequence[bool]) -> Intervals:
        return {name: interval(figure.metric, list(itertools.compress(statistics[name], chosen))) for name, figure in figures.items()}

    named = sorted({name for names in slices for name in names})
    every = over([True] * len(slices))
    return Scores(every, {part: over([part in names for names in slices]) for part in named}, statistics)


def _figures(tasks: Mapping[str, Task]) -> dict[str, Figure]:
    return {f"{name}/{key}": figure for name, task in tasks.items() for key, figure in task.metrics().items()}


def table(tasks: Mapping[str, Task], scores: Scores, baselines: Mapping[str, Scores], title: str) -> Table:
    """Figures with their 95% intervals, a column a slice, each followed by the best of the baselines."""
    best = "\ntrivial: the better of the majority's labels and of saying always failure, defect, new goal, known value" if baselines else ""
    made = Table(title=title, caption=f"95% intervals; ↓ lower is better{best}", title_justify="left", caption_justify="left")
    columns = {"all": scores.metrics, **scores.slices}
    made.add_column("metric", no_wrap=True)
    for name in [column for part in columns for column in ([part, "trivial"] if baselines else [part])] + ["positives", "labelled"]:
        made.add_column(name, justify="right", no_wrap=True)
    for name, figure in _figures(tasks).items():
        row = []
        for part, intervals in columns.items():
            row.append(written(intervals[name]))
            if baselines:
                trivial = [(rows.metrics if part == "all" else rows.slices[part]).get(name) for rows in baselines.values()]
                values = (found.value for found in trivial if found is not None and found.value is not None)
                row.append(short((max if figure.metric.higher_is_better else min)(values, default=None)))
        all_of = scores.metrics[name]
        made.add_row(name if figure.metric.higher_is_better else f"{name} ↓", *row, f"{all_of.positives:,}", f"{all_of.count:,}")
    return made


def written(figure: Interval) -> str:
    """`.934 [.921, .946]`, `no labels`, or `undefined` (nothing positive among the labels nor predicted)."""
    if figure.value is None:
        return "undefined" if figure.count else "no labels"
    return f"{short(figure.value)} [{short(figure.low)}, {short(figure.high)}]"


def short(value: float | None) -> str:
    """`.934`; `-` where it is undefined."""
    return "-" if value is None else f"{value:.3f}".removeprefix("0") if value < 1 else "1.000"
