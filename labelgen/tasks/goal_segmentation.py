"""Goal segmentation: which turns serve one aim of the user. Each turn points to an earlier turn of its goal, or opens a new one.

The pointer is that of coreference (Lee et al. 2017): a turn's goal is right if it points to any turn of it, so that goals may be left
and resumed. A boundary is a turn whose goal differs from that of the turn before.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn

from labelgen.dialogue import Dialogue, Label
from labelgen.inputs.batch import IGNORE, Batch, Encoding, Group
from labelgen.metrics import BoundaryF1, DialogueMetric, PairwiseF1, Pk, Prediction, WindowDiff
from labelgen.model.encoder import States
from labelgen.model.losses import Loss, marginal_cross_entropy
from labelgen.model.packed import sizes
from labelgen.tasks import Decoded, Task


class PointerHead(nn.Module):
    """Scores of each turn's choices, [T, 1 + longest dialogue]: a new goal, then each turn of the dialogue; -inf where not earlier."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.new = nn.Linear(width, 1)
        self.stay = nn.Linear(width, 1)  # added to the turn right before: most goals go on

    def forward(self, states: States, batch: Batch) -> Float[Tensor, "T K"]:
        requests = states.request
        longest = max(length for _, length in batch.turns)
        parts = []
        for group, part in zip(batch.turns, requests.split(sizes(batch.turns)), strict=True):
            turns = rearrange(part, "(b t) d -> b t d", b=group.count)
            scores = torch.einsum("bqd,bkd->bqk", self.query(turns), self.key(turns)) * self.width**-0.5
            scores = scores + torch.diag_embed(rearrange(self.stay(turns), "b t 1 -> b t")[:, 1:], offset=-1)
            earlier = torch.ones(group.length, group.length, dtype=torch.bool, device=part.device).tril(-1)
            scores = torch.cat([self.new(turns), scores.masked_fill(~earlier, float("-inf"))], dim=2)
            scores = nn.functional.pad(scores, (0, longest - group.length), value=float("-inf"))
            parts.append(rearrange(scores, "b t k -> (b t) k"))
        return torch.cat(parts)


class Choices(NamedTuple):
    """Right and allowed choices of each turn, [T, K] in the order of the logits."""

    right: Bool[Tensor, "T K"]
    allowed: Bool[Tensor, "T K"]


def choices(goals: Tensor, turns: Sequence[Group], width: int) -> Choices:
    """Goal numbers of the turns [T] -> choices. Earlier turns whose goal is unknown are right for no turn and wrong for none."""
    rights, alloweds = [], []
    for group, part in zip(turns, goals.split(sizes(turns)), strict=True):
        goal = rearrange(part, "(b t) -> b t", b=group.count)
        known = goal != IGNORE
        earlier = torch.ones(group.length, group.length, dtype=torch.bool, device=goal.device).tril(-1)
        same = earlier & known[:, None, :] & (goal[:, :, None] == goal[:, None, :])
        unknown = earlier & ~known[:, None, :]
        opens = ~same.any(2, keepdim=True)  # the first known turn of its goal: new, or a return to an unknown turn
        right = torch.cat([opens, same | (opens & unknown)], dim=2)
        allowed = torch.cat([torch.ones_like(opens), earlier & (~unknown | opens)], dim=2)
        judged = known & (torch.arange(group.length, device=goal.device) > 0)  # a first turn has no choice
        pad = (0, width - 1 - group.length)
        rights.append(rearrange(nn.functional.pad(right & judged[:, :, None], pad), "b t k -> (b t) k"))
        alloweds.append(rearrange(nn.functional.pad(allowed, pad), "b t k -> (b t) k"))
    return Choices(torch.cat(rights), torch.cat(alloweds))


@dataclass(frozen=True)
class GoalSegmentation(Task):
    """Goals as sets of turns."""

    name: ClassVar[str] = "goal_segmentation"

    def values(self, dialogue: Dialogue) -> Iterable[str]:
        return ()

    def encode(self, dialogue: Dialogue, utterances: Sequence[Encoding | None]) -> np.ndarray:
        return np.array([IGNORE if goal is None else goal for goal in dialogue.goal_of_turns()], np.int64)

    def head(self, width: int) -> nn.Module:
        return PointerHead(width)

    def loss(self, logits: Tensor, batch: Batch) -> Loss:
        return marginal_cross_entropy(logits, *choices(batch.targets[self.name], batch.turns, logits.shape[1]))

    def metrics(self) -> dict[str, DialogueMetric]:
        return {
            "boundary_f1": BoundaryF1(self._read),
            "pairwise_f1": PairwiseF1(self._read),
            "pk": Pk(self._read),
            "window_diff": WindowDiff(self._read),
        }

    def _read(self, dialogue: Dialogue, prediction: Prediction) -> tuple[list[int | None], list[int | None]]:
        predicted: list[int | None] = [None] * len(dialogue.turns)
        for label in prediction.labels:
            for turn in label.turns:
                predicted[turn] = int(label.value)
        return dialogue.goal_of_turns(), predicted

    def decode(self, probabilities: np.ndarray, dialogue: Dialogue, utterances: Sequence[Encoding | None], decoded: Decoded) -> list[Label]:
        """Turn by turn the most probable goal. A goal's confidence: the probability that exactly these turns are its turns.

        That takes the turns' choices as independent and the earlier turns as decoded: the opening turn opens a goal, each later turn
        of the goal joins it, and each later turn outside does not.
        """
        goals: list[list[int]] = []
        confidences: list[float] = []
        for t, row in enumerate(probabilities):
            to_goals = [float(row[[1 + turn for turn in goal]].sum()) for goal in goals]
            best = max(range(len(goals)), key=to_goals.__getitem__, default=-1)
            opens = t == 0 or row[0] >= to_goals[best]
            for g, joins in enumerate(to_goals):
                confidences[g] *= joins if g == best and not opens else max(1.0 - joins, 0.0)
            if opens:
                goals.append([t])
                confidences.append(1.0 if t == 0 else float(row[0]))
            else:
                goals[best].append(t)
        pairs = enumerate(zip(goals, confidences, strict=True))
        return [Label(task=self.name, value=str(g), turns=goal, confidence=min(c, 1.0), source="") for g, (goal, c) in pairs]
