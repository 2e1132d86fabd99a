"""Files that are whole or absent: written under a temporary name, sealed by the SHA-256 of their bytes, flushed to the disk, renamed."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path
from typing import BinaryIO

DIGEST = 64  # bytes at the end of a file: the SHA-256 of what precedes them, in hexadecimal
CHUNK = 2**20  # bytes read at once


def seal(file: BinaryIO) -> None:
    """Appends the digest of a file that is open for reading and writing, and flushes it to the disk."""
    file.seek(0)
    digest = hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]  # a BinaryIO is all it needs
    file.seek(0, os.SEEK_END)
    file.write(digest.encode("ascii"))
    file.flush()
    os.fsync(file.fileno())


def verify(path: Path) -> None:
    """ValueError if a sealed file is empty, truncated or changed, or was never sealed. OSError if it cannot be read."""
    remaining = path.stat().st_size - DIGEST
    if remaining < 0:
        raise ValueError("it is truncated")
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while remaining:
            chunk = file.read(min(CHUNK, remaining))
            digest.update(chunk)
            remaining -= len(chunk)
        if (stored := file.read()) != digest.hexdigest().encode("ascii"):
            sealed = re.fullmatch(b"[0-9a-f]{64}", stored)
            raise ValueError("its checksum is wrong" if sealed else "it has no checksum: truncated, or written by an earlier version")


def publish(temporary: Path, path: Path) -> None:
    """Renames a flushed file to its final name, replaces an earlier file there, and flushes the folder."""
    os.replace(temporary, path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
