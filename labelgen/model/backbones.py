"""The published Transformer under the turn encoder: token ids of packed texts -> states of their tokens.

`PackedBackbone` computes BERT, RoBERTa and MPNet with the layers of packed.py. `HuggingFaceBackbone` runs every other encoder of
transformers. Both have `embed`, `attention_biases`, `layers`, `load`, `width` (D) and `max_length` (tokens of the longest text).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from labelgen.inputs.batch import Group
from labelgen.inputs.pretrained import known_config
from labelgen.model.packed import Biases, PackedLayer, RelativeAttentionBias, sizes

PACKED = ("bert", "roberta", "xlm-roberta", "camembert", "mpnet")  # architectures that PackedBackbone computes
PARTS = {  # our names -> those of Hugging Face's BERT and RoBERTa
    "word_embeddings": "embeddings.word_embeddings",
    "position_embeddings": "embeddings.position_embeddings",
    "token_type_embeddings": "embeddings.token_type_embeddings",
    "embeddings_norm": "embeddings.LayerNorm",
    "relative_attention_bias.embeddings": "encoder.relative_attention_bias",
}
LAYER = {
    "query_key_value": ("attention.self.query", "attention.self.key", "attention.self.value"),
    "attention_output": ("attention.output.dense",),
    "attention_norm": ("attention.output.LayerNorm",),
    "up_projection": ("intermediate.dense",),
    "down_projection": ("output.dense",),
    "feed_forward_norm": ("output.LayerNorm",),
}
MPNET_LAYER = {
    **LAYER,
    "query_key_value": ("attention.attn.q", "attention.attn.k", "attention.attn.v"),
    "attention_output": ("attention.attn.o",),
    "attention_norm": ("attention.LayerNorm",),
}
GAMMA_AND_BETA = re.compile(r"LayerNorm\.(gamma|beta)$")  # names of weight and bias in the first BERT checkpoints
WEIGHT_AND_BIAS = {"gamma": "weight", "beta": "bias"}
PUBLISHED_DROPOUT = 0.1  # of BERT and RoBERTa, if config.json gives none


class PackedBackbone(nn.Module):
    """BERT (Devlin et al. 2019), RoBERTa (Liu et al. 2019) or MPNet (Song et al. 2020) over packed texts; takes the published weights.

    `config` is the model's config.json. `dropout` replaces its two rates (hidden states, attention probabilities); None keeps them.
    """

    def __init__(self, config: Mapping[str, Any], dropout: float | None = 0.0) -> None:
        super().__init__()
        if (positions := config.get("position_embedding_type") or "absolute") != "absolute":
            raise ValueError(f"the encoder's position_embedding_type is {positions!r}; only absolute positions are computed here")
        width, epsilon = int(config["hidden_size"]), config.get("layer_norm_eps", 1e-12)
        hidden, attention = (
            config.get(f"{name}_dropout_prob", PUBLISHED_DROPOUT) if dropout is None else dropout for name in ("hidden", "attention_probs")
        )
        kind, heads = config["model_type"], config["num_attention_heads"]
        self.width = width
        self.word_embeddings = nn.Embedding(config["vocab_size"], width)
        self.position_embeddings = nn.Embedding(config["max_position_embeddings"], width)
        self.token_type_embeddings = None if kind == "mpnet" else nn.Embedding(config.get("type_vocab_size", 2), width)
        self.embeddings_norm = nn.LayerNorm(width, epsilon)
        self.dropout = nn.Dropout(hidden)
        self.first_position = 0 if kind == "bert" else config.get("pad_token_id", 1) + 1  # RoBERTa and MPNet reserve the first
        buckets = config.get("relative_attention_num_buckets", 32)
        self.relative_attention_bias = RelativeAttentionBias(buckets, heads) if kind == "mpnet" else None
        self.layer_names = MPNET_LAYER if kind == "mpnet" else LAYER
        self.layers = nn.ModuleList(
            PackedLayer(
                width,
                heads,
                config["intermediate_size"],
                activation=config.get("hidden_act", "gelu"),
                epsilon=epsilon,
                dropout=hidden,
                attention_dropout=attention,
            )
            for _ in range(config["num_hidden_layers"])
        )
        for table in (self.word_embeddings, self.position_embeddings, self.token_type_embeddings):
            if table is not None:
                nn.init.normal_(table.weight, std=0.02)

    @property
    def max_length(self) -> int:
        """Tokens of the longest text."""
        return self.position_embeddings.num_embeddings - self.first_position

    def embed(self, ids: Int[Tensor, " L"], groups: Sequence[Group]) -> Float[Tensor, "L D"]:
        """Sum of word, position and token type embeddings, normalised."""
        positions = torch.cat([torch.arange(length, device=ids.device).repeat(count) for count, length in groups]) + self.first_position
        summed = self.word_embeddings(ids) + self.position_embeddings(positions)
        if self.token_type_embeddings is not None:
            summed = summed + self.token_type_embeddings.weight[0]
        embedded: Tensor = self.dropout(self.embeddings_norm(summed))
        return embedded

    def attention_biases(self, groups: Sequence[Group]) -> Biases | None:
        """What every layer adds to the attention scores of each group. None: nothing."""
        return None if self.relative_attention_bias is None else self.relative_attention_bias(groups)

    def load(self, weights: Mapping[str, Tensor]) -> None:
        """Loads the weights of a Hugging Face checkpoint, with or without its model prefix. ValueError if they are of another model."""
        ending = "embeddings.word_embeddings.weight"
        prefix = next((key.removesuffix(ending) for key in weights if key.endswith(ending)), None)
        if prefix is None:
            raise ValueError(f"the checkpoint has no {ending}: not the weights of an encoder of the BERT, RoBERTa or MPNet architecture")
        source = {GAMMA_AND_BETA.sub(_weight_or_bias, key.removeprefix(prefix)): value for key, value in weights.items()}
        state = {}
        for key in self.state_dict():
            owner, kind = key.rsplit(".", 1)
            state[key] = torch.cat([source[f"{name}.{kind}"] for name in self._published(owner)])
        self.load_state_dict(state)

    def _published(self, name: str) -> Sequence[str]:
        """Hugging Face's names of a part. Several lie one after another in ours."""
        if name in PARTS:
            return (PARTS[name],)
        _, number, part = name.split(".")
        return [f"encoder.layer.{number}.{name}" for name in self.layer_names[part]]


def _weight_or_bias(match: re.Match[str]) -> str:
    return f"LayerNorm.{WEIGHT_AND_BIAS[match[1]]}"


class HuggingFaceBackbone(nn.Module):
    """Any other encoder of transformers, run on groups of equal length. It counts as one indivisible layer.

    `config` is the model's config.json. `dropout` replaces all its dropout rates; None keeps them.
    """

    def __init__(self, config: Mapping[str, Any], dropout: float | None = 0.0) -> None:
        super().__init__()
        from transformers import AutoModel  # takes seconds to import

        known = known_config(config, ("input_ids",))
        if known.is_encoder_decoder:
            raise ValueError(f"{config['model_type']} is an encoder with a decoder; name an encoder alone")
        for key, value in known.to_dict().items():
            if dropout is not None and "dropout" in key and isinstance(value, float):
                setattr(known, key, dropout)
        try:
            self.model = AutoModel.from_config(known, trust_remote_code=False, attn_implementation="sdpa")
        except ValueError:  # this architecture has no such attention
            self.model = AutoModel.from_config(known, trust_remote_code=False, attn_implementation="eager")
        for name, parameter in self.model.named_parameters():
            if "pooler" in name:
                parameter.requires_grad_(False)  # no output depends on it, and distributed training waits for every gradient
        self.width = int(known.hidden_size)
        self.layers = nn.ModuleList([_WholeModel(self.model)])
        self.max_length = max_length(self.model, getattr(known, "max_position_embeddings", None))
        self._check_forward()

    def _check_forward(self) -> None:
        """ValueError if the model does not turn token ids alone into a state a token: it may need a language, bounding boxes, ..."""
        kind = self.model.config.model_type
        self.model.eval()  # no dropout: it would draw from the generator of training
        try:
            with torch.no_grad():
                shape = tuple(self.layers[0](torch.zeros(2, dtype=torch.long), [Group(1, 2)]).shape)
        except Exception as error:  # transformers raises errors of many types
            reason = str(error).partition("\n")[0] or type(error).__name__
            raise ValueError(
                f"model_type {kind!r} does not compute states from token ids alone ({reason}); "
                "give its config.json what it lacks, or name another encoder"
            ) from None
        if shape != (2, self.width):
            raise ValueError(f"model_type {kind!r} gives states of shape {shape} for 2 tokens, not (2, {self.width}); name another encoder")
        self.model.train()

    def embed(self, ids: Int[Tensor, " L"], groups: Sequence[Group]) -> Int[Tensor, " L"]:
        """Returns the ids, because the one layer embeds them itself."""
        return ids

    def attention_biases(self, groups: Sequence[Group]) -> None:
        """None, because the model has its own positions."""

    def load(self, weights: Mapping[str, Tensor]) -> None:
        """Loads the weights of a Hugging Face checkpoint, with or without its model prefix. ValueError if some are missing."""
        prefix = f"{self.model.base_model_prefix}."
        own = self.model.state_dict()
        state = {key.removeprefix(prefix): value for key, value in weights.items()}
        self.model.load_state_dict({key: state[key] for key in own if key in state}, strict=False)
        missing = sorted(own.keys() - state.keys())
        if [key for key in missing if "pooler" not in key]:
            raise ValueError(f"the checkpoint lacks {missing[:3]}; is it of this architecture ({self.model.config.model_type})?")


def max_length(model: nn.Module, configured: int | None) -> int:
    """The number of tokens of the longest text that a model reads.

    `configured` is its max_position_embeddings. If it is None, the bound is 512. Models derived from RoBERTa reserve the positions up to
    the `padding_idx` of their table of positions.
    """
    bounds = []
    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and isinstance(table := getattr(module, "weight", None), Tensor):
            padding = getattr(module, "padding_idx", None)
            bounds.append(len(table) - (0 if padding is None else int(padding) + 1))
    return min([*bounds, int(configured or 512)])


class _WholeModel(nn.Module):
    """The one layer of HuggingFaceBackbone. Holds the model in a list, because the backbone registers it."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = [model]

    def forward(self, ids: Int[Tensor, " L"], groups: Sequence[Group], biases: None = None) -> Float[Tensor, "L D"]:
        parts = zip(groups, ids.split(sizes(groups)), strict=True)
        outputs = (self.model[0](rearrange(part, "(n l) -> n l", n=group.count)).last_hidden_state for group, part in parts)
        return torch.cat([rearrange(states, "n l d -> (n l) d") for states in outputs])
