"""Every task: what is not annotated changes neither loss, gradient nor metric, and a batch without labels leaves a zero gradient."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from labelgen.dialogue import Dialogue
from labelgen.inputs.batch import IGNORE, Batch, Collator
from labelgen.metrics import Prediction
from labelgen.model.encoder import States
from labelgen.network import Network
from labelgen.tasks import Task, classes
from labelgen.training.data import fit_labels

pytestmark = pytest.mark.filterwarnings("ignore:Generating overly large repr")  # of the dialogues, where a test fails
NAMES = ("goal_segmentation", "goal_evaluation", "intent", "slot", "defect")
SHARED = settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def hide(dialogue: Dialogue, hidden: set[int]) -> Dialogue:
    """Without the annotations of some turns."""
    nothing: dict[str, Any] = {"intent": None, "defect": None, "request_slots": None, "response_slots": None}
    turns = [turn.model_copy(update=nothing) if t in hidden else turn for t, turn in enumerate(dialogue.turns)]
    goals = [goal.model_copy(update={"turns": [t for t in goal.turns if t not in hidden]}) for goal in dialogue.goals or ()]
    goals = [goal for goal in goals if goal.turns]
    return dialogue.model_copy(update={"turns": turns, "goals": goals or None})


def logits_of(task: Task, batch: Batch, seed: int) -> torch.Tensor:
    """Random, with -inf where the task's head has it."""
    rows = len(batch.utterances) // 2 if task.level == "turn" else len(batch.token)
    states = States(torch.zeros(len(batch.ids), 8), torch.zeros(len(batch.utterances), 8))
    shaped = task.head(8).eval()(states, batch)
    assert len(shaped) == rows
    noise = torch.randn(shaped.shape, generator=torch.Generator().manual_seed(seed))
    return (shaped.detach() * 0 + noise).masked_fill(shaped.isinf(), -torch.inf).requires_grad_()


def gradient(task: Task, logits: torch.Tensor, batch: Batch) -> tuple[float, torch.Tensor]:
    logits.grad = None
    loss = task.loss(logits, batch).total
    loss.backward()
    assert logits.grad is not None
    return loss.item(), logits.grad.clone()


@SHARED
@given(hidden=st.sets(st.integers(0, 8)), seed=st.integers(0, 99))
@pytest.mark.parametrize("name", NAMES)
def test_what_is_masked_changes_neither_loss_nor_gradient(
    name: str, hidden: set[int], seed: int, tasks: dict[str, Task], dialogues: list[Dialogue], collate: Collator
) -> None:
    task = tasks[name]
    batch = collate([hide(dialogue, hidden) for dialogue in dialogues[:3]])
    masked = batch.targets[name] == IGNORE
    logits = logits_of(task, batch, seed)
    loss, grad = gradient(task, logits, batch)
    assert not grad[masked].any()
    other = torch.where(masked[:, None], logits_of(task, batch, seed + 1), logits).detach().requires_grad_()
    assert gradient(task, other, batch)[0] == pytest.approx(loss, abs=1e-4)
    torch.testing.assert_close(gradient(task, other, batch)[1], grad)
    if not masked.all():
        assert loss > 0 or name == "goal_segmentation"


def predict(task: Task, batch: Batch, rows: np.ndarray) -> list[Prediction]:
    counts = batch.num_turns if task.level == "turn" else batch.num_tokens
    found = []
    for dialogue, utterances, part in zip(batch.dialogues, batch.encodings, np.split(rows, np.cumsum(counts)[:-1]), strict=True):
        labels = [] if task.name == "goal_evaluation" else task.decode(part, dialogue, utterances, {})
        found.append(Prediction(labels, part))
    return found


def figures(task: Task, dialogues: Sequence[Dialogue], predictions: Sequence[Prediction]) -> dict[str, list[float]]:
    read = task.metrics()
    for figure in read.values():
        for dialogue, prediction in zip(dialogues, predictions, strict=True):
            figure.observe(dialogue, prediction)
    return {key: [float(figure.metric.compute()), *figure.metric.sums.tolist()] for key, figure in read.items()}


@SHARED
@given(hidden=st.sets(st.integers(0, 8)), seed=st.integers(0, 99))
@pytest.mark.parametrize("name", NAMES)
def test_what_is_said_of_masked_items_changes_no_metric(
    name: str, hidden: set[int], seed: int, tasks: dict[str, Task], dialogues: list[Dialogue], collate: Collator
) -> None:
    task = tasks[name]
    batch = collate([hide(dialogue, hidden) for dialogue in dialogues[:3]])
    one, other = (logits_of(task, batch, k).softmax(1).detach() for k in (seed, seed + 1))
    said = predict(task, batch, one.numpy())
    if name == "goal_segmentation":  # one decision of it depends on those before: compare the decided goals
        moved = [
            Prediction([label.model_copy(update={"turns": [t for t in label.turns if t not in hidden]}) for label in row.labels], None)
            for row in said
        ]
    else:
        unlabelled = batch.targets[name] == IGNORE
        if name == "slot":  # an annotated utterance is an item as a whole, the words of a missing slot name too
            utterances = torch.tensor([t in hidden for d in batch.dialogues for t in range(len(d.turns)) for _ in range(2)])
            unlabelled = utterances[batch.token_utterance]
        moved = predict(task, batch, torch.where(unlabelled[:, None], other, one).numpy())
    np.testing.assert_equal(figures(task, batch.dialogues, moved), figures(task, batch.dialogues, said))


@pytest.mark.parametrize("name", NAMES)
def test_without_labels_figures_are_not_numbers(name: str, tasks: dict[str, Task], dialogues: list[Dialogue], collate: Collator) -> None:
    task = tasks[name]
    batch = collate([dialogue.content() for dialogue in dialogues[:3]])
    predictions = predict(task, batch, logits_of(task, batch, 0).softmax(1).detach().numpy())
    for key, (value, *_) in figures(task, batch.dialogues, predictions).items():
        assert np.isnan(value), key


def test_a_batch_without_labels_leaves_a_zero_gradient_everywhere(
    make_encoder: Callable[..., Any], tasks: dict[str, Task], dialogues: list[Dialogue], collate: Collator
) -> None:
    network = Network(make_encoder(), tasks).train()
    lonely = dialogues[0].content().model_copy(update={"turns": dialogues[0].content().turns[:1]})
    for rows in ([dialogue.content() for dialogue in dialogues[:3]], [lonely]):
        network.zero_grad()
        batch = collate(rows)
        losses = network.losses(network(batch), batch)
        assert all(loss.total == 0 and loss.count == 0 for loss in losses.values())
        torch.stack([loss.total for loss in losses.values()]).sum().backward()
        for key, parameter in network.named_parameters():
            assert parameter.grad is not None, key
            assert not parameter.grad.any(), key


@pytest.mark.parametrize("name", NAMES)
def test_labels_are_learned_once_and_in_order(name: str, tasks: dict[str, Task], dialogues: list[Dialogue]) -> None:
    task = tasks[name]
    assert fit_labels(task, dialogues[:1]) == task or name == "goal_segmentation"
    learned = fit_labels(type(task)(labels=()), dialogues)
    assert list(learned.labels) == sorted(set(learned.labels))
    assert learned == fit_labels(type(task)(labels=()), dialogues[::-1])


def test_classes_outside_the_label_space_are_ignored() -> None:
    assert classes(["b", None, "x", "a"], ("a", "b"), IGNORE).tolist() == [1, IGNORE, IGNORE, 0]
