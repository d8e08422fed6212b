"""Files of a run: written atomically, moved aside, cached."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from experiments.errors import UserError

REPETITION, MOVING_ASIDE = "repetition", ".leaving"
"""Folders within a run folder: an unfinished repetition, and the earlier run on its way out."""

_ASIDE = re.compile(r".+\.(replaced|failed)-\d+")


@contextmanager
def replace_file(path: Path) -> Iterator[Path]:
    """Replace a file in one step: readers and a kill see the old one or the new, never a part.

    Yields:
        The draft to write, which takes the place of the file once the block ends without an error.
    """
    draft = path.with_name(f".{path.name}.tmp")
    yield draft
    os.replace(draft, path)


def write_atomically(path: Path, text: str) -> None:
    """Replace a file by a text in one step, which survives a power cut too."""
    with replace_file(path) as draft, draft.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def list_visible(folder: Path, pattern: str) -> list[Path]:
    """Return the files that match a pattern, sorted by name, without hidden ones.

    macOS leaves a hidden `._x` beside every x on other disks.
    """
    return sorted(path for path in folder.glob(pattern) if path.name[0] != ".")


def set_default_mode(folder: Path) -> None:
    """Give weights the mode of any new file: safetensors keeps what it writes to its owner."""
    mask = os.umask(0)
    os.umask(mask)
    for path in folder.rglob("*.safetensors"):
        path.chmod(0o666 & ~mask)


def get_cache_folder(name: str) -> Path:
    """Return a cache folder: below FOURIERFT_CACHE, else below the user's cache.

    A user without a home, as in containers, gets a temporary folder.

    Raises:
        UserError: it cannot be created.
    """
    cache = os.environ.get("FOURIERFT_CACHE")
    if not cache:
        cache = os.path.join(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "fourierft")
        if os.path.expanduser(cache).startswith("~"):
            cache = os.path.join(tempfile.gettempdir(), f"fourierft-{os.getuid()}")
    folder = Path(os.path.expanduser(cache)) / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"{folder}: cannot be created ({error.strerror}); "
            "set FOURIERFT_CACHE to another folder for caches"
        ) from error
    return folder


def is_moved_aside(folder: Path, root: Path) -> bool:
    """Return True for folders that do not count as a run: moved aside, or a repetition.

    Args:
        folder: below `root`.
        root: the folder of all runs.
    """
    return any(
        part in (REPETITION, MOVING_ASIDE) or _ASIDE.fullmatch(part)
        for part in folder.relative_to(root).parts
    )
