"""A run's record: metrics.json of a finished run, failure.json of a failed one."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import time
import traceback
from pathlib import Path
from typing import Any

from experiments.errors import RecordError, UserError
from experiments.files import write_atomically
from experiments.results import stored
from experiments.results.schema import LARGEST, MANY, problems

SCHEMA = 1
RECORD, FAILURE, CONFIG = "metrics.json", "failure.json", "config.yaml"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Record:
    """One finished run, as metrics.json holds it."""

    run: dict[str, Any]
    """model, task, method, seed, source, recipe, profile, mode, experiment."""
    config: dict[str, Any]
    """The whole resolved configuration."""
    parameters: dict[str, int]
    """adapter, head, base (numbers) and stored_bytes of the adapter."""
    metrics: dict[str, Any] | None = None
    """primary {name, split, select, value, interval}, best, last, heldout; None for mode=count."""
    adapter: dict[str, str] | None = None
    """SHA-256 of the adapter's files by name; None in older records, and where nothing trains."""
    preflight: dict[str, Any] | None = None
    """What could be said before training about whether this setting can learn."""
    time: dict[str, Any]
    memory: dict[str, Any]
    environment: dict[str, Any]
    status: str = "finished"
    schema: int = SCHEMA


def write_record(place: Path, record: Record) -> None:
    """Writes metrics.json: from here on the run is finished.

    NaN and infinity, as a diverged run has, become null.
    """
    text = json.dumps(finite(dataclasses.asdict(record)), indent=2, allow_nan=False)
    write_atomically(place / RECORD, text + "\n")


def finite(value: Any) -> Any:
    """Nested values with None for the numbers that JSON does not have."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_failure(place: Path, error: BaseException) -> None:
    """Writes failure.json, with the traceback of anything that is not the user's to mend."""
    trace = None if isinstance(error, UserError) else "".join(traceback.format_exception(error))
    failure = {
        "schema": SCHEMA,
        "status": "failed",
        "error": type(error).__name__,
        "message": str(error),
        "traceback": trace,
        "when": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }
    write_atomically(place / FAILURE, json.dumps(failure, indent=2) + "\n")


def read_record(place: Path) -> Record:
    """Reads a run folder's record.

    Raises:
        RecordError: not JSON, or not a record; the message names the file, and what is missing or
            has another type than its readers rely on.
    """
    path, cure = place / RECORD, "move the folder away to run it again"
    found = stored.read_json(path, LARGEST)
    known = {entry.name: entry for entry in dataclasses.fields(Record)}
    if not isinstance(found, dict) or found.get("schema") != SCHEMA:
        given = found.get("schema") if isinstance(found, dict) else type(found).__name__
        raise RecordError(f"{path}: schema {given!r:.40}, this version reads {SCHEMA}")
    missing = [
        name
        for name, entry in known.items()
        if name not in found and entry.default is dataclasses.MISSING
    ]
    if missing:
        raise RecordError(f"{path}: damaged, without {', '.join(missing)}; {cure}")
    sections = ("run", "config", "parameters", "time", "memory", "environment")
    wrong = [name for name in sections if not isinstance(found[name], dict)]
    if wrong:
        raise RecordError(f"{path}: damaged, unusable {', '.join(wrong)}")
    first = list(itertools.islice(problems(found), MANY))
    if first:
        raise RecordError(f"{path}: damaged, unusable {'; '.join(first)}")
    return Record(**{name: value for name, value in found.items() if name in known})
