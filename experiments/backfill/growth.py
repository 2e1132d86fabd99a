"""Time and memory of a backfill as the logs grow: the same command on more and more dialogues, each in a process of its own.

    python experiments/backfill/growth.py EXPORT FOLDER [1000 10000 100000 300000]

FOLDER receives the simulated logs (dialogues of at most TURNS turns) and the outputs. The measurement is of everything around the model: an
export of the tiny encoder (`labelgen demo encoder=tiny encoder.frozen_layers=0`) shows the curve in an hour.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from labelgen.corpora.simulated import Simulated
from labelgen.dialogue import Dialogue
from labelgen.io.files import write

ONE = """
import json, re, sys, time
from pathlib import Path
from labelgen.labelling.backfill import backfill
start = time.process_time()
counts = backfill(*sys.argv[1:4])
took = time.process_time() - start
peak = int(re.search("VmHWM:\\s+([0-9]+) kB", Path("/proc/self/status").read_text())[1])  # getrusage reports the larger peak of the parent
print(json.dumps([counts.labelled, counts.skipped, took, peak / 1024]))
"""
TEMPLATES = 5000  # dialogues that the logs are made of, each under many ids with words of its own
TURNS = 4


def logs(count: int, texts: list[Dialogue]) -> Iterator[Dialogue]:
    """`count` dialogues; a number in the first request keeps them apart."""
    for k in range(count):
        made = texts[k % len(texts)]
        first = made.turns[0].model_copy(update={"request": f"{made.turns[0].request} ({k})"})
        yield made.model_copy(update={"id": f"{k}", "turns": [first, *made.turns[1:]]})


def main() -> None:
    export, folder = sys.argv[1], Path(sys.argv[2])
    sizes = [int(word) for word in sys.argv[3:]] or [1000, 10_000, 100_000, 300_000]
    texts = [d.content() for d in Simulated(num_dialogues=TEMPLATES, seed=1).read() if len(d.turns) <= TURNS]
    print("| format | dialogues | GB of input | seconds of one core | dialogues/s | peak MB | again, all done: dialogues/s |")
    print("|---|---|---|---|---|---|---|")
    for size in sizes:
        for kind in ("jsonl", "parquet"):
            file, output = folder / f"{size}.{kind}", folder / f"{size}_{kind}"
            if not file.exists():
                write(logs(size, texts), file, rows_per_group=size)  # the worst case: one row group
            results = []
            for _ in range(2):
                done = subprocess.run([sys.executable, "-c", ONE, export, file, output], stdout=subprocess.PIPE, text=True, check=True)
                results.append(json.loads(done.stdout))
            (labelled, _, took, peak), (_, before, again, _) = results
            assert (labelled, before) == (size, size)
            gigabytes = file.stat().st_size / 1e9
            print(f"| {kind} | {size:,} | {gigabytes:.2f} | {took:.0f} | {size / took:.0f} | {peak:.0f} | {size / again:.0f} |", flush=True)
            file.unlink()
    print(f"\n{time.strftime('%Y-%m-%d')}")


if __name__ == "__main__":
    main()
