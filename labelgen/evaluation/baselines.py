"""What needs no model: trivial predictions, fitted on annotated dialogues and scored by the very metrics that score a model.

A figure means little until one knows what it costs to get: 90% accuracy is nothing where 90% of the requests have one intent.
"""

from __future__ import annotations

import logging
import re
from abc import abstractmethod
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np

from labelgen.dialogue import PARTS, Dialogue, Label
from labelgen.inputs.batch import labelled
from labelgen.metrics import Prediction
from labelgen.tasks import Task
from labelgen.tasks.defect import Defect
from labelgen.tasks.goal_evaluation import GoalEvaluation
from labelgen.tasks.goal_segmentation import GoalSegmentation
from labelgen.tasks.slot import SlotTask, marked

log = logging.getLogger(__name__)
RARE = {GoalEvaluation.name: "failure", Defect.name: "defect"}  # what one looks for; `Eager` always says it
WORD = re.compile(r"\w+")


class Baseline:
    """Abstract: says the same of every turn. Average precision of a constant score is the base rate.

    Nothing is said of a task whose targets are not the classes of its labels.
    """

    def __init__(self, tasks: Mapping[str, Task], dialogues: Sequence[Dialogue]) -> None:
        self.tasks = dict(tasks)
        self.frequencies: dict[str, np.ndarray] = {}
        for name, task in tasks.items():
            try:
                if _classifies(task):
                    self.frequencies[name] = frequencies(task, dialogues)
            except ValueError as error:
                log.warning("no trivial predictions: %s", error)
                del self.tasks[name]

    def predict(self, dialogues: Iterable[Dialogue]) -> Iterator[tuple[Dialogue, dict[str, Prediction]]]:
        """Each dialogue with what is said of each task, as `Annotator.predict` gives it."""
        for dialogue in dialogues:
            decoded: dict[str, list[Label]] = {}
            said: dict[str, Prediction] = {}
            for name, task in self.tasks.items():
                said[name] = self._say(task, dialogue, decoded)
                decoded[name] = said[name].labels
            yield dialogue, said

    def _say(self, task: Task, dialogue: Dialogue, decoded: Mapping[str, Sequence[Label]]) -> Prediction:
        if task.level == "token":
            return Prediction(self.slots(dialogue) if isinstance(task, SlotTask) else [], np.zeros((0, 1)))
        if isinstance(task, GoalSegmentation):
            rows = self.goals(len(dialogue.turns))
        else:
            rows = np.tile(self.classes(task), (len(dialogue.turns), 1))
        return Prediction(task.decode(rows, dialogue, [None] * (2 * len(dialogue.turns)), decoded), rows)

    @abstractmethod
    def classes(self, task: Task) -> np.ndarray:
        """Probabilities [K] of a task that classifies turns."""

    @abstractmethod
    def goals(self, num_turns: int) -> np.ndarray:
        """Probabilities [turns, 1 + turns]: a new goal, then each earlier turn."""

    @abstractmethod
    def slots(self, dialogue: Dialogue) -> list[Label]:
        """Slot labels of a dialogue."""


class Majority(Baseline):
    """The most frequent class, one goal a dialogue, no slots."""

    def classes(self, task: Task) -> np.ndarray:
        return self.frequencies[task.name]

    def goals(self, num_turns: int) -> np.ndarray:
        return np.eye(num_turns, 1 + num_turns)

    def slots(self, dialogue: Dialogue) -> list[Label]:
        return []


class Eager(Baseline):
    """Always failure, defect and a new goal; the majority's intent; and every slot value that training held, wherever it stands."""

    def __init__(self, tasks: Mapping[str, Task], dialogues: Sequence[Dialogue]) -> None:
        super().__init__(tasks, dialogues)
        self.values = slot_values(dialogues)
        self.longest = max(map(len, self.values), default=0)

    def classes(self, task: Task) -> np.ndarray:
        if RARE.get(task.name) not in task.labels:
            return self.frequencies[task.name]
        chosen: np.ndarray = np.eye(len(task.labels))[task.labels.index(RARE[task.name])]
        return chosen

    def goals(self, num_turns: int) -> np.ndarray:
        return np.tile(np.eye(1, 1 + num_turns), (num_turns, 1))

    def slots(self, dialogue: Dialogue) -> list[Label]:
        return [
            Label(
                task=SlotTask.name, value=name, turns=[t], confidence=1.0, part=part, start=start, end=end, text=text[start:end], source=""
            )
            for t, turn in enumerate(dialogue.turns)
            for part in PARTS
            if (text := turn.text(part))
            for name, start, end in self._found(text)
        ]

    def _found(self, text: str) -> Iterator[tuple[str, int, int]]:
        """(slot, start, end) of known values, the longest first from the left; what is taken is not taken again."""
        words = list(WORD.finditer(text))
        at = 0
        while at < len(words):
            sizes = range(min(self.longest, len(words) - at), 0, -1)
            size = next((n for n in sizes if tuple(word.group().casefold() for word in words[at : at + n]) in self.values), 0)
            if size:
                piece = words[at : at + size]
                yield self.values[tuple(word.group().casefold() for word in piece)], piece[0].start(), piece[-1].end()
            at += max(size, 1)


BASELINES: dict[str, Callable[[Mapping[str, Task], Sequence[Dialogue]], Baseline]] = {"majority": Majority, "eager": Eager}


def frequencies(task: Task, dialogues: Iterable[Dialogue]) -> np.ndarray:
    """Shares [K] of a task's classes among the labelled turns; equal shares where none is labelled.

    Raises:
        ValueError: the task's targets are not the numbers of its labels, one a turn.
    """
    counts = np.zeros(len(task.labels))
    for dialogue in dialogues:
        target = task.encode(dialogue, [None] * (2 * len(dialogue.turns)))
        known = target[labelled(target)]
        if target.shape == (len(dialogue.turns), len(counts)):  # distributions: what counts is the class that they are scored by
            counts += [list(task.values(dialogue)).count(label) for label in task.labels]
            continue
        fits = target.shape == (len(dialogue.turns),) and np.issubdtype(target.dtype, np.integer)
        if not fits or not ((known >= 0) & (known < len(counts))).all():
            raise ValueError(f"task {task.name}: its targets are not the numbers of its {len(counts)} labels, one a turn")
        counts += np.bincount(known, minlength=len(counts))
    shares: np.ndarray = counts / counts.sum() if counts.any() else np.full(len(counts), 1.0 / max(len(counts), 1))
    return shares


def slot_values(dialogues: Iterable[Dialogue]) -> dict[tuple[str, ...], str]:
    """The words of each marked slot value -> its most frequent name."""
    names: defaultdict[tuple[str, ...], Counter[str]] = defaultdict(Counter)
    for dialogue in dialogues:
        for turn in dialogue.turns:
            for part in PARTS:
                for slot in marked(turn.slots(part)):
                    names[tuple(word.casefold() for word in WORD.findall(slot.value or ""))][slot.name] += 1
    names.pop((), None)
    return {words: count.most_common(1)[0][0] for words, count in names.items()}


def _classifies(task: Task) -> bool:
    return task.level == "turn" and not isinstance(task, GoalSegmentation)
