"""The Labeler: the sum of the tasks' mean losses, figures where there are labels, a description of plain values, layer-wise rates."""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from labelgen.dialogue import Dialogue, Turn
from labelgen.inputs.batch import Collator
from labelgen.metrics import Accuracy, BinaryF1, Compared, Figure, Prediction
from labelgen.model.encoder import Encoder
from labelgen.tasks import Task
from labelgen.tasks.intent import Intent
from labelgen.training.labeler import Labeler
from labelgen.training.learner import parameter_groups


@pytest.fixture
def labeler(make_encoder: Callable[..., Encoder], tasks: dict[str, Task], monkeypatch: pytest.MonkeyPatch) -> Labeler:
    """With a stand-in for the trainer that takes what is logged into `logged`."""
    made = Labeler(make_encoder(), tasks, partial(torch.optim.AdamW))
    logged: dict[str, float] = {}
    monkeypatch.setattr(made, "log", lambda name, value, **_: logged.update({name: float(value)}))
    monkeypatch.setattr(made, "log_dict", lambda values, **_: logged.update({name: float(value) for name, value in values.items()}))
    made._trainer = SimpleNamespace(world_size=1, sanity_checking=False)  # type: ignore[assignment]
    made.logged = logged  # type: ignore[assignment]
    return made


def validate(labeler: Labeler, collate: Collator, dialogues: list[Dialogue]) -> dict[str, float]:
    logged: Any = labeler.logged
    logged.clear()
    labeler.eval()
    with torch.no_grad():
        for start in range(0, len(dialogues), 3):
            labeler.validation_step(collate(dialogues[start : start + 3]), 0)
        labeler.on_validation_epoch_end()
    return dict(logged)


def test_the_loss_is_the_weighted_sum_of_means(labeler: Labeler, collate: Collator, dialogues: list[Dialogue]) -> None:
    labeler.eval()
    weights = {name: 0.5 * k for k, name in enumerate(labeler.network.tasks)}  # 0: this task does not learn
    labeler.network.tasks = {name: replace(task, weight=weights[name]) for name, task in labeler.network.tasks.items()}
    batch = collate(dialogues[:3])
    losses = labeler.network.losses(labeler.network(batch), batch)
    wanted = sum(weights[name] * (loss.total / loss.count).item() for name, loss in losses.items())
    assert labeler.training_step(batch, 0).item() == pytest.approx(wanted, rel=1e-5)
    assert set(labeler.logged) == {"train/loss"}  # type: ignore[arg-type]
    assert set(labeler._losses) == {"train/loss", *(f"train/{name}_loss" for name in losses)}


def test_batches_do_not_matter_to_figures(labeler: Labeler, collate: Collator, dialogues: list[Dialogue]) -> None:
    one = validate(labeler, collate, dialogues)
    assert one == pytest.approx(validate(labeler, collate, dialogues[::-1]))


def test_what_is_not_labelled_has_no_figure(labeler: Labeler, collate: Collator, dialogues: list[Dialogue]) -> None:
    bare = [dialogue.content() for dialogue in dialogues[:4]]
    assert validate(labeler, collate, bare) == {"valid/score": 0.0}
    for dialogue in bare:
        dialogue.turns[0].intent = labeler.network.tasks["intent"].labels[0]
    figures = validate(labeler, collate, bare)
    assert set(figures) == {"valid/score", "valid/intent/accuracy", "valid/intent/macro_f1"}
    assert figures["valid/score"] == figures["valid/intent/accuracy"]


@dataclass(frozen=True)
class Guess(Intent):
    """A task whose predictions are given, scored by one of three figures: for the test of what valid/score is made of."""

    preds: ClassVar[list[str]] = []
    score: ClassVar[str] = "error"

    def metrics(self) -> dict[str, Figure]:
        def read(dialogue: Dialogue, prediction: Prediction) -> Compared:
            return Compared(self.preds, [turn.intent for turn in dialogue.turns])

        def found(dialogue: Dialogue, prediction: Prediction) -> Compared:
            target = [None if turn.intent is None else turn.intent == "rare" for turn in dialogue.turns]
            return Compared([pred == "rare" for pred in self.preds], target)

        return {"accuracy": Figure(Accuracy(), read), "error": Figure(ErrorRate(), read), "f1": Figure(BinaryF1(), found)}


class ErrorRate(Accuracy):
    """A figure of which less is better."""

    higher_is_better = False

    def value(self, sums: np.ndarray) -> np.ndarray:
        return 1.0 - super().value(sums)


def score_of(
    make_encoder: Callable[..., Encoder], collate: Collator, preds: list[str], score: str, intents: list[str | None]
) -> tuple[float, list[str]]:
    """valid/score of a task that predicts `preds`, and the names of the figures that were logged."""
    kind = type("Guess", (Guess,), {"preds": preds, "score": score})
    labeler = Labeler(make_encoder(), {"intent": kind(labels=("a", "b", "rare"))}, partial(torch.optim.AdamW))
    logged: dict[str, float] = {}
    labeler.log = lambda name, value, **_: logged.update({name: float(value)})  # type: ignore[method-assign,assignment]
    labeler.log_dict = lambda values, **_: logged.update(values)  # type: ignore[method-assign,assignment]
    labeler._trainer = SimpleNamespace(world_size=1, sanity_checking=False)  # type: ignore[assignment]
    labeler.logged = logged  # type: ignore[assignment]
    dialogue = Dialogue(id="a", turns=[Turn(request="x", intent=intent) for intent in intents])
    return validate(labeler, collate, [dialogue])["valid/score"], [key for key in logged if key != "valid/score"]


def test_a_task_names_the_figure_that_selects_models(make_encoder: Callable[..., Encoder], collate: Collator) -> None:
    intents: list[str | None] = ["a", "a", "b", "rare"]
    preds = ["a", "b", "b", "a"]
    scores = {name: score_of(make_encoder, collate, preds, name, intents)[0] for name in ("accuracy", "error", "f1")}
    assert scores == {"accuracy": 0.5, "error": 0.5, "f1": 0.0}, "of the error rate 1 - .5 counts: less of it is better"
    assert score_of(make_encoder, collate, intents, "error", intents)[0] == 1.0, "no error is the best score"
    with pytest.raises(ValueError, match="task intent: its score 'precision' is none of its metrics; name one of accuracy, error, f1"):
        score_of(make_encoder, collate, preds, "precision", intents)


def test_annotations_alone_decide_which_tasks_are_scored(
    make_encoder: Callable[..., Encoder], collate: Collator, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    silent, alarm = (score_of(make_encoder, collate, preds, "f1", ["a", "b"]) for preds in (["a", "b"], ["rare", "b"]))
    assert silent[0] == alarm[0] == 0.0, "without a positive label neither silence nor a false alarm is scored"
    assert "valid/score is 0: the validation dialogues hold no positive label of intent" in caplog.text
    assert score_of(make_encoder, collate, ["a", "b"], "f1", ["rare", "b"])[0] == 0.0, "a missed positive counts as 0"
    assert "valid/score is the mean of intent (f1, 1 positive)" in caplog.text


@pytest.mark.parametrize("name", ["goal_segmentation", "goal_evaluation", "intent", "slot", "defect"])
def test_the_score_of_every_task_is_one_of_its_figures(name: str, tasks: dict[str, Task]) -> None:
    assert tasks[name].score in tasks[name].metrics()


def test_the_description_is_plain_and_whole(labeler: Labeler) -> None:
    description = labeler.describe()
    assert json.loads(json.dumps(description)) == description
    assert list(description["tasks"]) == list(labeler.network.tasks)
    for name, spec in description["tasks"].items():
        task = labeler.network.tasks[name]
        assert type(task)(weight=spec["weight"]).with_labels(spec["labels"]) == task


def test_without_tasks_there_is_nothing_to_train(make_encoder: Callable[..., Encoder]) -> None:
    with pytest.raises(ValueError, match="there is none to train"):
        Labeler(make_encoder(), {}, partial(torch.optim.AdamW))


def test_rates_fall_towards_the_embeddings(make_encoder: Callable[..., Encoder], tasks: dict[str, Task]) -> None:
    encoder = make_encoder()
    labeler = Labeler(encoder, tasks, partial(torch.optim.AdamW))
    groups = parameter_groups(labeler, encoder, 1.0, 0.1, 0.5)
    rate = {id(parameter): group["lr"] for group in groups for parameter in group["params"]}
    assert rate.keys() == {id(parameter) for parameter in labeler.parameters()}
    backbone = encoder.turn_encoder.backbone
    assert rate[id(backbone.layers[1].attention_output.weight)] == pytest.approx(0.1)
    assert rate[id(backbone.layers[0].attention_output.weight)] == pytest.approx(0.05)
    assert rate[id(backbone.word_embeddings.weight)] == pytest.approx(0.025)
    assert rate[id(encoder.dialogue_encoder.missing_utterance)] == rate[id(labeler.network.heads["intent"].linear.weight)] == 1.0
    for group in groups:
        assert all((parameter.ndim > 1) == ("weight_decay" not in group) for parameter in group["params"])
    frozen = make_encoder(frozen_layers=1)
    parts = parameter_groups(frozen, frozen, 1.0, 0.1, 0.5)
    assert {id(p) for group in parts for p in group["params"]} == {id(p) for p in frozen.parameters() if p.requires_grad}


def test_a_checkpoint_holds_its_description(labeler: Labeler, tmp_path: Path) -> None:
    labeler.description = labeler.describe()
    checkpoint: dict[str, Any] = {}
    labeler.on_save_checkpoint(checkpoint)
    torch.save(checkpoint, tmp_path / "x.ckpt")
    assert torch.load(tmp_path / "x.ckpt", weights_only=True)["labelgen"] == labeler.description
