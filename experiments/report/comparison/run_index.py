"""What came out: the finished runs below a folder, and everything there that cannot be counted."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from experiments.errors import RecordError
from experiments.files import is_aside, visible
from experiments.results import inputs
from experiments.results.history import HISTORY, read_history
from experiments.results.identity import flatten, scientific_fields
from experiments.results.record import FAILURE, RECORD, SCHEMA, Record, read_record
from experiments.results.stored import FARTHEST, find, legible, read_json

JUDGEMENTS = "judgements"
LONGEST = 300
"""Letters of a reason."""


@dataclass(frozen=True)
class Trouble:
    """Something below the output folder that no table counts."""

    kind: str
    """damaged, foreign, older schema, contradictory, duplicate or failed."""
    path: Path
    reason: str

    def __str__(self) -> str:
        return f"{legible(self.path)}: {self.kind}, {self.reason}"


@dataclass
class Run:
    """A finished run and where it lies."""

    place: Path
    record: Record

    @cached_property
    def values(self) -> dict[str, Any]:
        """Configuration, parameters, metrics and time of the record as one mapping with
        dotted keys."""
        parts = {name: getattr(self.record, name) for name in ("parameters", "metrics", "time")}
        return flatten({**self.record.config, **parts})

    @cached_property
    def identity(self) -> dict[str, Any]:
        """What the run is, with dotted keys."""
        return scientific_fields(self.record.config)

    @property
    def primary(self) -> dict[str, Any]:
        """What the record says of its primary metric; empty if there was none to compute."""
        return (self.record.metrics or {}).get("primary") or {}

    @property
    def seed(self) -> Any:
        """The run's seed."""
        return self.record.run.get("seed")

    def score(self, rule: str, metric: str, split: str | None = None) -> float | None:
        """A metric at the epoch that a rule chooses; None if the record does not hold it.

        Args:
            rule: best, last or heldout.
            metric: its name.
            split: None means the primary one.
        """
        primary, chosen = self.primary, (self.record.metrics or {}).get(rule) or {}
        if metric == primary.get("name") and split in (None, primary.get("split")):
            return number(chosen.get("value"))
        scores = chosen.get("scores") or {}
        scored = scores.get(primary.get("split") if split is None else split) or {}
        return number(scored.get(metric))


@dataclass
class Evidence:
    """All finished runs of an output folder."""

    root: Path
    runs: list[Run] = field(default_factory=list)
    """In path order."""
    troubles: list[Trouble] = field(default_factory=list)

    def select(self, **run: Any) -> list[Run]:
        """The runs whose record says all of this under `run`, for example model="mlp"."""
        return [
            found
            for found in self.runs
            if all(found.record.run.get(key) == value for key, value in run.items())
        ]

    def name(self, run: Run) -> str:
        """The run's folder, relative to the output folder."""
        return run.place.relative_to(self.root).as_posix()

    def curve(self, run: Run, key: str) -> list[tuple[float, float]]:
        """(epoch, value) of every line of the run's history that holds `key`, in the order of
        training; values that are not finite, as of a run that diverged, are left out."""
        path = run.place / HISTORY
        try:
            lines = read_history(run.place)
        except RecordError as error:
            self.report("damaged", path, str(error))
            return []
        points = [(line["epoch"], line[key]) for line in lines if key in line]
        if not all(type(value) in (int, float) for _, value in points):
            self.report("damaged", path, f"{key} is not a number")
            return []
        return [
            (float(epoch), float(value)) for epoch, value in points if number(value) is not None
        ]

    def judged(self, run: Run, benchmark: str) -> list[dict[str, Any]]:
        """Every judge's scores of the run's answers to a benchmark."""
        found = []
        for path in visible(run.place / JUDGEMENTS / benchmark, "*.json"):
            try:
                content = read_json(path)
                average = number(content["scores"]["average"])
                judge = legible(content["judge"]["asked"])
            except (RecordError, LookupError, TypeError) as error:
                self.report("damaged", path, f"no scores of a judge ({error})")
                continue
            if average is not None:
                found.append({"judge": judge, "average": average, "path": path})
        return found

    def report(self, kind: str, path: Path, reason: str) -> None:
        """Adds a trouble once."""
        trouble = Trouble(kind, path, legible(reason)[:LONGEST])
        if trouble not in self.troubles:
            self.troubles.append(trouble)


def number(value: Any) -> float | None:
    """A finite number that arithmetic can take, or None for anything else."""
    real = isinstance(value, (int, float)) and not isinstance(value, bool)
    return value if real and abs(value) <= FARTHEST else None


def collect(root: Path) -> Evidence:
    """Reads every finished run below `root`; what cannot be counted costs a line, not the rest."""
    evidence = Evidence(Path(root))
    for path in find(evidence.root, RECORD):
        if is_aside(path.parent, evidence.root):
            continue
        try:
            record = read_record(path.parent)
        except RecordError as error:
            kind = _kind(path)
            reason = str(error).removeprefix(f"{path}: ").removeprefix(f"{kind}, ")
            evidence.report(kind, path, reason)
            continue
        contradictions = list(_contradictions(record))
        if legible(path) != str(path):
            evidence.report("damaged", path, "lies in a folder that no page can name")
        elif contradictions:
            evidence.report("contradictory", path, "; ".join(contradictions))
        else:
            evidence.runs.append(Run(path.parent, record))
    _part(evidence)
    for path in find(evidence.root, FAILURE):
        if is_aside(path.parent, evidence.root):
            continue
        if not os.path.lexists(path.parent / RECORD):
            evidence.report("failed", path, _failure(path))
    return evidence


def _kind(path: Path) -> str:
    """Why `results.read` refused a file."""
    try:
        found = read_json(path)
    except RecordError:
        return "damaged"
    if not isinstance(found, dict) or "schema" not in found:
        return "foreign"
    schema = found["schema"]
    if schema == SCHEMA:
        return "damaged"
    older = number(schema) is not None and schema < SCHEMA
    return "older schema" if older else "foreign"


def _contradictions(record: Record) -> Iterator[str]:
    """Yields where a record's two descriptions of the run differ."""
    for key in ("model", "task", "method"):
        said = (record.config.get(key) or {}).get("name", record.run[key])
        if said != record.run[key]:
            yield f"run.{key} is {record.run[key]!r}, config.{key}.name is {said!r}"
    for key in ("seed", "profile"):
        if key in record.config and record.config[key] != record.run.get(key):
            yield f"run.{key} is {record.run.get(key)!r}, config.{key} is {record.config[key]!r}"


def _part(evidence: Evidence) -> None:
    """Leaves one run of each identity: copies are named, and runs that differ in their numbers
    are all left out, since nothing says which is right."""
    same: dict[str, list[Run]] = {}
    for run in evidence.runs:
        # Records of fewer keys than a whole configuration are told apart by where they lie.
        whole = {"model", "task", "method", "seed"} <= run.record.config.keys()
        key = json.dumps(run.identity, sort_keys=True, default=str) if whole else str(run.place)
        same.setdefault(key, []).append(run)
    kept = []
    for runs in same.values():
        first, *others = sorted(runs, key=lambda run: not _at_home(evidence, run))
        differing = [run for run in others if not _agree(first.record, run.record)]
        if not differing:
            kept.append(first)
        for run in others if not differing else runs:
            other = others[0] if run is first else first
            name, changed = evidence.name(other), inputs.changes(run.record, other.record)
            if not differing:
                kind, reason = "duplicate", f"the very run in {name}, which counts"
            elif changed:
                kind = "contradictory"
                reason = f"the same settings in {name} with other {', '.join(changed)}; "
                reason += "neither counts"
            else:
                kind = "contradictory"
                reason = f"another result of the very run in {name}; neither counts"
            evidence.report(kind, run.place / RECORD, reason)
    evidence.runs = sorted(kept, key=lambda run: run.place)


def _at_home(evidence: Evidence, run: Run) -> bool:
    """Whether a run lies where runs of its kind are written."""
    said = run.record.run
    return evidence.name(run).startswith(f"{said['model']}/{said['task']}/{said['method']}/")


def _agree(one: Record, other: Record) -> bool:
    return (one.parameters, one.metrics) == (other.parameters, other.metrics)


def _failure(path: Path) -> str:
    try:
        found = read_json(path)
        return f"{found['error']}: {found['message']}"
    except (RecordError, LookupError, TypeError) as error:
        return f"the failure itself cannot be read ({error})"
