"""Entry `train`: corpus + encoder + model + trainer -> a run folder. Pretraining and sibling systems use it too."""

from __future__ import annotations

import logging
import platform
import re
import warnings
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
import yaml
from pytorch_lightning.callbacks import GradientAccumulationScheduler
from pytorch_lightning.loggers import Logger
from pytorch_lightning.utilities.exceptions import MisconfigurationException, SIGTERMException  # type: ignore[attr-defined]

from labelgen import __version__
from labelgen.io.progress import on_terminal
from labelgen.io.wording import counted
from labelgen.model.encoder import ARCHITECTURE, Encoder
from labelgen.training.callbacks import CountSteps, DurableCheckpointIO, StopAtInterrupt, StopAtMaxSteps
from labelgen.training.checkpoint import checkpoints, is_sound, read_checkpoint
from labelgen.training.data import DialogueData
from labelgen.training.learner import Learner
from labelgen.training.metrics_log import MetricsLog, read_rows
from labelgen.training.resume import ResumePoint, find_resume_point, remove_checkpoints
from labelgen.training.selection import Choice, Validation, count_annotated, default_budget, never_right

log = logging.getLogger(__name__)
TERMINATED = 128 + 15  # exit status of a process that SIGTERM ends
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
    min_steps: int = 300,
    min_valid_dialogues: int = 30,
) -> float:
    """Fits `model` and returns the valid/score of the checkpoint that an export takes (0.0 if none was computed).

    That is best.ckpt if at least `min_valid_dialogues` annotated dialogues are held out. With fewer the choice would be noise, so it is
    last.ckpt, and nothing stops the run early. A `trainer` whose max_epochs is None and that has no max_steps and no max_time makes 3
    epochs, or as many as `min_steps` steps take.

    `pretrained`: the folder of a run whose encoder weights are loaded first. `resume`: "auto" continues from the newest sound checkpoint in
    OUTPUT/checkpoints (see labelgen.training.resume), None starts from the beginning, and a path names a checkpoint. OUTPUT receives
    config.yaml, metrics.csv, checkpoints/{best,last}.ckpt.

    Raises ValueError if the settings do not fit together, or the checkpoint is damaged or of another run; OSError if a checkpoint cannot
    be written; SystemExit (143) on SIGTERM; and KeyboardInterrupt on SIGINT.
    """
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)  # its advice would bury our own lines
    pl.seed_everything(seed, workers=True)
    module = data(output=output)
    module.setup()
    built_encoder = encoder(features=module.features)
    if pretrained:
        load_encoder(built_encoder, Path(pretrained))
    module.attach(built_encoder)
    learner = model(encoder=built_encoder, tasks=module.tasks)
    metrics = MetricsLog(Path(output, "metrics.csv"))
    validation = Validation(len(module.valid), count_annotated(module.tasks, module.valid), min_valid_dialogues)
    used = usable(callbacks, validation)
    fitter = _build(trainer, output, used, [metrics, *([logger] if logger else [])], bool(module.valid))
    if _without_budget(trainer):
        _set_default_budget(fitter, module, min_steps)
    learner.description = describe(learner, module, fitter, seed, Path(output))
    point = find_resume_point(resume, Path(output), learner.description)
    if point is None:
        remove_checkpoints(Path(output))
    else:
        point.check_budget(fitter.max_epochs)
    metrics.start(point.step if point else 0)
    dialogues = counted(len(module.train), "dialogue")
    log.info("training %s on %s, validating on %d, into %s", _size(learner), dialogues, len(module.valid), output)
    _fit(fitter, learner, module, point, resume)
    last = Path(output, "checkpoints", "last.ckpt")
    if callbacks.get("last") is None or not last.exists():  # no callback for it, or no step
        fitter.save_checkpoint(last)
    score = _finish(fitter, output, learner, validation, bool(module.tasks))
    module.rejected.log()  # again: what was logged before training is out of sight
    return score


def _size(learner: Learner) -> str:
    """How many parameters are trained: `10.65 M of 28.72 M parameters`."""
    trained = sum(parameter.numel() for parameter in learner.parameters() if parameter.requires_grad)
    total = sum(parameter.numel() for parameter in learner.parameters())
    return f"{trained / 1e6:.2f} M of {total / 1e6:.2f} M parameters"


def _without_budget(trainer: Callable[..., pl.Trainer]) -> bool:
    """Whether the trainer's settings leave the length of the run open: its max_epochs is null, and max_steps and max_time are not set."""
    settings = getattr(trainer, "keywords", {})  # of a functools.partial, as Hydra makes it
    bounded = settings.get("max_steps", -1) != -1 or settings.get("max_time") is not None
    return "max_epochs" in settings and settings["max_epochs"] is None and not bounded


def _set_default_budget(fitter: pl.Trainer, module: DialogueData, min_steps: int) -> None:
    limit, steps = fitter.limit_train_batches, module.steps_per_epoch(fitter.world_size)
    steps = int(steps * limit) if isinstance(limit, float) else min(steps, int(limit))
    budget = default_budget(steps, min_steps)
    fitter.fit_loop.max_epochs, fitter.check_val_every_n_epoch = budget
    log.info(
        "%s of %s (trainer.max_epochs; min_steps=%d)%s", counted(budget.max_epochs, "epoch"), counted(steps, "step"), min_steps,
        f", validating after every {budget.check_val_every_n_epoch}th" if budget.check_val_every_n_epoch > 1 else "",
    )  # fmt: skip


def _finish(fitter: pl.Trainer, output: str, learner: Learner, validation: Validation, has_tasks: bool) -> float:
    """Logs which checkpoint counts, by what score, what that rests on, and which command is next. Returns the score."""
    rows = read_rows(Path(output, "metrics.csv"))
    for message in never_right(learner.scored, rows):
        log.warning("%s", message)
    best = next((callback for callback in fitter.checkpoint_callbacks if isinstance(callback, pl.callbacks.ModelCheckpoint)), None)
    exists = Path(output, "checkpoints", "best.ckpt").exists()
    choice = Choice.of(rows, fitter.global_step, best if exists else None)
    command = "labelgen export checkpoint={} output=..." if has_tasks else "labelgen train pretrained={}"
    log.info("%s; next: %s", choice.describe(validation), command.format(output))
    return choice.score or 0.0


def _build(
    trainer: Callable[..., pl.Trainer], output: str, callbacks: list[pl.Callback], loggers: list[Logger], validates: bool
) -> pl.Trainer:
    """Builds the trainer. ValueError if it cannot be built (its device is missing, ...) or would accumulate gradients."""
    try:
        fitter = trainer(
            default_root_dir=output,
            callbacks=[CountSteps(), StopAtInterrupt(), StopAtMaxSteps(), *callbacks],
            logger=loggers,
            plugins=[DurableCheckpointIO()],
            num_sanity_val_steps=0,
            use_distributed_sampler=False,  # data.py divides the batches among the ranks
            **({} if validates else {"limit_val_batches": 0}),
        )
    except MisconfigurationException as error:
        missing = re.match(r"No supported (\w+) backend found", str(error))
        problem = f"this machine has no {missing[1]} that torch can use; give trainer=cpu" if missing else str(error)
        raise ValueError(f"trainer: {problem}") from None
    if fitter.accumulate_grad_batches != 1 or any(isinstance(callback, GradientAccumulationScheduler) for callback in callbacks):
        raise ValueError(
            "trainer.accumulate_grad_batches: the mean over the labelled items of several batches is not the mean of their means; "
            "use larger batches (data.batch_tokens)"
        )
    if (bar := fitter.progress_bar_callback) is not None and not on_terminal():
        bar.disable()  # it would flood a log file; the validations are logged
    return fitter


def _fit(fitter: pl.Trainer, learner: Learner, module: DialogueData, point: ResumePoint | None, resume: str | None) -> None:
    """Trains, and reports an early end."""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*exists and is not empty")  # a run resumes in its own folder
            warnings.filterwarnings("ignore", ".*callbacks used to create the checkpoint")  # they may be left out
            warnings.filterwarnings("ignore", ".*number of training batches")  # few steps are a user's choice
            warnings.filterwarnings("ignore", ".*in eval mode at the start")  # frozen layers
            warnings.filterwarnings("ignore", ".*isinstance.treespec, LeafSpec")
            fitter.fit(learner, datamodule=module, ckpt_path=point.path if point else None, weights_only=True)
    except MisconfigurationException as error:
        raise ValueError(f"trainer: {error}") from None
    except SystemExit as error:  # Lightning's, with 0 between two steps, and with 1 within one after a second SIGINT
        stopping = next(callback for callback in fitter.callbacks if isinstance(callback, StopAtInterrupt))  # type: ignore[attr-defined]
        terminated = isinstance(error, SIGTERMException) and not stopping.received
        name = "SIGTERM" if terminated else "SIGINT"
        log.warning("stopped by %s after step %d; %s", name, fitter.global_step, advice(fitter, learner.description["config"], resume))
        raise (SystemExit(TERMINATED) if terminated else KeyboardInterrupt) from None
    for callback in fitter.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, pl.callbacks.EarlyStopping) and callback.stopped_epoch:
            validations = counted(callback.patience, "validation")
            log.info("stopped early: no better %s in %s (early_stopping.patience)", callback.monitor, validations)


def advice(fitter: pl.Trainer, config: Mapping[str, Any] | None, resume: str | None) -> str:
    """How to continue a run that was stopped. `config`: that of the command line, None if there is none."""
    if config is not None and "resume" not in config:  # `labelgen demo`
        return "run the same command to start again"
    sound = next(filter(is_sound, checkpoints(Path(fitter.default_root_dir, "checkpoints"))), None)
    if sound is None:
        return "run the same command again: no checkpoint has been written"
    command = "the same command (resume=auto)" if resume == "auto" else "the same command with resume=auto"
    return f"run {command} to resume from {sound}, after step {read_checkpoint(sound)['global_step']}"


def usable(callbacks: Mapping[str, pl.Callback | None], validation: Validation) -> list[pl.Callback]:
    """The callbacks that are not None. Without enough validation dialogues those that monitor a figure are left out."""
    given = {name: callback for name, callback in callbacks.items() if callback is not None}
    left_out = [] if validation.decides else [name for name, callback in given.items() if getattr(callback, "monitor", None)]
    if left_out:
        reason = (
            f"only {validation.annotated} annotated dialogues to validate on (min_valid_dialogues={validation.minimum})"
            if validation.held_out
            else "no dialogue to validate on (data.valid_fraction)"
        )
        log.warning("%s: the last weights count, without %s", reason, ", ".join(left_out))
    return [callback for name, callback in given.items() if name not in left_out]


def load_encoder(encoder: Encoder, run: Path) -> None:
    """Loads the encoder weights of another run (pretraining), except those of the feature encoder, which start at zero."""
    checkpoint = read_checkpoint(run)
    theirs, ours = checkpoint["labelgen"]["encoder"], encoder.describe()
    different = [key for key in ARCHITECTURE if theirs[key] != ours[key]]
    if {"audio"} <= theirs.keys() & ours.keys() and theirs["audio"] != ours["audio"]:
        different.append("audio")
    if checkpoint["labelgen"]["tokenizer"] != encoder.tokenizer.to_str():
        different.append("tokenizer")
    if different:
        raise ValueError(f"pretrained={run}: its encoder is another one ({', '.join(different)}); use the same encoder config")
    prefixes = ("network.encoder.", "encoder.")  # of a Labeler, of a Pretrainer
    weights = checkpoint["state_dict"].items()
    state = {key.removeprefix(prefix): value for prefix in prefixes for key, value in weights if key.startswith(prefix)}
    left_out = ("feature_encoder.", *(() if encoder.audio_encoder else ("audio_encoder.",)))
    kept = {key: value for key, value in state.items() if not key.startswith(left_out)}
    if unknown := encoder.load_state_dict(kept, strict=False).unexpected_keys:
        written = checkpoint["labelgen"]["labelgen"]
        raise ValueError(f"pretrained={run}: no place for {unknown[0]}; labelgen {written} trained it, train it again with this version")
    untrained = ["features", *(["audio"] if "audio" not in theirs and "audio" in ours else [])]
    log.info("encoder weights from %s; not from there: %s", run, ", ".join(untrained))


def describe(learner: Learner, data: DialogueData, fitter: pl.Trainer, seed: int, output: Path) -> dict[str, Any]:
    """What a checkpoint holds besides weights, as plain values."""
    config = output / "config.yaml"
    return {
        "labelgen": __version__,
        "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
        "hardware": {"machine": platform.machine(), "threads": torch.get_num_threads(), "cuda": torch.cuda.is_available()},
        "run": {
            "seed": seed,
            "batch_tokens": data.batch_tokens,
            "world_size": fitter.world_size,
            "precision": str(fitter.precision),
            "gradient_clip_val": fitter.gradient_clip_val,
            "limit_train_batches": fitter.limit_train_batches,
        },
        "features": data.features.as_dict(),
        "data": data.fingerprint(),
        "config": yaml.safe_load(config.read_text("utf-8")) if config.exists() else None,
        **learner.describe(),
    }
