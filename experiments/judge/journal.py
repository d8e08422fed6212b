"""Every reply of a judge, one line each, for good: what is there is never asked for again."""

from __future__ import annotations

import fcntl
import json
import os
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from experiments.errors import UserError
from experiments.judge.cases import Item
from experiments.results.stored import check_file, parse_json, read_bytes

Line = dict[str, Any]
LARGEST = 2**30
"""Bytes of a journal."""


class InUse(UserError):
    """Another process is judging the same answers."""


class Journal:
    """A file of judgements that one process writes at a time.

    As a context manager it holds the file's lock, which the system gives back however the process
    ends; threads may append. Reading needs no lock.
    """

    def __init__(self, path: Path):
        self.path = path
        self._file: Any = None
        self._mutex = threading.Lock()

    def __enter__(self) -> Journal:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self.path.exists():
            check_file(self.path, LARGEST)  # a pipe would be waited for
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
        # A kill may have cut the last line; the next one must not continue it.
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

    def append(self, line: Line) -> None:
        """Puts a line on the disk before it returns."""
        data = json.dumps(line).encode() + b"\n"
        with self._mutex:
            if self._file is None:
                return  # given up by its owner; the lock is gone, so is the right to write
            self._file.write(data)
            self._file.flush()
            os.fsync(self._file.fileno())

    def read(self) -> tuple[list[Line], int]:
        """All lines, and the number of those that a kill has damaged."""
        lines, damaged = [], 0
        content = read_bytes(self.path, LARGEST) if self.path.exists() else b""
        for text in content.split(b"\n"):
            if not text.strip():
                continue
            try:
                line = parse_json(text)
            except ValueError:
                line = None
            if isinstance(line, dict):
                lines.append(line)
            else:
                damaged += 1
        return lines, damaged


class Standing:
    """Which judgements are there, which failed for good, which are still to be had."""

    def __init__(
        self,
        items: Iterable[Item],
        lines: Iterable[Line],
        model: str,
        temperature: float | None,
        attempts: int,
    ):
        """Counts the lines that answer this very request: other answers, prompts, models and
        temperatures stay in the file and do not count.

        Args:
            items: the judgements wanted.
            lines: those in the journal.
            model: the judge asked for.
            temperature: it samples with; None: the server's own.
            attempts: replies without a grade after which a judgement has failed.
        """
        replies: dict[tuple[Any, Any], list[Line]] = {}
        for line in lines:
            replies.setdefault((line.get("request"), line.get("repeat")), []).append(line)
        self.rated: list[tuple[Item, Line]] = []
        self.failed: list[Item] = []
        self.open: list[tuple[Item, int]] = []
        """With the number of replies without a grade so far."""
        self.lines: list[Line] = []
        """All that count, also those without a grade."""
        for item in items:
            there = replies.get((item.request(model, temperature), item.repeat), [])
            self.lines += there
            rated = [line for line in there if line.get("rating") is not None]
            if rated:
                self.rated.append((item, rated[0]))
            elif len(there) >= attempts:
                self.failed.append(item)
            else:
                self.open.append((item, len(there)))
