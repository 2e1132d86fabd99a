"""Intent: one class a request; what is unknown is masked when learning, and an error when scored."""

import numpy as np

from labelgen.dialogue import Dialogue, Turn
from labelgen.inputs.batch import IGNORE
from labelgen.metrics import Prediction
from labelgen.tasks.intent import Intent

TASK = Intent(labels=("Bus/Find", "NONE"))
DIALOGUE = Dialogue(
    id="a",
    turns=[
        Turn(request="a", intent="NONE"),
        Turn(request="b", intent="Bank/Pay"),
        Turn(request="c"),
        Turn(response="d", intent="Bus/Find"),
    ],
)


def test_unknown_and_missing_intents_are_ignored() -> None:
    assert TASK.encode(DIALOGUE, []).tolist() == [1, IGNORE, IGNORE, 0]
    assert list(TASK.values(DIALOGUE)) == ["NONE", "Bank/Pay", "Bus/Find"]


def test_only_requests_are_labelled() -> None:
    rows = np.array([[0.2, 0.8], [0.6, 0.4], [0.5, 0.5], [1.0, 0.0]])
    labels = TASK.decode(rows, DIALOGUE, [], {})
    assert [(label.value, label.turns, label.confidence) for label in labels] == [
        ("NONE", [0], 0.8),
        ("Bus/Find", [1], 0.6),
        ("Bus/Find", [2], 0.5),
    ]


def test_unseen_and_unlabelled_intents_count_as_errors() -> None:
    rows = np.array([[0, 1.0], [1.0, 0], [1.0, 0], [1.0, 0]])
    labels = [item.label(TASK.name, "test") for item in TASK.decode(rows, DIALOGUE, [], {})]
    figures = TASK.metrics()
    for figure in figures.values():
        figure.observe(DIALOGUE, Prediction(labels, rows))
    assert figures["accuracy"].metric.compute() == 1 / 3, "of the last turn's intent users get no label: it has no request"
    assert figures["macro_f1"].metric.compute() == (1.0 + 0.0 + 0.0) / 3  # NONE, Bus/Find (only predicted for Bank/Pay), Bank/Pay
