"""Find what a run folder holds, ready it for a run, put a finished run back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from experiments.errors import RecordError
from experiments.results import stored
from experiments.results.identity import scientific_fields, to_plain
from experiments.results.record import CONFIG, FAILURE, RECORD, Record, read_record


def find_record(place: Path, config: Any) -> Record | None:
    """The finished record of this very run, None if there is none yet; touches nothing.

    Raises:
        RecordError: the folder holds another run (every differing key is listed), or its record is
        damaged.
    """
    record = None
    if (place / RECORD).exists():
        record = read_record(place)
        what, found = "a finished", record.config
    elif (place / CONFIG).exists() and not (place / FAILURE).exists():
        what, found = "an unfinished", read_configuration(place)
    else:
        return None
    differing = _differing(found, config)
    if differing:
        raise RecordError(
            f"{place} holds {what} run with another configuration "
            "(force=true repeats in place and keeps the old one beside)",
            differing,
        )
    return record


def find_failure(place: Path, config: Any) -> dict[str, Any] | None:
    """What failure.json says of this very run; None if it did not fail or is another's."""
    try:
        found = stored.read_json(place / FAILURE)
    except RecordError:
        return None
    return found if isinstance(found, dict) and continues(place, config) else None


def read_configuration(place: Path) -> dict[str, Any]:
    """The configuration that a run started with."""
    path, cure = place / CONFIG, "move the folder away or use force=true"
    try:
        found = stored.read_yaml(path)
    except RecordError as error:
        raise RecordError(f"{error}; {cure}") from error
    if not isinstance(found, dict):
        raise RecordError(f"{path}: damaged, no configuration; {cure}")
    return found


def _differing(found: dict[str, Any], config: Any) -> list[str]:
    """One line per scientific field in which a configuration is not the one asked for."""
    there, asked = scientific_fields(found), scientific_fields(to_plain(config))
    return [
        f"{key}: there {there.get(key)!r}, asked for {asked.get(key)!r}"
        for key in sorted(there.keys() | asked.keys())
        if there.get(key) != asked.get(key)  # a field added since then is null in old records
    ]


def continues(place: Path, config: Any) -> bool:
    """True if what lies in the folder was left by this very run."""
    try:
        return not _differing(read_configuration(place), config)
    except RecordError:
        return False
