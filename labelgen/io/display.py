"""How the labels of each task are drawn. People's annotations become labels, so that they are drawn in the same way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from labelgen.dialogue import PARTS, Dialogue, Label

ANNOTATION = "annotation"  # the source of labels that people made
BOLD, DIM, UNDERLINE, RED, GREEN, YELLOW, CYAN = 1, 2, 4, 31, 32, 33, 36  # ANSI codes


class Style(NamedTuple):
    """How a label's value is drawn."""

    sign: str  # before the value; may be empty
    codes: tuple[int, ...]  # of ANSI, in a terminal
    hue: int  # in HTML, degrees


PLAIN = Style("", (CYAN,), 210)


@dataclass(frozen=True)
class Display:
    """How the labels of a task are drawn, and the styles of values that stand out.

    A goal is a bracket over its turns, and an outcome stands at the end of the bracket of the same turns. A turn label is a tag at its
    turn, and a span stands under its words. All others have a line of their own under their last turn, with the name of the task.
    """

    position: Literal["goal", "outcome", "turn", "span", "line"]
    styles: Mapping[str, Style] = field(default_factory=dict)

    def style(self, value: str) -> Style:
        """The style of a value."""
        return self.styles.get(value, PLAIN)


LINE = Display("line")

# The tasks whose annotations the record holds. They take their names and displays from here, because drawing needs no torch, and tasks do.
GOAL_SEGMENTATION = "goal_segmentation"
GOAL_EVALUATION = "goal_evaluation"
INTENT = "intent"
SLOT = "slot"
DEFECT = "defect"
DISPLAYS: Mapping[str, Display] = {
    GOAL_SEGMENTATION: Display("goal"),
    GOAL_EVALUATION: Display(
        "outcome",
        {"success": Style("✓", (GREEN,), 145), "recovered": Style("↻", (YELLOW,), 45), "failure": Style("✗", (RED,), 0)},
    ),
    INTENT: Display("turn"),
    SLOT: Display("span"),
    DEFECT: Display("turn", {"ok": Style("", (DIM,), 145), "defect": Style("✗", (BOLD, RED), 0)}),
}


def annotations_as_labels(dialogue: Dialogue) -> list[Label]:
    """People's annotations as labels of confidence 1. What is not annotated gives no label."""

    def label(task: str, value: str, turns: list[int], **span: object) -> Label:
        return Label.model_validate({"task": task, "value": value, "turns": turns, "confidence": 1.0, "source": ANNOTATION, **span})

    labels = []
    for number, goal in enumerate(dialogue.goals or ()):
        labels.append(label(GOAL_SEGMENTATION, str(number), goal.turns))
        if goal.outcome is not None:
            labels.append(label(GOAL_EVALUATION, goal.outcome, goal.turns))
    for t, turn in enumerate(dialogue.turns):
        if turn.intent is not None:
            labels.append(label(INTENT, turn.intent, [t]))
        for part in PARTS:
            slots = turn.slots(part) or ()
            labels += [label(SLOT, s.name, [t], part=part, start=s.start, end=s.end, text=s.value) for s in slots]
        if turn.defect is not None:
            labels.append(label(DEFECT, "defect" if turn.defect else "ok", [t]))
    return labels
