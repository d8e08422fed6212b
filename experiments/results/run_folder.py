"""Find the record, failure or configuration that a run folder holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from experiments.errors import RecordError
from experiments.results import stored
from experiments.results.identity import to_plain
from experiments.results.record import CONFIG, FAILURE, RECORD, Record, read_record


def find_record(run_dir: Path, config: Any) -> Record | None:
    """Return the record of exactly this run; None if it has not finished. Nothing is written.

    Raises:
        RecordError: the folder holds a run with different settings (every key is listed), or its
            record is damaged.
    """
    record = None
    if (run_dir / RECORD).exists():
        record = read_record(run_dir)
        what, found = "a finished", record.config
    elif (run_dir / CONFIG).exists() and not (run_dir / FAILURE).exists():
        what, found = "an unfinished", read_configuration(run_dir)
    else:
        return None
    differing = _compare(found, config)
    if differing:
        raise RecordError(
            f"{run_dir} holds {what} run with different settings "
            "(force=true repeats in place and moves the old run aside)",
            differing,
        )
    return record


def find_failure(run_dir: Path, config: Any) -> dict[str, Any] | None:
    """Return failure.json of exactly this run; None if it did not fail."""
    try:
        found = stored.read_json(run_dir / FAILURE)
    except RecordError:
        return None
    return found if isinstance(found, dict) and is_same_run(run_dir, config) else None


def read_configuration(run_dir: Path) -> dict[str, Any]:
    """Read the configuration that a run started with."""
    path, cure = run_dir / CONFIG, "move the folder away or use force=true"
    try:
        found = stored.read_yaml(path)
    except RecordError as error:
        raise RecordError(f"{error}; {cure}") from error
    if not isinstance(found, dict):
        raise RecordError(f"{path}: damaged, not a configuration; {cure}")
    return found


def _compare(found: dict[str, Any], config: Any) -> list[str]:
    """Return one line per scientific field in which a configuration differs.

    `recipe` says where the values come from; they are all compared themselves.
    """
    there, asked = config.identify(found), config.identify(to_plain(config))
    return [
        f"{key}: found {there.get(key)!r}, expected {asked.get(key)!r}"
        for key in sorted((there.keys() | asked.keys()) - {"recipe"})
        if there.get(key) != asked.get(key)  # a field added since then is null in old records
    ]


def is_same_run(run_dir: Path, config: Any) -> bool:
    """Return True if the folder was left by exactly this run."""
    try:
        return not _compare(read_configuration(run_dir), config)
    except RecordError:
        return False
