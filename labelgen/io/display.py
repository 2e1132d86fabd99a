"""How the labels of each task are drawn. People's annotations become labels, so that they are drawn in the same way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from labelgen.dialogue import PARTS, Dialogue, Label

ANNOTATION = "annotation"  # the source of labels that people made
BOLD, DIM, UNDERLINE, RED, GREEN, YELLOW, CYAN = 1, 2, 4, 31, 32, 33, 36  # ANSI codes


class Mark(NamedTuple):
    """How a label's value stands out."""

    sign: str  # before the value; may be empty
    codes: tuple[int, ...]  # of ANSI, in a terminal
    hue: int  # in HTML, degrees


PLAIN = Mark("", (CYAN,), 210)


@dataclass(frozen=True)
class Display:
    """How the labels of a task are drawn, and the marks of values that stand out.

    A goal is a bracket over its turns, and an outcome stands at the end of the bracket of the same turns. A turn label is a tag at its
    turn, and a span stands under its words. All others have a line of their own under their last turn, with the name of the task.
    """

    place: Literal["goal", "outcome", "turn", "span", "line"]
    marks: Mapping[str, Mark] = field(default_factory=dict)

    def mark(self, value: str) -> Mark:
        """The mark of a value."""
        return self.marks.get(value, PLAIN)


LINE = Display("line")
GOAL = Display("goal")
OUTCOME = Display(
    "outcome",
    {"success": Mark("✓", (GREEN,), 145), "recovered": Mark("↻", (YELLOW,), 45), "failure": Mark("✗", (RED,), 0)},
)
INTENT = Display("turn")
SLOT = Display("span")
DEFECT = Display("turn", {"ok": Mark("", (DIM,), 145), "defect": Mark("✗", (BOLD, RED), 0)})

DISPLAYS: Mapping[str, Display] = {  # of the tasks whose annotations the record holds; a class of tasks names its display too
    "goal_segmentation": GOAL,
    "goal_evaluation": OUTCOME,
    "intent": INTENT,
    "slot": SLOT,
    "defect": DEFECT,
}


def annotations_as_labels(dialogue: Dialogue) -> list[Label]:
    """People's annotations as labels of confidence 1. What is not annotated gives no label."""

    def label(task: str, value: str, turns: list[int], **span: object) -> Label:
        return Label.model_validate({"task": task, "value": value, "turns": turns, "confidence": 1.0, "source": ANNOTATION, **span})

    labels = []
    for number, goal in enumerate(dialogue.goals or ()):
        labels.append(label("goal_segmentation", str(number), goal.turns))
        if goal.outcome is not None:
            labels.append(label("goal_evaluation", goal.outcome, goal.turns))
    for t, turn in enumerate(dialogue.turns):
        if turn.intent is not None:
            labels.append(label("intent", turn.intent, [t]))
        for part in PARTS:
            slots = turn.slots(part) or ()
            labels += [label("slot", s.name, [t], part=part, start=s.start, end=s.end, text=s.value) for s in slots]
        if turn.defect is not None:
            labels.append(label("defect", "defect" if turn.defect else "ok", [t]))
    return labels
