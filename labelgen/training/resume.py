"""Finds the checkpoint that a run resumes from, and refuses those of other runs.

A resumed run makes exactly the same steps as a run that was never interrupted, on the same hardware and with the same package versions.
Therefore it must have the same seed, data, model and settings (batch tokens, number of processes, precision, clipping, ...). Only the
settings in FREE may differ, among them the budget: with a longer or shorter one the schedule continues as Schedule says. A run bounded by
max_time depends on the speed of the machine and cannot be repeated exactly.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pytorch_lightning.utilities import rank_zero_only

from labelgen.io.paths import error_message
from labelgen.training.checkpoint import checkpoints, read_checkpoint

log = logging.getLogger(__name__)
DESCRIBED = ("encoder", "tasks", "features", "data", "run")  # keys of a checkpoint's description that must be equal
FREE = (  # settings that a resumed run may change: where it reads and writes, when it ends, what it reports
    *("output", "resume", "logger", "data.corpus", "data.cache", "data.num_workers", "callbacks.best", "callbacks.last"),
    *("callbacks.early_stopping", "trainer.max_epochs", "trainer.max_steps", "trainer.max_time", "trainer.log_every_n_steps"),
    *("trainer.enable_progress_bar", "trainer.enable_model_summary"),
)


@dataclass(frozen=True)
class ResumePoint:
    """A sound checkpoint of this run, and the steps that it holds."""

    path: Path
    step: int


def find_resume_point(resume: str | None, output: Path, description: Mapping[str, Any]) -> ResumePoint | None:
    """The checkpoint to resume from. None: the run starts from the beginning.

    `resume`: "auto" takes the newest sound checkpoint of the run folder `output`, None takes none, and a path takes that checkpoint.
    ValueError if no checkpoint is sound, or if it belongs to another run.
    """
    candidates = [] if resume is None else checkpoints(output / "checkpoints") if resume == "auto" else [Path(resume)]
    damaged: list[str] = []
    for path in candidates:
        try:
            checkpoint = read_checkpoint(path)
        except (ValueError, OSError) as error:
            damaged.append(error_message(error))
            continue
        _check_same_run(path, checkpoint["labelgen"], description)
        for message in damaged:
            log.warning("%s", message)
        log.log(logging.WARNING if damaged else logging.INFO, "resuming from %s, after step %d", path, checkpoint["global_step"])
        return ResumePoint(path, int(checkpoint["global_step"]))
    if damaged:
        raise ValueError(damaged[0])
    return None


def _check_same_run(path: Path, theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> None:
    """ValueError if model, data or settings of the checkpoint differ from those of the run that would resume from it."""
    different = [key for key in DESCRIBED if theirs.get(key) != ours.get(key)]
    if theirs.get("config") and ours.get("config"):
        there, here = (dict(_settings(described["config"]["call"])) for described in (theirs, ours))
        different += sorted(key for key in there.keys() | here.keys() if there.get(key) != here.get(key))
    if different:
        raise ValueError(f"{path}: is of another run ({', '.join(different)} differ); name another output, or start again with resume=null")


def _settings(node: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The settings that a resumed run must share, by their dotted keys."""
    for name, value in node.items():
        key = f"{prefix}{name}"
        if key in FREE:
            continue
        if isinstance(value, Mapping) and value:
            yield from _settings(value, f"{key}.")
        else:
            yield key, value


@rank_zero_only
def remove_checkpoints(output: Path) -> None:
    """Removes the checkpoints of an earlier run, which could otherwise be exported as this one's."""
    for path in checkpoints(output / "checkpoints"):
        log.info("removing %s of an earlier run", path)
        path.unlink()
