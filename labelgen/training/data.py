"""Training data: a corpus, split by dialogue, as batches of about `batch_tokens` tokens that any step of any epoch can be resumed at."""

from __future__ import annotations

import hashlib
import heapq
import logging
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypedDict

import numpy as np
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, Dataset

from labelgen.corpora import Corpus, hash_fraction
from labelgen.dialogue import PARTS, Dialogue
from labelgen.inputs.batch import Batch, Collator, EncodeTarget, TextEncoder, labelled
from labelgen.inputs.features import Features, FeatureSpace
from labelgen.io.files import RejectedFile
from labelgen.io.paths import REJECTED_FILE
from labelgen.io.wording import counted
from labelgen.model.encoder import Encoder
from labelgen.tasks import Task, align_annotations
from labelgen.training.cache import FrozenStates

log = logging.getLogger(__name__)


def texts_of(dialogue: Dialogue) -> list[str]:
    """All texts of a dialogue, in order."""
    return [text for turn in dialogue.turns for part in PARTS if (text := turn.text(part)) is not None]


def pack(weights: Sequence[int], budget: int, order: Sequence[int], world: int = 1) -> list[list[int]]:
    """Packs items, in order, into ceil(total / budget) batches, each into the lightest one. Returns the items of each batch.

    The batches have similar weights, and their number does not depend on the order. It is a multiple of `world`, so that all ranks make the
    same number of steps. ValueError if there are fewer items than ranks.
    """
    if len(weights) < world:
        raise ValueError(
            f"{counted(len(weights), 'dialogue')} cannot be divided among {world} processes; use fewer devices or more dialogues"
        )
    rounds = min(-(-sum(weights) // (budget * world)), len(weights) // world)
    batches: list[list[int]] = [[] for _ in range(max(1, rounds) * world)]
    heap = [(0, k) for k in range(len(batches))]
    for item in order:
        weight, k = heap[0]
        batches[k].append(item)
        heapq.heapreplace(heap, (weight + max(weights[item], 1), k))
    return batches


class Augment(Protocol):
    """Makes a new record of each dialogue in every epoch, and the targets that belong to it (pretraining).

    A record depends on the dialogue and the epoch alone, so that training can resume at any step. Its texts are texts of the corpus.
    """

    @property
    def targets(self) -> Mapping[str, EncodeTarget]:
        """Name -> the function that encodes the targets of a record."""

    def __call__(self, dialogue: Dialogue, epoch: int) -> Dialogue:
        """The record of a dialogue in an epoch; validation reads that of epoch 0."""


class Position(TypedDict):
    """The position of training: an epoch, and how many of its batches a rank has received."""

    epoch: int
    batch: int


@dataclass(frozen=True)
class EpochRecords(Dataset[Dialogue]):
    """The dialogues, or what `augment` makes of them in an epoch."""

    dialogues: Sequence[Dialogue]
    augment: Augment | None
    epoch: int

    def __getitem__(self, index: int) -> Dialogue:
        dialogue = self.dialogues[index]
        return dialogue if self.augment is None else self.augment(dialogue, self.epoch)


class BatchLoader:
    """An iterable of batches. Epoch e is shuffled by (seed, e). After `load_state_dict` the saved epoch continues after its position.

    A DataLoader, whose workers prefetch, reads each epoch. The batches of an epoch are known before it starts, and the position counts the
    batches that training received. So a run resumes exactly without torchdata's StatefulDataLoader, which keeps the state of each worker.
    """

    def __init__(
        self,
        dialogues: Sequence[Dialogue],
        tokens: Sequence[int],
        collate: Callable[[Sequence[Dialogue]], Batch],
        budget: int,
        *,
        augment: Augment | None = None,
        seed: int | None = None,
        epoch: Callable[[], int] = lambda: 0,
        rank: int = 0,
        world: int = 1,
        num_workers: int = 0,
    ) -> None:
        self.dialogues, self.tokens, self.collate, self.budget = dialogues, tokens, collate, budget
        self.augment, self.seed, self.epoch, self.rank, self.world, self.num_workers = augment, seed, epoch, rank, world, num_workers
        self._position = self._resume = Position(epoch=0, batch=0)

    def batches(self, epoch: int) -> list[list[int]]:
        """The dialogues of each batch of an epoch. Without a seed the order is fixed, longest first."""
        if self.seed is None:
            order = np.argsort([-n for n in self.tokens], kind="stable")
        else:
            order = np.random.default_rng([self.seed, epoch]).permutation(len(self.dialogues))
        return pack(self.tokens, self.budget, order.tolist(), self.world)[self.rank :: self.world]

    def __len__(self) -> int:
        return len(self.batches(0))

    def __iter__(self) -> Iterator[Batch]:
        epoch = self.epoch()
        start = self._resume["batch"] if self._resume["epoch"] == epoch else 0
        loader: DataLoader[Dialogue] = DataLoader(
            EpochRecords(self.dialogues, self.augment, epoch),
            batch_sampler=self.batches(epoch)[start:],
            collate_fn=self.collate,
            num_workers=self.num_workers,
            worker_init_fn=_ignore_interrupts,
            generator=torch.Generator(),  # otherwise it would draw from the generator of training
        )
        for number, batch in enumerate(loader, start + 1):
            self._position = Position(epoch=epoch, batch=number)
            yield batch

    def state_dict(self) -> Position:
        """The current position."""
        return self._position

    def load_state_dict(self, state_dict: Position) -> None:
        """Continues after a position."""
        self._position = self._resume = state_dict


def _ignore_interrupts(worker: int) -> None:
    """Ctrl+C reaches the workers too: they must serve the training process until it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


class DialogueData(pl.LightningDataModule):
    """Reads a corpus, holds out `valid_fraction` of its dialogues for validation, and fits label spaces and features on the rest.

    `fraction` trains on a part of the training dialogues (nested: 10% contains 3%). `augment` is built from all dialogues and makes the
    records that batches hold. Unusable records go to OUTPUT/rejected.jsonl.

    The model depends on the data. Therefore `train` calls `setup`, builds the model and calls `attach`. Then the trainer calls
    `prepare_data` (in one process; it computes the states of frozen layers) and `setup` again (in each process; it makes the collator).
    The first `setup` sets `train` and `valid` (dialogues), `rejected`, `tasks` (with label spaces) and `features`.
    """

    train: list[Dialogue]
    valid: list[Dialogue]
    rejected: RejectedFile
    tasks: dict[str, Task]
    features: FeatureSpace

    def __init__(
        self,
        corpus: Corpus,
        features: Features,
        tasks: Mapping[str, Task],
        output: str | Path,
        batch_tokens: int = 4096,
        valid_fraction: float = 0.05,
        fraction: float = 1.0,
        cache: str | Path | None = None,
        augment: Callable[[Sequence[Dialogue]], Augment] | None = None,
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.corpus, self.configured_features, self.configured_tasks, self.output = corpus, features, tasks, Path(output)
        self.batch_tokens, self.valid_fraction, self.fraction, self.cache = batch_tokens, valid_fraction, fraction, cache
        self.make_augment, self.num_workers, self.seed = augment, num_workers, seed
        self.augment: Augment | None = None
        self._is_read = False
        self._fingerprint: dict[str, Any] = {}  # of the records as they were read
        self._encoder: Encoder | None = None
        self._texts: TextEncoder | None = None
        self._states: FrozenStates | None = None
        self._collator: Collator | None = None
        self._lengths: dict[str, int] = {}
        self._cut: list[Dialogue] = []  # the training dialogues, cut to `batch_tokens`
        self._loader: BatchLoader | None = None
        self._resume: Position | None = None

    def setup(self, stage: str | None = None) -> None:
        """Reads the corpus once. If an encoder is attached, makes the collator. ValueError if there is no dialogue to train on."""
        if not self._is_read:
            self._read()
            self._is_read = True
        if self._encoder is not None and self._collator is None:
            self._collator = self._make_collator(self._encoder)

    def _read(self) -> None:
        self.rejected = rejected = RejectedFile(self.output / REJECTED_FILE)
        dialogues = list(self.corpus.read(rejected))
        held_out = [hash_fraction(dialogue.id, f"valid {self.seed}") < self.valid_fraction for dialogue in dialogues]
        self.valid = [dialogue for dialogue, out in zip(dialogues, held_out, strict=True) if out]
        rest = [dialogue for dialogue, out in zip(dialogues, held_out, strict=True) if not out]
        self.train = [dialogue for dialogue in rest if hash_fraction(dialogue.id, f"train {self.seed}") < self.fraction]
        if not self.train:
            reasons = f"; {rejected.summary()}" if rejected.count else ""
            raise ValueError(f"no dialogue to train on: {len(dialogues)} read, {rejected.count} rejected{reasons}")
        rejected.log()
        self._fingerprint = {
            "train_dialogues": len(self.train),
            "valid_dialogues": len(self.valid),
            "sha256": _hash(self.train),
            "valid_sha256": _hash(self.valid),
        }
        self._fit()
        self.augment = self.make_augment([*self.train, *self.valid]) if self.make_augment else None

    def _fit(self) -> None:
        """Fits label spaces and features on the training dialogues. Logs what is left out."""
        fitted = {name: fit_labels(task, self.train) for name, task in self.configured_tasks.items()}
        self.tasks = {name: task for name, task in fitted.items() if any(annotated(task, dialogue) for dialogue in self.train)}
        if unlabelled := sorted(fitted.keys() - self.tasks.keys()):
            log.warning("left out, no training dialogue is annotated for it: %s", ", ".join(unlabelled))
        self.features = self.configured_features.fit(self.train)
        used = [f"{name} ({counted(len(values), 'value')})" for name, values in self.features.categorical.items()] + list(
            self.features.numerical
        )
        named = {*self.configured_features.categorical, *self.configured_features.numerical}
        unused = sorted(named - self.features.categorical.keys() - self.features.numerical.keys())
        log.info("features: %s%s", ", ".join(used) or "none", f"; not in the data: {', '.join(unused)}" if unused else "")

    def fingerprint(self) -> dict[str, Any]:
        """What the model was trained and validated on: numbers of dialogues and hashes of the records, annotations included."""
        return self._fingerprint

    def attach(self, encoder: Encoder) -> None:
        """Tokenises all texts for the encoder that is to be trained, and aligns the annotations with the tokens."""
        self._encoder, self._collator = encoder, None
        self._texts = TextEncoder(encoder.tokenizer, encoder.max_tokens)
        texts = sorted(
            {"", *(text for dialogue in (*self.train, *self.valid) for text in texts_of(dialogue))}
        )  # a batch without any has ""
        self._texts.keep(texts)
        tokens = self._texts(texts)
        self._lengths = {text: len(tokens[text].ids) for text in texts}
        aligned = align_annotations(self.tasks, [*self.train, *self.valid], self._texts).dialogues
        self.train, self.valid = aligned[: len(self.train)], aligned[len(self.train) :]
        self._cut = [truncate(dialogue, self._lengths, self.batch_tokens) for dialogue in self.train]
        frozen = encoder.turn_encoder.frozen_layers and self.cache
        self._states = FrozenStates(encoder.turn_encoder, tokens, Path(str(self.cache))) if frozen else None

    def prepare_data(self) -> None:
        """Computes the states of frozen layers on the trainer's device. Lightning calls it in one process per node; the others wait."""
        if self._states is not None:
            self._states.prepare(self.trainer.strategy.root_device if self.trainer else torch.device("cpu"))

    def _make_collator(self, encoder: Encoder) -> Collator:
        assert self._texts is not None, "attach(encoder) comes first"
        encode: dict[str, EncodeTarget] = {name: task.encode for name, task in self.tasks.items()}
        if self.augment:
            encode |= self.augment.targets
        recordings = encoder.recordings()
        if recordings is not None:
            recordings.keep([*self.train, *self.valid])
        if self._states is not None:
            self._states.open()
        return Collator(self._texts, self.features, encode, self._states, recordings)

    def collate(self, dialogues: Sequence[Dialogue]) -> Batch:
        """A batch as the model reads it."""
        assert self._collator is not None, "attach(encoder) and setup() come first"
        return self._collator(dialogues)

    def _tokens(self, dialogues: Sequence[Dialogue]) -> list[int]:
        """The number of tokens of each dialogue."""
        return [sum(self._lengths[text] for text in texts_of(dialogue)) for dialogue in dialogues]

    def _load(self, dialogues: Sequence[Dialogue], seed: int | None, epoch: Callable[[], int]) -> BatchLoader:
        trainer = self.trainer
        assert trainer is not None and self._collator is not None, "attach(encoder) and setup() come first"
        return BatchLoader(
            dialogues,
            self._tokens(dialogues),
            self._collator,
            self.batch_tokens,
            augment=self.augment,
            seed=seed,
            epoch=epoch,
            rank=trainer.global_rank,
            world=trainer.world_size,
            num_workers=self.num_workers,
        )

    def steps_per_epoch(self, world: int) -> int:
        """The number of batches of each of `world` processes in an epoch."""
        assert self._texts is not None, "attach(encoder) comes first"
        tokens = self._tokens(self._cut)
        return len(pack(tokens, self.batch_tokens, range(len(tokens)), world)) // world

    def train_dataloader(self) -> BatchLoader:
        """Batches that are shuffled differently in each epoch, of dialogues cut to `batch_tokens`."""
        trainer = self.trainer
        assert trainer is not None
        self._loader = self._load(self._cut, self.seed, lambda: trainer.current_epoch)
        if self._resume:
            self._loader.load_state_dict(self._resume)
        return self._loader

    def val_dataloader(self) -> BatchLoader | list[Batch]:
        """Batches of whole dialogues in a fixed order. Empty if none is held out."""
        return self._load(self.valid, None, lambda: 0) if self.valid else []

    def state_dict(self) -> dict[str, Any]:
        """The position of training. Lightning saves the loader's state too, but restores it too late: training has asked for a batch."""
        return dict(self._loader.state_dict()) if self._loader else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._resume = Position(epoch=state_dict["epoch"], batch=state_dict["batch"]) if state_dict else None


def _hash(dialogues: Sequence[Dialogue]) -> str:
    digest = hashlib.sha256()
    for dialogue in dialogues:
        digest.update(dialogue.model_dump_json(exclude_defaults=True).encode())
    return digest.hexdigest()


def fit_labels(task: Task, dialogues: Sequence[Dialogue]) -> Task:
    """The task with its label space: the configured one, or else the sorted values in the annotations."""
    if task.labels:
        return task
    return task.with_labels(sorted({value for dialogue in dialogues for value in task.values(dialogue)}))


def annotated(task: Task, dialogue: Dialogue) -> bool:
    """Whether the task can learn from the dialogue. The labels of an untrained head would mean nothing."""
    if task.level == "token":
        return any(value in task.labels for value in task.values(dialogue))
    return bool(labelled(task.encode(dialogue, [None] * (2 * len(dialogue.turns)))).any())


def truncate(dialogue: Dialogue, lengths: Mapping[str, int], budget: int) -> Dialogue:
    """The first turns of a dialogue that fit into a batch. Training cuts longer dialogues; validation and labelling never do."""
    total = 0
    for t, turn in enumerate(dialogue.turns):
        total += sum(lengths[text] for part in PARTS if (text := turn.text(part)) is not None)
        if total > budget and t:
            log.warning(
                "dialogue %s: trained on its first %d of %d turns; data.batch_tokens=%d", dialogue.id, t, len(dialogue.turns), budget
            )
            goals = [goal.model_copy(update={"turns": [k for k in goal.turns if k < t]}) for goal in dialogue.goals or ()]
            ended = [goal.model_copy(update={"outcome": None}) if len(goal.turns) < len(whole.turns) else goal
                     for goal, whole in zip(goals, dialogue.goals or (), strict=True)]  # fmt: skip
            kept = [goal for goal in ended if goal.turns] if dialogue.goals is not None else None
            return dialogue.model_copy(update={"turns": dialogue.turns[:t], "goals": kept, "votes": [], "labels": None})
    return dialogue
