"""Goal evaluation: was the goal reached? Read at the turn where segmentation ended the goal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from labelgen.dialogue import Dialogue
from labelgen.io.display import DISPLAYS, GOAL_EVALUATION
from labelgen.metrics import Accuracy, AveragePrecision, BinaryF1, Compared, Figure, Prediction, SubsetF1
from labelgen.tasks import Classification, Decoded, Earlier, Utterances
from labelgen.tasks.goal_segmentation import GoalSegmentation

ANSWER = "goal_success"  # the question of the vote that holds a user's own answer, 1.0 or 0.0


def user_answer(dialogue: Dialogue) -> bool | None:
    """Explicit feedback: whether the users said that they reached their goals. None: nobody asked. ValueError: an answer is not 1 or 0."""
    answers = [vote.value for vote in dialogue.votes if vote.question == ANSWER and vote.annotator == "user"]
    if wrong := [answer for answer in answers if answer not in (0.0, 1.0)]:
        raise ValueError(f"dialogue {dialogue.id!r}: the user's vote on {ANSWER} is {wrong[0]!r}; write 1 for yes and 0 for no")
    return bool(answers[0]) if answers else None


@dataclass(frozen=True)
class GoalEvaluation(Classification):
    """Success, success after a failure, or failure. One class per goal, read at its last turn.

    Training reads the last turns of the annotated goals. Labelling reads the last turns of the goals that segmentation found.
    """

    name: ClassVar[str] = GOAL_EVALUATION
    display: ClassVar = DISPLAYS[name]
    score: ClassVar[str] = "failure_f1"

    utterance: ClassVar = "response"
    rare: ClassVar = "failure"
    labels = ("success", "recovered", "failure")

    def annotated(self, dialogue: Dialogue) -> list[str | None]:
        """The outcomes, each at its goal's last turn.

        If the outcome of a dialogue's only goal is unknown, the user's own answer takes its place.
        """
        ends: dict[int, str | None] = {goal.turns[-1]: goal.outcome for goal in dialogue.goals or ()}
        if len(ends) == 1 and None in ends.values() and (reached := user_answer(dialogue)) is not None:
            ends = dict.fromkeys(ends, "success" if reached else "failure")
        return [ends.get(t) for t in range(len(dialogue.turns))]

    def metrics(self) -> dict[str, Figure]:
        """The first figures score what a user gets: the labels, which are of predicted goals.

        failure_f1: a predicted failure is right if an annotated goal with exactly its turns failed. `..._by_last_turn`: it is right if an
        annotated goal that ends at its last turn failed. user_agreement: how often the labels agree with the users' own answers to whether
        they reached their goals. The figures `..._given_goals` read the outcomes at the last turns of the annotated goals, as if
        segmentation were right.
        """
        return {
            "failure_f1": Figure(SubsetF1(), self._failures),
            "failure_f1_by_last_turn": Figure(SubsetF1(), self._failed_turns),
            "user_agreement": Figure(Accuracy(), self._answers),
            "failure_f1_given_goals": Figure(BinaryF1(), self._failed_given_goals),
            "failure_ap_given_goals": Figure(AveragePrecision(), self._scores_given_goals),
            "user_agreement_given_goals": Figure(Accuracy(), self._answers_given_goals),
        }

    def _failures(self, dialogue: Dialogue, prediction: Prediction) -> Compared:
        """Compares the turns of failed goals. Turns without an annotated goal do not count."""
        failed = {tuple(goal.turns): goal.outcome == "failure" for goal in dialogue.goals or () if goal.outcome is not None}
        return Compared([_judged_failures(dialogue, prediction)], [failed])

    def _failed_turns(self, dialogue: Dialogue, prediction: Prediction) -> Compared:
        """Compares the last turns of failed goals."""
        outcomes = _outcomes(dialogue)
        ends = [turns[-1] for turns in _judged_failures(dialogue, prediction)]
        failed = {goal.turns[-1]: goal.outcome == "failure" for goal in dialogue.goals or () if goal.outcome is not None}
        return Compared([[end for end in ends if outcomes[end] is not None]], [failed])

    def _answers(self, dialogue: Dialogue, prediction: Prediction) -> Compared:
        """The labels answer yes if no goal failed. Without a predicted goal they give no answer, which agrees with no user's."""
        outcomes = [label.value for label in prediction.labels]
        reached = user_answer(dialogue)
        answer = str("failure" not in outcomes) if outcomes else None
        return Compared([answer], [None if reached is None else str(reached)])

    def _answers_given_goals(self, dialogue: Dialogue, prediction: Prediction) -> Compared:
        failed = any(self._probabilities_at_ends(dialogue, prediction).argmax(1) == self.labels.index("failure"))
        reached = user_answer(dialogue) if dialogue.goals else None
        return Compared([str(not failed)], [None if reached is None else str(reached)])

    def _annotated_failures(self, dialogue: Dialogue) -> list[bool | None]:
        return [None if goal.outcome is None else goal.outcome == "failure" for goal in dialogue.goals or ()]

    def _probabilities_at_ends(self, dialogue: Dialogue, prediction: Prediction) -> np.ndarray:
        rows: np.ndarray = prediction.probabilities[[goal.turns[-1] for goal in dialogue.goals or ()]]
        return rows.reshape(-1, len(self.labels))

    def _failed_given_goals(self, dialogue: Dialogue, prediction: Prediction) -> Compared:
        failure = self.labels.index("failure")
        return Compared(
            [bool(k == failure) for k in self._probabilities_at_ends(dialogue, prediction).argmax(1)], self._annotated_failures(dialogue)
        )

    def _scores_given_goals(self, dialogue: Dialogue, prediction: Prediction) -> Compared:
        return Compared(
            self._probabilities_at_ends(dialogue, prediction)[:, self.labels.index("failure")].tolist(), self._annotated_failures(dialogue)
        )

    def decode(self, probabilities: np.ndarray, dialogue: Dialogue, utterances: Utterances, earlier: Earlier) -> list[Decoded]:
        """One label for each goal that segmentation found. Its confidence assumes that the goal is right."""
        goals = earlier.get(GoalSegmentation.name, ())
        return [self.most_probable(probabilities[goal.turns[-1]], goal.turns) for goal in goals]


def _outcomes(dialogue: Dialogue) -> dict[int, str | None]:
    """The outcome of each turn's goal, None if it is unknown, for the turns that have an annotated goal."""
    return {turn: goal.outcome for goal in dialogue.goals or () for turn in goal.turns}


def _judged_failures(dialogue: Dialogue, prediction: Prediction) -> list[tuple[int, ...]]:
    """For each predicted failure, its turns that have an annotated goal. Failures without one of known outcome do not count."""
    outcomes = _outcomes(dialogue)
    failures = [label.turns for label in prediction.labels if label.value == "failure"]
    annotated = [tuple(turn for turn in turns if turn in outcomes) for turns in failures]
    return [turns for turns in annotated if any(outcomes[turn] is not None for turn in turns)]
