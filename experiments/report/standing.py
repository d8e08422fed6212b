"""How a run stands, read from its folder: done, running, failed or missing."""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from experiments import lock, results
from experiments.errors import RecordError
from experiments.report.evidence import number
from experiments.tracking import read_history


class State(Enum):
    """What is to be said of a run."""

    done = "done"
    running = "running"
    failed = "failed"
    missing = "missing"


@dataclass(frozen=True, kw_only=True)
class Standing:
    """One run of a sweep."""

    state: State
    place: Path
    note: str = ""
    seconds: float | None = None
    """What a finished run took."""
    left: float | None = None
    """Seconds that a running one still needs, from its own pace."""


def look(place: Path, config: Any) -> Standing:
    """How the run of a configuration stands; touches nothing."""
    if (place / results.RECORD).exists():
        try:
            record = results.find(place, config)
        except RecordError as error:
            return Standing(state=State.failed, place=place, note=error.summary)
        if record is not None:
            spent = [number(value) for key, value in record.time.items() if key.endswith("_s")]
            seconds = sum(value for value in spent if value is not None)
            return Standing(state=State.done, place=place, seconds=seconds)
    epochs, elapsed = _progress(place)
    total = config.train.epochs if config.train is not None else None
    owner = lock.holder(place)
    if owner is not None:
        note, left = f"on {owner.get('host')}", None
        if epochs and total:
            note = f"epoch {epochs:g} of {total:g} {note}"
            left = max(0.0, elapsed * (total - epochs) / epochs)
        return Standing(state=State.running, place=place, note=note, left=left)
    if (place / results.FAILURE).exists():
        return Standing(state=State.failed, place=place, note=_message(place))
    note = f"stopped after epoch {epochs:g}" if epochs else ""
    return Standing(state=State.missing, place=place, note=note)


def _progress(place: Path) -> tuple[float | None, float]:
    """Epochs and seconds so far, from the run's history."""
    try:
        lines = [line for line in read_history(place) if isinstance(line, dict)]
    except (OSError, UnicodeDecodeError):
        return None, 0.0
    if not lines:
        return None, 0.0
    return number(lines[-1].get("epoch")), number(lines[-1].get("elapsed_s")) or 0.0


def _message(place: Path) -> str:
    try:
        found = json.loads((place / results.FAILURE).read_text(encoding="utf-8"))
        return f"{found['error']}: {found['message'].splitlines()[0]}"
    except (OSError, ValueError, LookupError, AttributeError, TypeError):
        return "the failure cannot be read"
