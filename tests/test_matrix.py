"""experiments/matrix.py: every page composes; a page is trained, scored and tabled once, and what is done is skipped."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import yaml

from labelgen.config import load_config

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted((ROOT / "experiments").glob("*/matrix.yaml"))
SMALL = ["encoder=tiny", "data.cache=null", "trainer.max_epochs=1", "trainer.limit_train_batches=1"]
PAGE = """
corpus: [corpus=simulated, corpus.num_dialogues=16]
train: [features=none]
test: [corpus.split=test]
repeats:
  seed0: {train: [seed=0]}
  seed1: {train: [seed=1]}
cells:
  all: {}
  part/intent: {train: [~tasks.slot, ~tasks.defect], against: all}
columns: [intent/accuracy, slot/span_f1, goal_segmentation/boundary_f1]
"""


@pytest.fixture
def matrix(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script, as a module."""
    spec = importlib.util.spec_from_file_location("matrix", ROOT / "experiments" / "matrix.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(sys, "argv", ["matrix.py"])
    return module


@pytest.mark.parametrize("page", PAGES, ids=lambda file: file.parent.name)
def test_every_run_of_a_page_composes(page: Path, matrix: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABELGEN_DATA", "corpora")
    parsed = yaml.safe_load(page.read_text("utf-8"))
    for cell, settings in parsed["cells"].items():
        for run in matrix.runs_of(parsed, Path("runs"), cell, []):
            config = load_config("train", *run.train)
        load_config("evaluate", *run.test, "export=x", "output=y")
        assert (settings or {}).get("against", cell) in parsed["cells"]
        columns = {column.split("/")[0] for column in parsed["columns"]}
        assert columns & set(config.tasks), f"{cell}: no column is of one of its tasks"


def test_a_page_is_run_once_and_tabled(matrix: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "page").mkdir()
    (tmp_path / "page" / "matrix.yaml").write_text(PAGE, "utf-8")
    monkeypatch.setattr(matrix, "HERE", tmp_path)
    output = tmp_path / "runs"
    sys.argv = ["matrix.py", "page", "--output", str(output), "--add", *SMALL]
    matrix.main()
    done = {file: json.loads(file.read_text("utf-8")) for file in output.rglob("done.json")}
    assert sorted(str(file.parent.relative_to(output)) for file in done) == [
        "all/seed0",
        "all/seed1",
        "part/intent/seed0",
        "part/intent/seed1",
    ]
    assert not list(output.rglob("*.ckpt"))
    rows = [row.split(" | ") for row in (output / "table.md").read_text("utf-8").splitlines()[2:]]
    assert [(row[0], row[1]) for row in rows] == [
        ("| all", "intent/accuracy"), ("| all", "slot/span_f1"), ("| all", "goal_segmentation/boundary_f1"),
        ("| part/intent", "intent/accuracy"), ("| part/intent", "goal_segmentation/boundary_f1"),
    ]  # fmt: skip
    scores = [json.loads((output / "all" / seed / "test" / "metrics.json").read_text("utf-8"))["metrics"] for seed in ("seed0", "seed1")]
    mean = np.mean([score["intent/accuracy"]["value"] for score in scores])
    assert float(rows[0][2].split()[0]) == pytest.approx(mean, abs=6e-4), "over equal dialogues the pooled accuracy is the mean"
    assert [row[3] for row in rows if row[1] == "intent/accuracy"] == [
        f"{sum(one['intent/accuracy']['positives'] for one in scores):,}"
    ] * 2, "the labelled items of both runs"
    assert re.fullmatch(r"all: [+-]0\.\d{3} \[[+-]0\.\d{3}, [+-]0\.\d{3}\]", rows[3][5])
    monkeypatch.setattr(matrix.labelgen, "run", lambda config: pytest.fail("it is done"))
    matrix.main()


def test_other_settings_in_the_same_folder_are_refused(matrix: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "done.json").write_text(json.dumps({"train": ["lr=1"], "test": []}), "utf-8")
    with pytest.raises(SystemExit, match="made with other settings"):
        matrix.perform(matrix.Run(tmp_path, ["lr=2"], []))


def test_a_run_belongs_to_one_process(matrix: ModuleType, tmp_path: Path) -> None:
    with matrix.claimed(tmp_path) as first, matrix.claimed(tmp_path) as second:
        assert (first, second) == (True, False)
    with matrix.claimed(tmp_path) as again:
        assert again


def test_a_difference_is_of_the_same_dialogues(matrix: ModuleType) -> None:
    from labelgen.metrics import Accuracy

    rng = np.random.default_rng(0)
    ours = {str(k): np.array([float(rng.integers(1, 10)), 10.0]) for k in range(50)}
    worse = {key: row - [0.5, 0.0] for key, row in reversed(ours.items())}
    written = re.fullmatch(r"\+0\.050 \[\+(0\.\d+), \+(0\.\d+)\]", matrix.paired(Accuracy(), ours, worse))
    assert written, "dialogue by dialogue the same gap, in whatever order they come: hardly a doubt"
    assert float(written[2]) - float(written[1]) < 0.02
    assert matrix.paired(Accuracy(), ours, {"0": worse["0"]}) == "", "other dialogues cannot be paired"


def test_runs_are_pooled_by_dialogue(matrix: ModuleType, tmp_path: Path) -> None:
    from labelgen.evaluation.evaluate import write_statistics
    from labelgen.metrics import Accuracy, AveragePrecision

    items = np.array([[0.3, 1.0], [0.2, 0.0]])
    for name, ids in (("one", ["a", "b"]), ("two", ["b", "a"])):
        (tmp_path / name / "test").mkdir(parents=True)
        each = {"x/accuracy": [np.array([1.0, 2.0]), np.array([0.0, 3.0])], "x/ap": [items, np.zeros((0, 2))]}
        write_statistics(tmp_path / name / "test" / "statistics.npz", ids, each)
    folders = [tmp_path / "one", tmp_path / "two"]
    assert {key: row.tolist() for key, row in matrix.pooled(Accuracy(), folders, "x/accuracy").items()} == {"a": [1, 5], "b": [1, 5]}
    assert {key: row.tolist() for key, row in matrix.pooled(AveragePrecision(), folders, "x/ap").items()} == {
        "a": items.tolist(),
        "b": items.tolist(),
    }
    assert matrix.pooled(Accuracy(), folders, "x/f1") == {}


def test_a_figure_of_no_task_is_named(matrix: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from labelgen.tasks.defect import Defect

    (tmp_path / "all" / "seed0").mkdir(parents=True)
    (tmp_path / "all" / "seed0" / "done.json").write_text('{"seconds": 1, "hardware": "x"}', "utf-8")
    network = SimpleNamespace(network=SimpleNamespace(tasks={"defect": Defect()}))
    monkeypatch.setattr("labelgen.labelling.export.load", lambda folder: network)
    page = {"cells": {"all": {}}, "repeats": {"seed0": {}}, "columns": ["intent/accuracy", "defect/failure"]}
    with pytest.raises(SystemExit, match="columns: defect/failure are figures of no task; there are defect/f1, defect/ap"):
        matrix.table(page, tmp_path)
