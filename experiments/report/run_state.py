"""State of a run, read from its folder: done, running, failed or missing."""

from __future__ import annotations

import statistics
from collections.abc import Collection
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from experiments.errors import RecordError
from experiments.report.comparison.run_index import number
from experiments.results import inputs, lock
from experiments.results.history import read_history
from experiments.results.identity import to_plain
from experiments.results.record import FAILURE, RECORD, read_record
from experiments.results.run_folder import find_record
from experiments.results.stored import find_entries, make_printable, read_json

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
    finished: int = 0
    """Finished trials of a search that is not done."""


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
            return RunState(state=State.done, run_dir=run_dir, seconds=_sum_seconds(record.time))
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


def look_at_trials(config: Any, space: Collection[str], trials: int) -> RunState:
    """Return the state of a configuration's search, from the records of its trials.

    Args:
        config: a cell of the sweep that is searched.
        space: keys that the search chooses.
        trials: finished trials that are wanted.
    """
    wanted = _fix(to_plain(config), space)
    folder = Path(config.output) / config.model.name / config.task.name / config.method.name
    seconds = []
    for path in find_entries(folder, RECORD):
        try:
            record = read_record(path.parent)
        except RecordError:
            continue  # the report names it
        if record.metrics and _fix(record.config, space) == wanted:
            seconds.append(_sum_seconds(record.time))
    mean = statistics.fmean(seconds) if seconds else None
    state = State.done if len(seconds) >= trials else State.missing
    note = f"{len(seconds)} of {trials} trials" if 0 < len(seconds) < trials else ""
    return RunState(
        state=state, run_dir=folder, note=note, seconds=mean, finished=min(len(seconds), trials)
    )


def _fix(config: dict[str, Any], space: Collection[str]) -> dict[str, Any]:
    """Return the fields of a plain configuration that all trials of a search share."""
    from experiments.config.run_config import Config  # late: with all models and tasks

    return {key: value for key, value in Config.identify(config).items() if key not in space}


def _sum_seconds(time: dict[str, Any]) -> float:
    spent = [number(value) for key, value in time.items() if key.endswith("_s")]
    return sum(value for value in spent if value is not None)


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
