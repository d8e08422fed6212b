"""How a run stands, read from its folder: done, running, failed or missing."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from experiments.errors import RecordError
from experiments.report.comparison.run_index import number
from experiments.results import inputs, lock
from experiments.results.history import read_history
from experiments.results.record import FAILURE, RECORD
from experiments.results.run_folder import find_record
from experiments.results.stored import legible, read_json

MOST = 100e6
"""Bytes of weights or data that are read to say how a run stands; larger ones are compared where
their fingerprint is remembered."""


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
    if (place / RECORD).exists():
        try:
            record = find_record(place, config)
            inputs.check(place, config, record, MOST)
        except RecordError as error:
            note = legible("; ".join([error.summary, *error.problems]))
            return Standing(state=State.failed, place=place, note=note)
        if record is not None:
            spent = [number(value) for key, value in record.time.items() if key.endswith("_s")]
            seconds = sum(value for value in spent if value is not None)
            return Standing(state=State.done, place=place, seconds=seconds)
    epochs, elapsed = _progress(place)
    total = config.train.epochs if config.train is not None else None
    owner = lock.holder(place)
    if owner is not None:
        note, left = legible(f"on {owner.get('host')}"), None
        if epochs and epochs > 0 and total:
            note = f"epoch {epochs:g} of {total:g} {note}"
            left = max(0.0, elapsed * (total - epochs) / epochs)
        return Standing(state=State.running, place=place, note=note, left=left)
    if (place / FAILURE).exists():
        return Standing(state=State.failed, place=place, note=_message(place))
    note = f"stopped after epoch {epochs:g}" if epochs else ""
    if inputs.changed(place, config, MOST):
        note = ", ".join(filter(None, [note, "what it began with has changed since"]))
    return Standing(state=State.missing, place=place, note=note)


def _progress(place: Path) -> tuple[float | None, float]:
    """Epochs and seconds so far, from the run's history."""
    try:
        lines = read_history(place)
    except RecordError:
        return None, 0.0
    return (lines[-1]["epoch"], lines[-1]["elapsed_s"]) if lines else (None, 0.0)


def _message(place: Path) -> str:
    try:
        found = read_json(place / FAILURE)
        return legible(f"{found['error']}: {found['message'].splitlines()[0]}")
    except (RecordError, LookupError, AttributeError, TypeError):
        return "the failure cannot be read"
