"""Notebooks run from top to bottom, and the two files of a pair say the same."""

from pathlib import Path

import jupytext
import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = Path(__file__).resolve().parent.parent / "notebooks"
PAIRS = sorted(NOTEBOOKS.glob("*.py"))


@pytest.mark.parametrize("script", PAIRS, ids=lambda path: path.stem)
def test_pair_agrees(script: Path) -> None:
    cells = [[(cell.cell_type, cell.source) for cell in jupytext.read(file).cells] for file in (script, script.with_suffix(".ipynb"))]
    assert cells[0] == cells[1], f"jupytext --sync {script}"


@pytest.mark.parametrize("script", PAIRS, ids=lambda path: path.stem)
def test_notebook_holds_no_outputs(script: Path) -> None:
    stored = nbformat.read(script.with_suffix(".ipynb"), as_version=4)
    assert not [cell for cell in stored.cells if cell.get("outputs") or cell.get("execution_count")], "clear its outputs"


def test_every_notebook_has_its_script() -> None:
    assert PAIRS
    assert sorted(path.with_suffix(".py") for path in NOTEBOOKS.glob("*.ipynb")) == PAIRS


@pytest.mark.filterwarnings("default")  # of Jupyter's machinery
def test_first_labels(tmp_path: Path) -> None:
    notebook = nbformat.read(NOTEBOOKS / "first_labels.ipynb", as_version=4)
    NotebookClient(notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    shown = [output.data["text/html"] for output in outputs if "text/html" in output.get("data", {})]
    assert len(shown) == 3, "three cells show dialogues"
    assert not any("politeness: " in html for html in shown[:2])
    assert "politeness: polite" in shown[2], "the notebook's own label type is among the labels"
    assert not list(tmp_path.iterdir()), "nothing is left next to the notebook"
