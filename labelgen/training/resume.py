"""Finds the checkpoint that a run resumes from, and refuses those of other runs.

A resumed run makes exactly the same steps as a run that was never interrupted, on the same hardware and with the same package versions.
Therefore it must have the same seed, data, model and settings (batch tokens, number of processes, precision, clipping, ...). Only the
settings in FREE may differ, among them the budget: with a longer or shorter one the schedule continues as Schedule says. A run bounded by
max_time depends on the speed of the machine and cannot be repeated exactly.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pytorch_lightning.utilities import rank_zero_only

from labelgen.io.paths import error_message
from labelgen.training.checkpoint import checkpoints, read_checkpoint

log = logging.getLogger(__name__)
DESCRIBED = ("run", "data", "encoder", "tasks", "features")  # keys of a description that must be equal; data determine what follows
FREE = (  # settings that a resumed run may change: where it reads and writes, when it ends, what it reports
    *("output", "resume", "logger", "min_steps", "data.corpus", "data.cache", "data.num_workers", "callbacks.best", "callbacks.last"),
    *("callbacks.early_stopping", "trainer.max_epochs", "trainer.max_steps", "trainer.max_time", "trainer.log_every_n_steps"),
    *("trainer.enable_progress_bar", "trainer.enable_model_summary"),
)
MOST, WIDEST = 5, 60  # differences that a refusal lists; characters of a value
Difference = tuple[Any, Any]  # value in the checkpoint, value now


@dataclass(frozen=True)
class ResumePoint:
    """A sound checkpoint of this run, and the steps that it holds."""

    path: Path
    step: int
    epochs: int  # that it holds whole

    def check_budget(self, max_epochs: int | None) -> None:
        """ValueError if a run of so many epochs (None or -1: no limit) ends before this point."""
        if max_epochs not in (None, -1) and self.epochs > max_epochs:
            remedy = f"give trainer.max_epochs={self.epochs} or more, or start again with resume=null"
            raise ValueError(f"{self.path}: it holds {self.epochs} epochs, more than trainer.max_epochs={max_epochs}; {remedy}")


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
        return ResumePoint(path, int(checkpoint["global_step"]), _epochs(checkpoint))
    if damaged:
        raise ValueError(damaged[0])
    return None


def _epochs(checkpoint: Mapping[str, Any]) -> int:
    """The number of epochs that a checkpoint holds whole."""
    return int(checkpoint["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"])


def _check_same_run(path: Path, theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> None:
    """ValueError if model, data or settings of the checkpoint differ from those of the run that would resume from it."""
    settings: dict[str, Difference] = {}
    if theirs.get("config") and ours.get("config"):
        there, here = theirs["config"], ours["config"]
        changed = _differences(there["call"], here["call"], FREE)
        settings = {_as_typed(key, there, here): difference for key, difference in changed.items()}
    described = _differences({key: theirs.get(key) for key in DESCRIBED}, {key: ours.get(key) for key in DESCRIBED})
    named = {(key.rpartition(".")[2], str(difference)) for key, difference in settings.items()}
    others = {key: found for key, found in described.items() if (key.rpartition(".")[2], str(found)) not in named}
    different = [f"{key}: {_shown(before)} there, {_shown(now)} now" for key, (before, now) in {**settings, **others}.items()]
    if different:
        more = f"; and {len(different) - MOST} more" if len(different) > MOST else ""
        listed = "; ".join(different[:MOST]) + more
        raise ValueError(f"{path}: this checkpoint is of another run ({listed}); name another output, or start again with resume=null")


def _differences(there: Mapping[str, Any], here: Mapping[str, Any], free: Collection[str] = ()) -> dict[str, Difference]:
    """What differs, by dotted key, in order; None where one has no such key."""
    first, second = dict(_settings(there, free)), dict(_settings(here, free))
    keys = dict.fromkeys([*first, *second])
    return {key: (first.get(key), second.get(key)) for key in keys if first.get(key) != second.get(key)}


def _as_typed(key: str, there: Mapping[str, Any], here: Mapping[str, Any]) -> str:
    """The key of the command line for a key of the call: the shortest end of it that has the same values in the configurations.

    A setting reaches the call from elsewhere: `call.model.lr` is `lr`, `call.model.optimizer.fused` is `optimizer.fused`.
    """
    parts = key.split(".")
    wanted = [_value(config["call"], parts) for config in (there, here)]
    ends = (parts[k:] for k in reversed(range(len(parts))))
    found = (end for end in ends if [_value(config, end) for config in (there, here)] == wanted)
    return ".".join(next(found, ["call", *parts]))


def _value(node: Any, parts: Sequence[str]) -> Any:
    for part in parts:
        node = node.get(part) if isinstance(node, Mapping) else None
    return node


def _shown(value: Any) -> str:
    """As on the command line, shortened."""
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= WIDEST else f"{text[: WIDEST - 3]}..."


def _settings(node: Mapping[str, Any], free: Collection[str], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The settings but for those in `free`, by their dotted keys."""
    for name, value in node.items():
        key = f"{prefix}{name}"
        if key in free:
            continue
        if isinstance(value, Mapping) and value:
            yield from _settings(value, free, f"{key}.")
        else:
            yield key, value


@rank_zero_only
def remove_checkpoints(output: Path) -> None:
    """Removes the checkpoints of an earlier run, which could otherwise be exported as this one's."""
    for path in checkpoints(output / "checkpoints"):
        log.info("removing %s of an earlier run", path)
        path.unlink()
