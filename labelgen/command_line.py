"""Checks the words of a command before Hydra does, so that a typing error gets one sentence with its remedy, without Hydra's own text."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra._internal.utils import get_args_parser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from labelgen.sweep import parsed

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override

PATHS = {"path", "root", "input", "output", "export", "checkpoint"}  # settings that name one file or folder
NUMBERS = {"limit", "trainer.max_epochs", "ray.workers"}  # whose default is null
OTHER_TYPES = {"trainer.devices", "trainer.deterministic"}  # that take words too
OWN_FOLDER = ("--config-dir", "-cd", "--config-path", "-cp", "--config-name", "-cn", "hydra.searchpath")  # settings of a user's own yaml
PROBLEMS = {  # the beginning of Hydra's message -> the problem and its remedy
    r"Could not override '(\S+)'": "{0}: this command has no such group; put + in front to add it",
    r"Could not delete '(\S+)'": "~{0}: this command has no such group",
    r"(\S+) appears more than once": "{0} is chosen already; leave out the +",
    r"Multiple values for (\S+?)\.": "{0} is given twice; give it once",
}


def _settings(words: Sequence[str]) -> list[str]:
    """The words that are settings (key=value, ~key). ValueError: another word is neither a setting nor an option of Hydra."""
    parser = get_args_parser()
    parser.exit_on_error = False
    try:
        arguments, unknown = parser.parse_known_args(list(words))
    except Exception as error:  # of argparse: an option without its value
        raise ValueError(str(error)) from None
    if unknown:
        if not unknown[0].startswith("-"):
            raise ValueError(f"{unknown[0]}: settings stand together; put it before the options that begin with a dash")
        name = unknown[0].lstrip("-").partition("=")[0]
        raise ValueError(f"{unknown[0]}: no such option; settings have no dashes: {name}=...")
    for word in arguments.overrides:
        if "=" not in word and not word.startswith("~"):
            raise ValueError(f"{word}: not a setting; write key=value (`--help` lists the keys)")
    return list(arguments.overrides)


def check_settings(words: Sequence[str], conf: Path, compose: Callable[..., DictConfig]) -> None:
    """Checks the settings of a command against its defaults. `compose` makes these, from settings that choose groups.

    ValueError: there is no such key, group or option, or the value is of another type. A command with a user's own folder of yaml files is
    left to Hydra, because its keys and options are in that folder.
    """
    if any(word.startswith(OWN_FOLDER) for word in words):
        return
    settings = _settings(words)
    overrides = [override for override in map(parsed, settings) if not override.key_or_group.startswith("hydra")]
    groups = [override for override in overrides if (conf / override.key_or_group).is_dir()]
    for override in groups:
        _check_options(override, conf)
    try:
        defaults = compose(*map(_one, groups))
    except HydraException as error:
        raise ValueError(_sentence(str(error))) from None
    for override in overrides:
        if override not in groups:
            _check_key(override, defaults, settings)


def _one(override: Override) -> str:
    """The override, or the first job's if it is a sweep."""
    if not override.is_choice_sweep():
        return str(override.input_line)
    return f"{override.get_key_element()}={next(override.sweep_string_iterator())}"


def _check_options(override: Override, conf: Path) -> None:
    group = override.key_or_group
    if override.is_delete():
        return
    options = sorted(file.stem for file in (conf / group).glob("*.yaml"))
    chosen = list(override.sweep_iterator()) if override.is_choice_sweep() else [override.value()]
    for option in chosen[0] if isinstance(chosen[0], list) else chosen:
        if option is None:
            raise ValueError(f"{override.input_line}: null is no option; ~{group} leaves out what is chosen")
        if str(option) not in options:
            raise ValueError(f"{group}={option}: no such option{_meant(str(option), options)}; one of {', '.join(options)}")


def _sentence(message: str) -> str:
    """Hydra's message in one sentence."""
    for pattern, sentence in PROBLEMS.items():
        if found := re.search(pattern, message):
            return sentence.format(found[1])
    return " ".join(message.split())


def _check_key(override: Override, defaults: DictConfig, words: Sequence[str]) -> None:
    key, keys = override.key_or_group, dict(_flat(OmegaConf.to_container(defaults)))
    if override.is_delete():
        if key not in keys:
            raise ValueError(f"~{key}: there is no such setting{_meant(key, keys)}")
        return
    if override.is_add():
        if key in keys:
            raise ValueError(f"+{key}: the setting exists; leave out the +")
        if "." not in key and not any(f"${{{key}}}" in word for word in words):
            raise ValueError(f"+{key}: no setting of this command{_meant(key, keys)}")
        return
    if key not in keys and not override.is_force_add():
        holder = key.rpartition(".")[0]
        can_be_added = holder in keys and not keys[holder]  # {} or null
        raise ValueError(
            f"{key}: "
            + ("put + in front to add it" if can_be_added else f"no such setting{_meant(key, keys)}; `--help` lists the settings")
        )
    if not override.is_sweep_override():
        _check_value(key, override.value(), keys.get(key))


def _check_value(key: str, value: Any, default: Any) -> None:
    if key.rpartition(".")[2] in PATHS and (value == "" or isinstance(value, list | dict)):
        remedy = "it is empty (a variable that is not set?)" if value == "" else "give one path, or a pattern ('logs/*')"
        raise ValueError(f"{key}={value}: {remedy}; name a file or folder")
    if value is None or key in OTHER_TYPES:
        return
    if isinstance(default, bool):
        if not isinstance(value, bool):
            raise ValueError(f"{key}={value}: give true or false")
        return
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    is_reference = isinstance(value, str) and "${" in value
    if (isinstance(default, int | float) or key in NUMBERS) and not is_number and not is_reference:
        raise ValueError(f"{key}={value}: give a number (the default is {'null' if default is None else default})")


def _flat(node: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """All keys with their values, in the form of the command line."""
    for key, value in node.items() if isinstance(node, Mapping) else ():
        yield f"{prefix}{key}", value
        yield from _flat(value, f"{prefix}{key}.")


def _meant(given: str, known: Sequence[str] | Mapping[str, Any]) -> str:
    """` (did you mean ...?)`, or nothing if no name is close."""
    names = [name for name in known if not name.startswith("call") and "_target_" not in name]
    close = get_close_matches(given, names, 1) or [name for name in names if name.endswith(f".{given}")]
    return f" (did you mean {close[0]}?)" if close else ""
