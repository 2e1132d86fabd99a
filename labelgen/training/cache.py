"""States of texts after the frozen layers, computed once and memory-mapped. An epoch then takes seconds instead of minutes."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import platform
import shutil
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from labelgen.inputs.batch import Encoding, group_equal
from labelgen.io.paths import error_reason
from labelgen.io.progress import on_terminal
from labelgen.model.encoder import TurnEncoder
from labelgen.training.durable import publish, seal, verify

log = logging.getLogger(__name__)
TOKENS_PER_STEP = 2048


class FrozenStates:
    """Texts -> their states [L, D] after the frozen layers, in float16 and in the order of the texts.

    One process calls `prepare`, which computes the states unless a sound file holds them. Then every process calls `open`. Labelling
    computes in float32. Rounding changes the states of MiniLM by up to 1.2e-3 and halves the disk space (0.75 kB per token).
    """

    def __init__(self, turn_encoder: TurnEncoder, tokens: Mapping[str, Encoding], folder: Path) -> None:
        """Reads and writes nothing. The name of the file is a hash of the texts and of the frozen weights."""
        texts = sorted(tokens, key=lambda text: (len(tokens[text].ids), text))
        ends = np.cumsum([0, *(len(tokens[text].ids) for text in texts)])
        self.rows = {text: slice(start, end) for text, (start, end) in zip(texts, pairwise(ends.tolist()), strict=True)}
        self._ids = [tokens[text].ids for text in texts if len(tokens[text].ids)]
        self._turn_encoder = turn_encoder
        self.shape = int(ends[-1]), turn_encoder.width
        self.path = folder / f"{fingerprint(turn_encoder, [tokens[text].ids for text in texts])}.npy"
        self.states: np.ndarray | None = None

    def prepare(self, device: torch.device) -> None:
        """Computes the states on a device, unless a file with the right checksum holds them. ValueError if the disk has no room."""
        try:
            return verify(self.path)
        except FileNotFoundError:
            pass
        except ValueError as error:
            log.warning("%s: %s; computing it again", self.path, error)
        folder, size = self.path.parent, 2 * self.shape[0] * self.shape[1]
        folder.mkdir(parents=True, exist_ok=True)
        _remove_stale(self.path)
        if shutil.disk_usage(folder).free < 1.1 * size:
            raise ValueError(f"{folder}: {size / 1e9:.1f} GB of states do not fit; set data.cache to another folder, or data.cache=null")
        frozen = self._turn_encoder.frozen_layers
        log.info("computing the states after %d frozen layers on %s: %.2f GB into %s", frozen, device, size / 1e9, self.path)
        original_device = next(self._turn_encoder.parameters()).device
        try:
            compute(self._turn_encoder.to(device), self._ids, self.path)
        finally:
            self._turn_encoder.to(original_device)

    def open(self) -> None:
        """Maps the file into memory. ValueError if it is missing or damaged, perhaps since `prepare`."""
        try:
            self.states = np.load(self.path, mmap_mode="r")
        except (OSError, EOFError, ValueError) as error:
            raise ValueError(f"{self.path}: not readable ({error_reason(error)}); delete it, the next start computes it again") from None
        if self.states.shape != self.shape:
            raise ValueError(f"{self.path}: holds {self.states.shape}, not {self.shape}; delete it, the next start computes it again")

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """The states of texts, one after another."""
        assert self.states is not None, "open() comes first"
        return np.concatenate([np.zeros((0, self.shape[1]), self.states.dtype), *(self.states[self.rows[text]] for text in texts)])

    def __getstate__(self) -> dict[str, Any]:
        """Leaves out what a worker process opens itself or does not need."""
        return {**self.__dict__, "states": None, "_turn_encoder": None, "_ids": []}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.open()


def fingerprint(turn_encoder: TurnEncoder, ids: Sequence[np.ndarray]) -> str:
    """A hash of everything that the states depend on."""
    digest = hashlib.sha256(f"frozen states 3, {turn_encoder.frozen_layers} layers".encode())
    digest.update(json.dumps(turn_encoder.config, sort_keys=True, default=str).encode())
    layers = turn_encoder.backbone.layers[turn_encoder.frozen_layers :]
    trainable = {id(parameter) for parameter in layers.parameters()}
    for name, parameter in turn_encoder.named_parameters():
        if id(parameter) not in trainable:
            digest.update(name.encode() + parameter.detach().cpu().float().numpy().tobytes())
    for row in ids:
        digest.update(len(row).to_bytes(4, "big") + row.tobytes())
    return digest.hexdigest()[:32]


@torch.no_grad()
def compute(turn_encoder: TurnEncoder, ids: Sequence[np.ndarray], path: Path) -> None:
    """Writes the states of texts, sorted by length. The file is renamed when it is whole, so that a killed run leaves no partial one."""
    temporary = _temporary_path(path, os.getpid())
    total = sum(len(row) for row in ids)
    was_training = turn_encoder.training
    turn_encoder.eval()
    try:
        states = np.lib.format.open_memmap(temporary, "w+", np.float16, (total, turn_encoder.width))
        done = 0
        for piece in _pieces(ids, total):
            states[done : done + sum(map(len, piece))] = _half_states(turn_encoder, piece)
            done += sum(map(len, piece))
        states.flush()
        with temporary.open("r+b") as file:
            seal(file)
        publish(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
        turn_encoder.train(was_training)


def _half_states(turn_encoder: TurnEncoder, ids: Sequence[np.ndarray]) -> np.ndarray:
    """The states of a few texts, [L, D] float16. ValueError if one does not fit into 16 bits."""
    flat = torch.from_numpy(np.concatenate(ids).astype(np.int64)).to(next(turn_encoder.parameters()).device)
    half = turn_encoder.frozen_states(flat, group_equal(len(row) for row in ids)).half()
    if not half.isfinite().all():
        raise ValueError("the states after the frozen layers exceed 16 bits; set data.cache=null")
    return half.cpu().numpy()


def _pieces(ids: Sequence[np.ndarray], total: int) -> Iterator[Sequence[np.ndarray]]:
    """Pieces of about TOKENS_PER_STEP tokens. Reports the progress: as a bar on a terminal, elsewhere as a line for every tenth."""
    start = done = 0
    with tqdm(total=total, unit="token", unit_scale=True, desc="frozen layers", disable=not on_terminal()) as bar:
        while start < len(ids):
            end = start + max(1, TOKENS_PER_STEP // len(ids[start]))
            piece = ids[start:end]
            yield piece
            start, before, done = end, done, done + sum(map(len, piece))
            bar.update(done - before)
            if bar.disable and 10 * done // total > 10 * before // total:
                log.info("frozen layers: %d of %d tokens", done, total)


def _temporary_path(path: Path, process: int | str) -> Path:
    """The temporary file of a process of this machine. (Other machines may share the folder.)"""
    return path.with_name(f"{path.stem}.{platform.node()}.{process}")


def _remove_stale(path: Path) -> None:
    """Removes what killed processes of this machine left in the folder of `path`."""
    for file in path.parent.glob(_temporary_path(path, "*").name):
        number = file.suffix.removeprefix(".")
        if number.isdecimal() and not _alive(int(number)):
            log.info("removing %s: process %s is gone", file, number)
            file.unlink(missing_ok=True)


def _alive(process: int) -> bool:
    if os.name != "posix":
        return True  # there is no harmless way to ask
    try:
        os.kill(process, 0)  # signal 0 only asks
    except ProcessLookupError:
        return False
    except OSError:  # the process of another user
        pass
    return True
