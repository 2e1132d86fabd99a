"""Draws metrics.csv of a run: python experiments/learning_curve.py RUN FIGURE.svg"""

import csv
import sys
from pathlib import Path

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt

PANELS = {
    "training loss": ["train/goal_segmentation_loss", "train/goal_evaluation_loss", "train/intent_loss", "train/slot_loss"],
    "validation": [
        "valid/goal_segmentation/boundary_f1",
        "valid/goal_evaluation/failure_f1",
        "valid/intent/accuracy",
        "valid/slot/span_f1",
    ],
}


def smooth(values: list[float], weight: float = 0.8) -> list[float]:
    """Exponential moving average."""
    out: list[float] = []
    for value in values:
        out.append(value if not out else weight * out[-1] + (1 - weight) * value)
    return out


def main(run: str, figure: str) -> None:
    """Two panels: losses (smoothed, logarithmic) and validation figures against the step."""
    with (Path(run) / "metrics.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    plots, axes = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
    for axis, (title, names) in zip(axes, PANELS.items(), strict=True):
        for name in names:
            points = [(int(row["step"]), float(row[name])) for row in rows if row.get(name)]
            if points:
                steps, values = zip(*points, strict=True)
                if title == "training loss":
                    values, marker = smooth(list(values)), None
                else:
                    marker = "o"
                axis.plot(steps, values, marker=marker, label=name.split("/", 1)[1])
        axis.set(title=title, xlabel="step")
        axis.grid(alpha=0.3)
        axis.legend(fontsize=7)
    axes[0].set_yscale("log")
    plots.savefig(figure)


if __name__ == "__main__":
    main(*sys.argv[1:])
