"""The encoder with a head for each task, and its predictions; plain torch, so that an export needs nothing else."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from labelgen.inputs.batch import Batch, TextEncoder
from labelgen.metrics import Prediction
from labelgen.model.encoder import Encoder
from labelgen.model.losses import Loss
from labelgen.tasks import Decoded, Task


class Network(nn.Module):
    """Encoder + heads. `tasks` maps names to tasks whose label spaces are known."""

    def __init__(self, encoder: Encoder, tasks: Mapping[str, Task]) -> None:
        super().__init__()
        wrong = {name: task.name for name, task in tasks.items() if name != task.name}
        if wrong:
            raise ValueError(f"tasks: the key must be the task's name, but {wrong}")
        self.encoder = encoder
        self.tasks = dict(tasks)
        self.heads = nn.ModuleDict({name: task.head(encoder.width, encoder.settings.dropout) for name, task in tasks.items()})

    def text_encoder(self) -> TextEncoder:
        """The tokenizer that belongs to the encoder."""
        return TextEncoder(self.encoder.tokenizer, self.encoder.max_tokens)

    def forward(self, batch: Batch, tokens: Tensor | None = None) -> dict[str, Tensor]:
        """Logits of each task, [rows, K]. `tokens` [L, D]: states of the turn encoder, if they are already known."""
        states = self.encoder(batch, tokens)
        return {name: head(states, batch) for name, head in self.heads.items()}

    def losses(self, logits: Mapping[str, Tensor], batch: Batch) -> dict[str, Loss]:
        """Loss of each task."""
        return {name: task.loss(logits[name], batch) for name, task in self.tasks.items()}

    def predict(self, logits: Mapping[str, Tensor], batch: Batch, source: str) -> list[dict[str, Prediction]]:
        """The predictions of each task for each dialogue of the batch, in its order. `source` becomes the source of the labels.

        Tasks are decoded in order, so that each can read the labels of those before it.
        """
        rows = {name: self._probabilities(name, logits[name], batch) for name in self.tasks}
        predictions = []
        for b, (dialogue, utterances) in enumerate(zip(batch.dialogues, batch.encodings, strict=True)):
            decoded: dict[str, list[Decoded]] = {}
            for name, task in self.tasks.items():
                decoded[name] = task.decode(rows[name][b], dialogue, utterances, decoded)
            labels = {name: [item.label(name, source) for item in items] for name, items in decoded.items()}
            predictions.append({name: Prediction(labels[name], rows[name][b]) for name in self.tasks})
        return predictions

    def _probabilities(self, name: str, logits: Tensor, batch: Batch) -> list[np.ndarray]:
        """Softmax of a task's logits, split into the rows of each dialogue."""
        probabilities = torch.softmax(logits.float(), 1).cpu().numpy()
        return np.split(probabilities, np.cumsum(self.tasks[name].rows(batch))[:-1])
