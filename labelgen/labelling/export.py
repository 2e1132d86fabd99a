"""Entry `export`: a checkpoint -> a folder that needs nothing else. `load` makes an Annotator of it.

The folder holds weights (safetensors), tokenizer.json and config.json (architecture, label spaces, feature statistics, versions, data
fingerprint, resolved training config). Reading it executes nothing, and needs no Lightning, no Hydra and no network.
docs/threat_model.md says what an export of unknown origin can and cannot do, and which check prevents what.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Mapping
from dataclasses import fields
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.overrides import TorchFunctionMode

from labelgen.dialogue import Dialogue, Turn
from labelgen.inputs.audio import Recording
from labelgen.inputs.batch import Collator
from labelgen.inputs.features import FeatureSpace
from labelgen.io.paths import error_reason, local_path, naming_file
from labelgen.labelling.annotator import Annotator, Precision
from labelgen.model.encoder import Encoder, EncoderSettings
from labelgen.network import Network
from labelgen.tasks import Task
from labelgen.training.checkpoint import read_checkpoint

log = logging.getLogger(__name__)
FORMAT = 4
LAYERS_AND_WIDTH = ("num_hidden_layers", "n_layers"), ("hidden_size", "dim")  # their names in different architectures
FILES = ("config.json", "model.safetensors", "tokenizer.json")
MEANING = ("format", "encoder", "features", "tasks")  # keys of config.json that say what the weights mean
CONSTRUCTORS = (torch.empty, torch.zeros, torch.ones, torch.full, torch.rand, torch.randn, torch.eye)
MAX_INTEGER = 2**20  # in an architecture; the largest vocabularies have 900,000 tokens


def export(checkpoint: str, output: str) -> None:
    """Writes the export of a run's best checkpoint (or of a given .ckpt) to the folder `output`, whole or not at all.

    ValueError: `output` is the working directory or one of its parents, lies in a file, or holds anything but an export.
    """
    folder = local_path(output).resolve()
    _check_replaceable(folder)
    content = read_checkpoint(Path(checkpoint))
    description = dict(content["labelgen"])
    if "tasks" not in description:
        raise ValueError(f"{checkpoint}: a pretraining checkpoint has no labels; start `labelgen train pretrained=...` from it")
    if not any(key.startswith("network.encoder.turn_encoder.") for key in content["state_dict"]):
        version = description["labelgen"]
        raise ValueError(f"{checkpoint}: an older version (labelgen {version}) trained it; train it again with this version")
    prefix = "network."
    weights = {key.removeprefix(prefix): value.contiguous() for key, value in content["state_dict"].items() if key.startswith(prefix)}
    if broken := [key for key, value in weights.items() if value.is_floating_point() and not bool(value.isfinite().all())]:
        raise ValueError(f"{checkpoint}: {broken[0]} holds NaN or infinite weights; the run diverged, export an earlier checkpoint")
    temporary, before = (folder.with_name(f".{folder.name}.{ending}") for ending in ("partial", "before"))
    _recover(folder, temporary, before)
    try:
        with naming_file(folder):
            fingerprint = _write(temporary, description, weights)
        _replace(folder, temporary, before)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    log.info("exported to %s (model %s)", folder, fingerprint)


def _recover(folder: Path, temporary: Path, before: Path) -> None:
    """Restores the export that a killed run had moved away, and deletes what else that run left."""
    if before.exists() and not folder.exists():
        os.replace(before, folder)
    for left in (temporary, before):
        shutil.rmtree(left, ignore_errors=True)


def _write(folder: Path, description: dict[str, Any], weights: dict[str, Tensor]) -> str:
    """Writes the files of an export into a new folder and returns the fingerprint."""
    folder.mkdir(parents=True)
    (folder / "tokenizer.json").write_text(description.pop("tokenizer"), "utf-8")
    try:
        save_file(weights, folder / "model.safetensors")
    except SafetensorError as error:  # holds the disk's error as text
        raise OSError(errno.EIO, f"model.safetensors could not be written ({error_reason(error)})") from None
    shutil.copymode(folder / "tokenizer.json", folder / "model.safetensors")  # safetensors makes it readable for the owner alone
    description["format"] = FORMAT
    description["fingerprint"] = fingerprint = _fingerprint(folder, description)
    (folder / "config.json").write_text(json.dumps(description, indent=1, ensure_ascii=False), "utf-8")
    (folder / "README.md").write_text(model_card(description), "utf-8")
    return fingerprint


def _replace(folder: Path, new: Path, before: Path) -> None:
    """Puts `new` in the place of `folder`, an export or nothing. If that fails, the old one stays."""
    if folder.exists():
        _check_replaceable(folder)  # again: writing took a while
        os.replace(folder, before)
    try:
        os.replace(new, folder)
    except OSError:
        if before.exists():
            os.replace(before, folder)
        raise
    shutil.rmtree(before, ignore_errors=True)


def _check_replaceable(folder: Path) -> None:
    """ValueError if an export cannot take the place of `folder`, an absolute path."""
    if Path.cwd().is_relative_to(folder):  # replacing it would move the working directory away
        raise ValueError(f"{folder} is the working directory or holds it; name a folder of its own, such as output=export")
    if file := next((parent for parent in folder.parents if parent.exists() and not parent.is_dir()), None):
        raise ValueError(f"{folder}: {file} is a file; name another folder")
    if folder.exists() and not _may_be_replaced(folder):
        raise ValueError(f"{folder} exists and is not an export; name another folder")


def _may_be_replaced(folder: Path) -> bool:
    """Whether it is an empty folder, or an export and nothing else."""
    if not folder.is_dir():
        return False
    names = {file.name for file in folder.iterdir()}
    try:
        return not names or (names <= {*FILES, "README.md"} and "labelgen" in json.loads((folder / "config.json").read_text("utf-8")))
    except (OSError, ValueError, TypeError):
        return False


def _fingerprint(folder: Path, description: Mapping[str, Any]) -> str:
    """The identity of the model: a hash of weights, tokenizer and what the weights mean, 16 hex digits.

    Keys keep their order in config.json, which is that of the columns of features.
    """
    digest = hashlib.sha256(json.dumps([description.get(key) for key in MEANING]).encode())
    for name in ("model.safetensors", "tokenizer.json"):
        with (folder / name).open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]


def model_card(description: Mapping[str, Any]) -> str:
    """The README of an export."""
    rows = "\n".join(f"| {name} | {', '.join(task['labels']) or 'goal numbers'} |" for name, task in description["tasks"].items())
    data, encoder = description["data"], description["encoder"]
    backbone = encoder["backbone"]
    layers, width = (next((backbone[key] for key in keys if key in backbone), "?") for keys in LAYERS_AND_WIDTH)
    corpus = ((description.get("config") or {}).get("data") or {}).get("corpus") or {}
    return f"""# A labelgen model

Labels dialogues: `labelgen backfill export=THIS_FOLDER input=... output=...`, or in Python
`annotator = labelgen.load("THIS_FOLDER"); labelled = annotator(dialogues)`.

| task | labels |
|---|---|
{rows}

- model {description["fingerprint"]}, labelgen {description["labelgen"]}, torch {description["versions"]["torch"]}
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

    Raises ValueError if the folder is incomplete or damaged, or its files do not fit together. The message names the file.
    """
    path = local_path(folder)
    missing = [name for name in FILES if not (path / name).is_file()]
    if missing:
        raise ValueError(f"{path}: not an export, {missing[0]} is missing; `labelgen export checkpoint=RUN output=FOLDER` makes one")
    limit = _limit(path / "model.safetensors")
    try:
        description = json.loads((path / "config.json").read_text("utf-8"))
        if description["format"] != FORMAT:
            remedy = "`labelgen export checkpoint=RUN output=FOLDER` makes it again"
            raise ValueError(f"format {description['format']}, this version reads {FORMAT}; {remedy}")
        fingerprint = description["fingerprint"]
        if fingerprint != (actual := _fingerprint(path, description)):
            raise ValueError(f"it, model.safetensors or tokenizer.json were changed since ({actual}, not {fingerprint}); export again")
        with limit:
            space = _feature_space(description["features"])
            network = _build(path, description, space, dict(tasks or {}))
        _load_weights(network, path / "model.safetensors")
        _try_out(network.eval(), space)
    except Exception as error:  # errors of libraries for a damaged config have no common type
        is_plain = isinstance(error, ValueError) and not isinstance(error, json.JSONDecodeError)
        what = str(error) if is_plain else f"damaged ({type(error).__name__}: {error_reason(error)}); export again"
        raise ValueError(what if what.startswith(f"{path}/") else f"{path}/config.json: {what}") from None
    return Annotator(network, space, fingerprint, description, device, precision)


class Limit(TorchFunctionMode):
    """A context in which this thread may create so many tensors, with so many numbers together. ValueError before it creates more.

    An architecture may ask for any size. Too large a one is refused before memory is allocated.
    """

    def __init__(self, tensors: int, numbers: int) -> None:
        super().__init__()
        self.tensors, self.numbers = tensors, numbers

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in CONSTRUCTORS:
            self.tensors -= 1
            self.numbers -= func(*args, **{**(kwargs or {}), "device": "meta"}).numel()
            if min(self.tensors, self.numbers) < 0:
                raise ValueError("asks for a far larger network than model.safetensors holds; export again")
        return func(*args, **(kwargs or {}))


def _limit(file: Path) -> Limit:
    """Room for several networks of the size of the file, because parts of an encoder may be built and then dropped."""
    try:
        with safe_open(file, "pt") as weights:
            return Limit(1000 + 4 * len(weights.keys()), 2**24 + file.stat().st_size)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{file}: damaged ({error}); export again") from None


def task_classes(paths: Mapping[str, str]) -> dict[str, type[Task]]:
    """Imports the classes of tasks, given their dotted paths by name. ValueError if there is no such class."""
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


def _feature_space(described: Mapping[str, Any]) -> FeatureSpace:
    numerical = {name: (float(mean), float(deviation)) for name, (mean, deviation) in described["numerical"].items()}
    return FeatureSpace(described["categorical"], numerical, described["response"])


def _build(path: Path, description: Mapping[str, Any], space: FeatureSpace, tasks: dict[str, type[Task]]) -> Network:
    """The network that config.json describes, with random weights."""
    backbone = description["encoder"]["backbone"]
    if not isinstance(backbone, dict):
        raise ValueError("encoder.backbone is not an architecture; a name would be looked up and read, which no export can ask for")
    if (largest := _largest(description["encoder"])) > MAX_INTEGER:
        raise ValueError(f"encoder holds the number {largest}, which no architecture has; export again")
    settings = {field.name: description["encoder"][field.name] for field in fields(EncoderSettings)}
    audio = description["encoder"].get("audio")  # absent where the model reads no audio
    if not isinstance(audio, dict | None):
        raise ValueError("encoder.audio is not an architecture; a name would be looked up and read, which no export can ask for")
    encoder = Encoder(backbone, space, str(path / "tokenizer.json"), **settings, audio=audio)
    return Network(encoder, {name: _task(name, dict(spec), tasks) for name, spec in description["tasks"].items()})


def _largest(part: Any) -> int:
    """The largest integer in a JSON value: some libraries count to it."""
    if isinstance(part, dict | list):
        return max(map(_largest, part.values() if isinstance(part, dict) else part), default=0)
    return part if isinstance(part, int) else 0


def _load_weights(network: Network, file: Path) -> None:
    try:
        weights = load_file(file)
    except Exception as error:  # from safetensors, or from torch for types that it does not have
        raise ValueError(f"{file}: damaged ({error}); export again") from None
    own = network.state_dict()
    wrong = sorted(own.keys() ^ weights.keys()) or sorted(key for key in own if own[key].shape != weights[key].shape)
    if wrong:
        raise ValueError(f"{file}: {wrong[0]} does not fit config.json; export again")
    network.load_state_dict(weights)


@torch.inference_mode()
def _try_out(network: Network, space: FeatureSpace) -> None:
    """Labels a trial dialogue, so that a model that does not work fails now and not during a long run."""
    texts, audio = network.text_encoder(), network.encoder.audio_encoder
    turn = Turn(request="word 漢é😀, " * network.encoder.max_tokens, response="a", numerical=dict.fromkeys(space.numerical, 1.0))
    if any(len(encoded.ids) > network.encoder.max_tokens for encoded in texts([turn.request or ""]).values()):
        raise ValueError(f"encoder.max_tokens={network.encoder.max_tokens} does not bound what the tokenizer makes; export again")
    silence = None if audio is None else audio.backbone.extractor(np.zeros(16_000, np.float32))
    recordings = None if silence is None else lambda _: [Recording(0, silence)]
    batch = Collator(texts, space, {}, recordings=recordings)([Dialogue(id="trial", turns=[turn, Turn()])])
    logits = network(batch)
    if wrong := [name for name, scores in logits.items() if bool(scores.softmax(1).isnan().any())]:
        raise ValueError(f"with the weights of model.safetensors the network computes NaN for {wrong[0]}; export again")
    network.predict(logits, batch, "trial")


def _task(name: str, spec: dict[str, Any], given: dict[str, type[Task]]) -> Task:
    """Makes the task that config.json names: one of labelgen.tasks, or of a class that the caller gave."""
    target = str(spec.pop("_target_"))
    labels = spec.pop("labels")
    if not all(isinstance(label, str) for label in labels) or isinstance(labels, str):
        raise ValueError(f"the labels of task {name!r} are not a list of texts; export again")
    "".join(labels).encode()  # a label that cannot be written is an error now
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
        raise ValueError(f"task {name!r} names {target}, which is not a task")
    return found(**spec).with_labels(labels)
