"""metrics.csv: rows are whole or absent, garbage is left out, a resumed run continues them."""

import csv
import logging
import os
from pathlib import Path

import pytest

from labelgen.training.metrics_log import MetricsLog, read_rows


@pytest.fixture
def metrics(tmp_path: Path) -> MetricsLog:
    """Two steps and a validation."""
    made = MetricsLog(tmp_path / "run" / "metrics.csv")
    made.start(0)
    for step in range(2):
        made.log_metrics({"epoch": 0, "loss": 1.5 - step}, step)
    made.log_metrics({"epoch": 0, "valid/score": 0.25}, 1)
    return made


def test_a_column_may_come_later(metrics: MetricsLog) -> None:
    with metrics.file.open(newline="") as lines:
        assert list(csv.reader(lines)) == [
            ["step", "epoch", "loss", "valid/score"],
            ["0", "0", "1.5", ""],
            ["1", "0", "0.5", ""],
            ["1", "0", "", "0.25"],
        ]
    assert [file.name for file in metrics.file.parent.iterdir()] == ["metrics.csv"]


def test_a_resumed_run_keeps_the_rows_of_its_steps_and_logs_none_twice(metrics: MetricsLog) -> None:
    before = read_rows(metrics.file)
    again = MetricsLog(metrics.file)
    again.start(2)
    assert read_rows(metrics.file) == before
    again.log_metrics({"epoch": 0, "valid/score": 0.25}, 1)
    again.log_metrics({"epoch": 0, "loss": 0.25}, 2)
    assert read_rows(metrics.file) == [*before, {"step": "2", "epoch": "0", "loss": "0.25"}]
    again.start(1)
    assert read_rows(metrics.file) == before[:1]
    again.start(0)
    assert read_rows(metrics.file) == []


def test_a_kill_while_the_columns_change_loses_no_row(metrics: MetricsLog, monkeypatch: pytest.MonkeyPatch) -> None:
    before = read_rows(metrics.file)
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            metrics.log_metrics({"new": 1.0}, 2)
    assert read_rows(metrics.file) == before


@pytest.mark.parametrize(
    "garbage", ["2,0,0.12", "\0\0\0\0\n", "2,0,1,2,3\n", "two,0,0.5,\n", "-1,0,0.5,\n", "\x1b[31m\n", "2,0\n"], ids=repr
)
def test_garbage_is_left_out_with_a_warning(metrics: MetricsLog, garbage: str, caplog: pytest.LogCaptureFixture) -> None:
    before = read_rows(metrics.file)
    with metrics.file.open("a") as lines:
        lines.write(garbage)
    with caplog.at_level(logging.WARNING):
        again = MetricsLog(metrics.file)
        again.start(5)
    assert "1 damaged row is left out" in caplog.text
    assert read_rows(metrics.file) == before
    again.log_metrics({"epoch": 0, "loss": 3.0}, 2)
    assert read_rows(metrics.file)[-1] == {"step": "2", "epoch": "0", "loss": "3.0"}


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00garbage", b"\n\n\n", b'"open quote\n1,2\n'])
def test_a_file_of_garbage_is_started_again(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "metrics.csv").write_bytes(content)
    metrics = MetricsLog(tmp_path / "metrics.csv")
    metrics.start(7)
    metrics.log_metrics({"epoch": 1, "loss": 3.0}, 7)
    assert read_rows(metrics.file) == [{"step": "7", "epoch": "1", "loss": "3.0"}]
