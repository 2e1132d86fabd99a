"""Labeler: the network under Lightning. The sum of the tasks' losses over what is labelled, its optimizer, its validation figures."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn

from labelgen.inputs.batch import Batch
from labelgen.model.encoder import Encoder
from labelgen.network import Network
from labelgen.tasks import Task
from labelgen.training.learner import Learner, MakeOptimizer

log = logging.getLogger(__name__)


class Labeler(Learner):
    """Trains a Network on whatever its batches are labelled with."""

    def __init__(
        self,
        encoder: Encoder,
        tasks: Mapping[str, Task],
        optimizer: MakeOptimizer,
        lr: float = 1e-3,
        encoder_rate: float = 0.1,
        layer_decay: float = 0.9,
        warmup: float = 0.05,
    ) -> None:
        if not tasks:
            raise ValueError("tasks: there is none to train; configure one that the training dialogues are annotated for")
        super().__init__(encoder, optimizer, lr, encoder_rate, layer_decay, warmup)
        self.network = Network(encoder, tasks)
        self.scored = {name: task.metrics() for name, task in tasks.items()}
        # the same, where Lightning finds them and moves them to the device
        self.metrics = nn.ModuleDict({name: nn.ModuleDict(dict(metrics)) for name, metrics in self.scored.items()})

    def describe(self) -> dict[str, Any]:
        """The network as plain values: architecture, tokenizer and tasks with their label spaces."""
        encoder = self.network.encoder
        tasks = {name: {"_target_": f"{type(t).__module__}.{type(t).__qualname__}", **plain(t)} for name, t in self.network.tasks.items()}
        return {"encoder": encoder.describe(), "tokenizer": encoder.tokenizer.to_str(), "tasks": tasks}

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        losses = self.network.losses(self.network(batch), batch)
        return self.weighted(losses, {name: task.weight for name, task in self.network.tasks.items()}, batch)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        predictions = self.network.predict(self.network(batch), batch, "validation")
        for dialogue, said in zip(batch.dialogues, predictions, strict=True):
            for name, prediction in said.items():
                for metric in self.scored[name].values():
                    metric.observe(dialogue, prediction)

    def on_validation_epoch_end(self) -> None:
        """Logs valid/TASK/METRIC where there are labels, and valid/score: the mean over tasks of each task's first metric."""
        first = []
        for name, metrics in self.scored.items():
            values = {key: metric.compute() for key, metric in metrics.items()}
            for metric in metrics.values():
                metric.reset()
            known = {key: value for key, value in values.items() if not value.isnan()}
            self.log_dict({f"valid/{name}/{key}": value for key, value in known.items()}, batch_size=1, sync_dist=True)
            first += [value for key, value in known.items() if key == next(iter(metrics))]
        if not first:
            log.warning("validation: nothing is labelled; valid/score is 0")
        score = torch.stack(first).mean() if first else torch.tensor(0.0)
        self.log("valid/score", score.float(), prog_bar=True, batch_size=1, sync_dist=True)


def plain(task: Task) -> dict[str, Any]:
    """A task's fields as JSON values."""
    return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(task).items()}
