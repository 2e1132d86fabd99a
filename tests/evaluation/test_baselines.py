"""Trivial predictions are those that the tasks define; a task without them is left out."""

import logging
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest

from labelgen.dialogue import Dialogue, Turn, Vote
from labelgen.evaluation.baselines import BASELINES, Baselines
from labelgen.tasks import Task
from labelgen.tasks.defect import Defect
from labelgen.tasks.goal_evaluation import GoalEvaluation
from labelgen.tasks.goal_segmentation import GoalSegmentation
from labelgen.tasks.satisfaction import DialogueSatisfaction, Satisfaction


@dataclass(frozen=True)
class Custom(GoalSegmentation):
    """Without baselines, as a task that a user derives from `Task`."""

    name: ClassVar[str] = "custom"
    majority = Task.majority  # type: ignore[assignment]
    eager = Task.eager  # type: ignore[assignment]


@pytest.mark.parametrize("kind", BASELINES)
def test_tasks_without_a_baseline_are_left_out(
    kind: str, tasks: dict[str, Task], dialogues: list[Dialogue], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        baselines = Baselines(kind, {"custom": Custom(), **tasks}, dialogues)
    assert f"no {kind} baseline of custom" in caplog.text
    assert list(baselines.tasks) == list(tasks)
    for (_, with_it), (_, alone) in zip(baselines.predict(dialogues), Baselines(kind, tasks, dialogues).predict(dialogues), strict=True):
        assert {name: one.labels for name, one in with_it.items()} == {name: one.labels for name, one in alone.items()}


@pytest.mark.parametrize(("task", "value"), [(GoalEvaluation(), "failure"), (Defect(), "defect")])
def test_eager_always_says_what_one_looks_for(task: Task, value: str, dialogues: list[Dialogue]) -> None:
    tasks = {"goal_segmentation": GoalSegmentation(), task.name: task}
    for dialogue, predictions in Baselines("eager", tasks, dialogues).predict(dialogues):
        labels = predictions[task.name].labels
        assert {label.value for label in labels} == {value}
        assert {label.confidence for label in labels} == {1.0}
        assert len(labels) == len(dialogue.turns), "each turn is a goal, and has a response"
        assert (predictions[task.name].probabilities.argmax(1) == task.labels.index(value)).all()


def test_eager_is_the_majority_where_no_class_is_rare() -> None:
    turns = [Turn(request="a", votes=[Vote(question="satisfaction", value=value)]) for value in (5, 5, 1)]
    dialogues = [Dialogue(id="a", turns=turns)]
    rows = [Baselines(kind, {"satisfaction": Satisfaction()}, dialogues).predict(dialogues) for kind in BASELINES]
    for _, predictions in [next(row) for row in rows]:
        np.testing.assert_allclose(predictions["satisfaction"].probabilities, np.tile([1 / 3, 0, 2 / 3], (3, 1)))


def test_the_majority_of_several_votes_is_that_of_the_scored_class() -> None:
    turns = [Turn(votes=[Vote(question="satisfaction", value=value) for value in values]) for values in ((3, 3, 4), (3, 3, 5), (3, 3, 3))]
    dialogue = Dialogue(id="a", turns=turns)
    baseline = Satisfaction(target="votes").majority([dialogue])
    assert baseline is not None
    assert baseline.guess(dialogue, {}).probabilities[0].tolist() == [0, pytest.approx(1 / 3), pytest.approx(2 / 3)], "by votes: neutral"


def test_a_dialogue_has_one_row() -> None:
    dialogue = Dialogue(id="a", turns=[Turn(), Turn()], votes=[Vote(question="satisfaction", value=1.0)])
    baseline = DialogueSatisfaction().majority([dialogue])
    assert baseline is not None
    decoded, rows = baseline.guess(dialogue, {})
    assert rows.tolist() == [[1, 0, 0]]
    assert [(item.value, list(item.turns)) for item in decoded] == [("dissatisfied", [0, 1])]
