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
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from labelgen.annotator import Annotator
from labelgen.encoder import Encoder
from labelgen.features import FeatureSpace
from labelgen.network import Network
from labelgen.tasks import Task

log = logging.getLogger(__name__)
FORMAT = 3
LAYERS_AND_WIDTH = ("num_hidden_layers", "n_layers"), ("hidden_size", "dim")  # as architectures call them
FILES = ("config.json", "model.safetensors", "tokenizer.json")
TOLD = ("format", "encoder", "features", "tasks")  # of config.json: what the weights mean
SETTINGS = {"max_tokens", "frozen_layers", "dialogue_layers", "dialogue_heads", "dropout", "causal"}


def read_checkpoint(path: Path) -> dict[str, Any]:
    """A checkpoint file, or the best (else the last) one of a run folder; weights only. ValueError where there is none or it is broken."""
    if path.is_dir():
        candidates = [path / "checkpoints" / name for name in ("best.ckpt", "last.ckpt")]
        found = [file for file in candidates if file.exists()]
        if not found:
            raise ValueError(
                f"{path}: no checkpoints/best.ckpt and no checkpoints/last.ckpt; give a run folder of `labelgen train` or a .ckpt"
            )
        path = found[0]
    try:
        checkpoint: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises what its unpickler raises
        raise ValueError(f"{path}: not a readable checkpoint ({type(error).__name__}: {str(error).splitlines()[0]})") from None
    if "labelgen" not in checkpoint:
        raise ValueError(f"{path}: not a checkpoint of `labelgen train`")
    return checkpoint


def export(checkpoint: str, output: str) -> None:
    """Writes the export of a run's best checkpoint (or of a given .ckpt) to the folder `output`, whole or not at all."""
    read = read_checkpoint(Path(checkpoint))
    told = dict(read["labelgen"])
    if "tasks" not in told:
        raise ValueError(f"{checkpoint}: a pretraining checkpoint has no labels to give; start `labelgen train pretrained=...` from it")
    mark = "network."
    weights = {key.removeprefix(mark): value.contiguous() for key, value in read["state_dict"].items() if key.startswith(mark)}
    folder = Path(output)
    aside = folder.with_name(f".{folder.name}.{os.getpid()}")
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
            shutil.rmtree(folder)
        os.replace(aside, folder)
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


def load(folder: str | os.PathLike[str], tasks: Mapping[str, type[Task]] | None = None, device: str = "cpu") -> Annotator:
    """Reads an export. `tasks` names the classes of tasks that are not labelgen's own: no export can make labelgen import one.

    Raises ValueError, naming the file, where the folder is incomplete, damaged, or does not fit together.
    """
    path = Path(folder)
    missing = [name for name in FILES if not (path / name).is_file()]
    if missing:
        raise ValueError(f"{path}: not an export, {missing[0]} is missing; `labelgen export checkpoint=RUN output=FOLDER` makes one")
    try:
        told = json.loads((path / "config.json").read_text("utf-8"))
        if told["format"] != FORMAT:
            raise ValueError(f"format {told['format']}, this version reads {FORMAT}; export again")
        fingerprint = told["fingerprint"]
        if fingerprint != (actual := _fingerprint(path, told)):
            raise ValueError(f"it, model.safetensors or tokenizer.json were changed since ({actual}, not {fingerprint}); export again")
        network, space = _build(path, told, dict(tasks or {}))
    except Exception as error:  # what a damaged config makes the libraries raise has no type of its own
        what = str(error) if isinstance(error, ValueError) else f"damaged ({type(error).__name__}: {error}); export again"
        raise ValueError(f"{path}/config.json: {what}") from None
    _load_weights(network, path / "model.safetensors")
    return Annotator(network, space, fingerprint, told, device)


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
    numerical = {name: (float(mean), float(deviation)) for name, (mean, deviation) in told["features"]["numerical"].items()}
    space = FeatureSpace(told["features"]["categorical"], numerical, told["features"]["response"])
    settings = {key: told["encoder"][key] for key in SETTINGS}
    audio = told["encoder"].get("audio")  # a model without audio says nothing of it
    if not isinstance(audio, dict | None):
        raise ValueError("encoder.audio is not an architecture; a name would be looked up and read, which no export can ask for")
    encoder = Encoder(backbone, space, str(path / "tokenizer.json"), **settings, audio=audio)
    return Network(encoder, {name: _task(name, dict(spec), tasks) for name, spec in told["tasks"].items()}), space


def _load_weights(network: Network, file: Path) -> None:
    try:
        weights = load_file(file)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{file}: damaged ({error}); export again") from None
    own = network.state_dict()
    wrong = sorted(own.keys() ^ weights.keys()) or sorted(key for key in own if own[key].shape != weights[key].shape)
    if wrong:
        raise ValueError(f"{file}: {wrong[0]} does not fit config.json; export again")
    for key, value in weights.items():
        if value.is_floating_point() and not bool(value.isfinite().all()):
            raise ValueError(f"{file}: {key} holds NaN or infinite weights; the training run diverged or the file was changed")
    network.load_state_dict(weights)


def _task(name: str, spec: dict[str, Any], given: dict[str, type[Task]]) -> Task:
    """A task by its dotted path: only labelgen.tasks.*, or a class that the caller gave."""
    target = str(spec.pop("_target_"))
    if not all(isinstance(label, str) for label in spec["labels"]) or isinstance(spec["labels"], str):
        raise ValueError(f"the labels of task {name!r} are not a list of texts; export again")
    if name in given:
        return given[name](**spec)
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
    return found(**spec)
