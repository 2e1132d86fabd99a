"""Checkpoint -> a folder that stands alone; `load` makes an Annotator of it.

The folder holds weights (safetensors), tokenizer.json and config.json (architecture, label spaces, feature statistics, versions, data
fingerprint, resolved training config). Reading it executes nothing, and needs no Lightning, no Hydra and no network.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from importlib import import_module
from math import inf, isfinite, prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch.overrides import TorchFunctionMode

from labelgen.dialogue import Dialogue, Turn
from labelgen.inputs.audio import Recording
from labelgen.inputs.batch import Collator
from labelgen.inputs.features import FeatureSpace
from labelgen.io.paths import local_path
from labelgen.labelling.annotator import Annotator, Precision
from labelgen.model.encoder import Encoder, EncoderSettings
from labelgen.network import Network
from labelgen.tasks import Task
from labelgen.training.checkpoint import read_checkpoint

log = logging.getLogger(__name__)
FORMAT = 4
LAYERS_AND_WIDTH = ("num_hidden_layers", "n_layers"), ("hidden_size", "dim")  # as architectures call them
FILES = ("config.json", "model.safetensors", "tokenizer.json")
TOLD = ("format", "encoder", "features", "tasks")  # of config.json: what the weights mean
GROWTH = {"Replace": 2, "ByteLevel": 2, "Precompiled": 16}  # by a step of a tokenizer, at least
MAX_GROWTH = 64  # the steps of XLM-RoBERTa have 32, most 2
MAKERS = (torch.empty, torch.zeros, torch.ones, torch.full, torch.rand, torch.randn, torch.eye)
LARGEST = 2**20  # integer in an architecture; the largest vocabularies have 900,000 tokens


def export(checkpoint: str, output: str) -> None:
    """Writes the export of a run's best checkpoint (or of a given .ckpt) to the folder `output`, whole or not at all."""
    read = read_checkpoint(Path(checkpoint))
    told = dict(read["labelgen"])
    if "tasks" not in told:
        raise ValueError(f"{checkpoint}: a pretraining checkpoint has no labels to give; start `labelgen train pretrained=...` from it")
    if not any(key.startswith("network.encoder.turn_encoder.") for key in read["state_dict"]):
        raise ValueError(f"{checkpoint}: an older version (labelgen {told['labelgen']}) trained it; train it again with this version")
    mark = "network."
    weights = {key.removeprefix(mark): value.contiguous() for key, value in read["state_dict"].items() if key.startswith(mark)}
    folder = local_path(output)
    aside = folder.with_name(f".{folder.name}.{os.getpid()}")
    before = aside.with_name(f"{aside.name}.before")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    try:
        (aside / "tokenizer.json").write_text(told.pop("tokenizer"), "utf-8")
        save_file(weights, aside / "model.safetensors")
        shutil.copymode(aside / "tokenizer.json", aside / "model.safetensors")  # safetensors lets nobody else read it
        told["format"] = FORMAT
        told["fingerprint"] = _fingerprint(aside, told)
        (aside / "config.json").write_text(json.dumps(told, indent=1, ensure_ascii=False), "utf-8")
        (aside / "README.md").write_text(model_card(told), "utf-8")
        if folder.exists():
            if not _may_be_replaced(folder):
                raise ValueError(f"{folder} exists and is not an export; name another folder")
            os.replace(folder, before)
        try:
            os.replace(aside, folder)
        except OSError:
            if before.exists():
                os.replace(before, folder)
            raise
        shutil.rmtree(before, ignore_errors=True)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    log.info("exported to %s (model %s)", folder, told["fingerprint"])


def _may_be_replaced(folder: Path) -> bool:
    """Is it an empty folder, or an export and nothing else?"""
    if not folder.is_dir():
        return False
    held = {file.name for file in folder.iterdir()}
    try:
        return not held or (held <= {*FILES, "README.md"} and "labelgen" in json.loads((folder / "config.json").read_text("utf-8")))
    except (OSError, ValueError, TypeError):
        return False


def _fingerprint(folder: Path, told: Mapping[str, Any]) -> str:
    """Hash of weights, tokenizer and of what the weights mean: the model's identity. 16 hex digits.

    Keys in the order written, which is that of the features' columns.
    """
    digest = hashlib.sha256(json.dumps([told.get(key) for key in TOLD]).encode())
    for name in ("model.safetensors", "tokenizer.json"):
        with (folder / name).open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]


def model_card(told: Mapping[str, Any]) -> str:
    """The README of an export."""
    rows = "\n".join(f"| {name} | {', '.join(task['labels']) or 'goal numbers'} |" for name, task in told["tasks"].items())
    data, encoder = told["data"], told["encoder"]
    backbone = encoder["backbone"]
    layers, width = (next((backbone[key] for key in keys if key in backbone), "?") for keys in LAYERS_AND_WIDTH)
    corpus = ((told.get("config") or {}).get("data") or {}).get("corpus") or {}
    return f"""# A labelgen model

Labels dialogues: `labelgen backfill export=THIS_FOLDER input=... output=...`, or in Python
`annotator = labelgen.load("THIS_FOLDER"); labelled = annotator(dialogues)`.

| task | labels |
|---|---|
{rows}

- model {told["fingerprint"]}, labelgen {told["labelgen"]}, torch {told["versions"]["torch"]}
- encoder: {backbone["model_type"]}, {layers} layers of width {width}, \
{encoder["dialogue_layers"]} dialogue layers, {"causal" if encoder["causal"] else "reading both ways"}, \
texts cut at {encoder["max_tokens"]} tokens\
{", with the recordings of requests" if "audio" in encoder else ""}
- trained on {data["train_dialogues"]} dialogues of {corpus.get("_target_", "a corpus given in Python")} (SHA-256 {data["sha256"][:16]})
- a label's confidence is the model's own probability; it has not been calibrated on your data. Check a sample before you rely on it.
- text beyond the cut, and label values that training did not hold, are never labelled.
"""


def load(
    folder: str | os.PathLike[str], tasks: Mapping[str, type[Task]] | None = None, device: str = "cpu", precision: Precision = "fp32"
) -> Annotator:
    """Reads an export. `tasks` names the classes of tasks that are not labelgen's own: no export can make labelgen import one.

    Raises ValueError, naming the file, where the folder is incomplete, damaged, or does not fit together.
    """
    path = local_path(folder)
    missing = [name for name in FILES if not (path / name).is_file()]
    if missing:
        raise ValueError(f"{path}: not an export, {missing[0]} is missing; `labelgen export checkpoint=RUN output=FOLDER` makes one")
    limit = _limit(path / "model.safetensors")
    try:
        told = json.loads((path / "config.json").read_text("utf-8"))
        if told["format"] != FORMAT:
            raise ValueError(
                f"format {told['format']}, this version reads {FORMAT}; `labelgen export checkpoint=RUN output=FOLDER` makes it again"
            )
        fingerprint = told["fingerprint"]
        if fingerprint != (actual := _fingerprint(path, told)):
            raise ValueError(f"it, model.safetensors or tokenizer.json were changed since ({actual}, not {fingerprint}); export again")
        _check_steps(path / "tokenizer.json")
        with limit, _panics(path / "tokenizer.json"):
            network, space = _build(path, told, dict(tasks or {}))
        _load_weights(network, path / "model.safetensors")
        with _panics(path / "tokenizer.json"):
            _try(network.eval(), space)
    except Exception as error:  # what a damaged config makes the libraries raise has no type of its own
        told_well = isinstance(error, ValueError) and not isinstance(error, json.JSONDecodeError)
        what = str(error) if told_well else f"damaged ({type(error).__name__}: {error}); export again"
        raise ValueError(what if what.startswith(f"{path}/") else f"{path}/config.json: {what}") from None
    return Annotator(network, space, fingerprint, told, device, precision)


class Limit(TorchFunctionMode):
    """While entered, this thread makes at most so many tensors of so many numbers together. ValueError before there are more.

    An architecture may ask for any size: it is refused before memory is.
    """

    def __init__(self, tensors: int, numbers: int) -> None:
        super().__init__()
        self.tensors, self.numbers = tensors, numbers

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in MAKERS:
            self.tensors -= 1
            self.numbers -= func(*args, **{**(kwargs or {}), "device": "meta"}).numel()
            if min(self.tensors, self.numbers) < 0:
                raise ValueError("asks for a far larger network than model.safetensors holds; export again")
        return func(*args, **(kwargs or {}))


def _limit(file: Path) -> Limit:
    """Room for several networks of the size of the file: a part of an encoder may be built and left out."""
    try:
        with safe_open(file, "pt") as weights:
            return Limit(1000 + 4 * len(weights.keys()), 2**24 + file.stat().st_size)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{file}: damaged ({error}); export again") from None


@contextmanager
def _panics(file: Path) -> Iterator[None]:
    """A panic of the tokenizer, which is no Exception and of no type that can be imported, as a ValueError."""
    try:
        yield
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        raise ValueError(f"{file}: not a tokenizer that works ({error}); export again") from None


def task_classes(paths: Mapping[str, str]) -> dict[str, type[Task]]:
    """Name -> dotted path, as the user wrote it -> name -> class; imports it. ValueError where there is none."""
    found = {}
    for name, path in paths.items():
        module, _, kind = str(path).rpartition(".")
        try:
            found[name] = getattr(import_module(module), kind)
        except (ImportError, AttributeError, TypeError, ValueError) as error:
            raise ValueError(f"tasks.{name}={path}: {error}; give module.Class, with the module's folder on PYTHONPATH") from error
        if not (isinstance(found[name], type) and issubclass(found[name], Task)):
            raise ValueError(f"tasks.{name}={path}: not a class of tasks (labelgen.tasks.Task)")
    return found


def _build(path: Path, told: Mapping[str, Any], tasks: dict[str, type[Task]]) -> tuple[Network, FeatureSpace]:
    """The network that config.json tells of, with random weights, and its features."""
    backbone = told["encoder"]["backbone"]
    if not isinstance(backbone, dict):
        raise ValueError("encoder.backbone is not an architecture; a name would be looked up and read, which no export can ask for")
    if (absurd := _largest(told["encoder"])) > LARGEST:
        raise ValueError(f"encoder holds the number {absurd}, which no architecture has; export again")
    numerical = {name: (float(mean), float(deviation)) for name, (mean, deviation) in told["features"]["numerical"].items()}
    if wrong := [name for name, (mean, deviation) in numerical.items() if not (isfinite(mean) and 0 < deviation < inf)]:
        raise ValueError(f"features.numerical: {wrong[0]} has no mean and deviation to standardise by; export again")
    space = FeatureSpace(told["features"]["categorical"], numerical, told["features"]["response"])
    settings = {field.name: told["encoder"][field.name] for field in fields(EncoderSettings)}
    audio = told["encoder"].get("audio")  # a model without audio says nothing of it
    if not isinstance(audio, dict | None):
        raise ValueError("encoder.audio is not an architecture; a name would be looked up and read, which no export can ask for")
    encoder = Encoder(backbone, space, str(path / "tokenizer.json"), **settings, audio=audio)
    return Network(encoder, {name: _task(name, dict(spec), tasks) for name, spec in told["tasks"].items()}), space


def _check_steps(tokenizer: Path) -> None:
    """ValueError where the steps before a tokenizer's words would fill the memory."""
    try:
        told = json.loads(tokenizer.read_text("utf-8"))
        growth = _growth([told.get("normalizer"), told.get("pre_tokenizer")])
    except Exception as error:  # an AttributeError too
        raise ValueError(f"{tokenizer}: not a tokenizer ({error}); export again") from None
    if growth > MAX_GROWTH:
        raise ValueError(f"{tokenizer}: its steps make a text longer and longer, as no tokenizer's do; export again")


def _growth(part: Any) -> int:
    """How many times as long the steps, one after another, may make a text; what one step adds is held in the file."""
    if not isinstance(part, dict | list):
        return 1
    within = prod(map(_growth, part.values() if isinstance(part, dict) else part))
    return within * GROWTH.get(str(part.get("type")), 1) if isinstance(part, dict) else within


def _largest(part: Any) -> int:
    """The largest integer in what JSON holds: some libraries count to it."""
    if isinstance(part, dict | list):
        return max(map(_largest, part.values() if isinstance(part, dict) else part), default=0)
    return part if isinstance(part, int) else 0


def _load_weights(network: Network, file: Path) -> None:
    try:
        weights = load_file(file)
    except Exception as error:  # of safetensors, and of torch for types that it does not have
        raise ValueError(f"{file}: damaged ({error}); export again") from None
    own = network.state_dict()
    wrong = sorted(own.keys() ^ weights.keys()) or sorted(key for key in own if own[key].shape != weights[key].shape)
    if wrong:
        raise ValueError(f"{file}: {wrong[0]} does not fit config.json; export again")
    for key, value in weights.items():
        if value.dtype != own[key].dtype and not (value.is_floating_point() and own[key].is_floating_point()):
            raise ValueError(f"{file}: {key} is of type {value.dtype}, not {own[key].dtype}; export again")
        weights[key] = value.to(own[key].dtype)
        if value.is_floating_point() and not bool(weights[key].isfinite().all()):
            raise ValueError(f"{file}: {key} holds NaN or infinite weights; the training run diverged or the file was changed")
    network.load_state_dict(weights)


@torch.inference_mode()
def _try(network: Network, space: FeatureSpace) -> None:
    """Labels a dialogue, so that what does not work shows here, and not after a night."""
    texts, audio = network.text_encoder(), network.encoder.audio_encoder
    turn = Turn(request="word 漢é😀, " * network.encoder.max_tokens, response="a", numerical=dict.fromkeys(space.numerical, 1.0))
    if any(len(encoded.ids) > network.encoder.max_tokens for encoded in texts([turn.request or ""]).values()):
        raise ValueError(f"encoder.max_tokens={network.encoder.max_tokens} does not bound what the tokenizer makes; export again")
    silence = None if audio is None else audio.backbone.extractor(np.zeros(16_000, np.float32))
    heard = None if silence is None else lambda _: [Recording(0, silence)]
    batch = Collator(texts, space, {}, recordings=heard)([Dialogue(id="trial", turns=[turn, Turn()])])
    logits = network(batch)
    if wrong := [name for name, scores in logits.items() if bool(scores.softmax(1).isnan().any())]:
        raise ValueError(f"with the weights of model.safetensors the network computes NaN for {wrong[0]}; export again")
    network.predict(logits, batch, "trial")


def _task(name: str, spec: dict[str, Any], given: dict[str, type[Task]]) -> Task:
    """A task by its dotted path: only labelgen.tasks.*, or a class that the caller gave."""
    target = str(spec.pop("_target_"))
    labels = spec.pop("labels")
    if not all(isinstance(label, str) for label in labels) or isinstance(labels, str):
        raise ValueError(f"the labels of task {name!r} are not a list of texts; export again")
    "".join(labels).encode()  # what cannot be written is an error now
    if name in given:
        return given[name](**spec).with_labels(labels)
    module, _, kind = target.rpartition(".")
    if not module.startswith("labelgen.tasks.") or not all(part.isidentifier() for part in target.split(".")):
        raise ValueError(
            f"task {name!r} is {target}, not one of labelgen's; give its class: labelgen.load(folder, tasks={{{name!r}: ...}}), "
            f"in the shell +tasks.{name}=module.Class"
        )
    try:
        found = getattr(import_module(module), kind)
    except (ImportError, AttributeError):
        raise ValueError(f"task {name!r} names {target}, which does not exist in this version") from None
    if not (isinstance(found, type) and issubclass(found, Task)):
        raise ValueError(f"task {name!r} names {target}, which is no task")
    return found(**spec).with_labels(labels)
