"""Learner, the base of all models that are trained here: layer-wise learning rates, schedule, means over the global batch, checkpoints."""

from __future__ import annotations

import logging
import math
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import EarlyStopping, Timer
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from labelgen.inputs.batch import Batch
from labelgen.model.encoder import Encoder
from labelgen.model.losses import Loss
from labelgen.training.callbacks import relocate
from labelgen.training.schedule import Schedule

log = logging.getLogger(__name__)
MakeOptimizer = Callable[[Iterable[dict[str, Any]]], Optimizer]


def parameter_groups(module: nn.Module, encoder: Encoder, rate: float, encoder_rate: float, layer_decay: float) -> list[dict[str, Any]]:
    """Groups for an optimizer. The rate is `rate` above the turn encoder, and `rate * encoder_rate * layer_decay ** depth` in it.

    Vectors have no weight decay.
    """
    scales = {id(p): encoder_rate * layer_decay**depth for p, depth in encoder.parameter_depths()}
    groups: dict[tuple[float, bool], dict[str, Any]] = {}
    for parameter in module.parameters():
        if parameter.requires_grad:
            scale, decays = scales.get(id(parameter), 1.0), parameter.ndim > 1
            group = groups.setdefault((scale, decays), {"params": [], "lr": rate * scale, **({} if decays else {"weight_decay": 0.0})})
            group["params"].append(parameter)
    return list(groups.values())


class Learner(pl.LightningModule):
    """Base of Labeler and Pretrainer: an optimizer with layer-wise rates, a schedule, and losses averaged over the global batch."""

    def __init__(
        self, encoder: Encoder, optimizer: MakeOptimizer, lr: float, encoder_rate: float, layer_decay: float, warmup: float
    ) -> None:
        super().__init__()
        self._encoder = [encoder]  # in a list: the owner registers it
        self.make_optimizer, self.lr, self.encoder_rate, self.layer_decay, self.warmup = optimizer, lr, encoder_rate, layer_decay, warmup
        self._seed = 0
        self._losses: dict[str, Tensor] = {}  # of the step
        self._schedule: Schedule | None = None
        self._resumed_at = 0  # step
        self.scored: dict[str, str] = {}  # task -> the column of metrics.csv with its score, for tasks with positives to validate on
        self.description: dict[str, Any] = {}  # what a checkpoint holds besides the weights, as plain values

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """What was trained, as plain values."""

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """An optimizer with the Schedule of the trainer's budget: steps (max_epochs, max_steps), seconds (max_time), or both."""
        optimizer = self.make_optimizer(parameter_groups(self, self._encoder[0], self.lr, self.encoder_rate, self.layer_decay))
        bound, timer = self.trainer.estimated_stepping_batches, self._timer()
        steps = None if bound == math.inf else int(bound)
        seconds = None if timer is None else round(timer.time_elapsed() + (timer.time_remaining() or 0.0), 3)
        if self._schedule is None:
            self._schedule = Schedule(self.warmup, steps, seconds)
        else:
            self._schedule = self._schedule.resumed(self._resumed_at, self._elapsed(), steps, seconds)
        scheduler = LambdaLR(optimizer, self._factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def _factor(self, step: int) -> float:
        assert self._schedule is not None, "configure_optimizers sets it"
        return self._schedule.factor(step, self._elapsed())

    def _timer(self) -> Timer | None:
        """The callback that ends the run at trainer.max_time."""
        return next((callback for callback in self.trainer.callbacks if isinstance(callback, Timer)), None)  # type: ignore[attr-defined]

    def _elapsed(self) -> float:
        """Seconds of training, including those before an interruption. The same on all ranks."""
        timer = self._timer()
        return float(self.trainer.strategy.broadcast(timer.time_elapsed())) if timer else 0.0

    def on_fit_start(self) -> None:
        self._seed = torch.initial_seed()
        stopping = [callback for callback in self.trainer.callbacks if isinstance(callback, EarlyStopping)]  # type: ignore[attr-defined]
        if any(callback.wait_count >= callback.patience for callback in stopping):
            self.trainer.should_stop = True  # a resumed run that had been stopped early has nothing left to do

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Each step draws its own random numbers, so that a resumed run continues as if it had never stopped."""
        step = np.random.SeedSequence([self._seed, self.current_epoch, batch_idx, self.global_rank])
        torch.manual_seed(int(step.generate_state(1)[0]))

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Logs a step before a checkpoint counts it. Lightning would log it afterwards, and a kill in between would lose the row."""
        every = self.trainer.log_every_n_steps  # type: ignore[attr-defined]
        if every and (self.global_step + 1) % every == 0:
            losses = {name: float(self.trainer.strategy.reduce(loss, reduce_op="mean")) for name, loss in self._losses.items()}
            rate = max(group["lr"] for group in optimizer.param_groups)
            for logger in self.loggers:
                logger.log_metrics({"epoch": self.current_epoch, "lr": rate, **losses}, step=self.global_step)

    def on_validation_end(self) -> None:
        """Logs a line with the loss and the score."""
        metrics = self.trainer.callback_metrics
        if {"valid/score", "train/loss"} <= metrics.keys():
            numbers = self.current_epoch, self.global_step, metrics["train/loss"], metrics["valid/score"]
            log.info("epoch %d, step %d: train/loss %.4f, valid/score %.4f", *numbers)

    def mean(self, loss: Loss) -> Tensor:
        """The mean over the labelled items of the global batch, scaled so that averaging gradients over ranks keeps it."""
        if self.trainer.world_size == 1:
            return loss.total / loss.count.clamp(min=1)
        count = self.trainer.strategy.reduce(loss.count.clone(), reduce_op="sum")
        mean: Tensor = loss.total * self.trainer.world_size / count.clamp(min=1)
        return mean

    def weighted(self, losses: Mapping[str, Loss], weights: Mapping[str, float], batch: Batch) -> Tensor:
        """The weighted sum of the means, logged one by one."""
        means = {name: self.mean(loss) for name, loss in losses.items()}
        total = torch.stack([weights[name] * mean for name, mean in means.items()]).sum()
        self._losses = {"train/loss": total.detach(), **{f"train/{name}_loss": mean.detach() for name, mean in means.items()}}
        self.log("train/loss", total.detach(), prog_bar=True, logger=False, batch_size=len(batch.dialogues))
        return total

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["labelgen"] = self.description
        checkpoint["schedule"] = asdict(self._schedule) if self._schedule else None

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restores the schedule, which `configure_optimizers` then continues."""
        self._schedule = Schedule(**checkpoint["schedule"]) if checkpoint["schedule"] else None
        self._resumed_at = int(checkpoint["global_step"])
        relocate(checkpoint, Path(self.trainer.default_root_dir, "checkpoints").resolve())
