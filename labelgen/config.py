"""Finds the configuration and builds objects from it, in this one place. `labelgen VERB key=value ...` calls `main`."""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from omegaconf import DictConfig

PACKAGE = Path(__file__).resolve().parent
CONF = PACKAGE / "conf" if (PACKAGE / "conf").is_dir() else PACKAGE.parent / "conf"  # in a wheel; in a checkout
LOCK = ".lock"  # in the folder of a run, while it lasts
RANKS = ("RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "SLURM_PROCID")  # numbers of a process, by Lightning, torchrun and Slurm
POSITIONAL = {"inspect": "input", "fetch-encoder": "name"}  # the key of a verb that may be given as its value alone
WORST = 0.0  # the objective of a failed job of a sweep; scores lie in [0, 1], higher is better

CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")  # may control a terminal

log = logging.getLogger(__name__)


def verbs() -> dict[str, str]:
    """The verbs (the primary configs) with their first comments."""
    return {file.stem: file.read_text("utf-8").splitlines()[0].lstrip("# ") for file in sorted(CONF.glob("*.yaml"))}


def explain(verb: str) -> str:
    """The help of a verb: its keys with their comments, and the options of its groups with their first comments."""
    text = (CONF / f"{verb}.yaml").read_text("utf-8").partition("\ncall:")[0]
    title, _, body = text.partition("\ndefaults:\n")
    keys = [line for line in body.splitlines() if not line.startswith("  - ")]
    lines = [title.lstrip("# "), "", *keys]
    chosen: dict[str, set[str]] = {}
    for group, option in re.findall(r"^  - (\w+)(?:@[\w.]+)?: (\w+|\?\?\?)$", body, re.MULTILINE):
        chosen.setdefault(group, set()).add(option)
    for group, options in chosen.items():
        lines += ["", f"{group}=... (conf/{group}/){', needed' if '???' in options else ''}"]
        for file in sorted((CONF / group).glob("*.yaml")):
            comments = [line.lstrip("# ") for line in file.read_text("utf-8").splitlines() if line.startswith("#")]
            first = next((comment for comment in comments if "@package" not in comment), "")
            lines.append(f"  {file.stem:22}{'*' if file.stem in options else ' '} {first}".rstrip())
    last = f"{'* is the default. ' if chosen else ''}`labelgen {verb} ... --cfg job` prints the resulting settings; conf/ is {CONF}"
    return "\n".join([*lines, "", last])


def load_config(name: str, *overrides: str) -> DictConfig:
    """Composes a primary config as the command line would: load_config("train", "corpus=simulated", "encoder=tiny").

    ValueError if a group that needs an option has none.
    """
    from hydra import compose, initialize_config_dir
    from hydra.errors import ConfigCompositionException

    with initialize_config_dir(str(CONF), version_base="1.3"):
        try:
            return compose(name, list(overrides))
        except ConfigCompositionException as error:
            if not (missing := re.match(r"You must specify '(\w+)'", str(error))):
                raise
    group = missing[1]
    options = ", ".join(sorted(file.stem for file in (CONF / group).glob("*.yaml")))
    raise ValueError(f"{group} is needed; give {group}=..., one of {options} (labelgen {name} --help)")


def run(config: DictConfig) -> Any:
    """Resolves a config, writes it to OUTPUT/config.yaml if the verb keeps one, builds its `call` and returns the result.

    OUTPUT is locked meanwhile. A call that is refused (ValueError), or that fails before it writes anything else, leaves OUTPUT/config.yaml
    as it was.
    """
    from omegaconf import OmegaConf

    plain: dict[str, Any] = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)  # type: ignore[assignment]
    if not plain.get("keep_config"):
        return _call(plain["call"])
    with _kept(Path(plain["output"], "config.yaml"), OmegaConf.to_yaml(plain)):
        return _call(plain["call"])


def _call(settings: dict[str, Any]) -> Any:
    """Builds a call and returns its result. An error of the call passes as it is; Hydra would wrap it."""
    from hydra.errors import InstantiationException
    from hydra.utils import instantiate

    try:
        return instantiate(settings, _convert_="all")
    except InstantiationException as error:
        raise (error.__cause__ or error) from None


@contextmanager
def _kept(file: Path, text: str) -> Iterator[None]:
    """Writes a file, and locks its folder. After a ValueError, or another error before any other write to the folder, this is undone."""
    from labelgen.io.paths import naming_file

    made = [folder for folder in file.parents if not folder.exists()]
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        with _locked(file.parent):
            before = file.read_text("utf-8") if file.exists() else None
            others = _others(file)
            with naming_file(file):
                file.write_text(text, "utf-8")
            try:
                yield
            except Exception as error:
                if file.parent.is_dir() and (isinstance(error, ValueError) or _others(file) == others):
                    _restore(file, before, text)
                raise
    except Exception:
        for folder in made:
            with suppress(OSError):  # other files are in it
                folder.rmdir()
        raise


def _is_first_rank() -> bool:
    return all(os.environ.get(name, "0") == "0" for name in RANKS)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Keeps other runs out of a folder until this one ends, however it ends. Of several ranks only the first locks."""
    from labelgen.io.lock import locked

    if not _is_first_rank():
        yield
        return
    lock = folder / LOCK
    with locked(lock, f"{folder}: another run is writing there; wait for it, stop it, or name another output"):
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)


def _restore(file: Path, before: str | None, text: str) -> None:
    if before is None:
        file.unlink(missing_ok=True)  # another process of a torchrun may have removed it
    elif before != text:
        file.write_text(before, "utf-8")


def _others(file: Path) -> dict[Path, int]:
    """The other files and folders in a file's folder, and when each was changed."""
    return {path: path.stat().st_mtime_ns for path in file.parent.iterdir() if path != file}


def printable(text: str) -> str:
    """Escapes what could control a terminal: control characters, marks of direction, bytes that are not UTF-8. Line ends and tabs stay."""
    return CONTROL.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def _make_printable(record: logging.LogRecord) -> bool:
    """Filter of log handlers: escapes the message. The package's own messages are single lines."""
    message = printable(record.getMessage())
    record.msg = message.replace("\n", "\\n") if record.name.startswith("labelgen") else message
    record.args = None
    return True


def main() -> None:
    """The console command."""
    known = verbs()
    verb = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if verb in {"-h", "--help"}:
        lines = "\n".join(f"  {name:13} {line}" for name, line in known.items())
        print(f"labelgen VERB [key=value ...]\n\n{lines}\n\n`labelgen VERB --help` shows a verb's configuration; conf/ is {CONF}")
        return
    if verb == "--version":
        from labelgen import __version__

        print(__version__)
        return
    if verb not in known:
        sys.exit(f"labelgen: no verb {verb!r}; one of {', '.join(known)}")
    if {"-h", "--help"} & {*sys.argv[2:]}:
        print(explain(verb))
        return
    import hydra

    from labelgen.command_line import check_settings
    from labelgen.sweep import checked_words

    try:
        words = checked_words(_with_key(POSITIONAL[verb], sys.argv[2:]) if verb in POSITIONAL else sys.argv[2:])
        check_settings(words, CONF, partial(load_config, verb))
    except ValueError as error:
        sys.exit(printable(f"labelgen: {error}"))
    sys.argv = [f"labelgen {verb}", *words]
    try:
        hydra.main(version_base="1.3", config_path=str(CONF), config_name=verb)(_job)()
    except KeyboardInterrupt:
        print("labelgen: interrupted; files already written are whole", file=sys.stderr)
        sys.exit(130)


def _with_key(key: str, words: list[str]) -> list[str]:
    """The words of a command, with the key before the one that is a value alone."""
    from labelgen.corpora.recognition import override

    for k, word in enumerate(words):
        if not word.startswith("-") and ("=" not in word or Path(word).exists()):
            return [*words[:k], override(key, word), *words[k + 1 :]]
    return words


def _job(config: DictConfig) -> float | None:
    """One job of the command line, or of a sweep. Errors that a user can fix are reported in one line."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    for handler in logging.getLogger().handlers:
        handler.addFilter(_make_printable)
    settings = HydraConfig.get()
    if settings.mode == RunMode.MULTIRUN:
        return _job_of_sweep(config, Path(settings.runtime.output_dir))
    try:
        result = run(config)
    except Exception as error:
        if (message := _fixable(error)) and not os.environ.get("HYDRA_FULL_ERROR"):
            sys.exit(printable(f"labelgen: {message}"))
        raise
    if status := _exit_status(result, config):
        sys.exit(status)
    return result if isinstance(result, float) else None


def _exit_status(result: Any, config: DictConfig) -> int:
    """0, or 3 if rows were rejected. A result that is a score cannot say so: then OUTPUT/rejected.jsonl exists, as each run replaces it.

    Of several ranks only the first exits with 3: launchers take another status than 0 for a crash, and end the other ranks.
    """
    from labelgen.io.files import REJECTED_STATUS
    from labelgen.io.paths import REJECTED_FILE

    if config.get("keep_config") and _is_first_rank() and Path(config.output, REJECTED_FILE).exists():
        return REJECTED_STATUS
    return int(getattr(result, "exit_status", 0))


def _job_of_sweep(config: DictConfig, folder: Path) -> float | None:
    """Runs a job in its folder. A job that fails leaves failed.txt there and does not end the sweep."""
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import OmegaConf

    from labelgen.sweep import FAILED, ROWS_REJECTED, output_of

    _refuse_relaunching(config)
    OmegaConf.update(config, "output", output_of(config.output, str(folder), HydraConfig.get().job.config_name == "convert"))
    try:
        result = run(config)
    except Exception as error:
        message = _fixable(error)
        log.error("the job failed; the sweep continues", exc_info=message is None)
        (folder / FAILED).write_text(f"{message or repr(error)}\n", "utf-8")
        return WORST
    if _exit_status(result, config):
        (folder / FAILED).write_text(f"{ROWS_REJECTED}\n", "utf-8")
    else:
        (folder / FAILED).unlink(missing_ok=True)
    return result if isinstance(result, float) else None


def _fixable(error: Exception) -> str | None:
    """The message of an error that a user can fix. None: it is another error."""
    from hydra.errors import InstantiationException
    from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

    from labelgen.io.paths import error_message

    cause = error.__cause__ if isinstance(error, InstantiationException) and error.__cause__ else error
    if isinstance(cause, MissingMandatoryValue):
        return f"{cause.full_key} is needed; give {cause.full_key}=..."
    if isinstance(cause, OmegaConfBaseException):
        return f"{cause.full_key}: {str(cause).splitlines()[0]}"
    if isinstance(cause, TypeError) and (added := _added(str(cause))):
        return f"{added}: there is no such setting; leave it out"
    return error_message(cause) if isinstance(cause, ValueError | OSError | InstantiationException) else None


def _added(message: str) -> str | None:
    """The setting that was added with + and that an object does not take, by the message of a TypeError. None: it is another error."""
    from hydra.core.hydra_config import HydraConfig

    found = re.search(r"unexpected keyword argument '(\w+)'", message)
    keys = (word.partition("=")[0] for word in HydraConfig.get().overrides.task if word.startswith("+"))
    return next((key for key in keys if found and key.endswith(f".{found[1]}")), None)


def _refuse_relaunching(config: DictConfig) -> None:
    """Exits if Lightning would launch ranks as subprocesses: each would start the whole sweep again and draw its own trial."""
    trainer = config.get("trainer") or {}
    devices = trainer.get("devices", 1)
    one = str(devices) == "1" or (not isinstance(devices, (str, int)) and len(devices) == 1)
    one = one or (devices == "auto" and trainer.get("accelerator") == "cpu")
    launched = "SLURM_NTASKS" in os.environ or "TORCHELASTIC_RUN_ID" in os.environ
    if (not one or trainer.get("num_nodes", 1) != 1) and not launched:
        sys.exit(
            "labelgen: a sweep (-m) over several devices would train different trials as one model; "
            "use one device a job (trainer.devices=1), or a launcher that starts all ranks (submitit with tasks_per_node, torchrun)"
        )
