"""Record of a run: metrics.json of a finished run, failure.json of a failed one."""

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
from experiments.results.schema import LARGEST, MANY, find_problems

SCHEMA = 1
RECORD, FAILURE, CONFIG = "metrics.json", "failure.json", "config.yaml"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Record:
    """Content of metrics.json of a finished run."""

    run: dict[str, Any]
    """model, task, method, seed, source, recipe, profile, mode, experiment."""
    config: dict[str, Any]
    """The whole resolved configuration."""
    parameters: dict[str, int]
    """adapter, head, base (parameter counts) and stored_bytes of the adapter."""
    metrics: dict[str, Any] | None = None
    """primary {name, split, select, value, interval}, best, last, heldout; None for mode=count."""
    adapter: dict[str, str] | None = None
    """SHA-256 of the adapter's files by name; None in older records, and where nothing trains."""
    preflight: dict[str, Any] | None = None
    """Results of the preflight checks before training."""
    time: dict[str, Any]
    memory: dict[str, Any]
    environment: dict[str, Any]
    status: str = "finished"
    schema: int = SCHEMA


def write_record(run_dir: Path, record: Record) -> None:
    """Write metrics.json, which makes the run finished.

    NaN and infinity, as of a diverged run, become null.
    """
    text = json.dumps(replace_nonfinite(dataclasses.asdict(record)), indent=2, allow_nan=False)
    write_atomically(run_dir / RECORD, text + "\n")


def replace_nonfinite(value: Any) -> Any:
    """Replace non-finite numbers, which JSON lacks, by None in nested values."""
    if isinstance(value, dict):
        return {key: replace_nonfinite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [replace_nonfinite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_failure(run_dir: Path, error: BaseException) -> None:
    """Write failure.json, with the traceback of any error but UserError."""
    trace = None if isinstance(error, UserError) else "".join(traceback.format_exception(error))
    failure = {
        "schema": SCHEMA,
        "status": "failed",
        "error": type(error).__name__,
        "message": str(error),
        "traceback": trace,
        "when": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }
    write_atomically(run_dir / FAILURE, json.dumps(failure, indent=2) + "\n")


def read_record(run_dir: Path) -> Record:
    """Read a run folder's record.

    Raises:
        RecordError: not JSON, or not a record; the message names the file and the missing or
            mistyped fields.
    """
    path, cure = run_dir / RECORD, "move the folder away to run it again"
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
    first = list(itertools.islice(find_problems(found), MANY))
    if first:
        raise RecordError(f"{path}: damaged, unusable {'; '.join(first)}")
    return Record(**{name: value for name, value in found.items() if name in known})
