"""Progress of long work: a bar on a terminal, lines in a log elsewhere."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

log = logging.getLogger(__name__)
LOG_SECONDS = 30.0  # between lines of a log
Item = TypeVar("Item")


def on_terminal() -> bool:
    """Whether a bar can be drawn; it would flood a log."""
    return sys.stderr.isatty()


class LogInterval:
    """Says when the next line of a log is due: none before LOG_SECONDS, then one in so many."""

    def __init__(self) -> None:
        self._last = time.monotonic()

    def is_due(self) -> bool:
        """True at most once in LOG_SECONDS."""
        now = time.monotonic()
        if now - self._last <= LOG_SECONDS:
            return False
        self._last = now
        return True


def progress(items: Iterable[Item], work: str, unit: str, total: int | None = None) -> Iterator[Item]:
    """The items, with a bar, or a line in the log every LOG_SECONDS. `total`: how many there are; None: not known."""
    if on_terminal():
        yield from tqdm(items, work, total, unit=unit)
        return
    interval = LogInterval()
    for count, item in enumerate(items, 1):
        yield item
        if interval.is_due():
            log.info("%s: %s%s %ss", work, f"{count:,}", "" if total is None else f" of {total:,}", unit)
