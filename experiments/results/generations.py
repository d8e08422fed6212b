"""What a finished network wrote, one JSON object a line: appended as it comes, read at any time."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from experiments.errors import RecordError
from experiments.results import stored

FOLDER = "generations"
LARGEST = 2**30
"""Bytes of a file of texts."""


def path_of(run: Path, name: str) -> Path:
    """generations/<name>.jsonl of a run folder; `name` is a split or benchmark."""
    return run / FOLDER / f"{name}.jsonl"


def append(path: Path, lines: Iterable[dict[str, Any]]) -> None:
    """Adds lines; what a kill leaves of the last one is cut off by the next call."""
    path.parent.mkdir(exist_ok=True)  # without parents: the folder of a run may be taken away
    with path.open("a+b") as file:
        file.seek(0)
        whole = file.read().rpartition(b"\n")
        if whole[2]:
            file.truncate(len(whole[0]) + len(whole[1]))
        file.seek(0, os.SEEK_END)
        for line in lines:
            file.write(json.dumps(line, ensure_ascii=False).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


def read(path: Path, problems: list[str] | None = None) -> list[dict[str, Any]]:
    """Every whole line, in the order they came; an empty list if there is no file yet.

    Args:
        path: of the file.
        problems: gets a line for each that is no JSON object, with its number, and the others are
            returned; None: the first of them is an error.

    Raises:
        RecordError: see `problems`. An unfinished last line is what a kill leaves, and is passed
            over.
    """
    if not path.exists():
        return []
    found = []
    whole, _, _ = stored.read_bytes(path, LARGEST).rpartition(b"\n")
    for number, line in enumerate(whole.split(b"\n") if whole else [], 1):
        fault = "no JSON object"
        try:
            entry = stored.parse_json(line)
        except ValueError as error:
            entry, fault = None, f"not JSON ({error})"
        if isinstance(entry, dict):
            found.append(entry)
            continue
        problem = f"{path}, line {number}: damaged, {fault}"
        if problems is None:
            raise RecordError(problem)
        problems.append(problem)
    return found
