"""Every setting of an encoder acts: what it should change changes, and dropout is what was asked for, where it was asked for."""

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor, nn

from labelgen.config import CONF
from labelgen.dialogue import Dialogue
from labelgen.inputs.batch import Batch, Collator, Group
from labelgen.inputs.features import FIRST, FeatureSpace
from labelgen.model.backbones import HuggingFaceBackbone, PackedBackbone
from labelgen.model.encoder import DialogueEncoder, Encoder, EncoderSettings, FeatureEncoder, TurnEncoder
from labelgen.model.packed import PackedLayer
from labelgen.network import Network
from labelgen.tasks import Task

Make = Callable[..., Encoder]
SMALL = {"vocab_size": 40, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 40}
BERT = {"model_type": "bert", "max_position_embeddings": 48, **SMALL}
ELECTRA = {"model_type": "electra", "embedding_size": 24, "max_position_embeddings": 48, **SMALL}
IDS, GROUPS = torch.arange(3, 33), [Group(3, 10)]
ITEMS = 20_000  # numbers that a rate is estimated from: its standard deviation is .0035 at most


def test_the_yaml_gives_the_defaults() -> None:
    settings = yaml.safe_load((CONF / "encoder" / "base.yaml").read_text("utf-8"))
    assert {key: settings[key] for key in asdict(EncoderSettings())} == asdict(EncoderSettings())


def test_the_description_holds_every_setting_and_builds_the_encoder_again(make_encoder: Make, features: FeatureSpace) -> None:
    changed = {"max_tokens": 9, "frozen_layers": 1, "dialogue_layers": 2, "dialogue_heads": 4, "dropout": 0.2, "backbone_dropout": None}
    encoder = make_encoder(**changed, causal=True)
    assert changed.keys() | {"causal"} == asdict(EncoderSettings()).keys(), "a new setting is tested too"
    description = encoder.describe()
    assert description == {"backbone": encoder.config, **changed, "causal": True}
    assert Encoder(features=features, **description).describe() == description


@pytest.mark.parametrize(("name", "value"), [("dropout", 1.0), ("dropout", -0.1), ("backbone_dropout", 2.0), ("backbone_dropout", -1.0)])
def test_what_is_no_rate_is_refused(make_encoder: Make, name: str, value: float) -> None:
    with pytest.raises(ValueError, match=rf"encoder\.{name}={value}: give a rate"):
        make_encoder(**{name: value})


def train_states(encoder: Encoder, batch: Batch) -> Tensor:
    torch.manual_seed(1)
    states: Tensor = encoder.train()(batch).utterances
    return states.detach()


@pytest.mark.parametrize(
    "changed",
    [
        {"dialogue_layers": 2},
        {"dialogue_heads": 4},
        {"dropout": 0.5},
        {"backbone_dropout": 0.5},
        {"backbone_dropout": None},
        {"causal": True},
    ],
    ids=lambda changed: "=".join(map(str, *changed.items())),
)
def test_a_setting_changes_the_states(changed: dict[str, Any], make_encoder: Make, collate: Collator, dialogues: list[Dialogue]) -> None:
    batch = collate(dialogues[:2])
    assert torch.equal(train_states(make_encoder(), batch), train_states(make_encoder(), batch))
    assert not torch.allclose(train_states(make_encoder(), batch), train_states(make_encoder(**changed), batch), atol=1e-4)


def test_longer_texts_are_cut_at_max_tokens(make_encoder: Make, tasks: dict[str, Task]) -> None:
    for limit in (5, 9):
        encodings = Network(make_encoder(max_tokens=limit), tasks).text_encoder()(["a text of many bytes"])
        assert [len(encoding.ids) for encoding in encodings.values()] == [limit]


def test_dialogue_layers_are_four_times_as_wide_inside(make_encoder: Make) -> None:
    encoder = make_encoder(dialogue_layers=2, dialogue_heads=4)
    for layer in encoder.dialogue_encoder.layers:
        assert isinstance(layer, PackedLayer)
        assert (layer.num_heads, layer.up_projection.out_features) == (4, 4 * encoder.width)


def test_numbers_are_cut_at_five_deviations() -> None:
    encoder = FeatureEncoder(FeatureSpace(numerical={"gap": (0.0, 1.0)}), 4)
    nn.init.ones_(encoder.numerical_projection.weight)  # type: ignore[union-attr]
    given = torch.tensor([[-9e9], [-5.0], [-4.0], [4.0], [5.0], [6.0]])
    found = encoder(torch.zeros(6, 0, dtype=torch.long), given)
    assert isinstance(found, Tensor)
    assert found[:, 0, 0].tolist() == [-5.0, -5.0, -4.0, 4.0, 5.0, 5.0]


# -- dropout ------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("frozen_layers", [0, 1])
def test_without_dropout_training_computes_what_labelling_does(
    frozen_layers: int, make_encoder: Make, tasks: dict[str, Task], collate: Collator, dialogues: list[Dialogue]
) -> None:
    """Heads too: encoder.dropout=0 leaves none anywhere."""
    network = Network(make_encoder(dropout=0.0, backbone_dropout=0.0, frozen_layers=frozen_layers), tasks)
    batch = collate(dialogues[:2])
    served, trained = network.eval()(batch), network.train()(batch)
    for name, logits in served.items():
        assert torch.equal(trained[name], logits), name


def test_heads_take_the_rate(make_encoder: Make, tasks: dict[str, Task]) -> None:
    network = Network(make_encoder(dropout=0.25), tasks)
    rates = {name: [m.p for m in head.modules() if isinstance(m, nn.Dropout)] for name, head in network.heads.items()}
    assert {rate for found in rates.values() for rate in found} == {0.25}
    assert {name for name, found in rates.items() if found} == tasks.keys() - {"goal_segmentation"}


def zeros(values: Tensor) -> float:
    return float((values == 0).float().mean())


def test_the_dialogue_level_drops_its_input_out() -> None:
    encoder = DialogueEncoder(8, 0, 2, 0.3, causal=False)
    encoder.output_norm = nn.Identity()  # type: ignore[assignment]
    states = encoder(torch.ones(ITEMS // 8, 8), [Group(1, ITEMS // 16)])
    assert zeros(states) == pytest.approx(0.3, abs=0.02)
    assert zeros(encoder.eval()(torch.ones(16, 8), [Group(1, 8)])) == 0.0


@pytest.mark.parametrize("silent", ["attention_output", "down_projection"])
def test_a_layer_drops_the_output_of_each_sublayer_out(silent: str) -> None:
    layer = PackedLayer(8, 2, 16, norm_first=True, dropout=0.3)
    x = torch.randn(ITEMS // 8, 8)
    groups = [Group(ITEMS // 8, 1)]
    nn.init.zeros_(getattr(layer, silent).weight)
    nn.init.zeros_(getattr(layer, silent).bias)
    assert zeros(layer(x, groups) - x) == pytest.approx(0.3, abs=0.02)
    assert zeros(layer.eval()(x, groups) - x) < 0.01


def test_a_layer_drops_attention_probabilities_out() -> None:
    layer = PackedLayer(1, 1, 1, norm_first=True, attention_dropout=0.3)
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    nn.init.ones_(layer.attention_output.weight)
    nn.init.ones_(layer.query_key_value.bias)
    x = torch.zeros(ITEMS, 1)  # each a sequence: its one probability is 1 or dropped
    assert zeros(layer(x, [Group(ITEMS, 1)])) == pytest.approx(0.3, abs=0.02)
    assert zeros(layer.eval()(x, [Group(ITEMS, 1)])) == 0.0


def test_the_published_rates_are_kept_or_replaced() -> None:
    published = {**BERT, "hidden_dropout_prob": 0.2, "attention_probs_dropout_prob": 0.3}
    for given, hidden, attention in ((None, 0.2, 0.3), (0.0, 0.0, 0.0), (0.4, 0.4, 0.4)):
        packed = TurnEncoder(published, 0, given).backbone
        assert isinstance(packed, PackedBackbone)
        layers = [layer for layer in packed.layers if isinstance(layer, PackedLayer)]
        assert {packed.dropout.p, *(layer.dropout.p for layer in layers)} == {hidden}
        assert {layer.attention_dropout for layer in layers} == {attention}
        other = TurnEncoder({**published, **ELECTRA}, 0, given).backbone
        assert isinstance(other, HuggingFaceBackbone)
        config = other.model.config
        assert (config.hidden_dropout_prob, config.attention_probs_dropout_prob) == (hidden, attention)
    unstated = TurnEncoder(BERT, 0, None).backbone
    assert isinstance(unstated, PackedBackbone)
    assert unstated.dropout.p == 0.1


def test_embeddings_are_dropped_out() -> None:
    turn = TurnEncoder({**BERT, "num_hidden_layers": 0}, 0, 0.3).train()
    ids, groups = torch.full((ITEMS // 24,), 5), [Group(ITEMS // 24, 1)]
    assert zeros(turn(ids, groups)) == pytest.approx(0.3, abs=0.02)
    assert zeros(turn.eval()(ids, groups)) == 0.0


@pytest.mark.parametrize("config", [BERT, ELECTRA], ids=["packed", "hugging face"])
def test_only_layers_that_learn_drop_out(config: dict[str, Any]) -> None:
    layers = len(TurnEncoder(config, 0).backbone.layers)
    for frozen in range(layers + 1):
        turn = TurnEncoder(config, frozen, 0.5).train()
        states = [turn.frozen_states(IDS, GROUPS) for _ in range(2)]
        outputs = [turn(IDS, GROUPS) for _ in range(2)]
        assert torch.equal(*states) == (frozen > 0 or config is ELECTRA), "ids, where nothing is computed yet"
        assert torch.equal(*outputs) == (frozen == layers)
        assert torch.equal(turn.eval()(IDS, GROUPS), turn(IDS, GROUPS))


# -- features ---------------------------------------------------------------------------------------------------------------------


def test_every_category_has_its_own_vector() -> None:
    encoder = FeatureEncoder(FeatureSpace(categorical={"device": ["car", "tv"]}), 4)
    nn.init.normal_(encoder.categorical_embeddings[0].weight)
    found = encoder(torch.arange(FIRST + 2)[:, None], torch.zeros(FIRST + 2, 0))
    assert isinstance(found, Tensor)
    assert len(found[:, 0].unique(dim=0)) == FIRST + 2
