"""The network learns all five tasks at once, says the same whatever the company, and takes any dialogue."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from labelgen.dialogue import Dialogue, Turn
from labelgen.inputs.batch import Collator
from labelgen.metrics import Prediction
from labelgen.model.encoder import Encoder
from labelgen.network import Network
from labelgen.tasks import Task
from labelgen.tasks.intent import Intent


def say(network: Network, collate: Collator, dialogues: list[Dialogue]) -> dict[str, dict[str, Prediction]]:
    """By id."""
    with torch.no_grad():
        batch = collate(dialogues)
        said = network.predict(network(batch), batch, "test")
    return {dialogue.id: prediction for dialogue, prediction in zip(batch.dialogues, said, strict=True)}


def test_a_tiny_model_overfits_one_batch(
    make_encoder: Callable[..., Encoder], tasks: dict[str, Task], collate: Collator, dialogues: list[Dialogue]
) -> None:
    network = Network(make_encoder(), tasks).train()
    batch = collate(dialogues[:2])
    optimizer = torch.optim.AdamW(network.parameters(), 5e-3)
    for _ in range(120):
        losses = network.losses(network(batch), batch)
        optimizer.zero_grad()
        torch.stack([loss.total / loss.count for loss in losses.values()]).sum().backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
    said = say(network.eval(), collate, dialogues[:2])
    for name, task in tasks.items():
        for key, figure in task.metrics().items():
            for dialogue in dialogues[:2]:
                figure.observe(dialogue, said[dialogue.id][name])
            value = float(figure.metric.compute())
            assert (value > 0.9 if figure.metric.higher_is_better else value < 0.1) or np.isnan(value), (name, key, value)


def test_company_and_order_change_no_prediction(network: Network, collate: Collator, dialogues: list[Dialogue]) -> None:
    together = say(network, collate, dialogues)
    backwards = say(network, collate, dialogues[::-1])
    for dialogue in dialogues:
        for other in (backwards[dialogue.id], say(network, collate, [dialogue])[dialogue.id]):
            for name, prediction in together[dialogue.id].items():
                width = other[name].probabilities.shape[1]  # goal segmentation has a column for each turn of the longest dialogue
                np.testing.assert_allclose(other[name].probabilities, prediction.probabilities[:, :width], atol=1e-5)
                assert [(label.value, label.turns, label.start) for label in other[name].labels] == [
                    (label.value, label.turns, label.start) for label in prediction.labels
                ]


def test_labels_say_where_they_come_from(network: Network, collate: Collator, dialogues: list[Dialogue]) -> None:
    for predictions in say(network, collate, dialogues[:2]).values():
        for name, prediction in predictions.items():
            assert {(label.task, label.source) for label in prediction.labels} <= {(name, "test")}


@pytest.mark.parametrize(
    "turns",
    [
        [Turn()],
        [Turn(request="", response="")],
        [Turn(response="Welcome!"), Turn(request="hi")],
        [Turn(request="a " * 5_000, response="ok")],
        [Turn(request=f"number {k % 7}", response="yes") for k in range(500)],
        [Turn(), Turn(request="שלום 🙏🏽 e\u0301", numerical={"recogniser_confidence": None})],
    ],
    ids=["nothing", "empty", "system first", "10,000 characters", "500 turns", "scripts"],
)
def test_any_dialogue_is_labelled(turns: list[Turn], network: Network, collate: Collator, dialogues: list[Dialogue]) -> None:
    odd = Dialogue(id="odd", turns=turns)
    for company in ([odd], [odd, dialogues[0]]):
        labels = [label for prediction in say(network, collate, company)["odd"].values() for label in prediction.labels]
        covered = sorted(turn for label in labels if label.task == "goal_segmentation" for turn in label.turns)
        assert covered == list(range(len(turns)))
        assert all(np.isfinite(label.confidence) for label in labels)


def test_a_key_that_is_not_the_tasks_name_is_refused(make_encoder: Callable[..., Encoder]) -> None:
    with pytest.raises(ValueError, match="the key must be the task's name"):
        Network(make_encoder(), {"aim": Intent(labels=("a",))})
