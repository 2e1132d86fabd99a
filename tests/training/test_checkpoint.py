"""Checkpoints: whole or as before whatever fails while they are written, and no changed byte goes unseen."""

import os
import random
import resource
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from labelgen.training import durable
from labelgen.training.callbacks import DurableCheckpointIO
from labelgen.training.checkpoint import checkpoints, is_sound, read_checkpoint, write_checkpoint

OLD: dict[str, Any] = {"labelgen": {}, "step": 1, "weights": torch.zeros(3)}
NEW: dict[str, Any] = {"labelgen": {}, "step": 2, "weights": torch.arange(2000.0)}


class KilledError(BaseException):
    """What no `except Exception` catches."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """An earlier checkpoint."""
    write_checkpoint(OLD, tmp_path / "last.ckpt")
    return tmp_path / "last.ckpt"


def test_what_is_written_is_read(path: Path) -> None:
    write_checkpoint(NEW, path)
    read = read_checkpoint(path)
    assert read["step"] == 2
    assert torch.equal(read["weights"], NEW["weights"])
    assert torch.load(path, weights_only=True)["step"] == 2, "it is a file of torch.save"
    assert [file.name for file in path.parent.iterdir()] == ["last.ckpt"]


STEPS: list[tuple[object, str]] = [(torch, "save"), (durable.hashlib, "file_digest"), (os, "fsync"), (os, "replace"), (os, "open")]


@pytest.mark.parametrize("error", [KilledError(), OSError(28, "No space left on device")], ids=["kill", "full disk"])
@pytest.mark.parametrize(("where", "function"), STEPS, ids=lambda value: value if isinstance(value, str) else "")
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_failure_at_any_step_leaves_a_whole_checkpoint(
    path: Path, where: object, function: str, after: bool, error: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole: Callable[..., Any] = getattr(where, function)

    def failing(*args: Any, **options: Any) -> None:
        if after:
            whole(*args, **options)
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(where, function, failing)
        with pytest.raises((KilledError, OSError)):
            write_checkpoint(NEW, path)
    renamed = function == "open" or (function == "replace" and after)
    assert read_checkpoint(path)["step"] == (2 if renamed else 1)
    assert [file.name for file in path.parent.iterdir()] == ["last.ckpt"]


def test_what_a_kill_left_is_replaced(path: Path) -> None:
    left = path.with_name("last.ckpt.partial")
    left.write_bytes(b"half")
    assert checkpoints(path.parent) == [path]
    write_checkpoint(NEW, path)
    assert not left.exists()
    assert read_checkpoint(path)["step"] == 2


@contextmanager
def small_disk() -> Iterator[None]:
    """No file may grow beyond a few kilobytes: none of this process, so that nothing else may be written meanwhile."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_is_named_with_its_remedy(path: Path) -> None:
    named = r"last\.ckpt: could not be written .*make room, then run the same command again$"
    with small_disk(), pytest.raises(OSError, match=named):
        write_checkpoint(NEW, path)
    assert read_checkpoint(path)["step"] == 1


def test_nothing_is_written_elsewhere(path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    monkeypatch.setattr(tempfile, "tempdir", str(elsewhere))
    monkeypatch.setenv("TMPDIR", str(elsewhere))
    monkeypatch.setattr(os, "replace", only_within(path.parent, os.replace))
    DurableCheckpointIO().save_checkpoint(NEW, path)
    assert list(elsewhere.iterdir()) == []
    assert DurableCheckpointIO().load_checkpoint(path)["step"] == 2


def only_within(folder: Path, replace: Callable[..., None]) -> Callable[..., None]:
    def checked(source: Path, target: Path) -> None:
        assert Path(source).parent == Path(target).parent == folder, "another folder may be another file system"
        replace(source, target)

    return checked


def test_every_changed_byte_is_seen(path: Path) -> None:
    whole, rng = path.read_bytes(), random.Random(0)
    for position in {*range(len(whole) - 400, len(whole)), *rng.sample(range(len(whole)), 200)}:
        changed = bytearray(whole)
        changed[position] ^= 1 << rng.randrange(8)
        path.write_bytes(changed)
        assert not is_sound(path), position
    path.write_bytes(whole)
    assert is_sound(path)


@pytest.mark.parametrize("size", [0, 10, 64, 700, -1])
def test_a_truncated_checkpoint_is_named_and_a_sound_one_offered(path: Path, size: int) -> None:
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(
        ValueError, match=r"last\.ckpt: the checkpoint is damaged \(.*\), and its folder has no sound one: train again with resume=null$"
    ):
        read_checkpoint(path)
    write_checkpoint(NEW, path.with_name("best.ckpt"))
    with pytest.raises(ValueError, match=r"last\.ckpt: the checkpoint is damaged \(.*\), but .*best\.ckpt is sound: give that one$"):
        read_checkpoint(path)
    assert path.exists()


def test_the_last_checkpoint_comes_first_then_the_newest(path: Path) -> None:
    for age, name in enumerate(("a.ckpt", "z.ckpt", "m.ckpt")):
        other = path.with_name(name)
        write_checkpoint(NEW, other)
        os.utime(other, (1000 - age, 1000 - age))
    assert [file.name for file in checkpoints(path.parent)] == ["last.ckpt", "a.ckpt", "z.ckpt", "m.ckpt"]
    assert checkpoints(path.parent / "none") == []


def test_remove_is_quiet_where_there_is_none(path: Path) -> None:
    DurableCheckpointIO().remove_checkpoint(path)
    DurableCheckpointIO().remove_checkpoint(path)
    assert not path.exists()
