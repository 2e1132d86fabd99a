"""User act: one act a request, from the metadata."""

import numpy as np
import pytest

from labelgen.dialogue import Dialogue, Turn
from labelgen.inputs.batch import IGNORE
from labelgen.metrics import Prediction
from labelgen.tasks.user_act import UserAct

TASK = UserAct(labels=("AFFIRM", "INFORM"))
TURNS = [Turn(request="yes"), Turn(request="at nine"), Turn(response="done")]
DIALOGUE = Dialogue(id="a", turns=TURNS, metadata={"user_acts": ["AFFIRM", "INFORM", None]})


def test_acts_are_read_from_the_metadata() -> None:
    assert TASK.encode(DIALOGUE, []).tolist() == [0, 1, IGNORE]
    assert TASK.encode(Dialogue(id="b", turns=TURNS), []).tolist() == [IGNORE] * 3
    assert list(TASK.values(DIALOGUE)) == ["AFFIRM", "INFORM"]


def test_acts_are_scored_and_labelled_at_requests() -> None:
    rows = np.array([[0.9, 0.1], [0.6, 0.4], [0.5, 0.5]])
    metric = TASK.metrics()["accuracy"]
    metric.observe(DIALOGUE, Prediction([], rows))
    assert metric.compute() == 0.5
    assert [(label.value, label.turns) for label in TASK.decode(rows, DIALOGUE, [], {})] == [("AFFIRM", [0]), ("AFFIRM", [1])]


@pytest.mark.parametrize("acts", ["AFFIRM", ["AFFIRM"], [1, None, None], None])
def test_acts_that_do_not_fit_the_turns_are_told(acts: object) -> None:
    with pytest.raises(ValueError, match=r"dialogue 'a': metadata\.user_acts .* each of the 3 turns"):
        TASK.encode(Dialogue(id="a", turns=TURNS, metadata={"user_acts": acts}), [])
