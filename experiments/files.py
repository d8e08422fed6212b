"""Files that are whole at any moment."""

from __future__ import annotations

import os
from pathlib import Path


def write_atomically(path: Path, text: str) -> None:
    """Replaces a file in one step: readers and a kill see the old text or the new, never a part."""
    draft = path.with_name(f".{path.name}.tmp")
    with draft.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(draft, path)


def share(folder: Path) -> None:
    """Gives weights the mode of any new file: safetensors keeps what it writes to its owner."""
    mask = os.umask(0)
    os.umask(mask)
    for path in folder.rglob("*.safetensors"):
        path.chmod(0o666 & ~mask)


def cache_folder(name: str) -> Path:
    """A folder for what can be made again: FOURIERFT_CACHE, else the user's cache."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(os.environ.get("FOURIERFT_CACHE") or Path(home) / "fourierft") / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder
