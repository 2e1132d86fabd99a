"""Trivial predictions are made of the tasks that they fit, and of no others."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest

from labelgen.dialogue import Dialogue, Turn, Vote
from labelgen.evaluation.baselines import BASELINES, frequencies
from labelgen.inputs.batch import Encoding
from labelgen.tasks import Task
from labelgen.tasks.defect import Defect
from labelgen.tasks.satisfaction import Satisfaction


@dataclass(frozen=True)
class Wide(Defect):
    """Counts turns: more classes than labels."""

    name: ClassVar[str] = "wide"

    def encode(self, dialogue: Dialogue, utterances: Sequence[Encoding | None]) -> np.ndarray:
        return np.arange(len(dialogue.turns))


@dataclass(frozen=True)
class Grades(Defect):
    """No classes at all."""

    name: ClassVar[str] = "grades"

    def encode(self, dialogue: Dialogue, utterances: Sequence[Encoding | None]) -> np.ndarray:
        return np.full(len(dialogue.turns), 0.5)


@pytest.mark.parametrize("kind", BASELINES)
@pytest.mark.parametrize("custom", [Wide(), Grades()])
def test_tasks_that_do_not_fit_are_left_out(
    kind: str, custom: Task, tasks: dict[str, Task], dialogues: list[Dialogue], caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(ValueError, match=f"task {custom.name}"):
        frequencies(custom, dialogues)
    with caplog.at_level(logging.WARNING):
        baseline = BASELINES[kind]({custom.name: custom, **tasks}, dialogues)
    assert custom.name in caplog.text
    for (_, said), (_, alone) in zip(baseline.predict(dialogues), BASELINES[kind](tasks, dialogues).predict(dialogues), strict=True):
        assert {name: one.labels for name, one in said.items()} == {name: one.labels for name, one in alone.items()}


def test_the_majority_of_several_votes_is_that_of_the_scored_class() -> None:
    turns = [Turn(votes=[Vote(question="satisfaction", value=value) for value in values]) for values in ((3, 3, 4), (3, 3, 5), (3, 3, 3))]
    shares = frequencies(Satisfaction(target="votes"), [Dialogue(id="a", turns=turns)])
    assert shares.tolist() == [0, pytest.approx(1 / 3), pytest.approx(2 / 3)], "by votes neutral would lead"
