"""Defect: two classes a response, missing is never "no"."""

import numpy as np

from labelgen.dialogue import Dialogue, Turn
from labelgen.inputs.batch import IGNORE
from labelgen.metrics import Prediction
from labelgen.tasks.defect import Defect

TASK = Defect()
DIALOGUE = Dialogue(
    id="a", turns=[Turn(response="a", defect=True), Turn(response="b", defect=False), Turn(response="c"), Turn(request="d")]
)


def test_missing_is_ignored_and_never_no() -> None:
    assert TASK.encode(DIALOGUE, []).tolist() == [1, 0, IGNORE, IGNORE]
    assert list(TASK.values(DIALOGUE)) == ["defect", "ok"]


def test_only_responses_are_labelled() -> None:
    labels = TASK.decode(np.array([[0.1, 0.9], [0.7, 0.3], [0.4, 0.6], [0.0, 1.0]]), DIALOGUE, [], {})
    assert [(label.value, label.turns, label.confidence) for label in labels] == [
        ("defect", [0], 0.9),
        ("ok", [1], 0.7),
        ("defect", [2], 0.6),
    ]


def test_figures_are_of_defects() -> None:
    rows = np.array([[0.1, 0.9], [0.3, 0.7], [0.4, 0.6], [0.0, 1.0]])
    figures = TASK.metrics()
    for figure in figures.values():
        figure.observe(DIALOGUE, Prediction([item.label(TASK.name, "test") for item in TASK.decode(rows, DIALOGUE, [], {})], rows))
    assert figures["f1"].metric.compute() == 2 / 3  # one found, one false alarm
    assert figures["ap"].metric.compute() == 1.0


def test_a_turn_that_gets_no_label_is_a_miss() -> None:
    """The probabilities would be right; but nobody reads them where there is no response."""
    dialogue = Dialogue(id="a", turns=[Turn(request="x", defect=True), Turn(response="y", defect=False)])
    rows = np.array([[0.0, 1.0], [0.9, 0.1]])
    labels = [item.label(TASK.name, "test") for item in TASK.decode(rows, dialogue, [], {})]
    figures = TASK.metrics()
    assert figures["f1"].statistics(dialogue, Prediction(labels, rows)).tolist() == [0, 0, 1, 2]
    assert figures["ap"].statistics(dialogue, Prediction(labels, rows)).tolist() == [[0.0, 1.0], [0.1, 0.0]]
