"""Which files a path names: a file, a folder or a pattern, on a disk or in an object store (any URI that fsspec knows: `s3://...`)."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, TypeVar

from fsspec.core import split_protocol
from fsspec.utils import glob_translate
from upath import UPath

log = logging.getLogger(__name__)
RECORD_SUFFIXES = (".jsonl", ".parquet")  # the suffix names the format
LOCAL_PROTOCOLS = ("", "file", "local")  # those of files on a disk
REJECTED_SUFFIX = ".rejected.jsonl"
AnyPath = TypeVar("AnyPath", Path, UPath)


def local_path(path: str | os.PathLike[str]) -> Path:
    """A path on a disk. ValueError if it is a URI of an object store."""
    protocol = split_protocol(str(path))[0] or ""
    if protocol not in LOCAL_PROTOCOLS:
        raise ValueError(f"{path}: {protocol} cannot be used here; give a path on a disk, and copy it there or from there")
    return Path(UPath(path).path)


def absolute(path: str | os.PathLike[str] | UPath) -> UPath:
    """The absolute path or URI. On a disk links are resolved, so that two paths can be compared."""
    with naming_errors(path):
        upath = UPath(path)
        if upath.protocol in LOCAL_PROTOCOLS:
            return UPath(Path(upath.path).resolve())
        _ = upath.fs  # opens the store, which may raise
        return upath.absolute()


@contextmanager
def naming_errors(path: str | os.PathLike[str] | UPath) -> Iterator[None]:
    """Turns errors of a store's client (no package, no credentials, an unknown protocol) into a ValueError that names the path.

    An OSError passes unchanged.
    """
    try:
        yield
    except OSError:
        raise
    except Exception as error:  # each client has errors of its own
        raise ValueError(f"{path}: {error}") from None


@contextmanager
def naming_file(path: str | os.PathLike[str] | UPath) -> Iterator[None]:
    """Adds the path to an OSError that names no file, such as that of a full disk."""
    try:
        yield
    except OSError as error:
        if error.errno is None or error.filename is not None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error


def error_reason(error: BaseException) -> str:
    """The first line of an error's message. An OSError is described without its number and its files."""
    if isinstance(error, OSError) and error.strerror is not None:
        return error.strerror
    return (str(error).splitlines() or [type(error).__name__])[0]


def error_message(error: BaseException) -> str:
    """The message of an error. An OSError is described by its files and the reason, without its number."""
    if not isinstance(error, OSError) or error.strerror is None:
        return str(error)
    names = [str(name) for name in (error.filename, error.filename2) if name is not None]
    return ": ".join([" -> ".join(names), error.strerror] if names else [error.strerror])


def list_record_files(path: str | os.PathLike[str]) -> list[UPath]:
    """The files of records that a path names. ValueError if there are none."""
    return list_files(
        path, RECORD_SUFFIXES, "labelgen reads .jsonl (one dialogue a line) and .parquet; `labelgen schema` prints the record"
    )


def list_files(path: str | os.PathLike[str], suffixes: Collection[str], remedy: str) -> list[UPath]:
    """The files with one of the suffixes that a path, a URI or a pattern (`*`) names, sorted; hidden and rejected files are left out.

    ValueError if there are none. Its message ends in `remedy` if the path names a file with another suffix.
    """
    if not str(path):
        raise ValueError("the path is empty (a variable that is not set?); name a file, a folder or a pattern")
    with naming_errors(path):
        root, pattern = _split_pattern(UPath(path)) if "*" in str(path) else Glob(UPath(path), "")
        named = sorted(root.glob(pattern), key=str) if pattern else [root] if root.exists() else []
        found = (file for item in named for file in ((f for f in item.rglob("*") if not f.is_dir()) if item.is_dir() else [item]))
        files = list({str(file): file for file in found}.values())  # a pattern may name both a folder and a file in it
    if not named:
        raise ValueError(f"{path}: no such file or folder")
    if files == named and (wrong := next((file for file in files if file.suffix not in suffixes), None)):
        raise ValueError(f"{wrong}: {remedy}")
    root_length = 0 if str(root) == "." else len(str(root).rstrip("/"))  # a hidden folder hides its files, unless it is the root
    visible = [file for file in files if not any(part.startswith((".", "_")) for part in str(file)[root_length:].split("/"))]
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
    """The path. ValueError if it names a pipe, a socket or a device, because reading it may never end."""
    with naming_errors(file):
        special = file.exists() and not file.is_file() and not file.is_dir()
    if special:
        raise ValueError(f"{file}: a pipe, a socket or a device; write what it gives to a file, and name that")
    return file


class Glob(NamedTuple):
    """A folder, and a pattern within it."""

    root: UPath
    pattern: str


def _split_pattern(path: UPath) -> Glob:
    """Splits a path with `*` at its last folder without one."""
    whole = path.absolute()
    root = next(parent for parent in whole.parents if "*" not in str(parent))
    return Glob(root, str(whole)[len(str(root)) :].lstrip("/"))


def would_read(source: str | os.PathLike[str], path: UPath) -> bool:
    """Whether reading `source` (a file, folder or pattern) would read `path`, which is absolute, or files in it."""
    if "*" not in str(source):
        return absolute(source) in (path, *path.parents)
    root, pattern = _split_pattern(UPath(source))
    named = re.compile(glob_translate(f"{str(absolute(root)).rstrip('/')}/{pattern}"))
    return any(named.match(str(item).rstrip("/")) for item in (path, *path.parents))


def check_output(output: str, source: str | None) -> None:
    """ValueError if `output` is not the name of a file of records, or if reading `source` (None: there is none) would read it."""
    target = local_path(output).resolve()
    if source is not None and would_read(source, absolute(target)):
        raise ValueError(f"{output}: the output would overwrite the input, or be read as input the next time; write it elsewhere")
    if target.suffix not in RECORD_SUFFIXES or target.is_dir():
        raise ValueError(f"{output}: name a file that ends in .jsonl or .parquet")
