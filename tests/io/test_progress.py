"""A bar on a terminal, a few lines in a log elsewhere."""

import logging
import sys
from collections.abc import Callable

import pytest

from labelgen.io import progress as module
from labelgen.io.progress import LogInterval, progress


def test_a_log_gets_lines_and_no_bar(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module.time, "monotonic", clock(seconds=10))
    with caplog.at_level(logging.INFO):
        assert list(progress(range(12), "reading", "row", 12)) == list(range(12))
        assert list(progress(range(4), "reading", "row")) == list(range(4))
    lines = ["reading: 4 of 12 rows", "reading: 8 of 12 rows", "reading: 12 of 12 rows", "reading: 4 rows"]
    assert [record.message for record in caplog.records] == lines, "one in 40 seconds"
    assert capsys.readouterr().err == ""


def test_short_work_logs_nothing(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.time, "monotonic", clock(seconds=1))
    with caplog.at_level(logging.INFO):
        assert list(progress(range(20), "reading", "row")) == list(range(20))
    assert not caplog.records


def test_a_terminal_gets_a_bar(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with caplog.at_level(logging.INFO):
        assert list(progress(range(3), "reading", "row", 3)) == [0, 1, 2]
    shown = capsys.readouterr().err
    assert "\r" in shown
    assert "reading" in shown
    assert "3/3" in shown
    assert not caplog.records


def test_the_next_line_is_due_after_the_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = iter([0.0, 30.0, 30.1, 60.0, 60.2])
    monkeypatch.setattr(module.time, "monotonic", lambda: next(seconds))
    interval = LogInterval()
    assert [interval.is_due() for _ in range(4)] == [False, True, False, True]


def clock(seconds: float) -> Callable[[], float]:
    times = iter(range(10**6))
    return lambda: next(times) * seconds
