"""What Ray costs on one machine: the seconds a dialogue of both engines, and those before the first.

    python experiments/backfill/ray_overhead.py EXPORT RECORDS.jsonl [DIALOGUES] [WORKERS] [ROUNDS]

Labels DIALOGUES (default 200) and three times as many of the records with each engine, by turns. The difference of the two gives the
seconds a dialogue, the rest is what starting takes (Ray's processes, a model in each). InProcess has as many threads as Ray has WORKERS
(default 2).
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path
from statistics import median

import torch

from labelgen.backfill import Engine, InProcess, backfill
from labelgen.cluster import OnRay
from labelgen.files import read, write

FILE = 25  # dialogues: a file is what a worker takes at a time


def main() -> None:
    export, records = sys.argv[1:3]
    count, workers, rounds = ([int(word) for word in sys.argv[3:]] + [200, 2, 3][len(sys.argv) - 3 :])[:3]
    import ray

    ray.init(num_cpus=workers, include_dashboard=False, log_to_driver=False)
    torch.set_num_threads(workers)
    dialogues = list(islice(read(records), 4 * count))
    engines: dict[str, Engine] = {"in process": InProcess(), "on Ray": OnRay(workers=workers)}
    seconds: dict[tuple[str, int], list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        parts = {count: dialogues[:count], 3 * count: dialogues[count:]}  # no text is labelled twice
        for size, some in parts.items():
            for k in range(0, size, FILE):
                write((dialogue.content() for dialogue in some[k : k + FILE]), Path(folder, str(size), f"{k:05}.jsonl"))
        for _ in range(rounds):
            for name, engine in engines.items():
                for size in parts:
                    start = time.perf_counter()
                    backfill(export, f"{folder}/{size}", f"{folder}/out", engine)
                    seconds.setdefault((name, size), []).append(time.perf_counter() - start)
                    shutil.rmtree(f"{folder}/out")
    pairs = {name: zip(seconds[name, count], seconds[name, 3 * count], strict=True) for name in engines}
    each = {name: [(b - a) / (2 * count) for a, b in some] for name, some in pairs.items()}
    print("| engine | dialogues/s | seconds to start |\n|---|---|---|")
    for name, rate in each.items():
        starts = [a - count * one for a, one in zip(seconds[name, count], rate, strict=True)]
        row = [f"{1 / median(rate):.1f} ({1 / max(rate):.1f} to {1 / min(rate):.1f})", f"{median(starts):.1f}"]
        print(f"| {name} | {' | '.join(row)} |")
    over = [b / a - 1 for a, b in zip(each["in process"], each["on Ray"], strict=True)]
    told = f"{median(over):+.1%} ({min(over):+.1%} to {max(over):+.1%})"
    print(f"\nRay takes {told} longer a dialogue; {workers} workers, {os.cpu_count()} cores")


if __name__ == "__main__":
    main()
