"""THE MODEL: tokens -> turn vectors -> dialogue states.

    ids [L] -> TurnEncoder (a published Transformer) -> token states [L, D] -> mean -> a vector for each distinct text [N, D]
    -> arranged as the utterances of the turns [U, D], + role, + turn number, + FeatureEncoder -> DialogueEncoder -> states [U, D]

Each distinct text is encoded once. Sequences lie one after another without padding (see the legend in batch.py). The Transformer layers
are in packed.py, the published models in backbones.py. Where the model reads audio, the vector of a request's recording
(audio_encoder.py) is added to its utterance.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from einops import rearrange, reduce
from jaxtyping import Bool, Float, Int
from tokenizers import Tokenizer
from torch import Tensor, nn

from labelgen.inputs.audio import Recordings
from labelgen.inputs.batch import MAX_TOKENS, Audio, Batch, Group, chunks
from labelgen.inputs.features import FIRST, FeatureSpace
from labelgen.inputs.pretrained import Pretrained, byte_tokenizer, read_pretrained
from labelgen.inputs.tokenizer import checked_tokenizer, is_tokenizer_error
from labelgen.model.audio_encoder import AudioEncoder, SmallAudioConfig
from labelgen.model.backbones import PACKED, HuggingFaceBackbone, PackedBackbone
from labelgen.model.packed import PackedLayer, sinusoidal_positions, sizes

TOKENS_AT_ONCE = 1024  # without gradients; more miss the CPU's caches and cause page faults (2,048: 8% slower, 4,096: 15%)
TOKENS_AT_ONCE_GPU = 65_536  # on a GPU memory is the only limit: the widest states take 0.4 GB at width 384


@dataclass(frozen=True)
class EncoderSettings:
    """The settings of an encoder other than its backbone, tokenizer, features and audio. conf/encoder/base.yaml explains them.

    Checkpoints and exports hold these fields. Raises ValueError if a rate is not in [0, 1).
    """

    max_tokens: int = 128
    frozen_layers: int = 0
    dialogue_layers: int = 3
    dialogue_heads: int = 6
    dropout: float = 0.1
    backbone_dropout: float | None = 0.0
    causal: bool = False

    def __post_init__(self) -> None:
        for name in ("dropout", "backbone_dropout"):
            rate = getattr(self, name)
            if rate is not None and not 0.0 <= rate < 1.0:
                raise ValueError(f"encoder.{name}={rate}: give a rate from 0 to less than 1")


ARCHITECTURE = ("backbone", "dialogue_layers", "dialogue_heads")  # keys of a description that must be equal to exchange weights


class States(NamedTuple):
    """The states that heads read: those of the tokens of the distinct texts, and those of the utterances within their dialogues."""

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


class TurnEncoder(nn.Module):
    """Texts -> states of their tokens. The lowest `frozen_layers` layers and the embeddings are not trained and have no dropout.

    `config` is the backbone's config.json, `dropout` its rate (None: as published).
    """

    def __init__(self, config: Mapping[str, Any], frozen_layers: int, dropout: float | None = 0.0) -> None:
        super().__init__()
        packed = config["model_type"] in PACKED
        self.backbone = PackedBackbone(config, dropout) if packed else HuggingFaceBackbone(config, dropout)
        if not 0 <= frozen_layers <= len(self.backbone.layers):
            raise ValueError(f"encoder.frozen_layers={frozen_layers}: the encoder has {len(self.backbone.layers)} layers")
        self.frozen_layers = frozen_layers
        self.width = self.backbone.width
        self.config = dict(config)
        if frozen_layers:
            self.backbone.requires_grad_(False)
            self.backbone.layers[frozen_layers:].requires_grad_(True)

    def train(self, mode: bool = True) -> TurnEncoder:
        """Keeps frozen layers in evaluation mode, so that their states never change and can be cached."""
        super().train(mode)
        if self.frozen_layers:
            self.backbone.eval()
            self.backbone.layers[self.frozen_layers :].train(mode)
        return self

    def frozen_states(self, ids: Int[Tensor, " L"], groups: Sequence[Group]) -> Float[Tensor, "L D"] | Int[Tensor, " L"]:
        """States after the embeddings and the frozen layers. For a HuggingFaceBackbone that is not frozen these are the ids."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen_layers):
            x = self.backbone.embed(ids, groups)
            biases = self.backbone.attention_biases(groups)
            for layer in self.backbone.layers[: self.frozen_layers]:
                x = layer(x, groups, biases)
            return x

    def _encode(self, ids: Tensor, groups: Sequence[Group], frozen_states: Tensor | None) -> Tensor:
        x = self.frozen_states(ids, groups) if frozen_states is None else frozen_states.to(self.dtype)
        biases = self.backbone.attention_biases(groups)
        for layer in self.backbone.layers[self.frozen_layers :]:
            x = layer(x, groups, biases)
        return x

    def forward(self, ids: Int[Tensor, " L"], groups: Sequence[Group], frozen_states: Tensor | None = None) -> Float[Tensor, "L D"]:
        """`frozen_states` [L, D]: the states after the frozen layers, if they are already known."""
        if torch.is_grad_enabled():
            return self._encode(ids, groups, frozen_states)
        pieces = list(chunks(groups, TOKENS_AT_ONCE if ids.device.type == "cpu" else TOKENS_AT_ONCE_GPU))
        lengths = [sum(sizes(piece)) for piece in pieces]
        states = [None] * len(lengths) if frozen_states is None else frozen_states.split(lengths)
        return torch.cat([self._encode(*piece) for piece in zip(ids.split(lengths), pieces, states, strict=True)])

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the weights."""
        return next(self.parameters()).dtype

    def pool(self, tokens: Float[Tensor, "L D"], groups: Sequence[Group]) -> Float[Tensor, "N D"]:
        """Mean of each text's tokens (Reimers and Gurevych 2019)."""
        parts = zip(groups, tokens.split(sizes(groups)), strict=True)
        return torch.cat([reduce(part, "(n l) d -> n d", "mean", n=group.count) for group, part in parts])


class FeatureEncoder(nn.Module):
    """Categorical and numerical features of a turn -> vectors that are added to its request and its response. They start at zero.

    A missing value has a vector of its own. Features that are not known before the response are not added to the request.
    """

    def __init__(self, space: FeatureSpace, width: int) -> None:
        super().__init__()
        self.of_response = [name in space.response for name in space.categorical]
        numerical_of_response = torch.tensor(2 * [float(name in space.response) for name in space.numerical])
        self.numerical_of_response: Tensor
        self.register_buffer("numerical_of_response", numerical_of_response, persistent=False)
        self.categorical_embeddings = nn.ModuleList(nn.Embedding(FIRST + len(values), width) for values in space.categorical.values())
        self.numerical_projection = nn.Linear(2 * len(space.numerical), width, bias=False) if space.numerical else None
        for module in [*self.categorical_embeddings, *([self.numerical_projection] if self.numerical_projection else [])]:
            nn.init.zeros_(module.weight)

    def forward(self, categorical: Int[Tensor, "T C"], numerical: Float[Tensor, "T F"]) -> Float[Tensor, "T 2 D"] | float:
        """Clips numbers at 5 standard deviations. Returns 0.0 if there are no features."""
        if not self.categorical_embeddings and self.numerical_projection is None:
            return 0.0
        request = response = torch.zeros((), device=categorical.device)
        for table, column, of_response in zip(self.categorical_embeddings, categorical.unbind(1), self.of_response, strict=True):
            response = response + table(column)
            request = request if of_response else request + table(column)
        if self.numerical_projection is not None:
            values = torch.cat([numerical.nan_to_num(0.0).clamp(-5, 5), numerical.isnan().to(numerical.dtype)], dim=1)
            values = values.to(self.numerical_projection.weight.dtype)
            request = request + self.numerical_projection(values * (1 - self.numerical_of_response))
            response = response + self.numerical_projection(values)
        return torch.stack(torch.broadcast_tensors(request, response), dim=1)


class DialogueEncoder(nn.Module):
    """Vectors of the utterances -> their states within the dialogue. Causal: an utterance attends to itself and to earlier ones."""

    def __init__(self, width: int, num_layers: int, num_heads: int, dropout: float, causal: bool) -> None:
        super().__init__()
        self.missing_utterance = nn.Parameter(torch.zeros(1, width))  # takes the place of a missing request or response
        self.role_embeddings = nn.Embedding(2, width)  # request, response
        self.position_projection = nn.Linear(width, width, bias=False)  # projects the sinusoids of the turn number
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
        """Arranges the vectors of the distinct texts as the utterances of the turns; text N is the missing utterance."""
        return torch.cat([self.input_norm(texts), self.missing_utterance])[utterances]

    def forward(self, utterances: Float[Tensor, "U D"], turns: Sequence[Group], features: Tensor | float = 0.0) -> Float[Tensor, "U D"]:
        """`turns`: the groups of dialogues of equal length. `features` [T, 2, D] are added to the requests and responses."""
        numbers = torch.cat([torch.arange(length, device=utterances.device).repeat(count) for count, length in turns])
        positions = self.position_projection(sinusoidal_positions(numbers, utterances.shape[1]).to(utterances.dtype))
        x = (
            rearrange(utterances, "(t two) d -> t two d", two=2)
            + self.role_embeddings.weight
            + rearrange(positions, "t d -> t 1 d")
            + features
        )
        x = self.dropout(rearrange(x, "t two d -> (t two) d"))
        groups = [Group(count, 2 * length) for count, length in turns]
        for layer in self.layers:
            x = layer(x, groups)
        states: Tensor = self.output_norm(x)
        return states


def read_tokenizer(text: str, path: str | None) -> Tokenizer:
    """The tokenizer in the file `path`, or without a path the one whose tokenizer.json is `text`. ValueError if it is not a tokenizer."""
    try:
        return Tokenizer.from_str(checked_tokenizer(Path(path).read_text("utf-8") if path else text))
    except BaseException as error:  # tokenizers raises plain Exceptions and panics
        if not is_tokenizer_error(error):
            raise
        raise ValueError(f"{path or 'tokenizer.json'}: not a tokenizer ({error})") from None


class Encoder(nn.Module):
    """The turn encoder, audio encoder, feature encoder and dialogue encoder, one after another.

    `backbone` is a Hugging Face name, a folder, `package:NAME`, or a config.json as a mapping (random weights).
    `tokenizer` is the path of a tokenizer.json. None: the tokenizer of the backbone, or one of bytes if that is a mapping.
    `audio` says what reads the recordings of requests: None (nothing), a SmallAudioConfig, or a Hugging Face name or folder.
    `settings` are the fields of EncoderSettings. Raises ValueError if the parts do not fit together.
    """

    def __init__(
        self,
        backbone: str | Mapping[str, Any],
        features: FeatureSpace,
        tokenizer: str | None = None,
        audio: str | SmallAudioConfig | Mapping[str, Any] | None = None,
        **settings: Any,
    ) -> None:
        super().__init__()
        self.settings = chosen = EncoderSettings(**settings)
        files = read_pretrained(backbone) if isinstance(backbone, str) else Pretrained(dict(backbone), byte_tokenizer(), None)
        self.config = files.config
        self.tokenizer = read_tokenizer(files.tokenizer, tokenizer)
        self.turn_encoder = TurnEncoder(files.config, chosen.frozen_layers, chosen.backbone_dropout)
        if files.weights is not None:
            self.turn_encoder.backbone.load(files.weights)
        self._check_tokens()
        self.feature_encoder = FeatureEncoder(features, self.width)
        self.dialogue_encoder = DialogueEncoder(self.width, chosen.dialogue_layers, chosen.dialogue_heads, chosen.dropout, chosen.causal)
        self.audio_encoder = None if audio is None else AudioEncoder(audio, self.width)

    def _check_tokens(self) -> None:
        known = max(self.tokenizer.get_vocab().values(), default=-1) + 1
        entries = int(self.config.get("vocab_size", known))  # an encoder of bytes or characters may have none
        if known > entries:
            raise ValueError(f"the tokenizer has {known} tokens, the encoder {entries}; name its own tokenizer")
        if self.max_tokens > (longest := min(self.turn_encoder.backbone.max_length, MAX_TOKENS)):
            raise ValueError(f"encoder.max_tokens={self.max_tokens}: the encoder reads at most {longest}")
        if self.max_tokens <= (special := self.tokenizer.num_special_tokens_to_add(False)):
            raise ValueError(f"encoder.max_tokens={self.max_tokens}: the tokenizer adds {special} to each text; allow more")

    @property
    def width(self) -> int:
        """D."""
        return self.turn_encoder.width

    @property
    def max_tokens(self) -> int:
        """The number of tokens at which a text is cut."""
        return self.settings.max_tokens

    def describe(self) -> dict[str, Any]:
        """Plain values from which the architecture can be built again: backbone, settings, and audio if it is read."""
        audio = {} if self.audio_encoder is None else {"audio": self.audio_encoder.describe()}
        return json.loads(json.dumps({"backbone": self.config, **asdict(self.settings), **audio}))  # type: ignore[no-any-return]

    def recordings(self) -> Recordings | None:
        """The reader of the requests' recordings. None: the model does not use them."""
        return None if self.audio_encoder is None else Recordings(self.audio_encoder.backbone.extractor)

    def forward(self, batch: Batch, tokens: Float[Tensor, "L D"] | None = None, hidden: Bool[Tensor, " T"] | None = None) -> States:
        """`tokens`: states of the turn encoder, if they are already known.

        `hidden`: turns whose response is hidden from the dialogue level, with the features not known before it (pretraining).
        """
        tokens = self.turn_encoder(batch.ids, batch.groups, batch.frozen_states) if tokens is None else tokens
        texts = self.turn_encoder.pool(tokens, batch.groups)
        features = self.feature_encoder(batch.categorical, batch.numerical)
        numbers = batch.utterances
        if hidden is not None:
            response = torch.stack([torch.zeros_like(hidden), hidden], dim=1)
            numbers = numbers.masked_fill(rearrange(response, "t two -> (t two)"), len(texts))
            features = torch.where(rearrange(response, "t two -> t two 1"), features[:, :1], features) if torch.is_tensor(features) else 0.0
        utterances = self.dialogue_encoder.arrange(texts, numbers)
        if self.audio_encoder is not None:
            utterances = self._add_audio(self.audio_encoder, utterances, batch.audio)
        return States(tokens, self.dialogue_encoder(utterances, batch.turns, features))

    def _add_audio(self, encoder: AudioEncoder, utterances: Float[Tensor, "U D"], audio: Audio | None) -> Float[Tensor, "U D"]:
        """The utterances, with the vectors of the recordings added to the requests that have one."""
        if audio is not None:
            return utterances.index_add(0, 2 * audio.turn, encoder(audio.frames, audio.groups).to(utterances.dtype))
        if torch.is_grad_enabled() and torch.distributed.is_available() and torch.distributed.is_initialized():
            total = torch.stack([parameter.sum() for parameter in encoder.parameters() if parameter.requires_grad]).sum()
            return utterances + 0.0 * total.to(utterances.dtype)  # distributed training waits for every gradient
        return utterances

    def parameter_depths(self) -> Iterator[tuple[nn.Parameter, int]]:
        """The pretrained parameters that are trained further, each with its distance from the top layer.

        0 for the turn encoder's last layer, then 1, ...; 0 for a pretrained audio encoder.
        """
        layers = self.turn_encoder.backbone.layers
        top = {id(p): len(layers) - 1 - k for k, layer in enumerate(layers) for p in layer.parameters()}
        for parameter in self.turn_encoder.parameters():
            if parameter.requires_grad:
                yield parameter, top.get(id(parameter), len(layers))
        for parameter in self.audio_encoder.pretrained_parameters() if self.audio_encoder is not None else ():
            yield parameter, 0
