"""Goal segmentation: which turns serve one aim of the user. Each turn points to an earlier turn of its goal, or opens a new one.

The pointer works as in coreference resolution (Lee et al. 2017): it is right if it points to any earlier turn of the same goal, so goals
may be left and resumed. A boundary is a turn whose goal differs from that of the turn before.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from labelgen.dialogue import Dialogue
from labelgen.inputs.batch import IGNORE, Batch, Group
from labelgen.io.display import DISPLAYS, GOAL_SEGMENTATION
from labelgen.metrics import BoundaryF1, Compared, Figure, PairwiseF1, Pk, Prediction, WindowDiff
from labelgen.model.encoder import States
from labelgen.model.losses import Loss, marginal_cross_entropy
from labelgen.model.packed import sizes
from labelgen.tasks import Baseline, Decoded, Earlier, Guess, Task, Utterances

HYPOTHESES = 256  # of a beam search; six turns have 203 partitions
SUMS = 2**18  # bounds the numbers that a search adds up per dialogue: hypotheses times the square of the number of turns


class PointerHead(nn.Module):
    """Scores each turn's choices, [T, 1 + longest dialogue]: a new goal, then each turn of the dialogue (-inf if it is not earlier)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.new = nn.Linear(width, 1)
        self.stay = nn.Linear(width, 1)  # added to the score of the turn right before, because most goals continue

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
    """Goal numbers of the turns [T] -> choices. Earlier turns whose goal is unknown count as neither right nor wrong."""
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
        judged = known & (torch.arange(group.length, device=goal.device) > 0)  # the first turn of a dialogue has no choice
        pad = (0, width - 1 - group.length)
        rights.append(rearrange(nn.functional.pad(right & judged[:, :, None], pad), "b t k -> (b t) k"))
        alloweds.append(rearrange(nn.functional.pad(allowed, pad), "b t k -> (b t) k"))
    return Choices(torch.cat(rights), torch.cat(alloweds))


@dataclass(frozen=True)
class GoalSegmentation(Task):
    """Goals as sets of turns."""

    name: ClassVar[str] = GOAL_SEGMENTATION
    display: ClassVar = DISPLAYS[name]
    score: ClassVar[str] = "boundary_f1"
    labels = ()  # a goal's value is its number

    def encode(self, dialogue: Dialogue, utterances: Utterances) -> np.ndarray:
        return np.array([IGNORE if goal is None else goal for goal in dialogue.goal_of_turns()], np.int64)

    def head(self, width: int, dropout: float) -> nn.Module:
        return PointerHead(width)

    def loss(self, logits: Tensor, batch: Batch) -> Loss:
        return marginal_cross_entropy(logits, *choices(batch.targets[self.name], batch.turns, logits.shape[1]))

    def metrics(self) -> dict[str, Figure]:
        return {
            "boundary_f1": Figure(BoundaryF1(), self._read),
            "pairwise_f1": Figure(PairwiseF1(), self._read),
            "pk": Figure(Pk(), self._read),
            "window_diff": Figure(WindowDiff(), self._read),
        }

    def _read(self, dialogue: Dialogue, prediction: Prediction) -> Compared:
        predicted: list[int | None] = [None] * len(dialogue.turns)
        for label in prediction.labels:
            for turn in label.turns:
                predicted[turn] = int(label.value)
        return Compared(predicted, dialogue.goal_of_turns())

    def decode(self, probabilities: np.ndarray, dialogue: Dialogue, utterances: Utterances, earlier: Earlier) -> list[Decoded]:
        """The goals of the partition that `partition` finds, in the order of their first turns."""
        goals = partition(probabilities)
        found = enumerate(zip(turns_of(goals), confidences(probabilities, goals), strict=True))
        return [Decoded(str(g), turns.tolist(), confidence) for g, (turns, confidence) in found]

    def majority(self, dialogues: Iterable[Dialogue]) -> Baseline:
        """One goal per dialogue."""
        return Goals(self, opens=False)

    def eager(self, dialogues: Iterable[Dialogue]) -> Baseline:
        """A new goal at each turn."""
        return Goals(self, opens=True)


@dataclass(frozen=True)
class Goals(Baseline):
    """Every turn opens a goal (`opens`), or every turn joins the turn before."""

    task: GoalSegmentation
    opens: bool

    def guess(self, dialogue: Dialogue, earlier: Earlier) -> Guess:
        turns = len(dialogue.turns)
        rows = np.tile(np.eye(1, 1 + turns), (turns, 1)) if self.opens else np.eye(turns, 1 + turns)
        return Guess(self.task.decode(rows, dialogue, [], earlier), rows)


def partition(probabilities: Float[np.ndarray, "T K"]) -> Int[np.ndarray, " T"]:
    """The most probable partition of a dialogue's turns into goals, as far as it is found: the goal number of each turn, by first turns.

    Each turn chooses a new goal or an earlier turn, independently of the others. So the probability of a partition is the product of
    the probabilities of its turns' goals, given the goals of the turns before. Taking the best goal turn by turn (`greedy`) can miss the
    best product. If a bound proves that no partition is better, the greedy one is returned; otherwise `search` looks for a better one. The
    result is exact for up to seven turns, and for more if at most HYPOTHESES partitions of the first turns can still win.
    """
    goals = greedy(probabilities)
    chosen = choice_probabilities(probabilities, goals)
    ceilings = np.maximum(probabilities[:, 0], 1.0 - probabilities[:, 0], dtype=np.float64)  # bounds of each factor
    ceilings[0] = 1.0
    with np.errstate(divide="ignore"):
        log_chosen, log_ceilings, log_others = np.log(chosen), np.log(ceilings), np.log(np.clip(1.0 - chosen, 0.0, chosen))
    before = np.append(0.0, log_chosen.cumsum())[:-1]
    after = np.append(log_ceilings[::-1].cumsum()[::-1], 0.0)[1:]
    bounds = before + log_others + after  # on partitions that first differ from the greedy one at turn t
    if not (bounds[1:] > log_chosen.sum()).any():
        return goals
    better = search(probabilities, after, log_chosen.sum() + 1e-9, max(1, min(HYPOTHESES, SUMS // len(goals) ** 2)))
    return goals if better is None else better


def greedy(probabilities: Float[np.ndarray, "T K"]) -> Int[np.ndarray, " T"]:
    """Takes, turn by turn, the most probable goal given the goals of the turns before. A new goal wins ties. Returns goal numbers [T]."""
    goals = np.zeros(len(probabilities), np.int64)
    count = 1
    for t in range(1, len(goals)):
        joins = np.bincount(goals[:t], probabilities[t, 1 : 1 + t])
        best = joins.argmax()
        opens = probabilities[t, 0] >= joins[best]
        goals[t] = count if opens else best
        count += bool(opens)
    return goals


def search(
    probabilities: Float[np.ndarray, "T K"], after: Float[np.ndarray, " T"], threshold: float, hypotheses: int
) -> Int[np.ndarray, " T"] | None:
    """Finds the most probable partition whose log-probability is above the threshold, by a beam search over the turns. None: it finds none.

    A hypothesis is a partition of the turns so far. It is dropped if it cannot win (`after[t]` bounds the log-probability of all turns
    after t), or if `hypotheses` others are more probable. Unless the latter happens, the search is exact.
    """
    goals, counts, scores = np.zeros((1, 1), np.int64), np.ones(1, np.int64), np.zeros(1)  # [H, t], [H], [H]
    for t in range(1, len(probabilities)):
        bins = goals + (1 + t) * np.arange(len(goals))[:, None]
        joins = np.bincount(bins.ravel(), np.tile(probabilities[t, 1 : 1 + t], len(goals)), (1 + t) * len(goals)).reshape(-1, 1 + t)
        joins[np.arange(len(goals)), counts] = probabilities[t, 0]
        with np.errstate(divide="ignore"):
            extended = scores[:, None] + np.log(joins)  # [H, 1 + t]: each goal, then a new one; -inf beyond
        parents, choices = np.nonzero(extended + after[t] > threshold)
        kept = np.argsort(-extended[parents, choices], kind="stable")[:hypotheses]
        if not len(kept):
            return None
        parents, choices = parents[kept], choices[kept]
        scores = extended[parents, choices]
        goals = np.concatenate([goals[parents], choices[:, None]], axis=1)
        counts = np.maximum(counts[parents], choices + 1)
    best: np.ndarray = goals[0]
    return best


def turns_of(goals: Int[np.ndarray, " T"]) -> list[Int[np.ndarray, " n"]]:
    """The turns of each goal, in order."""
    order = goals.argsort(kind="stable")
    found: list[np.ndarray] = np.split(order, np.searchsorted(goals[order], np.arange(1, goals.max() + 1)))
    return found


def join_probabilities(probabilities: Float[np.ndarray, "T K"], goals: Int[np.ndarray, " T"]) -> Float[np.ndarray, "T G"]:
    """The probability that each turn points to an earlier turn of each goal."""
    turns = turns_of(goals)
    starts = np.cumsum([0, *map(len, turns[:-1])])
    earlier = np.tril(probabilities[:, 1 : 1 + len(goals)], -1)
    joins: np.ndarray = np.add.reduceat(earlier[:, np.concatenate(turns)], starts, axis=1, dtype=np.float64)
    return joins


def choice_probabilities(probabilities: Float[np.ndarray, "T K"], goals: Int[np.ndarray, " T"]) -> Float[np.ndarray, " T"]:
    """The probability of each turn's goal given the goals of the turns before; their product is the partition's probability."""
    chosen = join_probabilities(probabilities, goals)[np.arange(len(goals)), goals]
    firsts = [turns[0] for turns in turns_of(goals)]
    chosen[firsts] = probabilities[firsts, 0]
    chosen[0] = 1.0  # a first turn has no choice
    bounded: np.ndarray = np.minimum(chosen, 1.0)
    return bounded


def confidences(probabilities: Float[np.ndarray, "T K"], goals: Int[np.ndarray, " T"]) -> list[float]:
    """For each goal, the probability that it has exactly these turns, given for each turn the partition of the turns before it.

    Its first turn opens a goal, each later turn of the goal joins it, and no other later turn does.
    """
    joins = join_probabilities(probabilities, goals)
    numbers = np.arange(joins.shape[1])
    factors = np.where(goals[:, None] == numbers, joins, 1.0 - joins).clip(0.0, 1.0)
    firsts = np.array([turns[0] for turns in turns_of(goals)])
    factors[firsts, numbers] = np.where(firsts == 0, 1.0, probabilities[firsts, 0])
    factors[np.arange(len(goals))[:, None] < firsts] = 1.0
    product: list[float] = factors.prod(0).tolist()
    return product
