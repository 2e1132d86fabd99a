"""Labels for conversation logs: goals, outcomes, intents, slots and defects, each with a confidence.

    annotator = labelgen.load("export")                # an exported model
    labelled = annotator(labelgen.read("logs.jsonl"))  # dialogues with labels
    labelgen.show(labelled)                            # look at them

Start with dialogue.py, which has the records; then model/encoder.py, the model, and tasks/, the label types. conf/ holds all settings.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.2.0"

_LAZY = {
    "Dialogue": "dialogue",
    "Turn": "dialogue",
    "from_dataset": "io.hugging_face",
    "parse": "dialogue",
    "read": "corpora.records",
    "write": "io.files",
    "load": "labelling.export",
    "load_config": "config",
    "run": "config",
    "show": "io.render",
    "to_dataset": "io.hugging_face",
}
__all__ = [
    "Dialogue", "Turn", "__version__", "from_dataset", "load", "load_config", "parse", "read", "run", "show", "to_dataset", "write",
]  # fmt: skip

if TYPE_CHECKING:
    from labelgen.config import load_config, run
    from labelgen.corpora.records import read
    from labelgen.dialogue import Dialogue, Turn, parse
    from labelgen.io.files import write
    from labelgen.io.hugging_face import from_dataset, to_dataset
    from labelgen.io.render import show
    from labelgen.labelling.export import load


def __dir__() -> list[str]:
    return __all__


def __getattr__(name: str) -> Any:
    """Imports a name on first use, because torch alone takes seconds to import."""
    if name in _LAZY:
        return getattr(import_module(f"labelgen.{_LAZY[name]}"), name)
    raise AttributeError(f"module 'labelgen' has no attribute {name!r}")
