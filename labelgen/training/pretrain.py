"""Pretraining without annotations. The model finds responses that were swapped between dialogues, and selects those that were hidden.

    dialogue -> swap_responses: some responses come from other dialogues -> SwappedResponses: some of the others get hidden -> targets [T]
    Pretrainer: the dialogue level does not see hidden responses -> states -> which were swapped? which response belongs here?

Responses swapped between dialogues stand in for defects. Selecting the right response among those of the batch is the contrastive
objective InfoNCE. Responses that are common to many dialogues ("Anything else?") would be right almost anywhere: they take no part.
"""

from __future__ import annotations

import logging
import random
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from functools import partial
from hashlib import blake2b
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from labelgen.dialogue import Dialogue, Label
from labelgen.inputs.batch import IGNORE, Batch, EncodeTarget, Encoding
from labelgen.io.wording import counted
from labelgen.metrics import Accuracy, AveragePrecision, selection_score
from labelgen.model.encoder import Encoder
from labelgen.model.losses import Loss, info_nce, masked_cross_entropy
from labelgen.tasks import Task
from labelgen.training.gather import gather_rows, is_distributed
from labelgen.training.learner import Learner, MakeOptimizer

log = logging.getLogger(__name__)

Source = Literal["anywhere", "same_domain"]
OWN, SWAPPED, MASKED = "own", "swapped", "masked"  # values of a response's label; common and missing responses have none
RESPONSE = "response"  # the task of these labels


def domains(dialogue: Dialogue) -> list[str | None]:
    """The domain of each turn: that of its intent (Domain/Intent), or else that of its goal. None: neither has one."""
    goals = [None if goal is None else (dialogue.goals or [])[goal].name for goal in dialogue.goal_of_turns()]
    named = [[name for name in (turn.intent, goal) if name and "/" in name] for turn, goal in zip(dialogue.turns, goals, strict=True)]
    return [names[0].split("/")[0] if names else None for names in named]


class ResponsePool:
    """The distinct responses of a corpus that take part, in order, by domain and over all domains (None). `common` ones take no part."""

    def __init__(self, dialogues: Sequence[Dialogue], common: float) -> None:
        """Responses that occur in more than the share `common` of the dialogues, and in more than two of them, take no part."""
        occurrences = Counter(text for dialogue in dialogues for text in {turn.response for turn in dialogue.turns} if text)
        limit = max(2.0, common * len(dialogues))
        self.common = frozenset(text for text, count in occurrences.items() if count > limit)
        found: defaultdict[str | None, dict[str, None]] = defaultdict(dict)
        for dialogue in dialogues:
            for turn, domain in zip(dialogue.turns, domains(dialogue), strict=True):
                if self.takes_part(turn.response):
                    found[domain][str(turn.response)] = found[None][str(turn.response)] = None
        self.texts = {domain: list(texts) for domain, texts in found.items()}

    def takes_part(self, text: str | None) -> bool:
        """Whether a response is neither missing nor empty nor common."""
        return bool(text) and text not in self.common

    def draw(self, domain: str | None, excluded: frozenset[str], rng: random.Random) -> str | None:
        """A response of the domain (None: of any) that is not excluded. None: there is none."""
        texts = self.texts.get(domain, [])
        start = rng.randrange(len(texts)) if texts else 0
        return next((text for text in (texts[start - k] for k in range(len(texts))) if text not in excluded), None)


class Swapped(NamedTuple):
    """A logged dialogue with responses of other dialogues at the turns `swapped`. `own`: turns that could have been swapped as well."""

    dialogue: Dialogue
    swapped: tuple[int, ...]
    own: tuple[int, ...]


def swap_responses(dialogues: Sequence[Dialogue], pool: ResponsePool, share: float, source: Source, seed: int | str) -> list[Swapped]:
    """Swaps each response that takes part, with probability `share`, for one that its dialogue does not hold.

    Draws depend only on `seed` and the dialogue's id. With `same_domain`, a turn whose domain is annotated gets a response of that domain,
    or keeps its own if the domain has no other. Annotations are read only for that and are not kept.
    """
    return [_swap(dialogue, pool, share, source, random.Random(f"swap {seed} {dialogue.id}")) for dialogue in dialogues]


def _swap(dialogue: Dialogue, pool: ResponsePool, share: float, source: Source, rng: random.Random) -> Swapped:
    responses = [turn.response for turn in dialogue.turns]
    excluded = frozenset(text for text in responses if text)
    wanted_domains = domains(dialogue) if source == "same_domain" else [None] * len(responses)
    swapped, own = {}, []
    for t, (text, domain) in enumerate(zip(responses, wanted_domains, strict=True)):
        chosen = rng.random() < share
        if not pool.takes_part(text):
            continue
        other = pool.draw(domain, excluded, rng) if chosen else None
        if other is None:
            own.append(t)
        else:
            swapped[t] = other
    logged = dialogue.content()
    turns = [turn.model_copy(update={"response": swapped[t]}) if t in swapped else turn for t, turn in enumerate(logged.turns)]
    return Swapped(logged.model_copy(update={"turns": turns}), tuple(swapped), tuple(own))


class SwappedResponses:
    """Makes the records to pretrain on. Responses are swapped with probability `swapped`; `masked` is the share of the others to hide.

    The labels of a record (task "response": own, swapped, masked) hold what was done. Every epoch draws again.
    Raises ValueError for wrong settings, or if no response takes part.
    """

    def __init__(
        self,
        dialogues: Sequence[Dialogue],
        swapped: float = 0.15,
        masked: float = 0.15,
        source: Source = "anywhere",
        common: float = 0.0003,
        seed: int = 0,
    ) -> None:
        shares = {"swapped": swapped, "masked": masked, "common": common}
        wrong = [f"{name}={value}" for name, value in shares.items() if not 0.0 <= value <= 1.0]
        if wrong:
            raise ValueError(f"augment.{wrong[0]}: give a share from 0 to 1")
        if source not in get_args(Source):
            raise ValueError(f"augment.source={source!r}: give one of {', '.join(get_args(Source))}")
        self.pool = ResponsePool(dialogues, common)
        if not self.pool.texts:
            raise ValueError(
                f"no response to swap or select: {counted(len(dialogues), 'dialogue')}, {counted(len(self.pool.common), 'common response')}"
            )
        self.swapped, self.masked, self.source, self.seed = swapped, masked, source, seed
        self.targets: Mapping[str, EncodeTarget] = {SWAPPED: swap_targets, MASKED: mask_targets}

    def __call__(self, dialogue: Dialogue, epoch: int) -> Dialogue:
        """The record of a dialogue in an epoch."""
        seed = f"{self.seed} {epoch}"
        [(record, swapped, own)] = swap_responses([dialogue], self.pool, self.swapped, self.source, seed)
        rng = random.Random(f"mask {seed} {dialogue.id}")
        hidden = {t for t in own if rng.random() < self.masked}
        turns_of = {SWAPPED: list(swapped), MASKED: sorted(hidden), OWN: [t for t in own if t not in hidden]}
        label = partial(Label, task=RESPONSE, confidence=1.0, source="swap_responses")
        return record.model_copy(update={"labels": [label(value=value, turns=turns) for value, turns in turns_of.items() if turns]})


def swap_targets(dialogue: Dialogue, utterances: Sequence[Encoding | None]) -> np.ndarray:
    """Target of each turn, [turns]: 1 swapped, 0 its own; IGNORE where the response is hidden or takes no part."""
    return _targets(dialogue, {OWN: 0, SWAPPED: 1})


def mask_targets(dialogue: Dialogue, utterances: Sequence[Encoding | None]) -> np.ndarray:
    """Target of each turn, [turns]: 1 hidden, to be selected; 0 another candidate; IGNORE where the response takes no part."""
    return _targets(dialogue, {OWN: 0, SWAPPED: 0, MASKED: 1})


def _targets(dialogue: Dialogue, classes: Mapping[str, int]) -> np.ndarray:
    target = np.full(len(dialogue.turns), IGNORE, np.int64)
    for label in dialogue.labels or ():
        if label.task == RESPONSE and label.value in classes:
            target[label.turns] = classes[label.value]
    return target


class Selection(NamedTuple):
    """Hidden responses as queries and distinct responses as keys. keys[right[q]] is the response that belongs to query q."""

    queries: Float[Tensor, "Q D"]
    keys: Float[Tensor, "P D"]
    texts: Int[Tensor, " P"]  # a number for the text of each key, the same in all processes
    right: Int[Tensor, " Q"]


def number_of(text: str) -> int:
    """A number for a text, the same in all processes: 64 bits of its BLAKE2 hash."""
    return int.from_bytes(blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little", signed=True)


def gather_keys(selection: Selection) -> Selection:
    """The queries of this process, to be selected among the distinct responses of all processes."""
    if not is_distributed():
        return selection
    keys, texts = gather_rows(selection.keys), gather_rows(selection.texts)
    distinct, which = torch.unique(texts, return_inverse=True)
    rows = torch.arange(len(texts), device=texts.device)
    first = torch.full_like(distinct, len(texts)).scatter_reduce(0, which, rows, "amin")  # one row of each text
    return Selection(selection.queries, keys[first], distinct, torch.searchsorted(distinct, selection.texts[selection.right]))


class Pretrainer(Learner):
    """Trains an encoder to find swapped responses and to select hidden ones; `labelgen train pretrained=RUN` starts from it.

    Candidates are the distinct responses of the global batch that take part: those of all processes, hidden, visible and swapped. So the
    negatives of a query are the other texts: those of other dialogues, and those of its own dialogue, which are hard because they share
    its topic. Equal texts are one candidate, so that none is its own negative. More devices or larger batches mean more negatives.

    valid/score is the mean of the average precision of swaps and the accuracy of selection. The latter is harder in larger batches.
    """

    def __init__(
        self,
        encoder: Encoder,
        tasks: Mapping[str, Task],
        optimizer: MakeOptimizer,
        lr: float = 1e-3,
        encoder_rate: float = 0.2,
        layer_decay: float = 0.9,
        warmup: float = 0.05,
        temperature: float = 0.1,
        selection_weight: float = 0.3,
    ) -> None:
        """`temperature` divides the cosines of a selection. The total loss is the swap loss + `selection_weight` * the selection loss."""
        if tasks:
            raise ValueError(f"tasks: pretraining reads no annotations, leave out {', '.join(tasks)}")
        super().__init__(encoder, optimizer, lr, encoder_rate, layer_decay, warmup)
        self.encoder = encoder
        self.swap_head = nn.Linear(encoder.width, 2)
        self.query = nn.Linear(encoder.width, encoder.width)
        self.key = nn.Linear(encoder.width, encoder.width)
        self.temperature, self.weights = temperature, {"swap": 1.0, "selection": selection_weight}
        self.swap_precision = AveragePrecision()
        self.selection_accuracy = Accuracy()

    def describe(self) -> dict[str, Any]:
        """The encoder as plain values. There are no tasks, because there is nothing to export."""
        return {"encoder": self.encoder.describe(), "tokenizer": self.encoder.tokenizer.to_str()}

    def forward(self, batch: Batch) -> tuple[Float[Tensor, "T 2"], Selection]:
        """Logits of "swapped", and the selection among the responses of the batch. ValueError if no SwappedResponses made the records."""
        if MASKED not in batch.targets:
            raise ValueError("data.augment: pretraining needs records made for it; labelgen.training.pretrain.SwappedResponses makes them")
        masked = batch.targets[MASKED]
        tokens = self.encoder.turn_encoder(batch.ids, batch.groups, batch.frozen_states)
        texts = self.encoder.turn_encoder.pool(tokens, batch.groups)
        states = self.encoder(batch, tokens, hidden=masked == 1).response
        responses = batch.utterances[1::2]
        candidates = torch.unique(responses[masked != IGNORE])  # in order, each text once
        numbers = torch.tensor([number_of(batch.texts[n]) for n in candidates.tolist()], dtype=torch.long, device=masked.device)
        right = torch.searchsorted(candidates, responses[masked == 1])
        return self.swap_head(states), Selection(self.query(states[masked == 1]), self.key(texts[candidates]), numbers, right)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        return self.weighted(self.losses(batch), self.weights, batch)

    def losses(self, batch: Batch) -> dict[str, Loss]:
        """Loss of each objective; the selection is made among the responses of all processes."""
        logits, selection = self(batch)
        queries, keys, _, right = gather_keys(selection)
        if len(keys):
            selected = info_nce(queries, keys, right, self.temperature)
        else:
            selected = Loss((queries.sum() + keys.sum()) * 0.0, torch.zeros((), dtype=torch.long, device=queries.device))
        return {"swap": masked_cross_entropy(logits, batch.targets[SWAPPED]), "selection": selected}

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        logits, selection = self(batch)
        queries, keys, _, right = gather_keys(selection)
        target = batch.targets[SWAPPED]
        known = target != IGNORE
        scores = logits[known].float().softmax(1)[:, 1]
        self.swap_precision.update(scores, target[known].bool())
        if len(queries):
            cosines = nn.functional.normalize(queries.float(), dim=1) @ nn.functional.normalize(keys.float(), dim=1).T
            self.selection_accuracy.update(cosines.argmax(1), right)

    def on_validation_epoch_end(self) -> None:
        """Logs valid/swap/ap, valid/selection/accuracy and valid/score, the mean of those that have positives."""
        metrics = {"valid/swap/ap": self.swap_precision, "valid/selection/accuracy": self.selection_accuracy}
        results = {name: metric.result() for name, metric in metrics.items()}
        for metric in metrics.values():
            metric.reset()
        defined = {name: result.value for name, result in results.items() if result.positives}
        if not defined:
            log.warning("validation: no response was swapped or hidden; valid/score is 0")
        self.log_dict(defined, batch_size=1, sync_dist=True)
        self.log("valid/score", selection_score(results.values()), prog_bar=True, batch_size=1, sync_dist=True)
