"""history.jsonl: one line per training log and per evaluation."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from experiments.errors import RecordError
from experiments.files import write_atomically
from experiments.results import stored

HISTORY = "history.jsonl"
TRAINING_LOSS = "train/loss"
"""Key of the training loss in a line."""
POSITION_KEYS = ("step", "epoch", "elapsed_s")
"""Keys of every line."""


class History:
    """history.jsonl: one line per training log and per evaluation.

    Cut back to the checkpoint when a run resumes.

    Args:
        folder: run folder.
        send: function called with step and values of every line, for example `Tracking.log`.
    """

    def __init__(self, folder: Path, send: Callable[[int, dict[str, float]], None]):
        self.path, self.send = folder / HISTORY, send

    def lines(self) -> list[dict[str, Any]]:
        """Return the lines logged so far."""
        return read_history(self.path.parent)

    def elapsed(self) -> float:
        """Return the seconds spent up to the last line."""
        return max((line["elapsed_s"] for line in self.lines()), default=0.0)

    def cut(self, step: int) -> None:
        """Drop the lines after `step`."""
        kept = [line for line in self.lines() if line["step"] <= step]
        write_atomically(self.path, "".join(json.dumps(line) + "\n" for line in kept))

    def log(self, step: int, epoch: float, elapsed: float, values: dict[str, float]) -> None:
        """Append a line and send its values."""
        line = {"step": step, "epoch": round(epoch, 6), "elapsed_s": round(elapsed, 3), **values}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        self.send(step, {"epoch": epoch, **values})


def read_history(folder: Path) -> list[dict[str, Any]]:
    """Read the lines of a run's history; a line cut short by a kill is left out.

    Raises:
        RecordError: not a regular text file, or a line lacks its numbers.
    """
    path = folder / HISTORY
    lines = []
    text = stored.read_text(path) if path.exists() else ""
    for number, line in enumerate(text.splitlines(), 1):
        try:
            found = stored.parse_json(line)
        except ValueError:
            break
        if not isinstance(found, dict) or not all(
            _is_finite(found.get(key)) for key in POSITION_KEYS
        ):
            wanted = ", ".join(POSITION_KEYS)
            raise RecordError(f"{path}, line {number}: damaged, not an object with {wanted}")
        lines.append(found)
    return lines


def _is_finite(value: Any) -> bool:
    real = isinstance(value, (int, float)) and not isinstance(value, bool)
    return real and abs(value) <= stored.MAX_INTEGER
