"""Append-only file of a judge's replies, so that none is requested twice."""

from __future__ import annotations

import fcntl
import json
import os
import threading
from pathlib import Path
from typing import Any

from experiments.errors import UserError
from experiments.results.stored import check_file, parse_json, read_bytes

Entry = dict[str, Any]
MAX_BYTES = 2**30


class InUse(UserError):
    """Raised if another process is judging the same answers."""


class Journal:
    """File of judgements, written by one process at a time.

    As a context manager it holds the file's lock, which the system releases however the process
    ends. Several threads may append. Reading needs no lock.

    Args:
        path: path of the file.
    """

    def __init__(self, path: Path):
        self.path = path
        self._file: Any = None
        self._mutex = threading.Lock()

    def __enter__(self) -> Journal:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self.path.exists():
            check_file(self.path, MAX_BYTES)  # opening a pipe would block
        file = self.path.open("ab+")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.close()
            raise InUse(f"{self.path}: another process is judging these answers") from error
        except OSError as error:
            file.close()
            raise InUse(f"{self.path}: cannot be locked ({error.strerror})") from error
        self._file = file
        # A killed process may have left half a line, which the next entry must not continue.
        if file.seek(0, os.SEEK_END):
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                file.write(b"\n")
                file.flush()
        return self

    def __exit__(self, *_: object) -> None:
        with self._mutex:
            self._file.close()
            self._file = None

    def append(self, entry: Entry) -> None:
        """Write an entry and flush it to disk."""
        data = json.dumps(entry).encode() + b"\n"
        with self._mutex:
            if self._file is None:
                return  # closed, so the lock may be another process's
            self._file.write(data)
            self._file.flush()
            os.fsync(self._file.fileno())

    def read(self) -> tuple[list[Entry], int]:
        """Return all entries and the number of damaged lines."""
        entries, damaged = [], 0
        content = read_bytes(self.path, MAX_BYTES) if self.path.exists() else b""
        for line in content.split(b"\n"):
            if not line.strip():
                continue
            try:
                entry = parse_json(line)
            except ValueError:
                entry = None
            if isinstance(entry, dict):
                entries.append(entry)
            else:
                damaged += 1
        return entries, damaged
