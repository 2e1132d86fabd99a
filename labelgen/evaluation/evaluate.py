"""Entry `evaluate`: figures of an export on an annotated corpus, with confidence intervals, next to those of trivial baselines."""

from __future__ import annotations

import itertools
import json
import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Table

from labelgen.corpora import Corpus
from labelgen.dialogue import Dialogue, RecordError
from labelgen.evaluation.baselines import BASELINES, Baselines
from labelgen.evaluation.intervals import Interval, interval
from labelgen.io.files import RejectedFile
from labelgen.io.paths import REJECTED_FILE, naming_file
from labelgen.io.progress import progress
from labelgen.io.wording import counted
from labelgen.labelling.export import load, task_classes
from labelgen.metrics import Figure, Floats, Prediction, Result, selection_score
from labelgen.tasks import Task, align_annotations

log = logging.getLogger(__name__)
Intervals = dict[str, Interval]  # "task/metric" -> figure with its interval


class Scores(NamedTuple):
    """Figures over all dialogues and over those of each slice, and for each metric the statistics of the dialogues."""

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
    trivial prediction fitted on `reference`, the corpus that the model was trained on. `aligned` counts the annotations of each task that
    no prediction could equal, and that are scored as the nearest that one can (Task.align). statistics.npz (`read_statistics`) holds what
    each dialogue adds to each metric, to pool runs or to find the dialogues that fail. `limit`: only the first so many dialogues.
    `tasks`: name -> dotted path of the class, for tasks that are not labelgen's own. ValueError: no dialogue of the corpus can be read, or
    none is annotated for a task of the export.
    """
    annotator = load(export, task_classes(tasks or {}), device)
    scored = annotator.network.tasks
    folder = Path(output)
    rejected = RejectedFile(folder / REJECTED_FILE)
    dialogues = list(corpus.read(rejected))[:limit]
    if not dialogues:
        raise ValueError("no dialogue to evaluate on; " + (rejected.summary() if rejected.count else f"{corpus!r} holds none"))
    rejected.log()
    aligned = align_annotations(scored, dialogues, annotator.network.text_encoder())
    dialogues = aligned.dialogues
    scores = score(scored, progress(annotator.predict(dialogues), "evaluating", "dialogue", len(dialogues)))
    _check_labelled(scores, scored, corpus)
    baselines = _score_baselines(scored, dialogues, reference)
    report = {
        **scores.as_dict(),
        "baselines": {name: trivial.as_dict() for name, trivial in baselines.items()},
        "dialogues": len(dialogues),
        "aligned": aligned.counts,
        "rejected": rejected.count,
        "model": annotator.source,
        "corpus": repr(corpus),
    }
    folder.mkdir(parents=True, exist_ok=True)
    with naming_file(folder):
        write_statistics(folder / "statistics.npz", [dialogue.id for dialogue in dialogues], scores.statistics)
        (folder / "metrics.json").write_text(json.dumps(report, indent=1), "utf-8")
    _print(table(scored, scores, baselines, f"{counted(len(dialogues), 'dialogue')} of {corpus!r}"))
    rejected.log()  # again, below the table
    return selection_score(result(scores.metrics[f"{name}/{task.score}"], task.metrics()[task.score]) for name, task in scored.items())


def _check_labelled(scores: Scores, tasks: Mapping[str, Task], corpus: Corpus) -> None:
    """ValueError where no dialogue is annotated for any task: there would be no figure."""
    if not any(figure.count for figure in scores.metrics.values()):
        raise ValueError(f"{corpus!r}: no dialogue is annotated for {', '.join(tasks)}, the tasks of the export; give an annotated corpus")


def _score_baselines(tasks: Mapping[str, Task], dialogues: Sequence[Dialogue], reference: Corpus | None) -> dict[str, Scores]:
    """The scores of each trivial prediction. There are none without a reference that can be read."""
    unusable: list[RecordError] = []
    training = list(reference.read(unusable.append)) if reference else []
    if unusable:
        log.warning("reference: %s not usable; the first: %s", counted(len(unusable), "record is", "records are"), unusable[0])
    trivial = {kind: Baselines(kind, tasks, training) for kind in BASELINES if training}
    return {name: score(baseline.tasks, baseline.predict(dialogues)) for name, baseline in trivial.items()}


def result(found: Interval, figure: Figure) -> Result:
    """A figure as `selection_score` takes it."""
    return Result(math.nan if found.value is None else found.value, found.positives, figure.metric.higher_is_better)


def write_statistics(file: Path, ids: Sequence[str], statistics: Mapping[str, Sequence[Floats]]) -> None:
    """Writes an .npz with `ids` [N], and for each metric the statistics of the dialogues, [N, S].

    If a dialogue has several rows (average precision: its items), all rows are concatenated, [M, S]. NAME/dialogue [M] then holds the index
    of the dialogue of each row.
    """
    arrays: dict[str, np.ndarray] = {"ids": np.array(ids)}
    for name, of_dialogues in statistics.items():
        if all(rows.ndim == 1 for rows in of_dialogues):
            arrays[name] = np.stack(of_dialogues)
        else:
            arrays[name] = np.concatenate(of_dialogues)
            arrays[f"{name}/dialogue"] = np.repeat(np.arange(len(of_dialogues)), [len(rows) for rows in of_dialogues])
    np.savez_compressed(file, allow_pickle=False, **arrays)


def read_statistics(file: Path, name: str) -> dict[str, Floats]:
    """The statistics of each dialogue by id, as `write_statistics` wrote them. Empty if the file does not hold the metric."""
    with np.load(file, allow_pickle=False) as arrays:
        if name not in arrays:
            return {}
        ids, rows = arrays["ids"].tolist(), arrays[name]
        dialogue_of_rows = arrays.get(f"{name}/dialogue")
    of_dialogues = rows if dialogue_of_rows is None else np.split(rows, np.searchsorted(dialogue_of_rows, np.arange(1, len(ids))))
    return dict(zip(ids, of_dialogues, strict=True))


def _print(figures: Table) -> None:
    """Prints a table uncut, even if it is wider than the screen."""
    screen = Console()
    width = max(screen.width, screen.measure(figures, options=screen.options.update(max_width=1000)).maximum)
    Console(width=width).print(figures)


def score(tasks: Mapping[str, Task], predicted: Iterable[tuple[Dialogue, Mapping[str, Prediction]]]) -> Scores:
    """Annotated dialogues with their predictions -> figures."""
    figures = _figures(tasks)
    statistics: dict[str, list[Floats]] = {name: [] for name in figures}
    slices: list[list[str]] = []
    for dialogue, predictions in predicted:
        slices.append(dialogue.slices)
        for name, figure in figures.items():
            statistics[name].append(figure.statistics(dialogue, predictions[name.split("/")[0]]))
    names = sorted({name for of_dialogue in slices for name in of_dialogue})
    metrics = _intervals(figures, statistics, [True] * len(slices))
    by_slice = {name: _intervals(figures, statistics, [name in of_dialogue for of_dialogue in slices]) for name in names}
    return Scores(metrics, by_slice, statistics)


def _intervals(figures: Mapping[str, Figure], statistics: Mapping[str, Sequence[Floats]], chosen: Sequence[bool]) -> Intervals:
    """The figures over the chosen dialogues."""
    return {name: interval(figure.metric, list(itertools.compress(statistics[name], chosen))) for name, figure in figures.items()}


def _figures(tasks: Mapping[str, Task]) -> dict[str, Figure]:
    return {f"{name}/{key}": figure for name, task in tasks.items() for key, figure in task.metrics().items()}


def table(tasks: Mapping[str, Task], scores: Scores, baselines: Mapping[str, Scores], title: str) -> Table:
    """Figures with their 95% intervals. There is a column for each slice, followed by the best baseline."""
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
