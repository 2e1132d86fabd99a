"""Goal evaluation: was the goal reached? Read at the turn where segmentation ended the goal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from torch import Tensor, nn

from labelgen.dialogue import Dialogue, Label
from labelgen.inputs.batch import IGNORE, Batch, Encoding
from labelgen.metrics import Accuracy, AveragePrecision, BinaryF1, Compared, Figure, Prediction
from labelgen.model.losses import Loss, masked_cross_entropy
from labelgen.tasks import ClassHead, Decoded, Task, classes
from labelgen.tasks.goal_segmentation import GoalSegmentation

ANSWER = "goal_success"  # the question of the vote that holds a user's own answer, 1.0 or 0.0


def user_answer(dialogue: Dialogue) -> bool | None:
    """Explicit feedback: did the users say that they reached their goals? None: nobody asked. ValueError: the answer is neither 1 nor 0."""
    answers = [vote.value for vote in dialogue.votes if vote.question == ANSWER and vote.annotator == "user"]
    if wrong := [answer for answer in answers if answer not in (0.0, 1.0)]:
        raise ValueError(f"dialogue {dialogue.id!r}: the user's vote on {ANSWER} is {wrong[0]!r}; write 1 for yes and 0 for no")
    return bool(answers[0]) if answers else None


@dataclass(frozen=True)
class GoalEvaluation(Task):
    """Success, success after a failure, or failure; one class a goal, scored at the last turn of the annotated goal.

    The metrics read the last turns of annotated goals: they score as if segmentation were right. Labelling reads the last turns of the
    goals that segmentation found (`decode`), so its outcomes can be worse than the metrics say.
    """

    name: ClassVar[str] = "goal_evaluation"
    score: ClassVar[str] = "failure_f1"

    labels: Sequence[str] = ("success", "recovered", "failure")

    def values(self, dialogue: Dialogue) -> Iterable[str]:
        return (goal.outcome for goal in dialogue.goals or () if goal.outcome is not None)

    def encode(self, dialogue: Dialogue, utterances: Sequence[Encoding | None]) -> np.ndarray:
        """Where the outcome of a dialogue's only goal is unknown, the user's own answer stands in for it."""
        ends: dict[int, str | None] = {goal.turns[-1]: goal.outcome for goal in dialogue.goals or ()}
        if len(ends) == 1 and None in ends.values() and (reached := user_answer(dialogue)) is not None:
            ends = dict.fromkeys(ends, "success" if reached else "failure")
        return classes((ends.get(t) for t in range(len(dialogue.turns))), self.labels, IGNORE)

    def head(self, width: int) -> nn.Module:
        return ClassHead(width, len(self.labels), "response")

    def loss(self, logits: Tensor, batch: Batch) -> Loss:
        return masked_cross_entropy(logits, batch.targets[self.name])

    def metrics(self) -> dict[str, Figure]:
        """`user_agreement`: how often the users' own answers to whether they reached their goals are those of the model."""
        return {
            "failure_f1": Figure(BinaryF1(), self._failed),
            "failure_ap": Figure(AveragePrecision(), self._scores),
            "user_agreement": Figure(Accuracy(), self._answers),
        }

    def _answers(self, dialogue: Dialogue, prediction: Prediction) -> Compared:
        """One answer speaks of all goals: yes where none failed."""
        failed = any(self._at_ends(dialogue, prediction).argmax(1) == self.labels.index("failure"))
        reached = user_answer(dialogue) if dialogue.goals else None
        return Compared([str(not failed)], [None if reached is None else str(reached)])

    def _gold(self, dialogue: Dialogue) -> list[bool | None]:
        return [None if goal.outcome is None else goal.outcome == "failure" for goal in dialogue.goals or ()]

    def _at_ends(self, dialogue: Dialogue, prediction: Prediction) -> np.ndarray:
        rows: np.ndarray = prediction.probabilities[[goal.turns[-1] for goal in dialogue.goals or ()]]
        return rows.reshape(-1, len(self.labels))

    def _failed(self, dialogue: Dialogue, prediction: Prediction) -> Compared:
        failure = self.labels.index("failure")
        return Compared([bool(k == failure) for k in self._at_ends(dialogue, prediction).argmax(1)], self._gold(dialogue))

    def _scores(self, dialogue: Dialogue, prediction: Prediction) -> Compared:
        return Compared(self._at_ends(dialogue, prediction)[:, self.labels.index("failure")].tolist(), self._gold(dialogue))

    def decode(self, probabilities: np.ndarray, dialogue: Dialogue, utterances: Sequence[Encoding | None], decoded: Decoded) -> list[Label]:
        """One label for each goal that segmentation found; confidence given that the goal is right."""
        labels = []
        for goal in decoded.get(GoalSegmentation.name, ()):
            row = probabilities[goal.turns[-1]]
            labels.append(Label(task=self.name, value=self.labels[row.argmax()], turns=goal.turns, confidence=row.max(), source=""))
        return labels
