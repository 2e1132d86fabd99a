"""The encoder with a head for each task, and its predictions; plain torch, so that an export needs nothing else."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from labelgen.dialogue import Label
from labelgen.inputs.batch import Batch, TextEncoder
from labelgen.metrics import Prediction
from labelgen.model.encoder import Encoder
from labelgen.model.losses import Loss
from labelgen.tasks import Task


class Network(nn.Module):
    """Encoder + heads. `tasks` maps names to tasks whose label spaces are known."""

    def __init__(self, encoder: Encoder, tasks: Mapping[str, Task]) -> None:
        super().__init__()
        wrong = {name: task.name for name, task in tasks.items() if name != task.name}
        if wrong:
            raise ValueError(f"tasks: the key must be the task's name, but {wrong}")
        self.encoder = encoder
        self.tasks = dict(tasks)
        self.heads = nn.ModuleDict({name: task.head(encoder.width) for name, task in tasks.items()})

    def text_encoder(self) -> TextEncoder:
        """The tokenizer that belongs to the encoder."""
        return TextEncoder(self.encoder.tokenizer, self.encoder.max_tokens)

    def forward(self, batch: Batch, tokens: Tensor | None = None) -> dict[str, Tensor]:
        """Logits of each task, [T, K] or [M, K]. `tokens` [L, D]: states of the turn encoder, where they are known already."""
        states = self.encoder(batch, tokens)
        return {name: head(states, batch) for name, head in self.heads.items()}

    def losses(self, logits: Mapping[str, Tensor], batch: Batch) -> dict[str, Loss]:
        """Loss of each task."""
        return {name: task.loss(logits[name], batch) for name, task in self.tasks.items()}

    def predict(self, logits: Mapping[str, Tensor], batch: Batch, source: str) -> list[dict[str, Prediction]]:
        """Per dialogue of the batch, in its order: what each task says."""
        rows = {"turn": batch.num_turns, "token": batch.num_tokens}
        split = {
            name: np.split(torch.softmax(logits[name].float(), 1).cpu().numpy(), np.cumsum(rows[task.level])[:-1])
            for name, task in self.tasks.items()
        }
        predictions = []
        for b, (dialogue, utterances) in enumerate(zip(batch.dialogues, batch.encodings, strict=True)):
            decoded: dict[str, list[Label]] = {}
            said: dict[str, Prediction] = {}
            for name, task in self.tasks.items():
                labels = task.decode(split[name][b], dialogue, utterances, decoded)
                decoded[name] = [label.model_copy(update={"source": source}) for label in labels]
                said[name] = Prediction(decoded[name], split[name][b])
            predictions.append(said)
        return predictions
