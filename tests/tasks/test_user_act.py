"""User act: one act a request, from the record."""

import numpy as np

from labelgen.dialogue import Dialogue, Turn
from labelgen.inputs.batch import IGNORE
from labelgen.metrics import Prediction
from labelgen.tasks.user_act import UserAct

TASK = UserAct(labels=("AFFIRM", "INFORM"))
YES = Turn(request="yes", request_acts=["AFFIRM"])
DIALOGUE = Dialogue(id="a", turns=[YES, Turn(request="at nine", request_acts=["INFORM"]), Turn(response="done")])


def test_acts_are_read_from_the_record() -> None:
    assert TASK.encode(DIALOGUE, []).tolist() == [0, 1, IGNORE]
    bare = [Turn(request="yes"), Turn(request="hm", request_acts=[])]
    assert TASK.encode(Dialogue(id="b", turns=bare), []).tolist() == [IGNORE] * 2
    assert list(TASK.values(DIALOGUE)) == ["AFFIRM", "INFORM"]


def test_several_acts_are_one_class_in_any_order() -> None:
    turns = [Turn(request="yes, at nine", request_acts=acts) for acts in (["INFORM", "AFFIRM"], ["AFFIRM", "INFORM"])]
    assert list(TASK.values(Dialogue(id="a", turns=turns))) == ["AFFIRM+INFORM"] * 2


def test_acts_are_scored_and_labelled_at_requests() -> None:
    rows = np.array([[0.9, 0.1], [0.6, 0.4], [0.5, 0.5]])
    figure = TASK.metrics()["accuracy"]
    figure.observe(DIALOGUE, Prediction([item.label(TASK.name, "test") for item in TASK.decode(rows, DIALOGUE, [], {})], rows))
    assert figure.metric.compute() == 0.5
    assert [(label.value, label.turns) for label in TASK.decode(rows, DIALOGUE, [], {})] == [("AFFIRM", [0]), ("AFFIRM", [1])]
