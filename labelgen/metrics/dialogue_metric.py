"""Base classes of metrics over dialogues. Each dialogue gives statistics; merged over dialogues and processes, they give the figure."""

from __future__ import annotations

import zlib
from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torchmetrics import Metric

from labelgen.dialogue import Dialogue, Label

Floats = NDArray[np.float64]
Pred = TypeVar("Pred")
Target = TypeVar("Target")


class Prediction(NamedTuple):
    """The output of a model for one task on one dialogue."""

    labels: list[Label]
    probabilities: NDArray[np.floating[Any]]  # [rows, K], as the task decodes them


class Compared(NamedTuple):
    """The items that a metric compares on one dialogue. A target of None means "not annotated"."""

    preds: Sequence[Any]
    target: Sequence[Any]


class Components(NamedTuple):
    """The K estimates that a figure is composed of, and what their uncertainty is computed from. N is the number of dialogues."""

    values: Floats  # [K]
    trials: Floats  # [K] number of trials; each value is the proportion of successes among them
    influences: Floats  # [N, K] influence of each dialogue on each value (infinitesimal jackknife); they sum to 0
    dialogues: Floats  # [K] number of dialogues that have a trial


class Pair(NamedTuple, Generic[Pred, Target]):
    """The prediction of a labelled item, and its target."""

    pred: Pred
    target: Target


class DialogueMetric(Metric):
    """A torchmetrics metric over dialogues. Items of one dialogue may depend on each other; dialogues are independent.

    `update(preds, target)` takes the items of one dialogue, as sequences or as tensors [N]. A target of None means "not annotated". A
    dialogue enters the figure only through its `statistics`, which `merge` combines. A MetricCollection puts metrics with equal states into
    one compute group. The name of the state contains that of the class, so different metrics never share a group.
    """

    full_state_update = False
    higher_is_better = True

    def __init__(self, variant: str = "") -> None:
        """`variant` distinguishes instances of one class that compute different figures from equal statistics."""
        super().__init__()
        self._state = f"{type(self).__name__}_{zlib.crc32(variant.encode()):x}"

    @abstractmethod
    def statistics(self, preds: Sequence[Any], target: Sequence[Any]) -> Floats:
        """The statistics of one dialogue, float64.

        Raises:
            ValueError: `preds` and `target` differ in length, or hold something that the metric cannot compare.
        """

    @abstractmethod
    def merge(self, statistics: Sequence[Floats]) -> Floats:
        """The statistics of several dialogues combined."""

    @abstractmethod
    def value(self, merged: Floats) -> Floats:
        """Merged statistics -> the figure. NaN where it is undefined."""

    @abstractmethod
    def items(self, merged: Floats) -> Floats:
        """Merged statistics -> number of labelled items."""

    @abstractmethod
    def positives(self, merged: Floats) -> Floats:
        """Merged statistics -> number of annotated positives, whatever was predicted.

        If a metric counts all labelled items alike (accuracy), these are the labelled items. Without positives the figure says nothing
        about a model.
        """

    @abstractmethod
    def components(self, statistics: Sequence[Floats]) -> Components:
        """The statistics of each dialogue -> what an interval is computed from. The figure must be defined."""

    def compose(self, values: Floats) -> Floats:
        """Values of the components [..., K] -> the figure [...], which must increase with each component."""
        composed: Floats = values[..., 0]
        return composed

    def slopes(self, values: Floats) -> Floats:
        """Derivatives of `compose` with respect to each component, [K]."""
        return np.ones(1)

    @property
    @abstractmethod
    def merged(self) -> torch.Tensor:
        """The merged statistics so far, float64."""

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], exclude_state: Sequence[str] = "") -> torch.nn.Module:
        """Follows a module to another device but not to another dtype: `module.to(torch.bfloat16)` would round the counts above 256."""
        return super()._apply(lambda tensor: tensor.to(fn(tensor).device), exclude_state)

    def compute(self) -> torch.Tensor:
        """The figure so far (0-dim float64). NaN if nothing was labelled."""
        return torch.as_tensor(self.value(self.merged.numpy(force=True)), dtype=torch.float64, device=self.merged.device)

    def result(self) -> Result:
        """The figure so far over all processes, and the number of its positives. Every process must call it."""
        with self.sync_context():
            merged = self.merged.numpy(force=True)
            return Result(float(self.value(merged)), int(self.positives(merged)), self.higher_is_better)


class SumMetric(DialogueMetric):
    """Abstract: a metric whose statistics are vectors [S] that add up. Its state is their sum, over processes too. `merged` is [..., S]."""

    def __init__(self, size: int, variant: str = "") -> None:
        """`size`: S."""
        super().__init__(variant)
        self.add_state(self._state, torch.zeros(size, dtype=torch.float64), dist_reduce_fx="sum")

    @property
    def merged(self) -> torch.Tensor:
        sums: torch.Tensor = getattr(self, self._state)
        return sums

    def update(self, preds: Sequence[Any] | torch.Tensor, target: Sequence[Any] | torch.Tensor) -> None:
        """Adds one dialogue."""
        statistics = self.statistics(as_list(preds), as_list(target))
        setattr(self, self._state, self.merged + torch.as_tensor(statistics, device=self.merged.device))

    def merge(self, statistics: Sequence[Floats]) -> Floats:
        merged: Floats = np.sum(statistics, axis=0)
        return merged


class RatioMetric(SumMetric):
    """Abstract: each component is a ratio of two sums, successes by trials."""

    @abstractmethod
    def successes(self, merged: Floats) -> Floats:
        """Sums [..., S] -> number of successes [..., K]."""

    @abstractmethod
    def trials(self, merged: Floats) -> Floats:
        """Sums [..., S] -> number of trials [..., K]."""

    def value(self, merged: Floats) -> Floats:
        return self.compose(ratio(self.successes(merged), self.trials(merged)))

    def components(self, statistics: Sequence[Floats]) -> Components:
        rows = np.stack(statistics)
        successes, trials = self.successes(rows), self.trials(rows)
        values, number = ratio(successes.sum(0), trials.sum(0)), trials.sum(0)
        dialogues = np.asarray((trials > 0).sum(0), dtype=np.float64)
        return Components(values, number, (successes - values * trials) / number, dialogues)


class MeanMetric(RatioMetric):
    """Abstract: the mean of a value over items. Statistics: [sum of the values, items]."""

    def __init__(self) -> None:
        super().__init__(size=2)

    def successes(self, merged: Floats) -> Floats:
        return merged[..., :1]

    def trials(self, merged: Floats) -> Floats:
        return merged[..., 1:2]

    def items(self, merged: Floats) -> Floats:
        return merged[..., 1]

    def positives(self, merged: Floats) -> Floats:
        return self.items(merged)


class Result(NamedTuple):
    """A figure, the number of annotated positives behind it, and its direction."""

    value: float  # NaN if undefined
    positives: int
    higher_is_better: bool


class Figure(NamedTuple):
    """A metric, and the function that reads its preds and targets from a dialogue and its prediction."""

    metric: DialogueMetric
    read: Callable[[Dialogue, Prediction], Compared]

    def observe(self, dialogue: Dialogue, prediction: Prediction) -> None:
        """Adds one dialogue to the metric.

        Raises:
            ValueError: prediction and annotation do not fit together. The message names the dialogue.
        """
        try:
            self.metric.update(*self.read(dialogue, prediction))
        except ValueError as error:
            raise ValueError(f"dialogue {dialogue.id!r}: {error}") from error

    def statistics(self, dialogue: Dialogue, prediction: Prediction) -> Floats:
        """The statistics that one dialogue would add to the metric. Raises ValueError as `observe` does."""
        try:
            return self.metric.statistics(*self.read(dialogue, prediction))
        except ValueError as error:
            raise ValueError(f"dialogue {dialogue.id!r}: {error}") from error


def selection_score(results: Iterable[Result]) -> float:
    """The mean score of several tasks, by which models are selected. 0.0 if no task can be scored.

    A score counts if it has an annotated positive. Annotations alone decide that, so all models are compared on the same tasks. If lower is
    better, the mean takes 1 - value. A score that counts but is undefined counts as 0.
    """
    scored = [result.value if result.higher_is_better else 1.0 - result.value for result in results if result.positives]
    return float(np.mean(np.nan_to_num(scored, nan=0.0))) if scored else 0.0


def labelled(preds: Sequence[Pred], target: Sequence[Target | None]) -> list[Pair[Pred, Target]]:
    """The pairs of the items that have a target."""
    if len(preds) != len(target):
        raise ValueError(f"{len(preds)} preds, {len(target)} targets; give one pred per item, also where the target is None")
    return [Pair(pred, truth) for pred, truth in zip(preds, target, strict=True) if truth is not None]


def as_list(items: Sequence[Any] | torch.Tensor) -> Sequence[Any]:
    """A tensor's items as Python's numbers; anything else as it is."""
    return items.tolist() if isinstance(items, torch.Tensor) else items


def ratio(part: Floats, whole: Floats) -> Floats:
    """part / whole, NaN where whole is 0."""
    ratio: Floats = np.divide(part, whole, out=np.full(np.shape(whole), np.nan), where=np.asarray(whole) > 0)
    return ratio
