"""What Ray costs on one machine: dialogues a second of both engines once all workers are at work, and the seconds before the first.

    python experiments/backfill/ray_overhead.py EXPORT RECORDS.jsonl [DIALOGUES] [WORKERS] [ROUNDS]

Labels DIALOGUES (default 800) of the records with each engine, by turns; InProcess has as many threads as Ray has WORKERS (default 2).
The rate is that of the dialogues from AFTER to BEFORE of all, by the time of each in the output: Ray's pool grows at first, and at the end
a worker may wait for another.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow.parquet as pq
import torch

from labelgen.io.files import read, write
from labelgen.labelling.backfill import Engine, InProcess, backfill
from labelgen.labelling.cluster import OnRay

sys.path.insert(0, str(Path(__file__).parents[1]))
from peak import spread

if TYPE_CHECKING:
    from collections.abc import Sequence

FILES = 10  # a file is what a worker takes at a time
AFTER, BEFORE = 0.4, 0.8


def measure(export: str, records: str, output: str, engine: Engine) -> tuple[float, float]:
    """Dialogues a second in between, and the seconds before the first."""
    start = time.time()
    backfill(export, records, output, engine)
    times = np.sort(pq.read_table(output, columns=["time"])["time"].to_numpy()).astype("datetime64[us]").astype(float) / 1e6
    shutil.rmtree(output)
    first, last = (int(share * len(times)) for share in (AFTER, BEFORE))
    return (last - first) / (times[last] - times[first]), times[0] - start


def main() -> None:
    export, records = sys.argv[1:3]
    count, workers, rounds = ([int(word) for word in sys.argv[3:]] + [800, 2, 3][len(sys.argv) - 3 :])[:3]
    import ray

    ray.init(num_cpus=workers, include_dashboard=False, log_to_driver=False)
    torch.set_num_threads(workers)
    dialogues = list(islice(read(records), count))
    engines: dict[str, Engine] = {"in process": InProcess(), "on Ray": OnRay(workers=workers)}
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in engines}
    with tempfile.TemporaryDirectory() as folder:
        for k in range(FILES):
            write((dialogue.content() for dialogue in dialogues[k::FILES]), Path(folder, "in", f"{k}.jsonl"))
        for _ in range(rounds):
            for name, engine in engines.items():
                found[name].append(measure(export, f"{folder}/in", f"{folder}/out", engine))
    rates: dict[str, Sequence[float]] = {name: [rate for rate, _ in some] for name, some in found.items()}
    print("| engine | dialogues/s | seconds to start |\n|---|---|---|")
    for name, some in found.items():
        print(f"| {name} | {spread(rates[name], 1)} | {spread([start for _, start in some], 1)} |")
    over = [100 * (a / b - 1) for a, b in zip(rates["in process"], rates["on Ray"], strict=True)]
    print(f"\nRay takes {spread(over, 0)}% more time a dialogue; {workers} workers, {os.cpu_count()} cores")


if __name__ == "__main__":
    main()
