"""Log of a run: everything in run.log, the outline on the terminal."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


class _Terminal(logging.Handler):
    """Handler that prints above a progress bar, if any."""

    def emit(self, record: logging.LogRecord) -> None:
        """See `logging.Handler.emit`."""
        from tqdm import tqdm

        tqdm.write(self.format(record))


class _File(logging.FileHandler):
    """File handler that ignores a full disk: the run itself reports it."""

    def handleError(self, record: logging.LogRecord) -> None:
        """See `logging.Handler.handleError`."""


@contextmanager
def open_run_log(run_dir: Path) -> Iterator[None]:
    """Send our log lines to run.log and, without times and details, to the terminal."""
    root = logging.getLogger("experiments")
    file, terminal = _File(run_dir / "run.log"), _Terminal(logging.INFO)
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


def silence_logging() -> None:
    """Silence our log lines in this process."""
    logging.getLogger("experiments").addHandler(logging.NullHandler())
