"""Losses of flat logits and targets, as a sum and a count, because the mean is taken over the global batch.

Only labelled rows are selected, so the others (even NaN and inf) change neither loss nor gradient. If no row is labelled, the loss is an
empty sum: it is zero and gives every parameter a gradient of zero, which distributed training needs.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from labelgen.inputs.batch import labelled


class Loss(NamedTuple):
    """`total`: the summed loss of the labelled items, a function of the logits; `count`: the number of these items, int64."""

    total: Tensor
    count: Tensor  # type: ignore[assignment]  # a tuple has a method of that name


def masked_cross_entropy(logits: Float[Tensor, "N K"], target: Int[Tensor, " N"] | Float[Tensor, "N K"]) -> Loss:
    """Cross-entropy with class numbers (not labelled: IGNORE) or with distributions over the classes (not labelled: NaN)."""
    known = labelled(target)
    return Loss(F.cross_entropy(logits[known].float(), target[known], reduction="sum"), known.sum())


def ranked_probability(logits: Float[Tensor, "N K"], target: Float[Tensor, "N K"]) -> Loss:
    """Ranked probability score of ordered classes (Epstein 1969): squared differences of the cumulative distributions, summed."""
    known = labelled(target)
    differences = (F.softmax(logits[known].float(), 1) - target[known]).cumsum(1)
    return Loss(differences.square().sum(), known.sum())


def marginal_cross_entropy(logits: Float[Tensor, "N K"], right: Bool[Tensor, "N K"], allowed: Bool[Tensor, "N K"]) -> Loss:
    """-log of the probability that the choice is a right one, given that it is an allowed one (Lee et al. 2017, section 4).

    Rows without a right choice are not labelled. `logits` may be -inf where a choice does not exist.
    """
    known = right.any(1)
    rows = logits[known].float()
    log_right = rows.masked_fill(~right[known], float("-inf")).logsumexp(1)
    log_allowed = rows.masked_fill(~allowed[known], float("-inf")).logsumexp(1)
    return Loss((log_allowed - log_right).sum(), known.sum())


def info_nce(queries: Float[Tensor, "Q D"], keys: Float[Tensor, "P D"], right: Int[Tensor, " Q"], temperature: float) -> Loss:
    """Contrastive loss of selecting keys[right] among all keys (van den Oord et al. 2018, eq. 4), on cosines over a temperature."""
    scores = F.normalize(queries.float(), dim=1) @ F.normalize(keys.float(), dim=1).T / temperature
    return Loss(F.cross_entropy(scores, right, reduction="sum"), torch.tensor(len(right), device=scores.device))
