"""Satisfaction: what of several votes is learned, where it is read, and that what nobody rated changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from labelgen.dialogue import Dialogue, Turn, Vote
from labelgen.inputs.batch import Collator, TextEncoder, labelled
from labelgen.inputs.features import FeatureSpace
from labelgen.metrics import Prediction
from labelgen.model.encoder import Encoder
from labelgen.model.losses import masked_cross_entropy, ranked_probability
from labelgen.network import Network
from labelgen.tasks.satisfaction import CLASSES, DialogueSatisfaction, Rated, Satisfaction, of_mean, of_votes
from labelgen.training.data import annotated

ratings = st.lists(st.sampled_from([1.0, 2.0, 3.0, 4.0, 5.0]), min_size=1, max_size=4)


def votes(*values: float) -> list[Vote]:
    return [Vote(question="satisfaction", value=value) for value in values]


def rated(*rows: tuple[float, ...], whole: tuple[float, ...] = ()) -> Dialogue:
    turns = [Turn(request=f"request {k}", response="answer", votes=votes(*row)) for k, row in enumerate(rows)]
    return Dialogue(id="a", turns=turns, votes=votes(*whole))


@given(ratings)
def test_targets_are_distributions_and_agree_where_annotators_do(values: list[float]) -> None:
    for target in (of_mean, of_votes):
        assert target(values).sum() == pytest.approx(1.0)
        assert (target([values[0]] * 3) == of_mean(values[:1])).all()


def test_the_class_is_the_sign_of_the_mean_not_the_majority() -> None:
    assert CLASSES[of_mean([3.0, 3.0, 4.0]).argmax()] == "satisfied"
    assert of_votes([3.0, 3.0, 4.0]) == pytest.approx([0, 2 / 3, 1 / 3])
    assert CLASSES[of_mean([2.0, 4.0]).argmax()] == "neutral"


def test_other_questions_and_words_are_no_ratings() -> None:
    other = [Vote(question="goal_success", value=1.0), Vote(question="satisfaction", value="good")]
    dialogue = Dialogue(id="a", turns=[Turn(request="x", votes=other)])
    assert not labelled(Satisfaction().encode(dialogue, [None, None])).any()
    assert not annotated(Satisfaction(), dialogue)
    assert not list(Satisfaction().values(dialogue))


def test_where_ratings_are_read() -> None:
    dialogue = rated((3.0,), (), (1.0, 2.0), whole=(5.0, 4.0))
    assert labelled(Satisfaction().encode(dialogue, [None] * 6)).tolist() == [True, False, True]
    assert labelled(DialogueSatisfaction().encode(dialogue, [None] * 6)).tolist() == [True], "one row a dialogue"
    assert list(Satisfaction().values(dialogue)) == ["neutral", "dissatisfied"]
    assert list(DialogueSatisfaction().values(dialogue)) == ["satisfied"]


def test_figures_read_the_sign_of_the_mean() -> None:
    dialogue = rated((3.0, 4.0), (), (1.0, 3.0))
    rows = np.array([[0.1, 0.2, 0.7], [1.0, 0.0, 0.0], [0.2, 0.5, 0.3]])
    task = Satisfaction()
    said = Prediction([item.label(task.name, "test") for item in task.decode(rows, dialogue, [None] * 6, {})], rows)
    assert [label.value for label in said.labels] == ["satisfied", "dissatisfied", "neutral"]
    figures = task.metrics()
    for figure in figures.values():
        figure.observe(dialogue, said)
    assert figures["accuracy"].metric.compute() == 0.5
    assert figures["correlation"].metric.compute() == pytest.approx(1.0)  # of two points


RATED: list[Rated] = [Satisfaction(), DialogueSatisfaction(target="votes", distance="ranked_probability")]


@pytest.mark.parametrize("task", RATED, ids=lambda task: task.name)
def test_what_nobody_rated_changes_neither_loss_nor_gradient(
    task: Rated, make_encoder: Callable[..., Encoder], features: FeatureSpace
) -> None:
    encoder = make_encoder()
    network = Network(encoder, {task.name: task}).eval()
    collate = Collator(TextEncoder(encoder.tokenizer, encoder.max_tokens), features, {task.name: task.encode})

    def learn(dialogues: list[Dialogue]) -> tuple[Any, torch.Tensor]:
        batch = collate(dialogues)
        logits = network(batch)
        logits[task.name].retain_grad()
        loss = network.losses(logits, batch)[task.name]
        loss.total.backward()
        return loss, logits[task.name].grad

    loss, grad = learn([rated((3.0,), (), (1.0, 2.0), whole=(2.0,)), rated((), ())])
    mask = labelled(collate([rated((3.0,), (), (1.0, 2.0), whole=(2.0,)), rated((), ())]).targets[task.name])
    assert loss.count == mask.sum() > 0
    assert not grad[~mask].any()
    assert grad[mask].any()
    nothing, grad = learn([rated((), ())])
    assert nothing.count == 0
    assert nothing.total == 0
    assert not grad.any()


def test_target_and_distance_are_those_configured(make_encoder: Callable[..., Encoder], features: FeatureSpace) -> None:
    dialogue = rated((3.0, 3.0, 4.0))
    assert Satisfaction(target="mean").encode(dialogue, []).tolist() == [[0, 0, 1]]
    votes = Satisfaction(target="votes").encode(dialogue, [])
    np.testing.assert_allclose(votes, [[0, 2 / 3, 1 / 3]])
    logits = torch.tensor([[0.0, 1.0, 0.0]])
    encoder = make_encoder()
    collate = Collator(TextEncoder(encoder.tokenizer, encoder.max_tokens), features, {"satisfaction": Satisfaction(target="votes").encode})
    batch = collate([dialogue])
    for distance, loss_of in (("cross_entropy", masked_cross_entropy), ("ranked_probability", ranked_probability)):
        loss = Satisfaction(distance=distance).loss(logits, batch)
        assert loss.total.item() == pytest.approx(loss_of(logits, batch.targets["satisfaction"]).total.item())


def test_unknown_targets_are_refused() -> None:
    with pytest.raises(ValueError, match=r"tasks\.satisfaction\.target=majority: .*mean, votes"):
        Satisfaction(target="majority")
    with pytest.raises(ValueError, match=r"tasks\.satisfaction\.distance=far: .*ranked_probability"):
        Satisfaction(distance="far")


def test_ratings_off_the_scale_are_refused() -> None:
    for value in (0.0, -1.0, 80.0):
        with pytest.raises(ValueError, match=r"dialogue 'a': .*map ratings to 1"):
            Satisfaction().encode(rated((3.0, value)), [None, None])


def test_a_causal_model_judges_the_dialogue_after_its_last_response(make_encoder: Callable[..., Encoder], features: FeatureSpace) -> None:
    encoder = make_encoder(causal=True)
    network = Network(encoder, {task.name: task for task in (Satisfaction(), DialogueSatisfaction())}).eval()
    collate = Collator(TextEncoder(encoder.tokenizer, encoder.max_tokens), features, {})
    one, other = (
        network(collate([Dialogue(id="a", turns=[Turn(request="hello", response=words)])])) for words in ("yes", "never in my life")
    )
    assert torch.equal(one["satisfaction"], other["satisfaction"])
    assert not torch.equal(one["dialogue_satisfaction"], other["dialogue_satisfaction"])
