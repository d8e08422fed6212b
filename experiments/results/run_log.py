"""What a run tells while it goes on: all of it in run.log, the outline on the terminal."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


class _Terminal(logging.Handler):
    """Prints above a progress bar, if there is one."""

    def emit(self, record: logging.LogRecord) -> None:
        """See `logging.Handler.emit`."""
        from tqdm import tqdm

        tqdm.write(self.format(record))


class _File(logging.FileHandler):
    """Leaves out what a full disk does not take: the run itself says why it ends."""

    def handleError(self, record: logging.LogRecord) -> None:
        """See `logging.Handler.handleError`."""


@contextmanager
def keep(place: Path) -> Iterator[None]:
    """Our log lines go to run.log and, without times and details, to the terminal."""
    root = logging.getLogger("experiments")
    file, terminal = _File(place / "run.log"), _Terminal(logging.INFO)
    file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    level = root.level
    root.setLevel(logging.DEBUG)
    for handler in (file, terminal):
        root.addHandler(handler)
    try:
        yield
    finally:
        root.setLevel(level)
        for handler in (file, terminal):
            root.removeHandler(handler)
        with suppress(OSError):  # its last lines, on a full disk
            file.close()


def silence() -> None:
    """Our log lines go nowhere in this process."""
    logging.getLogger("experiments").addHandler(logging.NullHandler())
