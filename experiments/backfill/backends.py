"""Texts a second of the turn encoder alone, by backend: labelgen's packed layers, torch.compile, ONNX Runtime, and dynamic int8.

    pip install '.[minilm,bench]' onnx onnxruntime
    python experiments/backfill/backends.py --export EXPORT --corpus sgd --root SGD_FOLDER --threads 1

All read the same distinct texts, tokenised beforehand, without padding: labelgen's layers in chunks, ONNX Runtime, which has no packed
layer, texts of one length at a time. All of them and a probe of the matrix products alternate within each round. Without --corpus the
dialogues are simulated ones. torch.compile needs a C++ compiler; the reason why a backend could not run is below the table.
"""

from __future__ import annotations

import argparse
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from copy import deepcopy
from logging import ERROR, getLogger
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from compare import build_annotator, checked, parser, read_sample
from peak import clock_of, count_gflop, probe, spread

if TYPE_CHECKING:
    import torch

    from labelgen.inputs.batch import Group
    from labelgen.model.encoder import TurnEncoder
    from labelgen.network import Network

OURS = "labelgen, packed fp32"
Encode = Callable[[], "torch.Tensor"]


class Texts(NamedTuple):
    """Tokenised texts, shortest first."""

    ids: torch.Tensor  # [L]
    groups: tuple[Group, ...]
    pieces: tuple[tuple[Group, ...], ...]  # the same, cut as labelgen cuts them


class Measured(NamedTuple):
    """Seconds of each backend and GFLOP/s of the probe by round; vectors [N, D]; seconds to prepare; why others are missing."""

    seconds: dict[str, list[float]]
    peak: list[float]
    vectors: dict[str, torch.Tensor]
    prepared: dict[str, float]
    missing: dict[str, str]


def tokenise(network: Network, texts: Sequence[str]) -> Texts:
    """The distinct texts."""
    import torch

    from labelgen.inputs.batch import chunks, group_equal
    from labelgen.model.encoder import TOKENS_AT_ONCE

    encoded = network.text_encoder()(list(dict.fromkeys(texts)))
    rows = sorted((one.ids for one in encoded.values()), key=len)
    groups = group_equal(map(len, rows))
    return Texts(torch.cat([torch.from_numpy(row) for row in rows]).long(), groups, tuple(chunks(groups, TOKENS_AT_ONCE)))


def packed(encoder: TurnEncoder, texts: Texts) -> Encode:
    """labelgen's packed encoder."""
    return lambda: encoder.pool(encoder(texts.ids, texts.groups), texts.groups)


def packed_int8(encoder: TurnEncoder, texts: Texts) -> Encode:
    """Its linear layers with weights in int8, a scale for each row of theirs, and inputs quantised as they come."""
    from labelgen.labelling.annotator import quantised

    return packed(quantised(deepcopy(encoder)), texts)


def compiled(encoder: TurnEncoder, texts: Texts) -> Encode:
    """torch.compile of what attention leaves over: its calls differ with every chunk's lengths, the rest has one shape."""
    import torch

    from labelgen.model.packed import packed_attention, sizes

    @torch.compile(dynamic=True)
    def enter(layer: Any, x: torch.Tensor) -> torch.Tensor:
        return layer.query_key_value(x)

    @torch.compile(dynamic=True)
    def leave(layer: Any, x: torch.Tensor, attended: torch.Tensor) -> torch.Tensor:
        x = layer.attention_norm(x + layer.attention_output(attended))
        return layer.feed_forward_norm(x + layer.down_projection(layer.activation(layer.up_projection(x))))

    backbone = encoder.backbone
    cut = [sum(sizes(piece)) for piece in texts.pieces]

    def encode(ids: torch.Tensor, groups: Sequence[Group]) -> torch.Tensor:
        x = backbone.embed(ids, groups)
        for layer in backbone.layers:
            x = leave(layer, x, packed_attention(enter(layer, x), groups, layer.num_heads, layer.causal))
        return x

    def run() -> torch.Tensor:
        tokens = torch.cat([encode(ids, piece) for ids, piece in zip(texts.ids.split(cut), texts.pieces, strict=True)])
        return encoder.pool(tokens, texts.groups)

    return run


def save_onnx(folder: Path, file: Path) -> None:
    """The Hugging Face model in `folder` as a graph: ids [N, L] -> vectors [N, D], the means of its token states."""
    import torch
    from transformers import AutoModel

    class Graph(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = AutoModel.from_pretrained(folder).eval()

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            return self.model(input_ids=ids).last_hidden_state.mean(1)

    torch.onnx.export(
        Graph(),
        (torch.full((2, 8), 5),),
        str(file),
        input_names=["ids"],
        output_names=["vectors"],
        dynamic_axes={"ids": {0: "n", 1: "l"}, "vectors": {0: "n"}},
        dynamo=False,
        opset_version=17,
    )


def onnx_runtime(file: Path, texts: Texts, threads: int) -> Encode:
    """Texts of one length at a time through a graph."""
    import onnxruntime
    import torch

    from labelgen.model.packed import sizes

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    groups = [group for piece in texts.pieces for group in piece]
    inputs = [ids.reshape(group).numpy() for ids, group in zip(texts.ids.split(sizes(groups)), groups, strict=True)]
    return lambda: torch.cat([torch.from_numpy(session.run(None, {"ids": ids})[0]) for ids in inputs])


def backends(network: Network, texts: Texts, threads: int, folder: Path) -> dict[str, Callable[[], Encode]]:
    """How to prepare each."""
    encoder = network.encoder.turn_encoder
    plain, small = folder / "model.onnx", folder / "int8.onnx"

    def fp32() -> Encode:
        from opponents import save

        save(network.encoder, folder)
        save_onnx(folder, plain)
        return onnx_runtime(plain, texts, threads)

    def int8() -> Encode:
        from onnxruntime.quantization import QuantType, quantize_dynamic

        quantize_dynamic(plain, small, per_channel=True, weight_type=QuantType.QInt8)
        return onnx_runtime(small, texts, threads)

    return {
        OURS: lambda: packed(encoder, texts),
        "labelgen, packed, torch dynamic int8": lambda: packed_int8(encoder, texts),
        "labelgen, packed, torch.compile": lambda: compiled(encoder, texts),
        "ONNX Runtime fp32": fp32,
        "ONNX Runtime dynamic int8": int8,
    }


def measure(options: argparse.Namespace, network: Network, texts: Texts, folder: Path) -> Measured:
    """Prepares each backend, runs it once to warm up, then the rounds."""
    import torch

    clock = clock_of(options)
    found, runs = Measured({}, [], {}, {}, {}), {}
    for name, prepare in backends(network, texts, options.threads, folder).items():
        start = time.perf_counter()
        try:
            with torch.no_grad():
                run = prepare()
                found.vectors[name] = run()
        except Exception as error:  # whatever a missing compiler or package makes it raise
            found.missing[name] = f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"
            continue
        found.prepared[name] = time.perf_counter() - start
        runs[name], found.seconds[name] = run, []
    for _ in range(options.rounds):
        found.peak.append(probe(network.encoder.config, clock))
        for name, run in runs.items():
            start = clock()
            with torch.no_grad():
                run()
            found.seconds[name].append(clock() - start)
    return found


def report(options: argparse.Namespace, found: Measured, texts: Texts, gflop: float) -> str:
    """The table, and why a backend is not in it."""
    import torch

    num_texts = sum(group.count for group in texts.groups)
    rows = [
        "| backend | texts/s | times labelgen's | share of the fp32 peak | cosine to labelgen's: mean, least | seconds to prepare |",
        "|---|---|---|---|---|---|",
    ]
    for name, seconds in found.seconds.items():
        ratio = [ours / theirs for ours, theirs in zip(found.seconds[OURS], seconds, strict=True)]
        share = [gflop / s / peak for s, peak in zip(seconds, found.peak, strict=True)]
        cosine = torch.cosine_similarity(found.vectors[name], found.vectors[OURS])
        cells = [name, spread([num_texts / s for s in seconds], 0), spread(ratio, 2), spread(share, 2)]
        rows.append(f"| {' | '.join(cells)} | {cosine.mean():.4f}, {cosine.min():.4f} | {found.prepared[name]:.0f} |")
    rows += ["", *(f"Not measured: {name} ({why})" for name, why in found.missing.items())]
    return "\n".join(
        [
            *rows,
            f"{options.dialogues} dialogues ({options.corpus}): {num_texts:,} texts, {len(texts.ids):,} tokens, {gflop:.1f} GFLOP.",
            f"Peak (matrix products alone): {spread(found.peak, 1)} GFLOP/s in fp32. {options.threads} thread(s), {options.clock} clock.",
            f"Medians over {len(found.peak)} rounds (least to most).",
        ]
    )


def main() -> None:
    """Reads the options, runs the rounds, prints the table."""
    options = checked(parser(__doc__))
    import torch
    from opponents import texts_of
    from transformers.utils import logging

    logging.disable_progress_bar()
    warnings.simplefilter("ignore")  # torch.ao.quantization and the older ONNX exporter warn of their removal
    getLogger().setLevel(ERROR)  # onnxruntime.quantization would have the graph preprocessed
    torch.set_num_threads(options.threads)
    network = build_annotator(options).network
    dialogues = read_sample(options)
    options.dialogues = len(dialogues)  # the corpus may hold fewer
    texts = tokenise(network, [text for dialogue in dialogues for text in texts_of(dialogue)])
    with tempfile.TemporaryDirectory() as folder:
        found = measure(options, network, texts, Path(folder))
    print(report(options, found, texts, count_gflop(texts.groups, network.encoder.config)))


if __name__ == "__main__":
    main()
