"""Training data: a corpus, split by dialogue, as batches of about `batch_tokens` tokens that any step of any epoch can be resumed at."""

from __future__ import annotations

import hashlib
import heapq
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pytorch_lightning as pl

from labelgen.corpora import Corpus, share
from labelgen.dialogue import PARTS, Dialogue
from labelgen.inputs.batch import Batch, Collator, EncodeTarget, TextEncoder, labelled
from labelgen.inputs.features import Features
from labelgen.io.files import RejectedFile
from labelgen.model.encoder import Encoder
from labelgen.tasks import Task
from labelgen.training.cache import FrozenStates

log = logging.getLogger(__name__)


def texts_of(dialogue: Dialogue) -> list[str]:
    """All texts of a dialogue, in order."""
    return [text for turn in dialogue.turns for part in PARTS if (text := turn.text(part)) is not None]


def deal(weights: Sequence[int], budget: int, order: Sequence[int], world: int = 1) -> list[list[int]]:
    """Deals items in the given order to ceil(total / budget) hands, each to the lightest: equal weights, a number that never varies.

    The number is a multiple of `world`, so that each rank makes as many steps.
    """
    if len(weights) < world:
        raise ValueError(f"{len(weights)} dialogues cannot be dealt to {world} processes; use fewer devices or more dialogues")
    rounds = min(-(-sum(weights) // (budget * world)), len(weights) // world)
    hands: list[list[int]] = [[] for _ in range(max(1, rounds) * world)]
    heap = [(0, k) for k in range(len(hands))]
    for item in order:
        weight, k = heap[0]
        hands[k].append(item)
        heapq.heapreplace(heap, (weight + max(weights[item], 1), k))
    return hands


class Augment(Protocol):
    """Makes other records of dialogues, anew each epoch, and the targets that belong to them (pretraining).

    A dialogue's record depends on the dialogue and the epoch alone, so that any step can be resumed at; its texts are those of the corpus.
    """

    @property
    def targets(self) -> Mapping[str, EncodeTarget]:
        """Name -> how a record that was made gives its targets."""

    def __call__(self, dialogue: Dialogue, epoch: int) -> Dialogue:
        """The record of a dialogue in an epoch; validation reads that of epoch 0."""


class Batches:
    """An iterable of batches. Epoch e is shuffled by (seed, e); after `load_state_dict` the saved epoch starts at the next batch."""

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
    ) -> None:
        self.dialogues, self.tokens, self.collate, self.budget = dialogues, tokens, collate, budget
        self.augment, self.seed, self.epoch, self.rank, self.world = augment, seed, epoch, rank, world
        self._at = self._resume = {"epoch": 0, "batch": 0}

    def hands(self, epoch: int) -> list[list[int]]:
        """The dialogues of each batch of an epoch; without a seed in one fixed order, longest first."""
        if self.seed is None:
            order = np.argsort([-n for n in self.tokens], kind="stable")
        else:
            order = np.random.default_rng([self.seed, epoch]).permutation(len(self.dialogues))
        return deal(self.tokens, self.budget, order.tolist(), self.world)[self.rank :: self.world]

    def __len__(self) -> int:
        return len(self.hands(0))

    def __iter__(self) -> Iterator[Batch]:
        epoch = self.epoch()
        start = self._resume["batch"] if self._resume["epoch"] == epoch else 0
        for number, hand in enumerate(self.hands(epoch)[start:], start + 1):
            self._at = {"epoch": epoch, "batch": number}
            dialogues = [self.dialogues[k] for k in hand]
            yield self.collate(dialogues if self.augment is None else [self.augment(dialogue, epoch) for dialogue in dialogues])

    def state_dict(self) -> dict[str, int]:
        """The running epoch and how many of its batches were handed out."""
        return self._at

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Goes on after them."""
        self._at = self._resume = state_dict


class DialogueData(pl.LightningDataModule):
    """Reads a corpus, keeps `valid_fraction` of its dialogues out of training, fits label spaces and features on the rest.

    `fraction` trains on a part of the training dialogues (a nested sequence: 3% is contained in 10%). `augment` is built from all
    dialogues and makes what batches hold. Unusable records go to `output`/rejected.jsonl. Attributes: `train`, `valid` (dialogues),
    `tasks` (with label spaces), `features` (a FeatureSpace).
    """

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
        seed: int = 0,
    ) -> None:
        super().__init__()
        rejected = RejectedFile(Path(output) / "rejected.jsonl")
        dialogues = list(corpus.read(rejected))
        if rejected.count:
            log.warning("%d records could not be used; reasons are in %s", rejected.count, rejected.path)
        held_out = [share(dialogue.id, f"valid {seed}") < valid_fraction for dialogue in dialogues]
        self.valid = [dialogue for dialogue, out in zip(dialogues, held_out, strict=True) if out]
        rest = [dialogue for dialogue, out in zip(dialogues, held_out, strict=True) if not out]
        self.train = [dialogue for dialogue in rest if share(dialogue.id, f"train {seed}") < fraction]
        if not self.train:
            raise ValueError(f"no dialogue to train on: {len(dialogues)} read, {rejected.count} rejected ({rejected.path})")
        fitted = {name: fit_labels(task, self.train) for name, task in tasks.items()}
        self.tasks = {name: task for name, task in fitted.items() if any(annotated(task, dialogue) for dialogue in self.train)}
        if unlabelled := sorted(fitted.keys() - self.tasks.keys()):
            log.warning("left out, no training dialogue is annotated for it: %s", ", ".join(unlabelled))
        self.features = features.fit(self.train)
        used = [f"{name} ({len(values)} values)" for name, values in self.features.categorical.items()] + list(self.features.numerical)
        never = {*features.categorical, *features.numerical} - self.features.categorical.keys() - self.features.numerical.keys()
        log.info("features: %s%s", ", ".join(used) or "none", f"; not in the data: {', '.join(sorted(never))}" if never else "")
        self.augment = augment([*self.train, *self.valid]) if augment else None
        self.batch_tokens, self.cache, self.seed = batch_tokens, cache, seed
        self._collator: Collator | None = None
        self._lengths: dict[str, int] = {}
        self._loader: Batches | None = None
        self._resume: dict[str, int] = {}

    def fingerprint(self) -> dict[str, Any]:
        """What the model was trained and validated on: numbers of dialogues and hashes of the records, annotations included."""
        return {
            "train_dialogues": len(self.train),
            "valid_dialogues": len(self.valid),
            "sha256": _hash(self.train),
            "valid_sha256": _hash(self.valid),
        }

    def prepare(self, encoder: Encoder) -> None:
        """Tokenises all texts, reads the recordings, and computes the states under the layers that do not learn, once."""
        texts = TextEncoder(encoder.tokenizer, encoder.max_tokens)
        every = sorted({"", *(text for dialogue in (*self.train, *self.valid) for text in texts_of(dialogue))})  # "": of a batch of none
        texts.keep(every)
        tokens = texts(every)
        self._lengths = {text: len(tokens[text].ids) for text in every}
        states = (
            FrozenStates.of(encoder.turn_encoder, tokens, Path(self.cache)) if encoder.turn_encoder.frozen_layers and self.cache else None
        )
        encode: dict[str, EncodeTarget] = {name: task.encode for name, task in self.tasks.items()}
        if self.augment:
            encode |= self.augment.targets
        recordings = encoder.recordings()
        if recordings is not None:
            recordings.keep([*self.train, *self.valid])
        self._collator = Collator(texts, self.features, encode, states, recordings)

    def collate(self, dialogues: Sequence[Dialogue]) -> Batch:
        """A batch as the model reads it."""
        assert self._collator is not None, "prepare(encoder) comes first"
        return self._collator(dialogues)

    def _batches(self, dialogues: list[Dialogue], **options: Any) -> Batches:
        tokens = [sum(self._lengths[text] for text in texts_of(dialogue)) for dialogue in dialogues]
        return Batches(dialogues, tokens, self.collate, self.batch_tokens, augment=self.augment, **options)

    def train_dataloader(self) -> Batches:
        trainer = self.trainer
        assert trainer is not None
        ranks = {"rank": trainer.global_rank, "world": trainer.world_size}
        cut = [shorten(dialogue, self._lengths, self.batch_tokens) for dialogue in self.train]
        self._loader = self._batches(cut, seed=self.seed, epoch=lambda: trainer.current_epoch, **ranks)
        if self._resume:
            self._loader.load_state_dict(self._resume)
        return self._loader

    def val_dataloader(self) -> Batches | list[Any]:
        trainer = self.trainer
        assert trainer is not None
        return self._batches(self.valid, rank=trainer.global_rank, world=trainer.world_size) if self.valid else []

    def state_dict(self) -> dict[str, Any]:
        """Where training is. Lightning keeps the loader's state too, but gives it back when training has already asked for a batch."""
        return dict(self._loader.state_dict()) if self._loader else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._resume = state_dict


def _hash(dialogues: Sequence[Dialogue]) -> str:
    digest = hashlib.sha256()
    for dialogue in dialogues:
        digest.update(dialogue.model_dump_json(exclude_defaults=True).encode())
    return digest.hexdigest()


def fit_labels(task: Task, dialogues: Sequence[Dialogue]) -> Task:
    """The task with its label space: as configured, else what the annotations hold, sorted."""
    if task.labels:
        return task
    return task.with_labels(sorted({value for dialogue in dialogues for value in task.values(dialogue)}))


def annotated(task: Task, dialogue: Dialogue) -> bool:
    """Is there something in the dialogue that the task learns from? An untrained head would give labels that mean nothing."""
    if task.level == "token":
        return any(value in task.labels for value in task.values(dialogue))
    return bool(labelled(task.encode(dialogue, [None] * (2 * len(dialogue.turns)))).any())


def shorten(dialogue: Dialogue, lengths: Mapping[str, int], budget: int) -> Dialogue:
    """In training a dialogue longer than a batch is cut after the turns that fit (validation and labelling never cut)."""
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
