"""The table of an evaluation in Markdown: python experiments/figures.py OUTPUT, the folder of `labelgen evaluate`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from labelgen.evaluation.evaluate import short, written
from labelgen.evaluation.intervals import Interval

LOWER_IS_BETTER = ("pk", "window_diff")


def trivial(name: str, baselines: dict[str, Any]) -> float | None:
    """The better figure of the trivial baselines."""
    values = [metrics["metrics"][name]["value"] for metrics in baselines.values() if metrics["metrics"].get(name)]
    known = [value for value in values if value is not None]
    return (min if name.rpartition("/")[2] in LOWER_IS_BETTER else max)(known, default=None)


def main(output: str) -> None:
    """Prints a row for each metric, with a column for all dialogues and for each slice."""
    report = json.loads(Path(output, "metrics.json").read_text("utf-8"))
    columns = {"all": report["metrics"], **report["slices"]}
    print("| metric |", " | ".join([*columns, "positives", "labelled", "trivial (all)"]), "|")
    print("|---" * (len(columns) + 4) + "|")
    for name, overall in report["metrics"].items():
        cells = [written(Interval(**figures[name])) for figures in columns.values()]
        counts = [f"{overall['positives']:,}", f"{overall['count']:,}", short(trivial(name, report["baselines"]))]
        print("|", " | ".join([name, *cells, *counts]), "|")


if __name__ == "__main__":
    main(*sys.argv[1:])
