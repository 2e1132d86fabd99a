"""GFLOP/s of one core in the four products of a MiniLM layer: torch's linear layer, MKL with weights packed beforehand, oneDNN.

    python experiments/backfill/products.py

They alternate within each round. The clock counts processor time.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F

sys.path.insert(0, str(Path(__file__).parents[1]))
from peak import spread

ROWS, ROUNDS, GFLOP = (512, 1024, 2048), 9, 1.0
SHAPES = ((384, 1152), (384, 384), (384, 1536), (1536, 384))


def ways(inputs: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> dict[str, Callable[[], torch.Tensor]]:
    rows = len(inputs)
    packed = torch.ops.mkl._mkl_reorder_linear_weight(weight, rows)
    blocked = torch.ops.mkldnn._reorder_linear_weight(weight, rows)
    return {
        "torch": lambda: F.linear(inputs, weight, bias),
        "MKL, packed": lambda: torch.ops.mkl._mkl_linear(inputs, packed, weight, bias, rows),
        "oneDNN": lambda: torch.ops.mkldnn._linear_pointwise(inputs, blocked, bias, "none", [], ""),
    }


@torch.inference_mode()
def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    cases = [ways(torch.randn(rows, k), torch.randn(n, k), torch.randn(n)) for rows in ROWS for k, n in SHAPES]
    work = [2 * rows * k * n / 1e9 for rows in ROWS for k, n in SHAPES]
    rates: dict[str, list[float]] = {name: [] for name in cases[0]}
    for _ in range(ROUNDS):
        spent = dict.fromkeys(rates, 0.0)
        for case, gflop in zip(cases, work, strict=True):
            for name, product in case.items():
                start = time.process_time()
                for _ in range(round(GFLOP / gflop) or 1):
                    product()
                spent[name] += (time.process_time() - start) / (round(GFLOP / gflop) or 1)
        for name, seconds in spent.items():
            rates[name].append(sum(work) / seconds)
    for name, found in rates.items():
        ratios = [one / plain for one, plain in zip(found, rates["torch"], strict=True)]
        print(f"| {name} | {spread(found, 1)} GFLOP/s | {spread(ratios, 2)} |")


if __name__ == "__main__":
    main()
