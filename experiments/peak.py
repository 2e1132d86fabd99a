"""Shared by the benchmarks: their clock and threads, the FLOPs of a turn encoder, and the peak of the machine's matrix products."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import median
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from labelgen.inputs.batch import Group

PROBE_ROWS = (256, 512, 1024, 2048, 4096)  # tokens at once; the best of them is the peak


def read_options(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """The command line, with --threads and --clock; sets the environment, so call it before torch is imported."""
    parser.add_argument("--threads", type=int, default=1, help="of each process")
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall", help="cpu: time on the core alone, for a busy machine")
    options = parser.parse_args()
    if options.clock == "cpu" and options.threads > 1:
        parser.error("--clock cpu counts one thread; use --threads 1 or the wall clock")
    os.environ.update(RAYON_NUM_THREADS=str(options.threads), OMP_NUM_THREADS=str(options.threads), HF_HUB_OFFLINE="1")
    return options


def clock_of(options: argparse.Namespace) -> Callable[[], float]:
    """Seconds of the chosen clock."""
    return time.process_time if options.clock == "cpu" else time.perf_counter


def count_gflop(groups: Iterable[Group], config: Mapping[str, Any]) -> float:
    """GFLOP of a forward pass through the layers (a multiplication and an addition are two): linear layers, two products of attention."""
    width, inner, layers = config["hidden_size"], config["intermediate_size"], config["num_hidden_layers"]
    linear = 2 * (4 * width * width + 2 * width * inner)
    return sum(count * layers * (length * linear + 4 * length * length * width) for count, length in groups) / 1e9


def probe(config: Mapping[str, Any], clock: Callable[[], float]) -> float:
    """GFLOP/s in fp32 of a layer's four products into memory that is there already: at the best number of tokens at once."""
    import torch

    width, inner = config["hidden_size"], config["intermediate_size"]
    weights = [torch.randn(columns, rows) for rows, columns in [(width, 3 * width), (width, width), (width, inner), (inner, width)]]
    best = 0.0
    for rows in PROBE_ROWS:
        inputs = [torch.randn(rows, weight.shape[1]) for weight in weights]
        outputs = [torch.zeros(rows, weight.shape[0]) for weight in weights]
        repeats = max(PROBE_ROWS) // rows
        start = clock()
        for _ in range(repeats):
            for x, weight, out in zip(inputs, weights, outputs, strict=True):
                torch.mm(x, weight.T, out=out)
        best = max(best, 2 * repeats * rows * sum(weight.numel() for weight in weights) / (clock() - start) / 1e9)
    return best


def spread(values: Sequence[float], digits: int) -> str:
    """Median, and the range behind it."""
    return f"{median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"
