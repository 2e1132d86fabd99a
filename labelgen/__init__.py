"""labelgen: from raw conversation logs to ground truth.

annotator = labelgen.load("export/")        # an exported model
labelled = annotator(labelgen.read("logs.jsonl"))
labelgen.show(labelled)                     # look at them

Read dialogue.py for the records, encoder.py for the model, tasks/ for the label types; conf/ holds everything that can be varied.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_LAZY = {
    "Dialogue": "dialogue",
    "Turn": "dialogue",
    "parse": "dialogue",
    "read": "files",
    "write": "files",
    "load": "export",
    "load_config": "config",
    "run": "config",
    "show": "render",
}
__all__ = ["Dialogue", "Turn", "__version__", "load", "load_config", "parse", "read", "run", "show", "write"]

if TYPE_CHECKING:
    from labelgen.config import load_config, run
    from labelgen.dialogue import Dialogue, Turn, parse
    from labelgen.export import load
    from labelgen.files import read, write
    from labelgen.render import show


def __dir__() -> list[str]:
    return __all__


def __getattr__(name: str) -> Any:
    """Imports on first use: torch alone takes seconds."""
    if name in _LAZY:
        return getattr(import_module(f"labelgen.{_LAZY[name]}"), name)
    raise AttributeError(f"module 'labelgen' has no attribute {name!r}")
