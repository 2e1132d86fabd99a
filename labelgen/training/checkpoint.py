"""Checkpoints of training runs. They are written whole or not at all, with a checksum, and reading one runs no code from it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from labelgen.io.paths import error_reason
from labelgen.training.durable import DIGEST, publish, seal, verify

PARTIAL = ".partial"  # ends the name of a checkpoint that is being written


def write_checkpoint(checkpoint: dict[str, Any], path: Path) -> None:
    """Writes a checkpoint in place of an earlier one, which stays whole until then. OSError if that fails (a full disk).

    The file is an archive of torch.save whose comment is the digest of what precedes it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + PARTIAL)  # always the same name, so that the next write replaces what a killed run leaves
    try:
        with temporary.open("w+b") as file:
            torch.save(checkpoint, file)
            file.seek(-2, os.SEEK_END)  # a zip file ends in the length of its comment
            file.write(DIGEST.to_bytes(2, "little"))
            seal(file)
        publish(temporary, path)
    except (OSError, RuntimeError) as error:  # torch hides the disk's error behind its own
        cause = error.__context__ if isinstance(error.__context__, OSError) else error
        problem = f"could not be written ({error_reason(cause)}); make room, then run the same command again"
        raise OSError(f"{path}: {problem}") from None
    finally:
        temporary.unlink(missing_ok=True)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """A checkpoint file, or the best (else the last) one of a run folder, on the CPU.

    ValueError if there is none or it is damaged. The message then names a sound one in the same folder.
    """
    if path.is_dir():
        candidates = [path / "checkpoints" / name for name in ("best.ckpt", "last.ckpt")]
        found = [file for file in candidates if file.exists()]
        if not found:
            raise ValueError(
                f"{path}: no checkpoints/best.ckpt and no checkpoints/last.ckpt; give a run folder of `labelgen train` or a .ckpt"
            )
        path = found[0]
    try:
        verify(path)
    except ValueError as error:
        raise ValueError(f"{path}: the checkpoint is damaged ({error}), {_remedy(path)}") from None
    except OSError as error:
        raise ValueError(f"{path}: the checkpoint cannot be read ({error_reason(error)}), {_remedy(path)}") from None
    try:
        checkpoint: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch passes on any error of its unpickler
        raise ValueError(f"{path}: not a checkpoint ({error_reason(error)}), {_remedy(path)}") from None
    if "labelgen" not in checkpoint:
        raise ValueError(f"{path}: not a checkpoint of `labelgen train`")
    return checkpoint


def _remedy(damaged: Path) -> str:
    """What to do instead of reading a damaged checkpoint."""
    sound = [str(path) for path in checkpoints(damaged.parent) if path != damaged and is_sound(path)]
    return f"but {sound[0]} is sound: give that one" if sound else "and its folder has no sound one: train again with resume=null"


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoints in a folder: last.ckpt, then the others from the newest to the oldest."""
    found = sorted(folder.glob("*.ckpt"), key=lambda path: path.stat().st_mtime, reverse=True)
    return sorted(found, key=lambda path: path.name != "last.ckpt")


def is_sound(path: Path) -> bool:
    """Whether a checkpoint matches its checksum."""
    try:
        verify(path)
    except (OSError, ValueError):
        return False
    return True
