"""The wheel: built, installed in an empty environment, used from another directory."""

import json
import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def run(*command: str | Path, cwd: Path) -> str:
    """Standard output; the environment holds nothing that leads to the checkout."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
    done = subprocess.run([str(part) for part in command], cwd=cwd, env=clean, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT, cwd=folder)
    (found,) = folder.glob("labelgen-*.whl")
    return found


@pytest.fixture(scope="module")
def scripts(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The scripts folder of an environment that holds the wheel; its dependencies are read from this one's folder, not downloaded."""
    home = tmp_path_factory.mktemp("empty") / "venv"
    venv.create(home, with_pip=False, symlinks=True)
    run(sys.executable, "-m", "pip", "--python", home / "bin" / "python", "install", "--no-deps", "--no-index", wheel, cwd=home)
    (site,) = home.glob("lib/python*/site-packages")
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n", "utf-8")
    return home / "bin"


def test_holds_the_package_and_its_configuration_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    shipped = {name.removeprefix("labelgen/") for name in names if name.startswith("labelgen/conf/")}
    assert shipped == {path.relative_to(ROOT).as_posix() for path in (ROOT / "conf").rglob("*.yaml")}
    assert "labelgen/py.typed" in names
    assert {name.split("/")[0].split("-")[0] for name in names} == {"labelgen"}
    assert not [name for name in names if name.endswith((".ipynb", ".md")) or "test" in name]
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_runs_from_another_directory(scripts: Path, tmp_path: Path) -> None:
    where = run(scripts / "python", "-c", "import labelgen.config as c; print(c.__file__, c.CONF)", cwd=tmp_path).split()
    assert all(Path(path).is_relative_to(scripts.parent) for path in where)
    output = run(scripts / "labelgen", "--help", cwd=tmp_path)
    assert all(f"  {file.stem} " in output for file in (ROOT / "conf").glob("*.yaml"))
    assert json.loads(run(scripts / "labelgen", "schema", cwd=tmp_path))["title"] == "Dialogue"
    assert not list(tmp_path.iterdir()), "looking leaves nothing behind"


def test_composes_with_a_users_own_folder(scripts: Path, tmp_path: Path) -> None:
    (tmp_path / "mine" / "corpus").mkdir(parents=True)
    (tmp_path / "mine" / "corpus" / "ours.yaml").write_text("_target_: ours.Corpus\npath: calls.jsonl\n", "utf-8")
    output = run(scripts / "labelgen", "train", "--config-dir", "mine", "corpus=ours", "encoder=tiny", "--cfg", "job", cwd=tmp_path)
    assert "_target_: ours.Corpus" in output
    assert "_target_: labelgen.model.encoder.Encoder" in output
