"""Locks between processes: a file that a process holds until it ends, however it ends."""

from __future__ import annotations

import fcntl
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

log = logging.getLogger(__name__)


@contextmanager
def locked(path: Path, refusal: str) -> Iterator[BinaryIO]:
    """Opens a file for appending and locks it. It is made if it does not exist; what it holds and whether it stays is the caller's choice.

    ValueError, with the message `refusal`, if another process holds the lock. A file system without locks grants every one.
    """
    while True:
        with path.open("ab") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ValueError(refusal) from None
            except OSError as error:
                log.debug("%s: no locks on this file system (%s)", path, error)
            if _is_at(path, file):  # else the process that held the lock has renamed or removed it
                yield file
                return


def _is_at(path: Path, file: BinaryIO) -> bool:
    """Whether an open file is still the one of that name."""
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    return False
