"""States of texts under frozen layers, computed once and memory-mapped: an epoch above them costs seconds, not minutes."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import platform
import shutil
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from labelgen.inputs.batch import Encoding, group_equal
from labelgen.model.encoder import TurnEncoder

log = logging.getLogger(__name__)
TOKENS_A_STEP = 2048


class FrozenStates:
    """texts -> states [L, D], float16, of the texts in the order given."""

    def __init__(self, states: np.ndarray, rows: Mapping[str, slice]) -> None:
        self.states, self.rows = states, rows

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        return np.concatenate([np.zeros((0, self.states.shape[1]), self.states.dtype), *(self.states[self.rows[text]] for text in texts)])

    @classmethod
    def of(cls, turn: TurnEncoder, tokens: Mapping[str, Encoding], folder: Path) -> FrozenStates:
        """Reads the states from `folder`, or computes and keeps them there, under a fingerprint of the texts and the frozen weights."""
        order = sorted(tokens, key=lambda text: (len(tokens[text].ids), text))
        ends = np.cumsum([0, *(len(tokens[text].ids) for text in order)])
        rows = {text: slice(start, end) for text, (start, end) in zip(order, pairwise(ends.tolist()), strict=True)}
        path = folder / f"{fingerprint(turn, [tokens[text].ids for text in order])}.npy"
        if not path.exists():
            size = int(ends[-1]) * turn.width * 2
            folder.mkdir(parents=True, exist_ok=True)
            _remove_stale(path)
            if shutil.disk_usage(folder).free < 1.1 * size:
                raise ValueError(
                    f"{folder}: {size / 1e9:.1f} GB of states do not fit; set data.cache to another folder, or data.cache=null"
                )
            log.info("computing the states under %d frozen layers: %.2f GB into %s", turn.frozen_layers, size / 1e9, path)
            compute(turn, [tokens[text].ids for text in order if len(tokens[text].ids)], path)
        return cls(np.load(path, mmap_mode="r"), rows)


def fingerprint(turn: TurnEncoder, ids: Sequence[np.ndarray]) -> str:
    """Hash of everything that the states depend on."""
    digest = hashlib.sha256(f"frozen states 2, {turn.frozen_layers} layers".encode())
    digest.update(json.dumps(turn.config, sort_keys=True, default=str).encode())
    layers = turn.backbone.layers[turn.frozen_layers :]
    learning = {id(parameter) for parameter in layers.parameters()}
    for name, parameter in turn.named_parameters():
        if id(parameter) not in learning:
            digest.update(name.encode() + parameter.detach().cpu().float().numpy().tobytes())
    for row in ids:
        digest.update(len(row).to_bytes(4, "big") + row.tobytes())
    return digest.hexdigest()[:32]


@torch.no_grad()
def compute(turn: TurnEncoder, ids: Sequence[np.ndarray], path: Path) -> None:
    """Writes the states of texts, sorted by length, aside and renames them: a killed run leaves no half file under the name."""
    aside = _aside(path, os.getpid())
    total = sum(len(row) for row in ids)
    states = np.lib.format.open_memmap(aside, "w+", np.float16, (total, turn.width))
    was_training = turn.training
    turn.eval()
    device = next(turn.parameters()).device
    try:
        done = start = 0
        with tqdm(total=total, unit="token", unit_scale=True, desc="frozen layers") as bar:
            while start < len(ids):
                end = start + max(1, TOKENS_A_STEP // len(ids[start]))
                piece = ids[start:end]
                flat = torch.from_numpy(np.concatenate(piece).astype(np.int64)).to(device)
                out = turn.frozen_states(flat, group_equal(len(row) for row in piece))
                half = out.half()
                if not half.isfinite().all():
                    raise ValueError("the states under the frozen layers exceed 16 bits; set data.cache=null")
                states[done : done + len(flat)] = half.cpu().numpy()
                done, start = done + len(flat), end
                bar.update(len(flat))
        states.flush()
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)
        turn.train(was_training)


def _aside(path: Path, process: int | str) -> Path:
    """Where a process of this machine writes (others may share the folder)."""
    return path.with_name(f"{path.stem}.{platform.node()}.{process}")


def _remove_stale(path: Path) -> None:
    """Removes what killed processes of this machine left beside `path`."""
    for file in path.parent.glob(_aside(path, "*").name):
        number = file.suffix.removeprefix(".")
        if number.isdecimal() and not _alive(int(number)):
            log.info("removing %s: process %s is gone", file, number)
            file.unlink(missing_ok=True)


def _alive(process: int) -> bool:
    if os.name != "posix":
        return True  # no way to ask there that does no harm
    try:
        os.kill(process, 0)  # signal 0 asks, and sends nothing
    except ProcessLookupError:
        return False
    except OSError:  # another user's
        pass
    return True
