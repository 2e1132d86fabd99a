"""Which files a path names: a file, a folder or a pattern, on a disk or in an object store (any URI that fsspec knows: `s3://...`)."""

from __future__ import annotations

import logging
import os
import re
import shlex
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, TypeVar

from fsspec.core import split_protocol
from fsspec.utils import glob_translate
from upath import UPath

from labelgen.io.formats import Kind, format_of, has_ending
from labelgen.io.wording import counted

log = logging.getLogger(__name__)
RECORD_SUFFIXES = (".jsonl", ".ndjson", ".json", ".parquet")  # that are read, also with .gz; a file's content says what it is
OUTPUT_SUFFIXES = (".jsonl", ".parquet")  # that are written
SAVED_DATASET = ("state.json", "dataset_dict.json")  # in a folder of save_to_disk
LOCAL_PROTOCOLS = ("", "file", "local")  # those of files on a disk
REJECTED_SUFFIX = ".rejected.jsonl"
REJECTED_FILE = "rejected.jsonl"  # in the output folder of `train`, `pretrain` and `evaluate`, if rows were rejected
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
    command = f"labelgen inspect {shlex.quote(str(path))}"
    remedy = f"records are JSON (.jsonl, .ndjson, .json, also .gz) or .parquet; `{command}` prints the command that converts other files"
    if is_saved_dataset(path):
        convert = f"labelgen convert corpus=hugging_face corpus.path={shlex.quote(str(path))} output=RECORDS.jsonl"
        raise ValueError(f"{path}: a dataset of Hugging Face, as save_to_disk writes it; convert it first: {convert}")
    return list_files(path, RECORD_SUFFIXES, remedy)


def is_saved_dataset(path: str | os.PathLike[str]) -> bool:
    """Whether a path is a folder that `save_to_disk` of Hugging Face's `datasets` wrote."""
    return any(Path(path, name).is_file() for name in SAVED_DATASET)


def list_files(
    path: str | os.PathLike[str],
    suffixes: Collection[str],
    remedy: str,
    kinds: Collection[Kind] = (Kind.JSON_LINES, Kind.JSON_VALUES, Kind.PARQUET),
) -> list[UPath]:
    """The files that a path, a URI or a pattern (`*`) names, sorted; hidden and rejected files are left out.

    Of a folder, those with one of the suffixes (in any case, also with .gz) are read. A file that is named is also read if its content is
    of one of the `kinds`. The log says how many files and linked folders are not read. ValueError if there are no files. Its message ends
    in `remedy` if the path names a file that cannot be read.
    """
    if not str(path):
        raise ValueError("the path is empty (a variable that is not set?); name a file, a folder or a pattern")
    with naming_errors(path):
        root, pattern = _split_pattern(UPath(path)) if "*" in str(path) else Glob(UPath(path), "")
        named = sorted(root.glob(pattern), key=str) if pattern else [root] if root.exists() else []
        found = _files_of(named)
    if not named:
        raise ValueError(f"{path}: no such file or folder")
    if found.files == named and (wrong := next((file for file in named if not _is_wanted(file, suffixes, kinds)), None)):
        raise ValueError(f"{wrong}: {remedy}")
    root_length = 0 if str(root) == "." else len(str(root).rstrip("/"))  # a hidden folder hides its files, unless it is the root
    kept = [file for file in found.files if not file.name.endswith(REJECTED_SUFFIX)]
    visible = [file for file in kept if not any(part.startswith((".", "_")) for part in str(file)[root_length:].split("/"))]
    wanted = [file for file in visible if has_ending(file.name, suffixes) or found.files == named]
    if not wanted:
        linked = f"; linked folders are not read, such as {found.linked[0]}: name it" if found.linked else ""
        others = f"; {remedy}" if visible else ""
        raise ValueError(f"{path}: the folder holds no {', '.join(suffixes)} file{linked}{others}")
    for file in wanted:
        plain_file(file)
    if found.broken:
        log.warning("%s: links that lead nowhere are not read (%d), such as %s", path, len(found.broken), found.broken[0])
    hidden = [file for file in kept if file not in visible and has_ending(file.name, suffixes)]
    _log_ignored(path, [file for file in visible if file not in wanted], hidden, found.linked, remedy)
    return sorted(wanted, key=str)


class Found(NamedTuple):
    """What paths name: files, also those in folders, and the linked folders within folders, which are not read."""

    files: list[UPath]
    linked: list[UPath]
    broken: list[UPath]  # links to nothing or to themselves, which are not read


def _files_of(named: Sequence[UPath]) -> Found:
    """The files that the paths name. Two of the paths may name a folder and a file in it."""
    files, linked, broken = {}, {}, {}
    for item in named:
        for file in item.rglob("*") if item.is_dir() else [item]:
            if file.protocol in LOCAL_PROTOCOLS and file.is_symlink() and not file.exists():
                broken[str(file)] = file
            elif not file.is_dir():
                files[str(file)] = file
            elif file.is_symlink():
                linked[str(file)] = file
    folders = [folder for name, folder in linked.items() if not any(name == str(item) for item in named)]
    return Found(list(files.values()), folders, list(broken.values()))


def _is_wanted(file: UPath, suffixes: Collection[str], kinds: Collection[Kind]) -> bool:
    """Whether a file that is named can be read, judged by its ending or its content."""
    return has_ending(file.name, suffixes) or (file.is_file() and file.stat().st_size > 0 and format_of(file).kind in kinds)


def _log_ignored(
    path: str | os.PathLike[str], others: Sequence[UPath], hidden: Sequence[UPath], linked: Sequence[UPath], remedy: str
) -> None:
    """Says which files of a folder are not read."""
    if others:
        log.warning("%s: %s ignored, such as %s; %s", path, counted(len(others), "file is", "files are"), others[0].name, remedy)
    if hidden:
        files = counted(len(hidden), "file is", "files are")
        log.info("%s: %s ignored whose name or folder begins with . or _, such as %s", path, files, hidden[0].name)
    if linked:
        folders = counted(len(linked), "linked folder is", "linked folders are")
        log.warning("%s: %s not read, such as %s; name them, or a pattern ('FOLDER/*')", path, folders, linked[0])


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
    if target.suffix not in OUTPUT_SUFFIXES or target.is_dir():
        raise ValueError(f"{output}: name a file that ends in .jsonl or .parquet")
