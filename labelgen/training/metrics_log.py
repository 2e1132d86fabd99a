"""metrics.csv, the metrics that a run logs. Its rows are whole or absent, however the run ends, and a resumed run continues them."""

from __future__ import annotations

import csv
import logging
import os
from collections.abc import Mapping
from pathlib import Path

from pytorch_lightning.loggers import Logger
from pytorch_lightning.utilities import rank_zero_only

from labelgen.io.paths import naming_file
from labelgen.io.wording import counted

log = logging.getLogger(__name__)
FIRST = ("step", "epoch")  # columns; the others follow in the order in which they appear
Row = dict[str, str]


def read_rows(file: Path) -> list[Row]:
    """The whole rows of a metrics.csv, without their empty cells. Damaged rows are left out, with a warning."""
    if not file.exists():
        return []
    lines = file.read_text("utf-8", errors="replace").split("\n")
    whole, rest = lines[:-1], lines[-1]  # what a kill cut off does not end in a newline
    table = list(csv.reader(line for line in whole if "\0" not in line))
    names = table[0] if table else []
    rows = [dict(zip(names, cells, strict=True)) for cells in table[1:] if len(cells) == len(names)]
    kept = [{name: value for name, value in row.items() if value} for row in rows if row.get("step", "").isdecimal()]
    if dropped := max(len(whole) - 1, 0) - len(kept) + bool(rest):
        log.warning("%s: %s left out", file, counted(dropped, "damaged row is", "damaged rows are"))
    return kept


class MetricsLog(Logger):
    """A Lightning logger that appends a row to `file` at each call of `log_metrics`.

    Lightning's CSVLogger rewrites the file in place when a column is added, and loses the rows of a run that is resumed.
    """

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.file = file
        self._columns: list[str] = []
        self._kept: set[tuple[str, ...]] = set()  # step and columns of the rows of an earlier part of the run

    @property
    def name(self) -> str:
        """Empty, because a run has only one."""
        return ""

    @property
    def version(self) -> str:
        """Empty too."""
        return ""

    @rank_zero_only
    def start(self, step: int) -> None:
        """Keeps the rows of the first `step` steps (0: none)."""
        rows = [row for row in read_rows(self.file) if int(row["step"]) < step] if step else []
        self._kept = {_key(row) for row in rows}
        self._columns = list(dict.fromkeys([*FIRST, *(name for row in rows for name in row)]))
        self._rewrite(rows)

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Appends a row, unless a resumed run repeats a validation whose row was kept."""
        row = {"step": str(step or 0), **{name: repr(float(value)) for name, value in metrics.items()}}
        row["epoch"] = str(int(metrics.get("epoch", 0)))
        if _key(row) in self._kept:
            return
        if new := [name for name in row if name not in self._columns]:
            self._columns += new
            self._rewrite(read_rows(self.file))
        with naming_file(self.file), self.file.open("a", encoding="utf-8", newline="") as lines:
            csv.DictWriter(lines, self._columns, lineterminator="\n").writerow(row)

    def log_hyperparams(self, *args: object, **kwargs: object) -> None:
        """Does nothing, because config.yaml holds them."""

    def _rewrite(self, rows: list[Row]) -> None:
        temporary = self.file.with_name(f"{self.file.name}.partial")
        temporary.parent.mkdir(parents=True, exist_ok=True)
        with naming_file(self.file), temporary.open("w", encoding="utf-8", newline="") as lines:
            writer = csv.DictWriter(lines, self._columns, lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
        os.replace(temporary, self.file)


def _key(row: Row) -> tuple[str, ...]:
    return (row["step"], *sorted(name for name in row if name not in FIRST))
