"""State of a run, read from its folder: done, running, failed or missing."""

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
from experiments.results.stored import make_printable, read_json

MOST = 100e6
"""Bytes of weights or data that are hashed to tell a run's state; larger files are compared only if
their fingerprint is remembered."""


class State(Enum):
    """State of a run."""

    done = "done"
    running = "running"
    failed = "failed"
    missing = "missing"


@dataclass(frozen=True, kw_only=True)
class RunState:
    """State of one run of a sweep."""

    state: State
    run_dir: Path
    note: str = ""
    seconds: float | None = None
    """Duration of a finished run."""
    left: float | None = None
    """Estimated seconds left of a running one, from its own pace."""


def look(run_dir: Path, config: Any) -> RunState:
    """Return the state of a configuration's run, without touching its folder."""
    if (run_dir / RECORD).exists():
        try:
            record = find_record(run_dir, config)
            inputs.check(run_dir, config, record, MOST)
        except RecordError as error:
            note = make_printable("; ".join([error.summary, *error.problems]))
            return RunState(state=State.failed, run_dir=run_dir, note=note)
        if record is not None:
            spent = [number(value) for key, value in record.time.items() if key.endswith("_s")]
            seconds = sum(value for value in spent if value is not None)
            return RunState(state=State.done, run_dir=run_dir, seconds=seconds)
    epochs, elapsed = _progress(run_dir)
    total = config.train.epochs if config.train is not None else None
    owner = lock.find_owner(run_dir)
    if owner is not None:
        note, left = make_printable(f"on {owner.get('host')}"), None
        if epochs and epochs > 0 and total:
            note = f"epoch {epochs:g} of {total:g} {note}"
            left = max(0.0, elapsed * (total - epochs) / epochs)
        return RunState(state=State.running, run_dir=run_dir, note=note, left=left)
    if (run_dir / FAILURE).exists():
        return RunState(state=State.failed, run_dir=run_dir, note=_message(run_dir))
    note = f"stopped after epoch {epochs:g}" if epochs else ""
    if inputs.have_changed(run_dir, config, MOST):
        note = ", ".join(filter(None, [note, "its inputs have changed since"]))
    return RunState(state=State.missing, run_dir=run_dir, note=note)


def _progress(run_dir: Path) -> tuple[float | None, float]:
    """Return epochs and seconds so far, from the run's history."""
    try:
        lines = read_history(run_dir)
    except RecordError:
        return None, 0.0
    return (lines[-1]["epoch"], lines[-1]["elapsed_s"]) if lines else (None, 0.0)


def _message(run_dir: Path) -> str:
    try:
        found = read_json(run_dir / FAILURE)
        return make_printable(f"{found['error']}: {found['message'].splitlines()[0]}")
    except (RecordError, LookupError, AttributeError, TypeError):
        return "the failure cannot be read"
