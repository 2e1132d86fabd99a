"""Learner: what every model that trains here shares. Layer-wise learning rates, schedule, means over the global batch, checkpoints."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from labelgen.inputs.batch import Batch
from labelgen.model.encoder import Encoder
from labelgen.model.losses import Loss

MakeOptimizer = Callable[[Iterable[dict[str, Any]]], Optimizer]


def parameter_groups(module: nn.Module, encoder: Encoder, rate: float, encoder_rate: float, layer_decay: float) -> list[dict[str, Any]]:
    """Groups for an optimizer: `rate` above the turn encoder; in it `rate * encoder_rate * layer_decay ** depth`. Vectors do not decay."""
    scale = {id(p): encoder_rate * layer_decay**depth for p, depth in encoder.parameter_depths()}
    groups: dict[tuple[float, bool], dict[str, Any]] = {}
    for parameter in module.parameters():
        if parameter.requires_grad:
            key = (scale.get(id(parameter), 1.0), parameter.ndim > 1)
            group = groups.setdefault(key, {"params": [], "lr": rate * key[0], **({} if key[1] else {"weight_decay": 0.0})})
            group["params"].append(parameter)
    return list(groups.values())


def warm_up_and_decay(warmup: float, total: int) -> Callable[[int], float]:
    """Linear from 0 to 1 over the share `warmup` of `total` steps, then linear to 0."""
    first = max(1, round(warmup * total))
    return lambda step: min((step + 1) / first, max(0.0, (total - step) / max(1, total - first)))


class Learner(pl.LightningModule):
    """What the Labeler and the Pretrainer share: an optimizer with layer-wise rates, a schedule, losses averaged over the global batch."""

    def __init__(
        self, encoder: Encoder, optimizer: MakeOptimizer, lr: float, encoder_rate: float, layer_decay: float, warmup: float
    ) -> None:
        super().__init__()
        self._encoder = [encoder]  # in a list: the owner registers it
        self.make_optimizer, self.lr, self.encoder_rate, self.layer_decay, self.warmup = optimizer, lr, encoder_rate, layer_decay, warmup
        self._seed = 0
        self.description: dict[str, Any] = {}  # what a checkpoint tells of itself, beside the weights

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """What was trained, as plain values."""

    def configure_optimizers(self) -> Any:
        groups = parameter_groups(self, self._encoder[0], self.lr, self.encoder_rate, self.layer_decay)
        optimizer = self.make_optimizer(groups)
        total = int(self.trainer.estimated_stepping_batches)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": LambdaLR(optimizer, warm_up_and_decay(self.warmup, total)), "interval": "step"},
        }

    def on_fit_start(self) -> None:
        self._seed = torch.initial_seed()

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Each step draws its own random numbers, so that a resumed run goes on as if it had never stopped."""
        step = np.random.SeedSequence([self._seed, self.current_epoch, batch_idx, self.global_rank])
        torch.manual_seed(int(step.generate_state(1)[0]))

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
        size = len(batch.dialogues)
        self.log_dict({f"train/{name}_loss": mean.detach() for name, mean in means.items()}, batch_size=size, sync_dist=True)
        self.log("train/loss", total.detach(), prog_bar=True, batch_size=size, sync_dist=True)
        return total

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["labelgen"] = self.description
