"""Runs the matrix of an experiment's page: each cell on each repeat is trained, exported and scored once; what is done is skipped.

    python experiments/matrix.py uss                    # LABELGEN_DATA names the folder of the corpora
    python experiments/matrix.py uss --cells causal --add trainer=gpu
    python experiments/matrix.py uss --table            # what is done so far, without running anything

PAGE/matrix.yaml lists overrides as `labelgen train` and `labelgen evaluate` take them: `train` and `test` for one of the two, `corpus` for
both; on top for all runs, below `cells` and `repeats` for some. Runs lie in OUTPUT/CELL/REPEAT. Several processes may run the same
command: a run that another process works on is left to it. A killed run resumes from its last checkpoint.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import platform
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import yaml

import labelgen

if TYPE_CHECKING:
    from labelgen.metrics import DialogueMetric

HERE = Path(__file__).parent


class Run(NamedTuple):
    """One cell on one repeat: its folder, and the overrides of its two commands."""

    folder: Path
    train: list[str]
    test: list[str]


def runs_of(page: Mapping[str, Any], output: Path, cell: str, add: list[str]) -> Iterator[Run]:
    for repeat, settings in page["repeats"].items():
        levels = [page, page["cells"][cell] or {}, settings or {}]

        corpus, train, test = ([override for level in levels for override in level.get(kind, ())] for kind in ("corpus", "train", "test"))
        yield Run(output / cell / repeat, [*corpus, *train, *add], [*corpus, *test])


@contextmanager
def claimed(folder: Path) -> Iterator[bool]:
    """Is the run ours? The claim ends with the process."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "claim").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def perform(run: Run) -> None:
    """Trains, exports and scores; `done.json` says what was done, on what, in how many seconds."""
    import torch  # seconds to import: not before --help

    done = run.folder / "done.json"
    asked = {"train": run.train, "test": run.test}
    if done.exists():
        there = json.loads(done.read_text("utf-8"))
        if {key: there[key] for key in asked} != asked:
            sys.exit(f"{run.folder}: was made with other settings; remove the folder to make it again, or name another --output")
        return
    print(f"== {run.folder}", flush=True)
    resumed = (run.folder / "checkpoints" / "last.ckpt").exists()
    config = labelgen.load_config("train", *run.train, f"output={run.folder}")
    start = time.perf_counter()
    labelgen.run(config)
    seconds = time.perf_counter() - start
    labelgen.run(labelgen.load_config("export", f"checkpoint={run.folder}", f"output={run.folder / 'export'}"))
    labelgen.run(labelgen.load_config("evaluate", *run.test, f"export={run.folder / 'export'}", f"output={run.folder / 'test'}"))
    hardware = torch.cuda.get_device_name() if config.trainer.accelerator == "gpu" else f"{processor()}, {torch.get_num_threads()} threads"
    record = {**asked, "seconds": None if resumed else round(seconds, 1), "hardware": hardware}  # a resumed run's time is not known
    done.write_text(json.dumps(record, indent=1), "utf-8")
    for checkpoint in (run.folder / "checkpoints").glob("*.ckpt"):  # the export is what is kept
        checkpoint.unlink()


def processor() -> str:
    """What the machine calls its processor."""
    info = Path("/proc/cpuinfo")
    names = (
        [line.split(":")[1].strip() for line in info.read_text("utf-8").splitlines() if line.startswith("model name")]
        if info.exists()
        else []
    )
    return names[0] if names else platform.machine()


def pooled(metric: DialogueMetric, folders: list[Path], name: str) -> dict[str, np.ndarray]:
    """Dialogue -> its statistics in all repeats together: intervals are over dialogues, not over runs."""
    from labelgen.evaluation.evaluate import read_statistics

    each: dict[str, list[np.ndarray]] = {}
    for folder in folders:
        for identity, statistics in read_statistics(folder / "test" / "statistics.npz", name).items():
            each.setdefault(identity, []).append(statistics)
    return {identity: metric.merge(statistics) for identity, statistics in each.items()}


def paired(metric: DialogueMetric, ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray]) -> str:
    """`+.012 [.003, .020]`: the difference of the figures of two cells on the same dialogues; empty where they are not the same."""
    from labelgen.evaluation.intervals import difference

    if not ours or ours.keys() != theirs.keys():
        return ""
    found = difference(metric, list(ours.values()), [theirs[key] for key in ours])
    return f"{found.value:+.3f} [{found.low:+.3f}, {found.high:+.3f}]" if found else ""


def table(page: Mapping[str, Any], output: Path) -> str:
    """A row a cell and column: the figure over all repeats with its 95% interval, the repeats' range, the difference to `against`."""
    from labelgen.evaluation.intervals import interval
    from labelgen.labelling.export import load

    header = ["cell", "figure", "value [95% interval]", "positives", "range of the runs", "difference to the cell named", "runs"]
    header += ["min a run", "hardware"]
    lines = [f"| {' | '.join(header)} |", "|---" * len(header) + "|"]
    for cell, settings in page["cells"].items():
        folders = [output / cell / repeat for repeat in page["repeats"] if (output / cell / repeat / "done.json").exists()]
        if not folders:
            continue
        records = [json.loads((folder / "done.json").read_text("utf-8")) for folder in folders]
        seconds = [one["seconds"] for one in records if one["seconds"] is not None]
        minutes = f"{np.mean(seconds) / 60:.1f}" if seconds else ""
        hardware = "; ".join(sorted({one["hardware"] for one in records}))
        against = (settings or {}).get("against")
        compared = [output / str(against) / folder.name for folder in folders]
        tasks = load(folders[0] / "export").network.tasks
        metrics = {f"{name}/{key}": figure.metric for name, task in tasks.items() for key, figure in task.metrics().items()}
        unknown = [name for name in page["columns"] if name.split("/")[0] in tasks and name not in metrics]
        if unknown:
            sys.exit(f"columns: {', '.join(unknown)} are figures of no task; there are {', '.join(metrics)}")
        for name in (name for name in page["columns"] if name in metrics):
            metric = metrics[name]
            rows = pooled(metric, folders, name)
            figure = interval(metric, list(rows.values()))
            if figure.value is None:
                continue
            each = [float(metric.value(metric.merge(list(pooled(metric, [folder], name).values())))) for folder in folders]
            other = pooled(metric, compared, name) if against and all((folder / "done.json").exists() for folder in compared) else {}
            beyond = f"{against}: {paired(metric, rows, other)}" if other else ""
            lines.append(
                f"| {cell} | {name} | {figure.value:.3f} [{figure.low:.3f}, {figure.high:.3f}] | {figure.positives:,} "
                f"| {min(each):.3f} to {max(each):.3f} | {beyond} | {len(folders)} | {minutes} | {hardware} |"
            )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("page", help="a folder of experiments/ with a matrix.yaml")
    parser.add_argument("--output", type=Path, help="default: runs/PAGE")
    parser.add_argument("--cells", nargs="*", help="default: all")
    parser.add_argument("--repeats", nargs="*", help="seeds or folds to run; default: all")
    parser.add_argument("--add", nargs="*", default=[], help="overrides of every training, such as trainer=gpu")
    parser.add_argument("--table", action="store_true", help="print what is done and run nothing")
    given = parser.parse_args()
    file = HERE / given.page / "matrix.yaml"
    if not file.is_file():
        pages = sorted(path.parent.name for path in HERE.glob("*/matrix.yaml"))
        sys.exit(f"{file}: no such file; pages with a matrix are {', '.join(pages)}")
    page = yaml.safe_load(file.read_text("utf-8"))
    output = given.output or Path("runs") / given.page
    for kind in ("cells", "repeats"):
        if unknown := set(getattr(given, kind) or ()) - page[kind].keys():
            sys.exit(f"no {', '.join(sorted(unknown))} in {kind}; there are {', '.join(page[kind])}")
    if not given.table:
        for cell in given.cells or page["cells"]:
            for run in runs_of(page, output, cell, given.add):
                if given.repeats and run.folder.name not in given.repeats:
                    continue
                with claimed(run.folder) as ours:
                    if ours:
                        perform(run)
    if not any(output.rglob("done.json")):
        sys.exit(f"{output}: nothing is done yet")
    made = table(page, output)
    (output / "table.md").write_text(made, "utf-8")
    print(made)


if __name__ == "__main__":
    main()
