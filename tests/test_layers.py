"""The architecture: who may import whom, what may be imported at all, and what stays out of a process that does not need it."""

import ast
import subprocess
import sys
import tomllib
from collections import defaultdict
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "labelgen"

ORDER = [  # a part imports parts that stand before it, and of its own folder without a circle; imports within functions count
    "dialogue",
    "metrics",
    "io",
    "simulation",
    "corpora",
    "inputs",
    "model",
    "tasks",
    "network",
    "training",
    "labelling",
    "evaluation",
    "sweep",
    "command_line",
    "config",
    "convert",
    "inspection",
    "demo",
]
SYSTEMS = {"simulation"}  # siblings of the core, which does not import them, but for the corpus that the simulation makes
TORCH_FREE = ["dialogue", "io", "corpora", "simulation", "inputs.audio", "inputs.features", "labelling.shards", "config", "inspection"]
ONLY_IN = {  # packages that have one home
    "hydra": {"command_line", "config", "sweep"},
    "omegaconf": {"command_line", "config", "sweep"},
    "pytorch_lightning": {"training"},
    "wandb": set(),
}
# import name -> distribution, where they differ
COMES_WITH = {"yaml": "pyyaml", "upath": "universal-pathlib", "hydra": "hydra-core", "omegaconf": "hydra-core", "pydantic_core": "pydantic"}


class Import(NamedTuple):
    """One import statement of a module: `of` is dotted; `checking` is within `if TYPE_CHECKING`."""

    file: Path
    of: str
    checking: bool

    @property
    def part(self) -> str:
        return self.file.relative_to(PACKAGE).parts[0].removesuffix(".py")

    @property
    def root(self) -> str:
        return self.of.split(".")[0]


def imports_of(file: Path) -> Iterator[Import]:
    """Every import of a file, those within functions too."""
    tree = ast.parse(file.read_text("utf-8"))
    guards = [node for node in ast.walk(tree) if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    checking = {id(node) for guard in guards for statement in guard.body for node in ast.walk(statement)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for name in node.names:
                yield Import(file, name.name, id(node) in checking)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: a relative import"
            module = str(node.module)
            for name in node.names:
                yield Import(file, f"labelgen.{name.name}" if module == "labelgen" else module, id(node) in checking)


FILES = sorted(PACKAGE.rglob("*.py"))
IMPORTS = [found for file in FILES for found in imports_of(file)]


def modules(part: str) -> list[str]:
    """The dotted names of a part's modules."""
    path = PACKAGE.joinpath(*part.split("."))
    files = sorted(path.rglob("*.py")) if path.is_dir() else [path.with_suffix(".py")]
    return [".".join(["labelgen", *file.relative_to(PACKAGE).with_suffix("").parts]).removesuffix(".__init__") for file in files]


def test_every_part_has_a_place_in_the_order() -> None:
    parts = {file.relative_to(PACKAGE).parts[0].removesuffix(".py") for file in FILES} - {"__init__"}
    assert parts == set(ORDER), "ORDER and the tree of docs/architecture.md name every part"


def test_imports_go_one_way() -> None:
    within: defaultdict[str, set[str]] = defaultdict(set)
    for found in IMPORTS:
        if found.root != "labelgen" or found.part == "__init__" or found.of == "labelgen.__version__":
            continue
        other = found.of.split(".")[1]
        where = f"{found.file.relative_to(ROOT)} imports {found.of}"
        assert ORDER.index(other) <= ORDER.index(found.part), f"{where}, which comes after it"
        assert other not in SYSTEMS - {found.part} or found.file.name == "simulated.py", f"{where}, a system"
        within[".".join(["labelgen", *found.file.relative_to(PACKAGE).with_suffix("").parts])].add(found.of)
    assert within["labelgen.training.train"], "the test reads no imports"
    TopologicalSorter(within).prepare()  # raises CycleError, with the circle


def test_packages_have_one_home() -> None:
    for found in IMPORTS:
        if found.root in ONLY_IN and found.part != "__init__":
            assert found.part in ONLY_IN[found.root], f"{found.file.relative_to(ROOT)} imports {found.of}"


def test_dependencies_are_what_is_imported() -> None:
    known = {*sys.stdlib_module_names, "labelgen"}
    imported = {COMES_WITH.get(found.root, found.root.replace("_", "-")) for found in IMPORTS if found.root not in known}
    extras = {"datasets", "ray"}  # imported within functions, where they are asked for
    assert imported - extras == {requirement.name for requirement in requirements("dependencies")}


def requirements(*groups: str) -> list[Requirement]:
    """Of pyproject.toml: the group "dependencies" or an extra's name."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    table = {"dependencies": project["dependencies"], **project["optional-dependencies"]}
    return [Requirement(text) for group in groups or table for text in table[group]]


def test_constraints_are_exact_and_satisfy_the_floors() -> None:
    lines = (ROOT / "constraints.txt").read_text("utf-8").split()
    pins = dict(line.split("==") for line in lines)
    assert pins["torch"] == "2.13.0"
    assert not [name for name in pins if name.startswith(("nvidia", "cuda"))], "the set-up brings no GPU packages"
    assert not [pin for pin in pins.values() if "+" in pin], "a local version is one machine's"
    names = {name.lower().replace("_", "-"): pin for name, pin in pins.items()}
    for requirement in requirements():
        if requirement.name != "labelgen":
            assert requirement.specifier.contains(names[requirement.name.lower()]), requirement


def loaded_after(code: str) -> set[str]:
    """Top-level packages in sys.modules of a fresh interpreter after `code`."""
    roots = "{name.split('.')[0] for name in sys.modules}"
    script = f"import sys\ntry:\n    exec({code!r})\nexcept SystemExit:\n    pass\nprint('\\n', *{roots})"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split())


HEAVY = {"torch", "transformers", "pytorch_lightning", "torchmetrics", "tokenizers", "scipy", "pandas"}
COMMAND = "import sys; from labelgen.config import main; sys.argv = ['labelgen', *{}]; main()"


@pytest.mark.parametrize(
    ("code", "absent"),
    [
        ("import labelgen", {*HEAVY, "numpy", "pydantic", "pyarrow", "hydra", "rich", "yaml"}),
        (COMMAND.format(["--help"]), {*HEAVY, "numpy", "pydantic", "pyarrow", "hydra", "rich"}),
        (COMMAND.format(["train", "encoder=nonesuch"]), HEAVY),
        (COMMAND.format(["train", "corpus=simulated", "--cfg", "job"]), HEAVY),
        (COMMAND.format(["schema"]), HEAVY),
        ("; ".join(f"import {name}" for part in TORCH_FREE for name in modules(part)), HEAVY),
        (
            "import labelgen.labelling.backfill, labelgen.evaluation.evaluate",
            {"pytorch_lightning", "hydra", "omegaconf", "wandb"},
        ),
    ],
    ids=["import", "help", "config-error", "show-config", "schema", "torch-free", "annotator"],
)
def test_what_stays_out_of_a_process(code: str, absent: set[str]) -> None:
    loaded = loaded_after(code)
    assert "labelgen" in loaded
    assert not loaded & absent
