"""Labeler, the LightningModule of the network: the weighted sum of the tasks' losses, and the validation figures."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from torch import Tensor, nn

from labelgen.inputs.batch import Batch
from labelgen.io.wording import counted
from labelgen.metrics import Result, selection_score
from labelgen.model.encoder import Encoder
from labelgen.network import Network
from labelgen.tasks import Task
from labelgen.training.learner import Learner, MakeOptimizer

log = logging.getLogger(__name__)


class Labeler(Learner):
    """Trains a Network on whatever labels its batches have."""

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
        self.figures = {name: task.metrics() for name, task in tasks.items()}
        if wrong := [name for name, task in tasks.items() if task.score not in self.figures[name]]:
            score, names = tasks[wrong[0]].score, ", ".join(self.figures[wrong[0]])
            raise ValueError(f"task {wrong[0]}: its score {score!r} is none of its metrics; name one of {names}")
        # registered so that Lightning moves the states to the device
        self.metrics = nn.ModuleDict(
            {name: nn.ModuleDict({key: figure.metric for key, figure in figures.items()}) for name, figures in self.figures.items()}
        )
        self._scored: tuple[str, ...] | None = None  # the tasks last logged as scored

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
        for dialogue, predicted in zip(batch.dialogues, predictions, strict=True):
            for name, prediction in predicted.items():
                for figure in self.figures[name].values():
                    figure.observe(dialogue, prediction)

    def on_validation_epoch_end(self) -> None:
        """Logs each valid/TASK/METRIC that is defined, and valid/score, the `selection_score` of the tasks' scores."""
        scores = {}
        for name, figures in self.figures.items():
            results = {key: figure.metric.result() for key, figure in figures.items()}
            for figure in figures.values():
                figure.metric.reset()
            defined = {f"valid/{name}/{key}": result.value for key, result in results.items() if not math.isnan(result.value)}
            self.log_dict(defined, batch_size=1, sync_dist=True)  # equal on all ranks; Lightning cannot know that
            scores[name] = results[self.network.tasks[name].score]
        self._report_scored(scores)
        self.log("valid/score", selection_score(scores.values()), prog_bar=True, batch_size=1, sync_dist=True)

    def _report_scored(self, scores: Mapping[str, Result]) -> None:
        """Logs once which tasks valid/score is the mean of."""
        scored = tuple(name for name, result in scores.items() if result.positives)
        if scored == self._scored or self.trainer.sanity_checking:
            return
        self._scored = scored
        self.scored = {name: f"valid/{name}/{self.network.tasks[name].score}" for name in scored if scores[name].higher_is_better}
        named = ", ".join(f"{name} ({self.network.tasks[name].score}, {counted(scores[name].positives, 'positive')})" for name in scored)
        unscored = ", ".join(name for name in scores if name not in scored)
        why = f"; not of {unscored}: the validation dialogues hold no positive label of them" if unscored else ""
        if scored:
            log.info("valid/score is the mean of %s%s", named, why)
        else:
            log.warning("valid/score is 0: the validation dialogues hold no positive label of %s", unscored)


def plain(task: Task) -> dict[str, Any]:
    """A task's label space and fields as JSON values."""
    return {**asdict(task), "labels": list(task.labels)}
