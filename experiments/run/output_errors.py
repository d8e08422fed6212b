"""Output that cannot be written: a full disk, a file in the way, a place that is read-only."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from experiments.errors import Unwritable, UserError

_DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}
_DISK_MESSAGES = ("No space left on device", "Disk quota exceeded", "Read-only file system")
"""As libraries in other languages pass on what the system said."""
_TORCH_MESSAGES = ("PytorchStreamWriter failed", "inline_container.cc")
"""Of errors that hide it."""


@contextmanager
def translate_errors(output: str) -> Iterator[None]:
    """Turn errors of writing below the folder of all runs into one sentence.

    Raises:
        Unwritable: instead of such an error.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        why = find_reason(error, output)
        if why is None:
            raise
        raise Unwritable(
            f"output={output}: cannot be written ({why}); once it can, the same command goes on, "
            "or output=FOLDER names another place"
        ) from error


def make_folder(output: str) -> None:
    """Make the folder of all runs, before anything else is done.

    Raises:
        Unwritable: it cannot be made.
    """
    with translate_errors(output):
        Path(output).mkdir(parents=True, exist_ok=True)


def find_reason(error: BaseException, output: str) -> str | None:
    """Return why nothing can be written below a folder, None if the error is of another kind."""
    if isinstance(error, UserError):
        return None
    seen: BaseException | None = error
    caused = True
    while seen is not None:
        if isinstance(seen, OSError) and (
            seen.errno in _DISK_ERRORS
            or (caused and any(_blocks(name, output) for name in _list_paths(seen)))
        ):
            return seen.strerror or type(seen).__name__
        text = str(seen)
        found = next((word for word in _DISK_MESSAGES if word in text), None)
        if found is not None:
            return found
        if any(word in text for word in _TORCH_MESSAGES):
            return "the disk took only a part of a file"
        # What was merely being handled tells of full disks alone: it may be a lock that is gone.
        caused = seen.__cause__ is not None
        seen = seen.__cause__ or seen.__context__
    return None


def _list_paths(error: OSError) -> list[str]:
    given = (error.filename, error.filename2)
    return [os.fsdecode(name) for name in given if isinstance(name, (str, bytes, os.PathLike))]


def _blocks(name: str, output: str) -> bool:
    """Return True for what leads to the folder, and for what cannot be made within it."""
    path, root = (Path(os.path.abspath(one)) for one in (name, output))
    if root.is_relative_to(path):
        return True
    return path.is_relative_to(root) and not os.access(path.parent, os.W_OK | os.X_OK)
