"""Index of the finished runs below a folder, and of everything there that cannot be counted."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from experiments.errors import RecordError
from experiments.files import is_moved_aside, list_visible
from experiments.results import inputs
from experiments.results.history import HISTORY, read_history
from experiments.results.identity import flatten
from experiments.results.record import FAILURE, RECORD, SCHEMA, Record, read_record
from experiments.results.stored import MAX_FLOAT, find_entries, make_printable, read_json

JUDGEMENTS = "judgements"
LONGEST = 300
"""Characters of a reason."""


@dataclass(frozen=True)
class ExcludedRecord:
    """Record below the output folder that no table counts."""

    kind: str
    """damaged, foreign, older schema, contradictory, duplicate or failed."""
    path: Path
    reason: str

    def __str__(self) -> str:
        return f"{make_printable(self.path)}: {self.kind}, {self.reason}"


@dataclass
class Run:
    """Finished run and its folder."""

    run_dir: Path
    record: Record

    @cached_property
    def values(self) -> dict[str, Any]:
        """Configuration, parameters, metrics and time of the record, by dotted keys."""
        parts = {name: getattr(self.record, name) for name in ("parameters", "metrics", "time")}
        return flatten({**self.record.config, **parts})

    @cached_property
    def identity(self) -> dict[str, Any]:
        """Fields that identify the run, with dotted keys."""
        from experiments.config.run_config import Config  # late: with all models and tasks

        return Config.identify(self.record.config)

    @property
    def primary(self) -> dict[str, Any]:
        """Primary metric as recorded; empty if there was none to compute."""
        return (self.record.metrics or {}).get("primary") or {}

    @property
    def seed(self) -> Any:
        """The run's seed."""
        return self.record.run.get("seed")

    def find_step(self, rule: str) -> int | None:
        """Return the step of the evaluation that a rule chooses; None if the record lacks it."""
        step = ((self.record.metrics or {}).get(rule) or {}).get("step")
        return step if isinstance(step, int) else None

    def score(self, rule: str, metric: str, split: str | None = None) -> float | None:
        """Return a metric at the epoch that a rule chooses; None if the record lacks it.

        Args:
            rule: best, last or heldout.
            metric: name of the metric.
            split: None means the primary one.
        """
        primary, chosen = self.primary, (self.record.metrics or {}).get(rule) or {}
        if metric == primary.get("name") and split in (None, primary.get("split")):
            return number(chosen.get("value"))
        scores = chosen.get("scores") or {}
        scored = scores.get(primary.get("split") if split is None else split) or {}
        return number(scored.get(metric))


@dataclass
class RunIndex:
    """All finished runs of an output folder."""

    root: Path
    runs: list[Run] = field(default_factory=list)
    """In path order."""
    excluded: list[ExcludedRecord] = field(default_factory=list)

    def select(self, **run: Any) -> list[Run]:
        """Return the runs with these values in `record.run`, for example model="mlp"."""
        return [
            found
            for found in self.runs
            if all(found.record.run.get(key) == value for key, value in run.items())
        ]

    def name(self, run: Run) -> str:
        """Return the run's folder, relative to the output folder."""
        return run.run_dir.relative_to(self.root).as_posix()

    def lines(self, run: Run) -> list[dict[str, Any]]:
        """Return the lines of a run's history; none of one that cannot be read."""
        try:
            return read_history(run.run_dir)
        except RecordError as error:
            self.report("damaged", run.run_dir / HISTORY, str(error))
            return []

    def curve(self, run: Run, key: str) -> list[tuple[float, float]]:
        """Return (epoch, value) of every history line with `key`, in the order of training.

        Non-finite values, as of a diverged run, are left out.
        """
        points = [(line["epoch"], line[key]) for line in self.lines(run) if key in line]
        if not all(type(value) in (int, float) for _, value in points):
            self.report("damaged", run.run_dir / HISTORY, f"{key} is not a number")
            return []
        return [
            (float(epoch), float(value)) for epoch, value in points if number(value) is not None
        ]

    def judged(self, run: Run, benchmark: str) -> list[dict[str, Any]]:
        """Return every judge's average of the run's answers to a benchmark, with its result."""
        found = []
        for path in list_visible(run.run_dir / JUDGEMENTS / benchmark, "*.json"):
            try:
                content = read_json(path)
                average = number(content["scores"]["average"])
                judge = make_printable(content["judge"]["asked"])
            except (RecordError, LookupError, TypeError) as error:
                self.report("damaged", path, f"no scores of a judge ({error})")
                continue
            if average is not None:
                found.append({"judge": judge, "average": average, "path": path, "content": content})
        return found

    def report(self, kind: str, path: Path, reason: str) -> None:
        """Add an excluded record once."""
        record = ExcludedRecord(kind, path, make_printable(reason)[:LONGEST])
        if record not in self.excluded:
            self.excluded.append(record)


def number(value: Any) -> float | None:
    """Return a finite number that arithmetic can take, None for anything else."""
    real = isinstance(value, (int, float)) and not isinstance(value, bool)
    return value if real and abs(value) <= MAX_FLOAT else None


def collect(root: Path) -> RunIndex:
    """Read every finished run below `root`; whatever cannot be counted is listed as excluded."""
    index = RunIndex(Path(root))
    for path in find_entries(index.root, RECORD):
        if is_moved_aside(path.parent, index.root):
            continue
        try:
            record = read_record(path.parent)
        except RecordError as error:
            kind = _kind(path)
            reason = str(error).removeprefix(f"{path}: ").removeprefix(f"{kind}, ")
            index.report(kind, path, reason)
            continue
        contradictions = list(_contradictions(record))
        if make_printable(path) != str(path):
            index.report("damaged", path, "lies in a folder whose name no page can show")
        elif contradictions:
            index.report("contradictory", path, "; ".join(contradictions))
        else:
            index.runs.append(Run(path.parent, record))
    _exclude_copies(index)
    for path in find_entries(index.root, FAILURE):
        if is_moved_aside(path.parent, index.root):
            continue
        if not os.path.lexists(path.parent / RECORD):
            index.report("failed", path, _failure(path))
    return index


def _kind(path: Path) -> str:
    """Return the kind of a record that `read_record` refused."""
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
    """Yield the differences between a record's two descriptions of the run."""
    for key in ("model", "task", "method"):
        said = (record.config.get(key) or {}).get("name", record.run[key])
        if said != record.run[key]:
            yield f"run.{key} is {record.run[key]!r}, config.{key}.name is {said!r}"
    for key in ("seed", "profile"):
        if key in record.config and record.config[key] != record.run.get(key):
            yield f"run.{key} is {record.run.get(key)!r}, config.{key} is {record.config[key]!r}"


def _exclude_copies(index: RunIndex) -> None:
    """Keep one run of each identity.

    Copies are excluded, and so are all runs of one identity whose results differ, since nothing
    tells which is right.
    """
    same: dict[str, list[Run]] = {}
    for run in index.runs:
        # Records of fewer keys than a whole configuration are told apart by where they lie.
        whole = {"model", "task", "method", "seed"} <= run.record.config.keys()
        key = json.dumps(run.identity, sort_keys=True, default=str) if whole else str(run.run_dir)
        same.setdefault(key, []).append(run)
    kept = []
    for runs in same.values():
        first, *others = sorted(runs, key=lambda run: not _at_home(index, run))
        differing = [run for run in others if not _agree(first.record, run.record)]
        if not differing:
            kept.append(first)
        for run in others if not differing else runs:
            other = others[0] if run is first else first
            name, changed = index.name(other), inputs.find_changed(run.record, other.record)
            if not differing:
                kind, reason = "duplicate", f"the same run as {name}, which counts"
            elif changed:
                kind = "contradictory"
                reason = f"the same settings in {name} with other {', '.join(changed)}; "
                reason += "neither counts"
            else:
                kind = "contradictory"
                reason = f"another result of the same run as {name}; neither counts"
            index.report(kind, run.run_dir / RECORD, reason)
    index.runs = sorted(kept, key=lambda run: run.run_dir)


def _at_home(index: RunIndex, run: Run) -> bool:
    """Return True if a run lies in the folder that runs of its kind are written to."""
    said = run.record.run
    return index.name(run).startswith(f"{said['model']}/{said['task']}/{said['method']}/")


def _agree(one: Record, other: Record) -> bool:
    return (one.parameters, one.metrics) == (other.parameters, other.metrics)


def _failure(path: Path) -> str:
    try:
        found = read_json(path)
        return f"{found['error']}: {found['message']}"
    except (RecordError, LookupError, TypeError) as error:
        return f"the failure itself cannot be read ({error})"
