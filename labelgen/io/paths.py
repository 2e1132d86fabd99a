"""Which files a path names: a file, a folder or a pattern, on a disk or in an object store (any URI that fsspec knows: `s3://...`)."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from fsspec.core import split_protocol
from fsspec.utils import glob_translate
from upath import UPath

log = logging.getLogger(__name__)
RECORD_SUFFIXES = (".jsonl", ".parquet")  # the suffix names the format
LOCAL_PROTOCOLS = ("", "file", "local")  # of this machine's own files
REJECTED_SUFFIX = ".rejected.jsonl"
AnyPath = TypeVar("AnyPath", Path, UPath)


def local_path(path: str | os.PathLike[str]) -> Path:
    """A path on a disk. ValueError where it is a URI of an object store."""
    protocol = split_protocol(str(path))[0] or ""
    if protocol not in LOCAL_PROTOCOLS:
        raise ValueError(f"{path}: {protocol} cannot be used here; give a path on a disk, and copy it there or from there")
    return Path(UPath(path).path)


def absolute(path: str | os.PathLike[str] | UPath) -> UPath:
    """A path or URI in full. On a disk links are resolved, so that two paths can be compared."""
    with naming_errors(path):
        whole = UPath(path)
        if whole.protocol in LOCAL_PROTOCOLS:
            return UPath(Path(whole.path).resolve())
        _ = whole.fs  # made on first use
        return whole.absolute()


@contextmanager
def naming_errors(path: str | os.PathLike[str] | UPath) -> Iterator[None]:
    """Raises what a store's client raises (no package, no credentials, an unknown protocol) as a ValueError that names the path.

    An OSError passes unchanged.
    """
    try:
        yield
    except OSError:
        raise
    except Exception as error:  # each client has errors of its own
        raise ValueError(f"{path}: {error}") from None


def list_record_files(path: str | os.PathLike[str]) -> list[UPath]:
    """The files of records that a path names. ValueError where there are none."""
    return list_files(
        path, RECORD_SUFFIXES, "labelgen reads .jsonl (one dialogue a line) and .parquet; `labelgen schema` prints the record"
    )


def list_files(path: str | os.PathLike[str], suffixes: Collection[str], remedy: str) -> list[UPath]:
    """The files with one of the suffixes that a path, a URI or a pattern (`*`) names, sorted; hidden and rejected files are left out.

    ValueError where there are none; it ends in `remedy` where the path names a file with another suffix.
    """
    if not str(path):
        raise ValueError("the path is empty, as of a variable that is not set; name a file, a folder or a pattern")
    with naming_errors(path):
        root, rest = _split_pattern(UPath(path)) if "*" in str(path) else (UPath(path), "")
        named = sorted(root.glob(rest), key=str) if rest else [root] if root.exists() else []
        found = (file for one in named for file in ((f for f in one.rglob("*") if not f.is_dir()) if one.is_dir() else [one]))
        every = list({str(file): file for file in found}.values())  # a pattern may name a folder and what is in it
    if not named:
        raise ValueError(f"{path}: no such file or folder")
    if every == named and (wrong := next((file for file in every if file.suffix not in suffixes), None)):
        raise ValueError(f"{wrong}: {remedy}")
    below = 0 if str(root) == "." else len(str(root).rstrip("/"))  # a hidden folder hides its files, unless it is named
    visible = [file for file in every if not any(part.startswith((".", "_")) for part in str(file)[below:].split("/"))]
    candidates = [file for file in visible if not file.name.endswith(REJECTED_SUFFIX)]
    wanted = [file for file in candidates if file.suffix in suffixes]
    if wanted and (others := [file.name for file in candidates if file.suffix not in suffixes]):
        log.warning("%s: %d files are ignored, such as %s; %s", path, len(others), others[0], remedy)
    for file in wanted:
        plain_file(file)
    if not wanted:
        raise ValueError(f"{path}: the folder holds {' and '.join(f'no {suffix}' for suffix in suffixes)} file")
    return sorted(wanted, key=str)


def plain_file(file: AnyPath) -> AnyPath:
    """The path. ValueError where it names a pipe, a socket or a device: reading it may never end."""
    with naming_errors(file):
        special = file.exists() and not file.is_file() and not file.is_dir()
    if special:
        raise ValueError(f"{file}: a pipe, a socket or a device; write what it gives to a file, and name that")
    return file


def _split_pattern(pattern: UPath) -> tuple[UPath, str]:
    """The folder that a pattern starts from, and the pattern within it."""
    whole = pattern.absolute()
    base = next(parent for parent in whole.parents if "*" not in str(parent))
    return base, str(whole)[len(str(base)) :].lstrip("/")


def would_read(source: str | os.PathLike[str], path: UPath) -> bool:
    """Whether a file, folder or pattern reads `path` (as `absolute` returns it), or what is written into it."""
    if "*" not in str(source):
        return absolute(source) in (path, *path.parents)
    base, rest = _split_pattern(UPath(source))
    named = re.compile(glob_translate(f"{str(absolute(base)).rstrip('/')}/{rest}"))
    return any(named.match(str(one).rstrip("/")) for one in (path, *path.parents))


def check_output(output: str, source: str | None) -> None:
    """ValueError where `output` names no file of records, or would overwrite or join what is read from `source` (None: nothing is)."""
    target = local_path(output).resolve()
    if source is not None and would_read(source, absolute(target)):
        raise ValueError(f"{output}: the output would overwrite the input, or be read as input the next time; write it elsewhere")
    if target.suffix not in RECORD_SUFFIXES or target.is_dir():
        raise ValueError(f"{output}: name a file that ends in .jsonl or .parquet")
