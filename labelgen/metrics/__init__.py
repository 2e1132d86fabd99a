"""Metrics over dialogues. The same object serves training (on any number of processes), evaluation and intervals.

Each dialogue gives statistics. For most metrics they are a vector of counts, which adds up over dialogues and processes. `value` computes
the figure from them. Items whose target is None (not annotated) change nothing. Without a labelled item the value is NaN, never 0.0.
"""

from __future__ import annotations

from labelgen.metrics.classification import F1, Accuracy, AveragePrecision, BinaryF1, Correlation, MacroF1, SpanF1, SubsetF1
from labelgen.metrics.dialogue_metric import (
    Compared,
    Components,
    DialogueMetric,
    Figure,
    Floats,
    MeanMetric,
    Prediction,
    RatioMetric,
    Result,
    SumMetric,
    selection_score,
)
from labelgen.metrics.segmentation import BoundaryF1, PairwiseF1, Pk, WindowDiff, WindowError

__all__ = [
    "F1",
    "Accuracy",
    "AveragePrecision",
    "BinaryF1",
    "BoundaryF1",
    "Compared",
    "Components",
    "Correlation",
    "DialogueMetric",
    "Figure",
    "Floats",
    "MacroF1",
    "MeanMetric",
    "PairwiseF1",
    "Pk",
    "Prediction",
    "RatioMetric",
    "Result",
    "SpanF1",
    "SubsetF1",
    "SumMetric",
    "WindowDiff",
    "WindowError",
    "selection_score",
]
