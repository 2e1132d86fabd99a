"""Every task: what is not annotated changes neither loss, gradient nor metric, and a batch without labels leaves a zero gradient."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from labelgen.dialogue import Dialogue, Vote
from labelgen.inputs.batch import IGNORE, Batch, Collator, TextEncoder, labelled
from labelgen.inputs.features import FeatureSpace
from labelgen.metrics import Accuracy, Compared, Figure, Prediction
from labelgen.model.encoder import States
from labelgen.model.losses import Loss, masked_cross_entropy
from labelgen.network import Network
from labelgen.tasks import Decoded, Earlier, Task, Utterances, classes
from labelgen.tasks.defect import Defect
from labelgen.tasks.goal_evaluation import GoalEvaluation
from labelgen.tasks.goal_segmentation import GoalSegmentation
from labelgen.tasks.intent import Intent
from labelgen.tasks.satisfaction import DialogueSatisfaction, Satisfaction
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
    rows = sum(task.rows(batch))
    states = States(torch.zeros(len(batch.ids), 8), torch.zeros(len(batch.utterances), 8))
    shaped = task.head(8, 0.1).eval()(states, batch)
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


@pytest.mark.parametrize("bad", [torch.inf, torch.nan])
@pytest.mark.parametrize("name", NAMES)
def test_inf_and_nan_of_masked_rows_change_neither_loss_nor_gradient(
    name: str, bad: float, tasks: dict[str, Task], dialogues: list[Dialogue], collate: Collator
) -> None:
    task = tasks[name]
    batch = collate([hide(dialogue, {1, 2}) for dialogue in dialogues[:3]])
    masked = batch.targets[name] == IGNORE
    assert masked.any()
    assert not masked.all()
    logits = logits_of(task, batch, 0)
    loss, grad = gradient(task, logits, batch)
    spoilt = logits.detach().masked_fill(masked[:, None], bad).requires_grad_()
    assert gradient(task, spoilt, batch)[0] == pytest.approx(loss, abs=1e-4)
    torch.testing.assert_close(gradient(task, spoilt, batch)[1], grad)


@pytest.mark.parametrize("name", ["intent", "defect", "goal_evaluation", "satisfaction", "dialogue_satisfaction"])
def test_nan_of_what_is_not_annotated_changes_no_metric(name: str, tasks: dict[str, Task], dialogues: list[Dialogue]) -> None:
    task = {**tasks, "satisfaction": Satisfaction(), "dialogue_satisfaction": DialogueSatisfaction()}[name]
    vote = [Vote(question="satisfaction", value=2.0), Vote(question="satisfaction", value=4.5)]
    for dialogue in (hide(dialogue, {1, 2}) for dialogue in dialogues[:5]):
        turns = [turn.model_copy(update={"votes": vote if t % 2 else []}) for t, turn in enumerate(dialogue.turns)]
        dialogue = dialogue.model_copy(update={"turns": turns})
        known = labelled(task.encode(dialogue, [None] * (2 * len(turns))))
        assert not known.all()
        rows = np.random.default_rng(0).dirichlet(np.ones(len(task.labels)), len(known))
        spoilt = np.where(known[:, None], rows, np.nan)
        clean, other = (figures(task, [dialogue], [Prediction([], values)]) for values in (rows, spoilt))
        np.testing.assert_equal(other, clean)


@pytest.mark.parametrize("rate", [0.0, 0.4])
def test_heads_take_the_configured_dropout(make_encoder: Callable[..., Any], tasks: dict[str, Task], rate: float) -> None:
    every = {**tasks, "dialogue_satisfaction": DialogueSatisfaction()}
    heads = Network(make_encoder(dropout=rate), every).heads
    rates = {name: [module.p for module in head.modules() if isinstance(module, torch.nn.Dropout)] for name, head in heads.items()}
    assert rates == {name: [] if name == "goal_segmentation" else [rate] for name in every}


@pytest.mark.parametrize("task", [GoalEvaluation(), Defect(), GoalSegmentation(), Satisfaction()], ids=lambda task: task.name)
def test_fixed_labels_cannot_be_reordered_or_renamed(task: Task) -> None:
    assert task.with_labels(list(task.labels)) is task
    for other in ([*reversed(task.labels), "x"], list(task.labels[1:]) or ["x"], [label.upper() for label in task.labels] or ["x"]):
        with pytest.raises(ValueError, match=f"task '{task.name}' has the labels"):
            task.with_labels(other)
    with pytest.raises(TypeError, match="labels"):
        type(task)(labels=task.labels)  # type: ignore[call-arg]


def test_a_configured_label_space_is_kept_and_the_rest_ignored(dialogues: list[Dialogue]) -> None:
    values = sorted({value for dialogue in dialogues for value in Intent().values(dialogue)})
    task = fit_labels(Intent(labels=values[1:3]), dialogues)
    assert task.labels == tuple(values[1:3])
    targets = np.concatenate([task.encode(dialogue, []) for dialogue in dialogues])
    gold = [turn.intent for dialogue in dialogues for turn in dialogue.turns]
    assert targets.tolist() == [values[1:3].index(value) if value in values[1:3] else IGNORE for value in gold]


@dataclass(frozen=True)
class Resumes(Task):
    """A task over pairs: do two turns serve one goal? It has no base of its own, so it implements the five methods."""

    name: ClassVar[str] = "resumes"
    score: ClassVar[str] = "accuracy"
    level: ClassVar = "turn_pair"
    labels = ("other", "same")

    def encode(self, dialogue: Dialogue, utterances: Utterances) -> np.ndarray:
        goals = dialogue.goal_of_turns()
        return classes((self.labels[goals[t] == goals[u]] for t in range(len(goals)) for u in range(t)), self.labels, IGNORE)

    def head(self, width: int, dropout: float) -> torch.nn.Module:
        class Head(torch.nn.Module):
            def forward(self, states: States, batch: Batch) -> torch.Tensor:
                starts = np.cumsum([0, *batch.num_turns])
                pairs = [(s + t, s + u) for s, n in zip(starts, batch.num_turns, strict=False) for t in range(n) for u in range(t)]
                scores = (states.request @ states.request.T)[tuple(torch.tensor(pairs).reshape(-1, 2).T)]
                return torch.stack([-scores, scores], 1)

        return Head()

    def loss(self, logits: torch.Tensor, batch: Batch) -> Loss:
        return masked_cross_entropy(logits, batch.targets[self.name])

    def metrics(self) -> dict[str, Figure]:
        return {"accuracy": Figure(Accuracy(), self.compare)}

    def compare(self, dialogue: Dialogue, prediction: Prediction) -> Compared:
        target = self.encode(dialogue, []).tolist()
        return Compared(prediction.probabilities.argmax(1).tolist(), [None if k == IGNORE else k for k in target])

    def decode(self, probabilities: np.ndarray, dialogue: Dialogue, utterances: Utterances, earlier: Earlier) -> list[Decoded]:
        pairs = [(u, t) for t in range(len(dialogue.turns)) for u in range(t)]
        return [Decoded(self.labels[row.argmax()], pair, row.max()) for pair, row in zip(pairs, probabilities, strict=True)]


def test_rows_may_be_pairs_of_turns_or_dialogues(
    make_encoder: Callable[..., Any], dialogues: list[Dialogue], features: FeatureSpace
) -> None:
    encoder = make_encoder()
    every = {task.name: task for task in (Resumes(), DialogueSatisfaction())}
    network = Network(encoder, every).eval()
    batch = Collator(TextEncoder(encoder.tokenizer, encoder.max_tokens), features, {n: t.encode for n, t in every.items()})(dialogues)
    with torch.no_grad():
        logits = network(batch)
        for name, predictions in [(name, network.predict(logits, batch, "test")) for name in every]:
            assert len(batch.targets[name]) == len(logits[name]) == sum(len(one[name].probabilities) for one in predictions)
    for dialogue, one in zip(batch.dialogues, predictions, strict=True):
        turns = len(dialogue.turns)
        assert [label.turns for label in one["resumes"].labels] == [[u, t] for t in range(turns) for u in range(t)]
        assert [label.turns for label in one["dialogue_satisfaction"].labels] == [list(range(turns))]
        for figure in Resumes().metrics().values():
            figure.observe(dialogue, one["resumes"])


def predict(task: Task, batch: Batch, rows: np.ndarray) -> list[Prediction]:
    found = []
    for dialogue, utterances, part in zip(batch.dialogues, batch.encodings, np.split(rows, np.cumsum(task.rows(batch))[:-1]), strict=True):
        decoded = task.decode(part, dialogue, utterances, {})  # none of goal evaluation, which has no goals here
        found.append(Prediction([item.label(task.name, "test") for item in decoded], part))
    return found


def figures(task: Task, dialogues: Sequence[Dialogue], predictions: Sequence[Prediction]) -> dict[str, list[float]]:
    read = task.metrics()
    for figure in read.values():
        for dialogue, prediction in zip(dialogues, predictions, strict=True):
            figure.observe(dialogue, prediction)
    return {key: [float(figure.metric.compute()), *figure.metric.merged.tolist()] for key, figure in read.items()}


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
            Prediction(
                [label.model_copy(update={"turns": [t for t in label.turns if t not in hidden]}) for label in row.labels], row.probabilities
            )
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
    learned = fit_labels(type(task)(), dialogues)
    assert len(set(learned.labels)) == len(learned.labels)
    assert learned == task == fit_labels(type(task)(), dialogues[::-1])


def test_classes_outside_the_label_space_are_ignored() -> None:
    assert classes(["b", None, "x", "a"], ("a", "b"), IGNORE).tolist() == [1, IGNORE, IGNORE, 0]
