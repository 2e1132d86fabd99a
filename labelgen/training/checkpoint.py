"""Checkpoints of training runs, read without running any code of theirs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch


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
