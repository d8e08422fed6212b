"""Standard output and error that may go away, or be full, without taking the work along."""

from __future__ import annotations

import errno
import io
import os
import select
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn, TextIO

from experiments.errors import UserError

CLOSED_PIPE = {errno.EPIPE, errno.ECONNRESET}
"""Errors of a reader that has seen enough, as `head` has; all others lose what somebody wants."""


class _TolerantStream(io.FileIO):
    """Stream that drops output it cannot write, and says so once."""

    def __init__(self, number: int, name: str, told: Callable[[str], Any]):
        super().__init__(number, "w", closefd=False)
        self._name, self._told, self.lost = name, told, False

    def write(self, data: Any) -> int:
        """See `io.RawIOBase.write`."""
        try:
            while (written := super().write(data)) is None:  # a pipe that does not block is full
                select.select([], [self], [])
            return written
        except OSError as error:
            if error.errno not in CLOSED_PIPE and not self.lost:
                self.lost = True
                self._told(
                    f"{self._name} cannot be written ({error.strerror}); continuing without it\n"
                )
            return len(data)


def protect_streams() -> None:
    """Keep print and logging from ever failing.

    A full disk, a pipe without a reader, a closed stream and characters that the terminal cannot
    encode are survived. Streams that were replaced by others are left alone.
    """
    if sys.stderr is None or sys.stderr is sys.__stderr__:
        sys.stderr = _wrap_stream(sys.stderr, 2, "standard error", lambda _: None)
    if sys.stdout is None or sys.stdout is sys.__stdout__:
        sys.stdout = _wrap_stream(
            sys.stdout, 1, "standard output", lambda line: sys.stderr.write(line)
        )


def _wrap_stream(
    stream: TextIO | None, number: int, name: str, told: Callable[[str], Any]
) -> TextIO:
    if stream is None:  # closed by whoever started us
        return open(os.devnull, "w")
    stream.flush()
    # With PYTHONUNBUFFERED a stream is not buffered by line, but writes through.
    by_line = bool(stream.line_buffering) or getattr(stream, "write_through", False)
    return io.TextIOWrapper(
        io.BufferedWriter(_TolerantStream(number, name, told)),
        encoding=stream.encoding,
        errors="backslashreplace",
        line_buffering=by_line or number == 2,
    )


def is_output_lost() -> bool:
    """Return True if output was lost because standard output could not be written."""
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    sys.stdout.flush()
    return isinstance(raw, _TolerantStream) and raw.lost


def run_logged(command: Sequence[str], log: Path, *, folder: Path, heading: str = "") -> bool:
    """Run Python on a command of this project, one thread a process, with its output in a file.

    Args:
        command: arguments of the interpreter.
        log: file of both streams, written anew.
        folder: working directory.
        heading: text that the file begins with.

    Returns:
        False if the command failed.
    """
    import subprocess

    with log.open("w", encoding="utf-8") as file:
        file.write(heading)
        file.flush()
        done = subprocess.run(
            [sys.executable, *command],
            cwd=folder,
            stdout=file,
            stderr=subprocess.STDOUT,
            env={"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", **os.environ},
        )
    return done.returncode == 0


def run_command(name: str, main: Callable[[], int | None], *, prints: bool = True) -> NoReturn:
    """Run a command and end the process with its status, 1 for errors that the user can fix.

    Args:
        name: of the command, for its messages.
        main: returns the status, None for 0.
        prints: True if the output is the command's purpose, so that losing it is a failure.
    """
    protect_streams()
    try:
        status = main() or 0
    except KeyboardInterrupt:
        print(f"{name}: interrupted", file=sys.stderr)
        status = 130
    except UserError as error:
        print(f"{name}: {error}", file=sys.stderr)
        status = 1
    except OSError as error:
        if error.filename is None:
            raise
        print(f"{name}: {error.filename}: {error.strerror}", file=sys.stderr)
        status = 1
    sys.exit(status or int(prints and is_output_lost()))
