"""Losses as functions of flat logits and targets: a sum and a count, so that the mean can be taken over the global batch."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from labelgen.inputs.batch import labelled


class Loss(NamedTuple):
    """`total`: the summed loss of what is labelled; `count`: how many items that is. Without labels zero, still a function of logits."""

    total: Tensor
    count: Tensor  # type: ignore[assignment]  # a tuple has a method of that name


def masked_cross_entropy(logits: Float[Tensor, "N K"], target: Int[Tensor, " N"] | Float[Tensor, "N K"]) -> Loss:
    """Cross-entropy with class numbers or with distributions over the classes, over the items that are labelled."""
    known = labelled(target)
    total = F.cross_entropy(logits[known].float(), target[known], reduction="sum") + logits[~known].sum() * 0.0
    return Loss(total, known.sum())


def ranked_probability(logits: Float[Tensor, "N K"], target: Float[Tensor, "N K"]) -> Loss:
    """Ranked probability score of classes in an order (Epstein 1969): squared differences of the cumulative distributions, summed."""
    known = labelled(target)
    apart = (F.softmax(logits[known].float(), 1) - target[known]).cumsum(1)
    return Loss(apart.square().sum() + logits[~known].sum() * 0.0, known.sum())


def marginal_cross_entropy(logits: Float[Tensor, "N K"], right: Bool[Tensor, "N K"], allowed: Bool[Tensor, "N K"]) -> Loss:
    """-log of the probability that any right choice is taken, among the allowed ones (Lee et al. 2017, section 4).

    Rows without a right choice are not labelled. `logits` may be -inf where a choice does not exist.
    """
    labelled = right.any(1)
    rows = logits[labelled].float()
    of_right = rows.masked_fill(~right[labelled], float("-inf")).logsumexp(1)
    of_all = rows.masked_fill(~allowed[labelled], float("-inf")).logsumexp(1)
    total = (of_all - of_right).sum() + logits[~labelled].nan_to_num(0.0, neginf=0.0).sum() * 0.0
    return Loss(total, labelled.sum())


def info_nce(queries: Float[Tensor, "Q D"], keys: Float[Tensor, "P D"], right: Int[Tensor, " Q"], temperature: float) -> Loss:
    """Contrastive loss of selecting keys[right] among all keys (van den Oord et al. 2018, eq. 4), on cosines over a temperature."""
    scores = F.normalize(queries.float(), dim=1) @ F.normalize(keys.float(), dim=1).T / temperature
    return Loss(F.cross_entropy(scores, right, reduction="sum"), torch.tensor(len(right), device=scores.device))
