"""Frames of recordings -> one vector each, by a small encoder that learns from scratch or any published one. Neither has dropout."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange, reduce
from jaxtyping import Float
from torch import Tensor, nn

from labelgen.inputs.audio import MEL_BINS, LogMel, PublishedExtractor
from labelgen.inputs.batch import Group, chunks
from labelgen.inputs.pretrained import AUDIO, known_config, read_pretrained_audio
from labelgen.model.packed import PackedLayer, sinusoidal_positions, sizes

RECORDINGS_AT_ONCE = 16  # without gradients; bounds the memory of a batch of thousands of turns


@dataclass(frozen=True)
class SmallAudioConfig:
    """Settings of SmallAudioEncoder: Transformer layers, their width and heads."""

    layers: int
    width: int
    heads: int


class SmallAudioEncoder(nn.Module):
    """Strided convolutions reduce log-mel frames four to one (as in Whisper, Radford et al. 2022); Transformer layers and a mean follow."""

    def __init__(self, layers: int, width: int, heads: int) -> None:
        super().__init__()
        if layers < 0 or heads < 1 or width % (2 * heads):
            raise ValueError(f"encoder.audio: layers={layers}, width={width}, heads={heads}; the width must be a multiple of 2 * heads")
        self.settings = SmallAudioConfig(layers, width, heads)
        self.width = width
        self.conv1 = nn.Conv1d(MEL_BINS, width, 3, stride=2, padding=1)
        self.conv2 = nn.Conv1d(width, width, 3, stride=2, padding=1)
        self.layers = nn.ModuleList(PackedLayer(width, heads, 4 * width, norm_first=True, epsilon=1e-5) for _ in range(layers))
        self.output_norm = nn.LayerNorm(width)

    @property
    def extractor(self) -> LogMel:
        """The extractor that makes the frames."""
        return LogMel()

    def describe(self) -> dict[str, Any]:
        """layers, width, heads."""
        return asdict(self.settings)

    def forward(self, frames: Float[Tensor, "A C"], groups: Sequence[Group]) -> Float[Tensor, "R E"]:
        parts, reduced = [], []
        for group, part in zip(groups, frames.split(sizes(groups)), strict=True):
            x = F.gelu(self.conv2(F.gelu(self.conv1(rearrange(part, "(n a) c -> n c a", n=group.count)))))
            x = x + rearrange(sinusoidal_positions(torch.arange(x.shape[2], device=x.device), self.width), "a e -> e a").to(x.dtype)
            reduced.append(Group(group.count, x.shape[2]))
            parts.append(rearrange(x, "n e a -> (n a) e"))
        states = torch.cat(parts)
        for layer in self.layers:
            states = layer(states, reduced)
        pooled = zip(reduced, self.output_norm(states).split(sizes(reduced)), strict=True)
        return torch.cat([reduce(part, "(n a) e -> n e", "mean", n=group.count) for group, part in pooled])


class PretrainedAudioEncoder(nn.Module):
    """Any audio encoder of transformers (Whisper's encoder, wav2vec 2, HuBERT, ...), run on groups of equal length. Returns mean states."""

    def __init__(self, config: Mapping[str, Any], extractor: Mapping[str, Any], folder: str | None = None) -> None:
        super().__init__()
        self.config, self.settings = dict(config), dict(extractor)
        self.model = _build_model(self.config, folder)
        for name, parameter in self.model.named_parameters():
            if "masked_spec_embed" in name or "pooler" in name:
                parameter.requires_grad_(False)  # no output depends on it, and distributed training waits for every gradient
        self.width = int(self.model.config.hidden_size)

    @property
    def extractor(self) -> PublishedExtractor:
        """The encoder's own extractor, which makes the frames."""
        return PublishedExtractor(self.settings)

    def describe(self) -> dict[str, Any]:
        """Architecture and feature extractor."""
        return {"config": self.config, "extractor": self.settings}

    def forward(self, frames: Float[Tensor, "A C"], groups: Sequence[Group]) -> Float[Tensor, "R E"]:
        pooled = []
        for group, part in zip(groups, frames.split(sizes(groups)), strict=True):
            inputs = rearrange(part, "(n a) c -> n a c", n=group.count)
            states = self.model(inputs[:, :, 0] if part.shape[1] == 1 else inputs).last_hidden_state
            pooled.append(reduce(states, "n a e -> n e", "mean"))
        return torch.cat(pooled)


def _build_model(config: Mapping[str, Any], folder: str | None) -> Any:
    """Builds the encoder of an architecture, with the weights in the folder or random ones. Reads safetensors only and runs no code."""
    from transformers import AutoModel

    left_out = ("auto_map", "dtype", "torch_dtype", "quantization_config")
    known = known_config({key: value for key, value in config.items() if key not in left_out}, AUDIO)
    for key, value in known.to_dict().items():
        if isinstance(value, float) and "drop" in key:
            setattr(known, key, 0.0)  # recordings have no dropout
    if hasattr(known, "apply_spec_augment"):
        known.apply_spec_augment = False
    try:
        model = _load(AutoModel, known, folder, "sdpa")
    except ValueError:  # this architecture has no such attention
        model = _load(AutoModel, known, folder, "eager")
    return model.get_encoder() if known.is_encoder_decoder else model


def _load(kind: Any, known: Any, folder: str | None, attention: str) -> Any:
    if folder is None:
        return kind.from_config(known, trust_remote_code=False, attn_implementation=attention)
    model, loading = kind.from_pretrained(
        folder,
        config=known,
        attn_implementation=attention,
        trust_remote_code=False,
        use_safetensors=True,
        local_files_only=True,
        dtype=torch.float32,
        output_loading_info=True,
    )
    missing = sorted(key for key in loading["missing_keys"] if "masked_spec_embed" not in key and "pooler" not in key)
    if missing:
        raise ValueError(f"{folder}: the checkpoint lacks {missing[:3]}; is it of this architecture ({known.model_type})?")
    return model


class AudioEncoder(nn.Module):
    """Recordings -> vectors of the dialogue level's width D. They start at zero, because the weights of the last layer do."""

    def __init__(self, audio: str | SmallAudioConfig | Mapping[str, Any], width: int) -> None:
        """`audio`: a Hugging Face name or a folder, settings of the small encoder, or what `describe` returned."""
        super().__init__()
        self.backbone = _build(audio)
        self.output_projection = nn.Linear(self.backbone.width, width)
        nn.init.zeros_(self.output_projection.weight)
        nn.init.zeros_(self.output_projection.bias)

    def describe(self) -> dict[str, Any]:
        """Plain values to build it from again."""
        return self.backbone.describe()

    def forward(self, frames: Float[Tensor, "A C"], groups: Sequence[Group]) -> Float[Tensor, "R D"]:
        frames = frames.to(self.output_projection.weight.dtype)
        if torch.is_grad_enabled():
            out: Tensor = self.output_projection(self.backbone(frames, groups))
            return out
        pieces = list(chunks(groups, RECORDINGS_AT_ONCE * max(length for _, length in groups)))
        parts = zip(frames.split([sum(sizes(piece)) for piece in pieces]), pieces, strict=True)
        return torch.cat([self.output_projection(self.backbone(*part)) for part in parts])

    def pretrained_parameters(self) -> list[nn.Parameter]:
        """The pretrained parameters that are trained further."""
        return [p for p in self.backbone.parameters() if p.requires_grad] if isinstance(self.backbone, PretrainedAudioEncoder) else []


def _build(audio: str | SmallAudioConfig | Mapping[str, Any]) -> SmallAudioEncoder | PretrainedAudioEncoder:
    if isinstance(audio, str):
        files = read_pretrained_audio(audio)
        return PretrainedAudioEncoder(files.config, files.extractor, str(files.folder))
    settings = asdict(audio) if isinstance(audio, SmallAudioConfig) else dict(audio)
    return PretrainedAudioEncoder(**settings) if "config" in settings else SmallAudioEncoder(**settings)
