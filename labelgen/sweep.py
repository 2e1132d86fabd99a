"""Sweeps (`labelgen VERB key=a,b ... -m`): a folder for each job, named by the settings that vary, and the exit status of the whole."""

from __future__ import annotations

import hashlib
import logging
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf
from upath import UPath

from labelgen.io.files import REJECTED_STATUS
from labelgen.io.paths import RECORD_SUFFIXES

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override

FAILED = "failed.txt"  # in a job's folder: why it failed, or that rows were rejected
NAME_LENGTH = 150  # characters of a folder's name
RECORDS = "records.jsonl"  # what a job of `convert` writes, if `output` names a folder
ROWS_REJECTED = "some rows were rejected"

log = logging.getLogger(__name__)


def job_name(overrides: str) -> str:
    """The overrides of a job (KEY-VALUE, joined by _) as the name of its folder: without separators, quotes, spaces and a file's ending.

    A name that this changes ends in a hash, because two jobs must not share a folder.
    """
    name = re.sub(r"\.([A-Za-z]\w*)$", r"_\1", overrides)
    short = re.sub(r"[^\w.,@+=\-\[\]{}:]+", "-", name).strip("-")[:NAME_LENGTH]
    return short if short == name else f"{short}-{hashlib.sha256(overrides.encode()).hexdigest()[:6]}"


def folder_of(output: str) -> str:
    """The folder that holds the jobs' folders: `output`, without the ending if it names a file."""
    path = Path(output)
    return str(path.with_suffix("") if path.suffix in RECORD_SUFFIXES else path)


def output_of(output: str, folder: str, is_file: bool) -> str:
    """The output of the job that has this folder: the folder, or for a verb that writes a file (`is_file`) a file in it."""
    if not is_file:
        return folder
    path = Path(output)
    return str(Path(folder, path.name if path.suffix in RECORD_SUFFIXES else RECORDS))


OmegaConf.register_new_resolver("job_name", job_name, replace=True)
OmegaConf.register_new_resolver("folder_of", folder_of, replace=True)


def checked_words(words: Sequence[str]) -> list[str]:
    """The words of a command, with `~` expanded in values and, for a sweep, the settings that do not vary kept out of the folders' names.

    ValueError: a setting cannot be parsed, or has several values outside of a sweep.
    """
    words = [re.sub(r"(?<=[=,\[])~(?=/|$)", str(Path.home()), word) if "=" in word else word for word in words]
    settings = {place: parsed(word) for place, word in enumerate(words) if "=" in word and not word.startswith("-")}
    varied = {override.key_or_group for override in settings.values() if override.is_sweep_override()}
    if settings and {"-m", "--multirun"} & {*words}:
        fixed = {"output", *(override.key_or_group for override in settings.values())} - varied
        words = [
            f"++{word}" if word.partition(".")[0] in varied - {word.partition("=")[0]} else word for word in words
        ]  # of a varied group
        words.insert(min(settings), f"hydra.job.config.override_dirname.exclude_keys=[{','.join(sorted(fixed))}]")
    elif several := next((override.input_line for override in settings.values() if override.is_sweep_override()), None):
        key, _, value = str(several).partition("=")
        raise ValueError(f"{several}: the comma separates values; add -m to run each, or quote the value: '{key}=\"{value}\"'")
    return words


def parsed(word: str) -> Override:
    """A setting of the command line. ValueError: it cannot be parsed."""
    try:
        return OverridesParser.create().parse_override(word)
    except HydraException:
        key, _, value = word.partition("=")
        if key.endswith(".roles") and (pairs := re.findall(r"""["']?([^{},:"']+?)["']?\s*:\s*["']?(\w+)""", value)):
            listed = ", ".join(f'"{role}={read_as}"' for role, read_as in pairs)  # names before a colon are plain ASCII
            raise ValueError(f"{word}: cannot be read as key=value; give a list: '{key}=[{listed}]'") from None
        if value.startswith(("{", "[")):
            remedy = "quote the names inside the braces that are not plain letters and digits"
            raise ValueError(f"{word}: cannot be read as key=value; {remedy}, such as '{key}={_quoted_inside(value)}'") from None
        quoted = value.replace("\\", "\\\\").replace('"', '\\"')
        raise ValueError(f"{word}: cannot be read as key=value; quote the value: '{key}=\"{quoted}\"'") from None


def _quoted_inside(value: str) -> str:
    """A dict or list in Hydra's grammar whose values have quotation marks, unless they are plain or have them."""
    bare = re.compile(r"""([:,\[]\s*)([^\s"'{}\[\],:](?:[^"'{}\[\],:]*[^\s"'{}\[\],:])?)(?=\s*[,}\]])""")
    return bare.sub(lambda found: found[0] if re.fullmatch(r"[A-Za-z0-9_./+-]+", found[2]) else f'{found[1]}"{found[2]}"', value)


class ExitStatus(Callback):
    """Ends a sweep with status 1 if a job failed, or 3 if rows of a job were rejected. Jobs may run in other processes."""

    def __init__(self) -> None:
        self._before: dict[Path, int] = {}

    def on_multirun_start(self, config: DictConfig, **kwargs: object) -> None:
        """Remembers what an earlier sweep left. Ends the command if there is no local output."""
        output = OmegaConf.select(config, "output", throw_on_missing=False)
        if not output:
            sys.exit("labelgen: output is needed; give output=..., the folder that will hold a folder for each job")
        if UPath(output).protocol not in ("", "file", "local"):
            sys.exit(f"labelgen: output={output}: a sweep (-m) writes to a local folder; run the jobs one by one, or copy the folders")
        self._before = _failures(config)

    def on_multirun_end(self, config: DictConfig, **kwargs: object) -> None:
        """Names the jobs that failed, or whose rows were rejected."""
        failed = sorted(file for file, time in _failures(config).items() if self._before.get(file) != time)
        reasons = [file.read_text("utf-8").strip() for file in failed]
        for file, reason in zip(failed, reasons, strict=True):
            log.error("%s: %s", file.parent, reason)
        if failed:
            sys.exit(REJECTED_STATUS if set(reasons) == {ROWS_REJECTED} else 1)


def _failures(config: DictConfig) -> dict[Path, int]:
    """The notes of failed jobs and their times in nanoseconds."""
    return {file: file.stat().st_mtime_ns for file in Path(config.hydra.sweep.dir).glob(f"*/{FAILED}")}
