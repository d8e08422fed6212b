"""Files of adapters' weights."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open


@contextmanager
def open_safetensors(path: str | Path) -> Iterator[Any]:
    """Open a safetensors file.

    Opening compares the header with the length of the file, so it finds every truncation at the
    cost of a few kilobytes read.

    Raises:
        ValueError: The file is damaged; the message names it.
    """
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except SafetensorError as error:
        raise ValueError(
            f"{path}: not a complete safetensors file "
            f"({os.path.getsize(path)} bytes found; {error})"
        ) from error
