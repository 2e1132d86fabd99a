"""Goal evaluation: learned and scored at the last turn of the annotated goal, labelled where segmentation ended one."""

import numpy as np
import pytest

from labelgen.dialogue import Dialogue, Goal, Label, Turn, Vote
from labelgen.inputs.batch import IGNORE
from labelgen.metrics import Prediction
from labelgen.tasks import Decoded
from labelgen.tasks.goal_evaluation import GoalEvaluation

TASK = GoalEvaluation()
GOALS = [Goal(turns=[0, 3], outcome="failure"), Goal(turns=[1, 2], outcome="recovered"), Goal(turns=[4])]
DIALOGUE = Dialogue(id="a", turns=[Turn(response="x") for _ in range(6)], goals=GOALS)
ROWS = np.array([[0.8, 0.1, 0.1], [1, 0, 0], [0.1, 0.2, 0.7], [0.1, 0.1, 0.8], [0, 0, 1], [0.2, 0.6, 0.2]])


def test_outcomes_stand_at_the_last_turns() -> None:
    assert TASK.encode(DIALOGUE, []).tolist() == [IGNORE, IGNORE, 1, 2, IGNORE, IGNORE]
    assert sorted(TASK.values(DIALOGUE)) == ["failure", "recovered"]
    assert TASK.encode(DIALOGUE.model_copy(update={"goals": None}), []).tolist() == [IGNORE] * 6


def test_labels_are_read_at_decoded_ends() -> None:
    said = [Decoded(str(k), turns, 0.5) for k, turns in enumerate([[0], [1, 5], [2, 3, 4]])]
    labels = TASK.decode(ROWS, DIALOGUE, [], {"goal_segmentation": said})
    assert [(label.value, label.turns) for label in labels] == [("success", [0]), ("recovered", [1, 5]), ("failure", [2, 3, 4])]
    assert [label.confidence for label in labels] == [0.8, 0.6, 1.0]
    assert TASK.decode(ROWS, DIALOGUE, [], {}) == [], "without segmentation there is no goal to judge"


def test_figures_are_of_failures_at_gold_ends() -> None:
    figures = TASK.metrics()
    for name in ("failure_f1_given_goals", "failure_ap_given_goals"):
        figures[name].observe(DIALOGUE, Prediction([], ROWS))
        metric = figures[name].metric
        assert metric.items(metric.merged.numpy()) == 2
        assert metric.positives(metric.merged.numpy()) == 1
    assert figures["failure_f1_given_goals"].metric.compute() == 2 / 3
    assert figures["failure_ap_given_goals"].metric.compute() == 1.0


def test_a_dialogue_without_goals_has_no_items() -> None:
    for goals in (None, []):
        for figure in TASK.metrics().values():
            figure.observe(DIALOGUE.model_copy(update={"goals": goals}), Prediction([], ROWS))
            assert figure.metric.compute().isnan()


def test_users_answers_given_the_goals_are_of_the_dialogue() -> None:
    agreement = TASK.metrics()["user_agreement_given_goals"]
    rows = np.array([[0.1, 0.1, 0.8], [0.9, 0.1, 0.0]])  # failed at turn 0, reached at turn 1

    def answered(value: float | str, annotator: str | None, *ends: int) -> Dialogue:
        goals = [Goal(turns=[end]) for end in ends]
        vote = Vote(question="goal_success", value=value, annotator=annotator)
        return Dialogue(id="a", turns=[Turn(response="x"), Turn(response="y")], goals=goals, votes=[vote])

    agree = [agreement.statistics(answered(value, "user", *ends), Prediction([], rows)).tolist() for value, ends in
             ((1.0, [1]), (0.0, [1]), (0.0, [0]), (0.0, [0, 1]), (1.0, [0, 1]))]  # fmt: skip
    assert agree == [[1, 1], [0, 1], [1, 1], [1, 1], [0, 1]]
    assert agreement.statistics(answered(1.0, "someone else", 1), Prediction([], rows)).tolist() == [0, 0]
    assert agreement.statistics(answered(1.0, "user"), Prediction([], rows)).tolist() == [0, 0], "no goal: nothing to judge"
    with pytest.raises(ValueError, match=r"dialogue 'a': .*'yes'; write 1"):
        agreement.statistics(answered("yes", "user", 1), Prediction([], rows))


def written(*goals: tuple[list[int], str]) -> Prediction:
    """The labels of goals, each its turns and its outcome; the probabilities are the annotated goals' worst ones."""
    labels = [Label(task="goal_evaluation", value=outcome, turns=turns, confidence=0.5, source="") for turns, outcome in goals]
    return Prediction(labels, 1.0 - ROWS)


def counts(dialogue: Dialogue, prediction: Prediction, name: str = "failure_f1") -> list[float]:
    """[found, false alarms, missed]"""
    return TASK.metrics()[name].statistics(dialogue, prediction)[:3].tolist()


def test_what_users_get_stands_first_and_selects_models() -> None:
    assert list(TASK.metrics()) == [
        "failure_f1", "failure_f1_by_last_turn", "user_agreement",
        "failure_f1_given_goals", "failure_ap_given_goals", "user_agreement_given_goals",
    ]  # fmt: skip
    assert TASK.score == "failure_f1"


@pytest.mark.parametrize(
    ("goals", "strict", "by_last_turn"),
    [
        ([([0, 3], "failure"), ([1, 2], "recovered"), ([4], "success")], [1, 0, 0], [1, 0, 0]),
        ([([0, 3], "success"), ([1, 2], "recovered")], [0, 0, 1], [0, 0, 1]),
        ([([3], "failure"), ([0, 1, 2], "success")], [0, 1, 1], [1, 0, 0]),  # the end is right, the turns are not
        ([([0, 1, 2, 3], "failure")], [0, 1, 1], [1, 0, 0]),
        ([([0, 3], "failure"), ([1, 2], "failure")], [1, 1, 0], [1, 1, 0]),
        ([], [0, 0, 1], [0, 0, 1]),
        ([([0, 3, 5], "failure")], [1, 0, 0], [1, 0, 0]),  # nobody annotated turn 5
        ([([4], "failure"), ([5], "failure")], [0, 0, 1], [0, 0, 1]),  # an unknown outcome and an unannotated turn: neither is judged
        ([([2, 4], "failure")], [0, 1, 1], [0, 0, 1]),  # these are no goal; whether one that ends at turn 4 failed is not known
    ],
)
def test_failures_are_those_of_the_written_labels(
    goals: list[tuple[list[int], str]], strict: list[float], by_last_turn: list[float]
) -> None:
    assert counts(DIALOGUE, written(*goals)) == strict
    assert counts(DIALOGUE, written(*goals), "failure_f1_by_last_turn") == by_last_turn


@pytest.mark.parametrize("name", ["failure_f1", "failure_f1_by_last_turn"])
@pytest.mark.parametrize("goals", [[], [([0, 1, 2, 3], "failure")], [([0, 3], "failure"), ([1, 2], "failure"), ([4, 5], "failure")]])
def test_the_labelled_items_are_the_judged_goals(name: str, goals: list[tuple[list[int], str]]) -> None:
    metric = TASK.metrics()[name].metric
    statistics = TASK.metrics()[name].statistics(DIALOGUE, written(*goals))
    assert (metric.items(statistics), metric.positives(statistics)) == (2, 1), "two goals of known outcome, one of them failed"


def test_what_nobody_annotated_is_no_false_alarm() -> None:
    everything = written(([0, 1, 2], "failure"), ([3, 4, 5], "failure"))
    for goals in (None, [], [Goal(turns=[0, 1])]):
        for name in ("failure_f1", "failure_f1_by_last_turn"):
            assert counts(DIALOGUE.model_copy(update={"goals": goals}), everything, name) == [0, 0, 0]
    reached = DIALOGUE.model_copy(update={"goals": [Goal(turns=[0, 1, 2, 3, 4, 5], outcome="success")]})
    assert counts(reached, everything) == [0, 2, 0]


def test_users_answers_are_compared_with_the_written_labels() -> None:
    def agrees(value: float, *goals: tuple[list[int], str]) -> list[float]:
        vote = Vote(question="goal_success", value=value, annotator="user")
        dialogue = DIALOGUE.model_copy(update={"votes": [vote], "goals": None})
        return TASK.metrics()["user_agreement"].statistics(dialogue, written(*goals)).tolist()

    reached, failed = ([0, 1], "recovered"), ([2, 3], "failure")
    assert [agrees(1.0, reached), agrees(1.0, reached, failed), agrees(0.0, failed), agrees(0.0, reached)] == [
        [1, 1],
        [0, 1],
        [1, 1],
        [0, 1],
    ]
    assert agrees(1.0) == agrees(0.0) == [0, 1], "no goal was found, so users get no answer"
    assert TASK.metrics()["user_agreement"].statistics(DIALOGUE, written(reached)).tolist() == [0, 0], "nobody asked"


def test_an_answer_stands_in_for_the_unknown_outcome_of_an_only_goal() -> None:
    def target(value: float, *outcomes: str | None) -> list[int]:
        goals = [Goal(turns=[t], outcome=outcome) for t, outcome in enumerate(outcomes)]
        votes = [Vote(question="goal_success", value=value, annotator="user")]
        turns = [Turn(response="x"), Turn(response="y")]
        return TASK.encode(Dialogue(id="a", turns=turns, goals=goals, votes=votes), []).tolist()

    assert [target(1.0, None), target(0.0, None)] == [[0, IGNORE], [2, IGNORE]]
    assert target(0.0, "success") == [0, IGNORE], "what annotators decided stays"
    assert target(0.0, None, None) == [IGNORE, IGNORE], "of several goals nobody knows which one was meant"
