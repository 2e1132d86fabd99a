"""Entry: corpus + encoder + model + trainer -> a run folder. Trains everything, pretraining and sibling systems too."""

from __future__ import annotations

import csv
import logging
import platform
import warnings
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
import yaml
from pytorch_lightning.loggers import CSVLogger, Logger
from pytorch_lightning.utilities import rank_zero_only

from labelgen import __version__
from labelgen.model.encoder import Encoder
from labelgen.training.checkpoint import read_checkpoint
from labelgen.training.data import DialogueData
from labelgen.training.learner import Learner

log = logging.getLogger(__name__)
SETTINGS = ("seed", "lr", "model", "optimizer", "augment", "pretrained")  # of the resolved config: what a resumed run must agree on
ARCHITECTURE = ("backbone", "dialogue_layers", "dialogue_heads")  # what weights must agree on
PACKAGES = ("torch", "pytorch-lightning", "transformers", "tokenizers", "numpy", "hydra-core")


def train(
    output: str,
    encoder: Callable[..., Encoder],
    data: Callable[..., DialogueData],
    model: Callable[..., Learner],
    trainer: Callable[..., pl.Trainer],
    callbacks: Mapping[str, pl.Callback | None],
    logger: Logger | None = None,
    seed: int = 0,
    pretrained: str | None = None,
    resume: str | None = "auto",
) -> float:
    """Fits `model` and returns its best valid/score (0.0 where none was computed).

    `pretrained` is the folder of a run whose encoder weights to start from. `resume`: "auto" goes on from OUTPUT/checkpoints/last.ckpt
    where that exists; null starts anew; else a checkpoint's path. OUTPUT receives config.yaml, metrics.csv, checkpoints/{best,last}.ckpt.
    """
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)  # its advice would hide what is ours
    pl.seed_everything(seed, workers=True)
    module = data(output=output)
    network = encoder(features=module.features)
    if pretrained:
        load_encoder(network, Path(pretrained))
    module.prepare(network)
    learner = model(encoder=network, tasks=module.tasks)
    learner.description = describe(learner, module, Path(output))
    checkpoint = _checkpoint(resume, Path(output), learner.description)
    loggers: list[Logger] = [metrics_log(output, checkpoint), *([logger] if logger else [])]
    skip = {} if module.valid else {"limit_val_batches": 0}
    fitter = trainer(default_root_dir=output, callbacks=usable(callbacks, bool(module.valid)), logger=loggers, **skip)
    log.info("training on %d dialogues, validating on %d, into %s", len(module.train), len(module.valid), output)
    _fit(fitter, learner, module, checkpoint)
    fitter.save_checkpoint(Path(output) / "checkpoints" / "last.ckpt")
    best = _best_score(fitter)
    then = "labelgen export checkpoint={} output=..." if module.tasks else "labelgen train pretrained={}"
    log.info("best valid/score %.4f; next: %s", best, then.format(output))
    return best


def _fit(fitter: pl.Trainer, learner: Learner, module: DialogueData, checkpoint: str | None) -> None:
    """Trains, and says where it ended early."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*exists and is not empty")  # a run goes on in its own folder
        warnings.filterwarnings("ignore", ".*number of training batches")  # few steps are a user's choice
        warnings.filterwarnings("ignore", ".*isinstance.treespec, LeafSpec")
        fitter.fit(learner, datamodule=module, ckpt_path=checkpoint, weights_only=True)
    for callback in fitter.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, pl.callbacks.EarlyStopping) and callback.stopped_epoch:
            log.info("stopped early: no better %s in %d validations (early_stopping.patience)", callback.monitor, callback.patience)


def _best_score(fitter: pl.Trainer) -> float:
    """0.0 where none was computed."""
    kept = [callback for callback in fitter.checkpoint_callbacks if isinstance(callback, pl.callbacks.ModelCheckpoint)]
    scores = [callback.best_model_score for callback in kept if callback.best_model_score is not None]
    best = float(scores[0]) if scores else 0.0
    if best != best:  # NaN would end a sweep
        log.error("the best score is not a number; returned as 0")
        return 0.0
    return best


def _checkpoint(resume: str | None, output: Path, description: Mapping[str, Any]) -> str | None:
    """What to go on from. A run that starts anew takes the checkpoints of an earlier one away: they would be exported as its own."""
    if resume is not None and resume != "auto":
        return resume
    last = output / "checkpoints" / "last.ckpt"
    if resume == "auto" and last.exists():
        _same_run(last, description)
        log.info("going on from %s", last)
        return str(last)
    if getattr(rank_zero_only, "rank", 0) == 0:
        for name in ("best.ckpt", "last.ckpt"):
            (output / "checkpoints" / name).unlink(missing_ok=True)
    return None


def _same_run(last: Path, description: Mapping[str, Any]) -> None:
    """ValueError where the checkpoint is of another model, other data or other settings than asked for now; its length may differ."""
    theirs = read_checkpoint(last)["labelgen"]
    there, here = theirs.get("config") or {}, description["config"] or {}
    other = [key for key in ("encoder", "tasks", "features", "data") if theirs.get(key) != description.get(key)]
    other += [key for key in SETTINGS if there and here and there.get(key) != here.get(key)]
    if other:
        raise ValueError(f"{last}: is of another run ({', '.join(other)} differ); name another output, or start anew with resume=null")


def usable(callbacks: Mapping[str, pl.Callback | None], validates: bool) -> list[pl.Callback]:
    """The callbacks that are not null; without validation those that wait for one of its figures are left out."""
    given = {name: callback for name, callback in callbacks.items() if callback is not None}
    left_out = [] if validates else [name for name, callback in given.items() if getattr(callback, "monitor", None)]
    if left_out:
        log.warning("no dialogue to validate on (data.valid_fraction): the last weights count, without %s", ", ".join(left_out))
    return [callback for name, callback in given.items() if name not in left_out]


def metrics_log(output: str, checkpoint: str | None) -> CSVLogger:
    """OUTPUT/metrics.csv. Lightning deletes an earlier one; a resumed run keeps its rows up to the checkpoint."""
    logger = CSVLogger(output, name="", version="", flush_logs_every_n_steps=1)
    if getattr(rank_zero_only, "rank", 0) == 0:
        rows = _rows_before(Path(output, "metrics.csv"), checkpoint) if checkpoint else []
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*exists and is not empty")
            logger.experiment.metrics.extend(rows)
        logger.save()
    return logger


def _rows_before(file: Path, checkpoint: str) -> list[dict[str, Any]]:
    if not file.exists():
        return []
    step = read_checkpoint(Path(checkpoint))["global_step"]
    with file.open(encoding="utf-8", newline="") as lines:
        return [{key: value for key, value in row.items() if value} for row in csv.DictReader(lines) if int(row["step"]) < step]


def load_encoder(encoder: Encoder, run: Path) -> None:
    """Takes the encoder's weights of another run (pretraining): turn encoder and dialogue encoder; features start anew."""
    read = read_checkpoint(run)
    theirs, ours = read["labelgen"]["encoder"], encoder.describe()
    other = [key for key in ARCHITECTURE if theirs[key] != ours[key]]
    if {"audio"} <= theirs.keys() & ours.keys() and theirs["audio"] != ours["audio"]:
        other.append("audio")
    if read["labelgen"]["tokenizer"] != encoder.tokenizer.to_str():
        other.append("tokenizer")
    if other:
        raise ValueError(f"pretrained={run}: its encoder is another one ({', '.join(other)}); use the same encoder config")
    marks = ("network.encoder.", "encoder.")  # of a Labeler, of a Pretrainer
    state = {key.removeprefix(mark): value for mark in marks for key, value in read["state_dict"].items() if key.startswith(mark)}
    left_out = ("feature_encoder.", *(() if encoder.audio_encoder else ("audio_encoder.",)))
    wanted = {key: value for key, value in state.items() if not key.startswith(left_out)}
    if unknown := encoder.load_state_dict(wanted, strict=False).unexpected_keys:
        written = read["labelgen"]["labelgen"]
        raise ValueError(f"pretrained={run}: no place for {unknown[0]}; labelgen {written} trained it, train it again with this version")
    anew = [part for part, there in (("features", True), ("audio", "audio" not in theirs and "audio" in ours)) if there]
    log.info("encoder weights from %s; %s start anew", run, " and ".join(anew))


def describe(learner: Learner, data: DialogueData, output: Path) -> dict[str, Any]:
    """What a checkpoint tells of itself, as plain values."""
    config = output / "config.yaml"
    return {
        "labelgen": __version__,
        "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
        "hardware": {"machine": platform.machine(), "threads": torch.get_num_threads(), "cuda": torch.cuda.is_available()},
        "features": data.features.as_dict(),
        "data": data.fingerprint(),
        "config": yaml.safe_load(config.read_text("utf-8")) if config.exists() else None,
        **learner.describe(),
    }
