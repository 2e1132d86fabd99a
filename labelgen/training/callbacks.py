"""Lightning callbacks and plugins: when and how checkpoints are written, and the validation at the last step of a run."""

from __future__ import annotations

import logging
import math
import signal
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Checkpoint, ModelCheckpoint
from pytorch_lightning.plugins import CheckpointIO
from pytorch_lightning.utilities.exceptions import SIGTERMException
from torch import Tensor

from labelgen.training.checkpoint import read_checkpoint, write_checkpoint

log = logging.getLogger(__name__)


class DurableCheckpointIO(CheckpointIO):
    """Makes Lightning read and write checkpoints with the functions of checkpoint.py.

    Lightning's own plugin writes to TMPDIR, then copies if that is another file system. A kill in between destroys the earlier checkpoint.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: object = None) -> None:
        """OSError if it cannot be written."""
        write_checkpoint(checkpoint, Path(path))

    def load_checkpoint(
        self, path: str | Path, map_location: Callable[..., Any] | None = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Always loads to the CPU and weights only, whatever the arguments say. ValueError if the checkpoint is damaged."""
        return read_checkpoint(Path(path))

    def remove_checkpoint(self, path: str | Path) -> None:
        """Does nothing if there is none."""
        Path(path).unlink(missing_ok=True)


def relocate(checkpoint: dict[str, Any], folder: Path) -> None:
    """Points ModelCheckpoint's states to `folder`. Without this Lightning would forget the best score when a run folder was moved."""
    for state in checkpoint["callbacks"].values():
        best = Path(state.get("best_model_path", ""))
        if (folder / best.name).is_file():
            moved = {name: str(folder / Path(state[name]).name) for name in ("best_model_path", "kth_best_model_path")}
            models = {str(folder / Path(path).name): score for path, score in state["best_k_models"].items()}
            state.update(moved, dirpath=str(folder), best_k_models=models)


class BestCheckpoint(ModelCheckpoint):
    """A ModelCheckpoint whose best of several equal scores is the latest. Lightning's keeps the first, which was trained least."""

    def __init__(self, dirpath: str, filename: str = "best", monitor: str = "valid/score", mode: str = "max") -> None:
        super().__init__(dirpath, filename, monitor, mode=mode, enable_version_counter=False)  # a new best replaces the old one

    def check_monitor_top_k(self, trainer: pl.Trainer, current: Tensor | None = None) -> bool:
        """Whether a score is among the best, or equal to the lowest of them."""
        if super().check_monitor_top_k(trainer, current):
            return True
        equal = current is not None and bool(current == self.best_k_models[self.kth_best_model_path])
        return bool(trainer.strategy.reduce_boolean_decision(equal))


class EarlyStopping(pl.callbacks.EarlyStopping):
    """Lightning's, but validations before the first score above 0 do not count: they say that the model needs more steps."""

    def __init__(self, monitor: str = "valid/score", mode: str = "max", patience: int = 5, min_delta: float = 0.0) -> None:
        super().__init__(monitor, min_delta, patience, mode=mode)

    def _evaluate_stopping_criteria(self, current: Tensor) -> tuple[bool, str | None]:
        if float(current) == 0.0 and not float(self.best_score) > 0.0:
            return False, None
        return super()._evaluate_stopping_criteria(current)


class LastCheckpoint(Checkpoint):
    """Writes DIRPATH/last.ckpt every `every_n_train_steps` steps, after each validation and each epoch, and when a signal ends the run.

    If a validation is due only after every n-th epoch, so is a checkpoint, because the epochs are short.

    Lightning's ModelCheckpoint writes before the validation that is due at a step, and a run that resumes there skips that validation.
    It also marks an epoch as complete that a budget ends early, so that a prolonged run would never see the rest of it.
    """

    def __init__(self, dirpath: str, every_n_train_steps: int = 200) -> None:
        self.path, self.every_n_train_steps = Path(dirpath) / "last.ckpt", every_n_train_steps
        self.step = 0  # of the newest last.ckpt that this process wrote

    def _write(self, trainer: pl.Trainer) -> None:
        trainer.save_checkpoint(self.path)
        self.step = trainer.global_step

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        """Writes after a step, unless a validation or the end of an epoch follows."""
        validates = trainer.should_stop or (batch_idx + 1) % (trainer.val_check_batch or math.inf) == 0
        due = trainer.should_stop or trainer.global_step % self.every_n_train_steps == 0
        if due and not trainer.is_last_batch and not (trainer.enable_validation and validates):
            self._write(trainer)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Writes after a validation within an epoch."""
        if not trainer.is_last_batch:
            self._write(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Writes after an epoch's last batch, when early stopping has counted it."""
        epochs = trainer.current_epoch + 1
        ends = trainer.should_stop or trainer.received_sigterm or epochs == trainer.max_epochs or trainer.global_step == trainer.max_steps
        due = epochs % (trainer.check_val_every_n_epoch or 1) == 0 or trainer.global_step - self.step >= self.every_n_train_steps
        if trainer.is_last_batch and (ends or due):
            self._write(trainer)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Between two steps, where Lightning ends a run that received SIGTERM.

        A run cannot resume exactly within a validation (Lightning would skip it) or within a step (a second SIGINT, an error). Of several
        processes one may be within a step when another one ends, and writing would wait for it.
        """
        between = isinstance(exception, SIGTERMException) and not trainer.validating and not trainer.is_last_batch
        if between and trainer.world_size == 1 and trainer.global_step > self.step:
            self._write(trainer)


class StopAtInterrupt(pl.Callback):
    """Makes SIGINT (Ctrl+C) end a run of one process where SIGTERM would: between two steps. A second one ends it at once."""

    received = False

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Sets the handler. Lightning restores the earlier one after the run."""
        if trainer.world_size == 1 and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, partial(self._stop, trainer))

    def _stop(self, trainer: pl.Trainer, signum: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        self.received = trainer._signal_connector.received_sigterm = True
        log.warning("SIGINT: the run ends after this step; a second one ends it at once")


class CountSteps(pl.Callback):
    """Keeps the step by which Lightning logs: steps taken, and one less during the validation after a step.

    Lightning counts a step after the checkpoint that holds it, and not always again when a run resumes.
    """

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: object, batch_idx: int) -> None:
        trainer.fit_loop.epoch_loop._batches_that_stepped = trainer.global_step

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        trainer.fit_loop.epoch_loop._batches_that_stepped = trainer.global_step - 1


class StopAtMaxSteps(pl.Callback):
    """Makes Lightning validate when trainer.max_steps ends a run, as it does for max_time and max_epochs."""

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        if trainer.global_step == trainer.max_steps:
            trainer.should_stop = True
