"""Run folders: where a run lives, whether it is done, and its record.

A run folder holds config.yaml, inputs.json, history.jsonl, predictions/, adapter/, run.log and,
written last, metrics.json: it exists if and only if the run finished. A failed run leaves
failure.json instead.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import time
import traceback
from enum import Enum
from pathlib import Path
from typing import Any

from experiments import stored
from experiments.errors import RecordError, UserError
from experiments.files import write_atomically
from experiments.results.schema import LARGEST, MANY, problems

SCHEMA = 1
RECORD, FAILURE, CONFIG = "metrics.json", "failure.json", "config.yaml"

# What a run is: sections of the configuration, each with the fields that only say where and how
# it is computed.
IDENTITY: dict[str, tuple[str, ...]] = {
    "mode": (),
    "recipe": (),
    "profile": (),
    "seed": (),
    "model": ("path", "tokenizer"),
    "task": ("path", "class_path", "extractor", "questions", "generation_batch_size"),
    "method": ("memory", "gradient"),
    "train": (
        *("accumulation", "eval_batch_size", "checkpoint_every"),
        *("workers", "gradient_checkpointing", "device"),
    ),
}


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


def plain(value: Any) -> Any:
    """Dataclasses, enums and paths as JSON values."""
    if dataclasses.is_dataclass(value):
        return {
            entry.name: plain(getattr(value, entry.name)) for entry in dataclasses.fields(value)
        }
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one with dotted keys."""
    if isinstance(value, dict) and (value or not prefix):
        return {
            key: leaf
            for name, item in value.items()
            for key, leaf in flatten(item, f"{prefix}{name}.").items()
        }
    return {prefix.rstrip("."): value}


def identity(config: dict[str, Any]) -> dict[str, Any]:
    """The scientific fields of a plain configuration, with dotted keys.

    All else never changes what a run is.
    """
    return {
        key: value
        for section, local in IDENTITY.items()
        for key, value in flatten({section: config.get(section)}).items()
        if key.partition(".")[2] not in local
    }


def folder(config: Any) -> Path:
    """output/model/task/method[/what differs from the recipe]/seed=s."""
    place = Path(config.output) / config.model.name / config.task.name / config.method.name
    return (place / config.variant if config.variant else place) / f"seed={config.seed}"


def find(place: Path, config: Any) -> Record | None:
    """The finished record of this very run, None if there is none yet; touches nothing.

    Raises:
        RecordError: the folder holds another run (every differing key is listed), or its record is
        damaged.
    """
    record = None
    if (place / RECORD).exists():
        record = read(place)
        what, found = "a finished", record.config
    elif (place / CONFIG).exists() and not (place / FAILURE).exists():
        what, found = "an unfinished", configuration(place)
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


def failure(place: Path, config: Any) -> dict[str, Any] | None:
    """What failure.json says of this very run; None if it did not fail or is another's."""
    try:
        found = stored.read_json(place / FAILURE)
    except RecordError:
        return None
    return found if isinstance(found, dict) and continues(place, config) else None


def configuration(place: Path) -> dict[str, Any]:
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
    there, asked = identity(found), identity(plain(config))
    return [
        f"{key}: there {there.get(key)!r}, asked for {asked.get(key)!r}"
        for key in sorted(there.keys() | asked.keys())
        if there.get(key) != asked.get(key)  # a field added since then is null in old records
    ]


def continues(place: Path, config: Any) -> bool:
    """True if what lies in the folder was left by this very run."""
    try:
        return not _differing(configuration(place), config)
    except RecordError:
        return False


def write(place: Path, record: Record) -> None:
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


def read(place: Path) -> Record:
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
