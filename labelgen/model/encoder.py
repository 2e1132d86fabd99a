"""THE MODEL: tokens -> turn vectors -> dialogue states.

    ids [L] -> TurnEncoder (RoBERTa or BERT, packed) -> token states [L, D] -> mean -> a vector for each distinct text [N, D]
    -> laid out as the utterances of the turns [U, D], + utterance, + turn number, + FeatureEncoder -> DialogueEncoder -> states [U, D]

Each distinct text is encoded once. Sequences lie one after another without padding (batch.py has the legend), through the layers of
packed.py. Where the model reads audio, the vector of a request's recording (audio_encoder.py) is added to its utterance.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from einops import rearrange, reduce
from jaxtyping import Float, Int
from tokenizers import Tokenizer
from torch import Tensor, nn

from labelgen.inputs.audio import Recordings
from labelgen.inputs.batch import Audio, Batch, Group, chunks
from labelgen.inputs.features import FIRST, FeatureSpace
from labelgen.inputs.pretrained import Pretrained, byte_tokenizer, known_config, read_pretrained
from labelgen.model.audio_encoder import AudioEncoder, SmallAudioConfig
from labelgen.model.packed import PackedLayer, sinusoidal_positions, sizes

PACKED = ("bert", "roberta", "xlm-roberta", "camembert")  # architectures that PackedBackbone computes
TOKENS_AT_ONCE = 1024  # without gradients: more leaves the caches and faults in fresh pages (2,048: 8% slower, 4,096: 15%)
TOKENS_AT_ONCE_GPU = 65_536  # there only memory is the limit: 0.4 GB of the widest states at width 384
EMBEDDINGS = {  # our names -> those of Hugging Face's BERT and RoBERTa
    "word_embeddings": "word_embeddings",
    "position_embeddings": "position_embeddings",
    "token_type_embeddings": "token_type_embeddings",
    "embeddings_norm": "LayerNorm",
}
LAYER = {
    "attention_output": "attention.output.dense",
    "attention_norm": "attention.output.LayerNorm",
    "up_projection": "intermediate.dense",
    "down_projection": "output.dense",
    "feed_forward_norm": "output.LayerNorm",
}
NEW = {"gamma": "weight", "beta": "bias"}
OLD = re.compile(r"LayerNorm\.(gamma|beta)$")  # the first BERT checkpoints call them so


class States(NamedTuple):
    """What heads read: states of the distinct texts' tokens, and of the utterances of the turns within their dialogues."""

    tokens: Float[Tensor, "L D"]
    utterances: Float[Tensor, "U D"]

    @property
    def request(self) -> Float[Tensor, "T D"]:
        """States of the requests."""
        return rearrange(self.utterances, "(t two) d -> two t d", two=2)[0]

    @property
    def response(self) -> Float[Tensor, "T D"]:
        """States of the responses."""
        return rearrange(self.utterances, "(t two) d -> two t d", two=2)[1]


class PackedBackbone(nn.Module):
    """BERT (Devlin et al. 2019) or RoBERTa (Liu et al. 2019) over packed texts; takes the published weights."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        if (positions := config.get("position_embedding_type") or "absolute") != "absolute":
            raise ValueError(f"the encoder's position_embedding_type is {positions!r}; only absolute positions are computed here")
        width, epsilon = int(config["hidden_size"]), config.get("layer_norm_eps", 1e-12)
        self.width = width
        self.word_embeddings = nn.Embedding(config["vocab_size"], width)
        self.position_embeddings = nn.Embedding(config["max_position_embeddings"], width)
        self.token_type_embeddings = nn.Embedding(config.get("type_vocab_size", 2), width)
        self.embeddings_norm = nn.LayerNorm(width, epsilon)
        self.first_position = 0 if config["model_type"] == "bert" else config.get("pad_token_id", 1) + 1  # RoBERTa counts from there
        self.layers = nn.ModuleList(
            PackedLayer(
                width,
                config["num_attention_heads"],
                config["intermediate_size"],
                activation=config.get("hidden_act", "gelu"),
                epsilon=epsilon,
            )
            for _ in range(config["num_hidden_layers"])
        )
        for table in (self.word_embeddings, self.position_embeddings, self.token_type_embeddings):
            nn.init.normal_(table.weight, std=0.02)

    @property
    def max_length(self) -> int:
        """Longest text in tokens."""
        return self.position_embeddings.num_embeddings - self.first_position

    def embed(self, ids: Int[Tensor, " L"], groups: Sequence[Group]) -> Float[Tensor, "L D"]:
        """Sum of word, position and kind embeddings, normalised."""
        positions = torch.cat([torch.arange(length, device=ids.device).repeat(count) for count, length in groups])
        embedded: Tensor = self.embeddings_norm(
            self.word_embeddings(ids) + self.position_embeddings(positions + self.first_position) + self.token_type_embeddings.weight[0]
        )
        return embedded

    def load(self, weights: Mapping[str, Tensor]) -> None:
        """Takes the weights of a Hugging Face checkpoint, with or without its model prefix."""
        ending = "embeddings.word_embeddings.weight"
        prefix = next((key.removesuffix(ending) for key in weights if key.endswith(ending)), None)
        if prefix is None:
            raise ValueError(f"the checkpoint has no {ending}: not the weights of an encoder of the BERT or RoBERTa architecture")
        source = {key.removeprefix(prefix): value for key, value in weights.items()}
        source |= {OLD.sub(lambda end: f"LayerNorm.{NEW[end[1]]}", key): value for key, value in source.items() if OLD.search(key)}
        state = {}
        for key in self.state_dict():
            owner, kind = key.rsplit(".", 1)
            if owner in EMBEDDINGS:
                state[key] = source[f"embeddings.{EMBEDDINGS[owner]}.{kind}"]
                continue
            _, number, part = owner.split(".")
            theirs = f"encoder.layer.{number}."
            if part == "query_key_value":
                state[key] = torch.cat([source[f"{theirs}attention.self.{name}.{kind}"] for name in ("query", "key", "value")])
            else:
                state[key] = source[f"{theirs}{LAYER[part]}.{kind}"]
        self.load_state_dict(state)


class HuggingFaceBackbone(nn.Module):
    """Any other Hugging Face encoder, run on groups of equal length; it is one indivisible layer."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        from transformers import AutoModel

        known = known_config(config, ("input_ids",))
        if known.is_encoder_decoder:
            raise ValueError(f"{config['model_type']} is an encoder with a decoder; name an encoder alone")
        for key, value in known.to_dict().items():
            if "dropout" in key and isinstance(value, float):
                setattr(known, key, 0.0)  # as in PackedBackbone; a frozen encoder must say the same each time
        try:
            self.model = AutoModel.from_config(known, trust_remote_code=False, attn_implementation="sdpa")
        except ValueError:  # it has none
            self.model = AutoModel.from_config(known, trust_remote_code=False, attn_implementation="eager")
        for name, parameter in self.model.named_parameters():
            if "pooler" in name:
                parameter.requires_grad_(False)  # nothing reads it; distributed training waits for every gradient
        self.width = int(known.hidden_size)
        self.layers = nn.ModuleList([_WholeModel(self.model)])
        self.max_length = int(getattr(known, "max_position_embeddings", None) or 512)

    def embed(self, ids: Int[Tensor, " L"], groups: Sequence[Group]) -> Tensor:
        """Nothing yet: the one layer reads ids."""
        return ids

    def load(self, weights: Mapping[str, Tensor]) -> None:
        """Takes a Hugging Face checkpoint's weights, with or without its model prefix."""
        prefix = f"{self.model.base_model_prefix}."
        own = self.model.state_dict()
        state = {key.removeprefix(prefix): value for key, value in weights.items()}
        self.model.load_state_dict({key: state[key] for key in own if key in state}, strict=False)
        missing = sorted(own.keys() - state.keys())
        if [key for key in missing if "pooler" not in key]:
            raise ValueError(f"the checkpoint lacks {missing[:3]}; is it of this architecture ({self.model.config.model_type})?")


class _WholeModel(nn.Module):
    """The layer of HuggingFaceBackbone; holds the model in a list, because its parent owns it."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = [model]

    def forward(self, ids: Tensor, groups: Sequence[Group]) -> Tensor:
        parts = zip(groups, ids.split(sizes(groups)), strict=True)
        outputs = (self.model[0](rearrange(part, "(n l) -> n l", n=group.count)).last_hidden_state for group, part in parts)
        return torch.cat([rearrange(states, "n l d -> (n l) d") for states in outputs])


class TurnEncoder(nn.Module):
    """Texts -> states of their tokens. Its lowest `frozen_layers` layers (and the embeddings under them) do not learn."""

    def __init__(self, config: Mapping[str, Any], frozen_layers: int) -> None:
        super().__init__()
        self.backbone = PackedBackbone(config) if config["model_type"] in PACKED else HuggingFaceBackbone(config)
        if not 0 <= frozen_layers <= len(self.backbone.layers):
            raise ValueError(f"encoder.frozen_layers={frozen_layers}: the encoder has {len(self.backbone.layers)} layers")
        self.frozen_layers = frozen_layers
        self.width = self.backbone.width
        self.config = dict(config)
        if frozen_layers:
            self.backbone.requires_grad_(False)
            self.backbone.layers[frozen_layers:].requires_grad_(True)

    def frozen_states(self, ids: Int[Tensor, " L"], groups: Sequence[Group]) -> Float[Tensor, "L D"] | Int[Tensor, " L"]:
        """States after the frozen layers; they never change, so that they can be kept. HuggingFaceBackbone, not frozen: ids."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen_layers):
            x = self.backbone.embed(ids, groups)
            for layer in self.backbone.layers[: self.frozen_layers]:
                x = layer(x, groups)
            return x

    def forward(self, ids: Int[Tensor, " L"], groups: Sequence[Group], frozen_states: Tensor | None = None) -> Float[Tensor, "L D"]:
        def encode(ids: Tensor, groups: Sequence[Group], frozen_states: Tensor | None) -> Tensor:
            x = self.frozen_states(ids, groups) if frozen_states is None else frozen_states.to(self.dtype)
            for layer in self.backbone.layers[self.frozen_layers :]:
                x = layer(x, groups)
            return x

        if torch.is_grad_enabled():
            return encode(ids, groups, frozen_states)
        pieces = list(chunks(groups, TOKENS_AT_ONCE if ids.device.type == "cpu" else TOKENS_AT_ONCE_GPU))
        cut = [sum(sizes(piece)) for piece in pieces]
        pieces_of_states = [None] * len(cut) if frozen_states is None else frozen_states.split(cut)
        return torch.cat([encode(*piece) for piece in zip(ids.split(cut), pieces, pieces_of_states, strict=True)])

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights."""
        return next(self.parameters()).dtype

    def pool(self, tokens: Float[Tensor, "L D"], groups: Sequence[Group]) -> Float[Tensor, "N D"]:
        """Mean of each text's tokens (Reimers and Gurevych 2019)."""
        parts = zip(groups, tokens.split(sizes(groups)), strict=True)
        return torch.cat([reduce(part, "(n l) d -> n d", "mean", n=group.count) for group, part in parts])


class FeatureEncoder(nn.Module):
    """Categorical and numerical features -> one vector a turn. Starts at zero; a missing value has a vector of its own."""

    def __init__(self, space: FeatureSpace, width: int) -> None:
        super().__init__()
        self.of_response = [name in space.response for name in space.categorical]  # known with the response alone
        numerical_of_response = torch.tensor(2 * [float(name in space.response) for name in space.numerical])
        self.numerical_of_response: Tensor
        self.register_buffer("numerical_of_response", numerical_of_response, persistent=False)
        self.categorical_embeddings = nn.ModuleList(nn.Embedding(FIRST + len(values), width) for values in space.categorical.values())
        self.numerical_projection = nn.Linear(2 * len(space.numerical), width, bias=False) if space.numerical else None
        for module in [*self.categorical_embeddings, *([self.numerical_projection] if self.numerical_projection else [])]:
            nn.init.zeros_(module.weight)

    def forward(self, categorical: Int[Tensor, "T C"], numerical: Float[Tensor, "T F"]) -> Float[Tensor, "T 2 D"] | float:
        """What is added to the request and to the response of each turn; 0.0 without features."""
        if not self.categorical_embeddings and self.numerical_projection is None:
            return 0.0
        early = late = torch.zeros((), device=categorical.device)
        for table, column, is_late in zip(self.categorical_embeddings, categorical.unbind(1), self.of_response, strict=True):
            early, late = (early, late + table(column)) if is_late else (early + table(column), late)
        if self.numerical_projection is not None:
            present = torch.cat([numerical.nan_to_num(0.0).clamp(-5, 5), numerical.isnan().to(numerical.dtype)], dim=1)
            present = present.to(self.numerical_projection.weight.dtype)
            early = early + self.numerical_projection(present * (1 - self.numerical_of_response))
            late = late + self.numerical_projection(present * self.numerical_of_response)
        return torch.stack(torch.broadcast_tensors(early, early + late), dim=1)


class DialogueEncoder(nn.Module):
    """Vectors of the utterances -> their states within the dialogue. Causal: an utterance attends to itself and to earlier ones."""

    def __init__(self, width: int, num_layers: int, num_heads: int, dropout: float, causal: bool) -> None:
        super().__init__()
        self.missing_utterance = nn.Parameter(torch.zeros(1, width))  # stands where a turn has no request or no response
        self.role_embeddings = nn.Embedding(2, width)  # request, response
        self.position_projection = nn.Linear(width, width, bias=False)  # of the turn number's sinusoids
        self.input_norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)
        self.layers = nn.ModuleList(
            PackedLayer(width, num_heads, 4 * width, norm_first=True, causal=causal, dropout=dropout, epsilon=1e-5)
            for _ in range(num_layers)
        )
        self.output_norm = nn.LayerNorm(width)
        nn.init.normal_(self.role_embeddings.weight, std=0.02)
        nn.init.normal_(self.position_projection.weight, std=0.02)

    def arrange(self, texts: Float[Tensor, "N D"], utterances: Int[Tensor, " U"]) -> Float[Tensor, "U D"]:
        """Lays the vectors of the distinct texts out as utterances of turns."""
        return torch.cat([self.input_norm(texts), self.missing_utterance])[utterances]

    def forward(self, utterances: Float[Tensor, "U D"], turns: Sequence[Group], features: Tensor | float = 0.0) -> Float[Tensor, "U D"]:
        numbers = torch.cat([torch.arange(length, device=utterances.device).repeat(count) for count, length in turns])
        place = self.position_projection(sinusoidal_positions(numbers, utterances.shape[1]).to(utterances.dtype))
        x = rearrange(utterances, "(t two) d -> t two d", two=2) + self.role_embeddings.weight + rearrange(place, "t d -> t 1 d") + features
        x = self.dropout(rearrange(x, "t two d -> (t two) d"))
        groups = [Group(count, 2 * length) for count, length in turns]
        for layer in self.layers:
            x = layer(x, groups)
        out: Tensor = self.output_norm(x)
        return out


def read_tokenizer(own: str, path: str | None) -> Tokenizer:
    """The tokenizer of a tokenizer.json, by its text, or by its path where there is one."""
    try:
        return Tokenizer.from_str(Path(path).read_text("utf-8") if path else own)
    except Exception as error:  # what tokenizers raises has no type of its own
        raise ValueError(f"{path or 'tokenizer.json'}: not a tokenizer ({error})") from None


class Encoder(nn.Module):
    """Turn encoder, audio encoder, feature encoder and dialogue encoder in a row.

    `backbone` is a Hugging Face name, a folder, `package:NAME`, or a mapping (an architecture with random weights);
    `tokenizer` the path of a tokenizer.json (null: the backbone's own; bytes for a mapping).
    `audio` reads the recordings of requests: null (they are not read), `Small` settings, or a Hugging Face name or a folder.
    """

    def __init__(
        self,
        backbone: str | Mapping[str, Any],
        features: FeatureSpace,
        tokenizer: str | None = None,
        max_tokens: int = 128,
        frozen_layers: int = 0,
        dialogue_layers: int = 3,
        dialogue_heads: int = 6,
        dropout: float = 0.1,
        causal: bool = False,
        audio: str | SmallAudioConfig | Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        files = read_pretrained(backbone) if isinstance(backbone, str) else Pretrained(dict(backbone), byte_tokenizer(), None)
        self.config = files.config
        self.tokenizer = read_tokenizer(files.tokenizer, tokenizer)
        self.turn_encoder = TurnEncoder(files.config, frozen_layers)
        if files.weights is not None:
            self.turn_encoder.backbone.load(files.weights)
        known = max(self.tokenizer.get_vocab().values(), default=-1) + 1
        entries = int(files.config.get("vocab_size", known))  # an encoder of bytes or characters may have none
        if known > entries:
            raise ValueError(f"the tokenizer has {known} tokens, the encoder {entries}; name its own tokenizer")
        if max_tokens > self.turn_encoder.backbone.max_length:
            raise ValueError(f"encoder.max_tokens={max_tokens}: the encoder reads at most {self.turn_encoder.backbone.max_length}")
        self.max_tokens = max_tokens
        self.settings = {
            "max_tokens": max_tokens,
            "frozen_layers": frozen_layers,
            "dialogue_layers": dialogue_layers,
            "dialogue_heads": dialogue_heads,
            "dropout": dropout,
            "causal": causal,
        }
        self.feature_encoder = FeatureEncoder(features, self.width)
        self.dialogue_encoder = DialogueEncoder(self.width, dialogue_layers, dialogue_heads, dropout, causal)
        self.audio_encoder = None if audio is None else AudioEncoder(audio, self.width)

    @property
    def width(self) -> int:
        """D."""
        return self.turn_encoder.width

    def describe(self) -> dict[str, Any]:
        """Plain values from which the architecture can be built again: `backbone` and settings."""
        audio = {} if self.audio_encoder is None else {"audio": self.audio_encoder.describe()}
        return json.loads(json.dumps({"backbone": self.config, **self.settings, **audio}))  # type: ignore[no-any-return]

    def recordings(self) -> Recordings | None:
        """What reads the requests' recordings; None: the model has no use for them."""
        return None if self.audio_encoder is None else Recordings(self.audio_encoder.backbone.extractor)

    def forward(self, batch: Batch, tokens: Float[Tensor, "L D"] | None = None) -> States:
        """`tokens`: states of the turn encoder, where they are known already."""
        tokens = self.turn_encoder(batch.ids, batch.groups, batch.frozen_states) if tokens is None else tokens
        utterances = self.dialogue_encoder.arrange(self.turn_encoder.pool(tokens, batch.groups), batch.utterances)
        if self.audio_encoder is not None:
            utterances = self._add_audio(self.audio_encoder, utterances, batch.audio)
        features = self.feature_encoder(batch.categorical, batch.numerical)
        return States(tokens, self.dialogue_encoder(utterances, batch.turns, features))

    def _add_audio(self, encoder: AudioEncoder, utterances: Float[Tensor, "U D"], audio: Audio | None) -> Float[Tensor, "U D"]:
        """The utterances, with the vectors of the recordings added to the requests that have one."""
        if audio is not None:
            return utterances.index_add(0, 2 * audio.turn, encoder(audio.frames, audio.groups).to(utterances.dtype))
        if torch.is_grad_enabled() and torch.distributed.is_available() and torch.distributed.is_initialized():
            nothing = torch.stack([parameter.sum() for parameter in encoder.parameters() if parameter.requires_grad]).sum()
            return utterances + 0.0 * nothing.to(utterances.dtype)  # all ranks wait for every gradient
        return utterances

    def parameter_depths(self) -> Iterator[tuple[nn.Parameter, int]]:
        """Trainable turn-encoder parameters with their distance from the top: 0 the last layer, then 1, ...; published audio encoder: 0."""
        layers = self.turn_encoder.backbone.layers
        top = {id(p): len(layers) - 1 - k for k, layer in enumerate(layers) for p in layer.parameters()}
        for parameter in self.turn_encoder.parameters():
            if parameter.requires_grad:
                yield parameter, top.get(id(parameter), len(layers))
        for parameter in self.audio_encoder.pretrained_parameters() if self.audio_encoder is not None else ():
            yield parameter, 0
