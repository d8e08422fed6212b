"""What came out: the finished runs below a folder, and everything there that cannot be counted."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from experiments import results
from experiments.errors import RecordError
from experiments.results import Record
from experiments.tracking import HISTORY, read_history

MOVED_ASIDE = (".replaced-", ".failed-")
JUDGEMENTS = "judgements"


@dataclass(frozen=True)
class Trouble:
    """Something below the output folder that no table counts."""

    kind: str
    """damaged, foreign, older schema, contradictory, duplicate or failed."""
    path: Path
    reason: str

    def __str__(self) -> str:
        return f"{self.path}: {self.kind}, {self.reason}"


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
        return results.flatten({**self.record.config, **parts})

    @cached_property
    def identity(self) -> dict[str, Any]:
        """What the run is, with dotted keys."""
        return results.identity(self.record.config)

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
        metrics = self.record.metrics or {}
        primary, chosen = metrics.get("primary") or {}, metrics.get(rule)
        if not isinstance(chosen, dict):
            return None
        if metric == primary.get("name") and split in (None, primary.get("split")):
            return number(chosen.get("value"))
        scores = chosen.get("scores") or {}
        scored = scores.get(primary.get("split") if split is None else split)
        return number(scored.get(metric)) if isinstance(scored, dict) else None


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
        training."""
        path = run.place / HISTORY
        try:
            lines = read_history(run.place)
        except (OSError, UnicodeDecodeError) as error:
            self.report("damaged", path, str(error))
            return []
        points = [
            (line.get("epoch"), line[key])
            for line in lines
            if isinstance(line, dict) and key in line
        ]
        if not all(number(value) is not None for point in points for value in point):
            self.report("damaged", path, f"{key} or epoch is not a number")
            return []
        return [(float(epoch), float(value)) for epoch, value in points]

    def judged(self, run: Run, benchmark: str) -> list[dict[str, Any]]:
        """Every judge's scores of the run's answers to a benchmark."""
        found = []
        for path in sorted((run.place / JUDGEMENTS / benchmark).glob("*.json")):
            try:
                content = json.loads(path.read_text(encoding="utf-8"))
                average = number(content["scores"]["average"])
                judge = content["judge"]["asked"]
            except (OSError, ValueError, LookupError, TypeError) as error:
                self.report("damaged", path, f"no scores of a judge ({error})")
                continue
            if average is not None:
                found.append({"judge": str(judge), "average": average, "path": path})
        return found

    def report(self, kind: str, path: Path, reason: str) -> None:
        """Adds a trouble once."""
        trouble = Trouble(kind, path, " ".join(reason.split()))
        if trouble not in self.troubles:
            self.troubles.append(trouble)


def number(value: Any) -> float | None:
    """A number, or None for anything else."""
    real = isinstance(value, (int, float)) and not isinstance(value, bool)
    return value if real else None


def collect(root: Path) -> Evidence:
    """Reads every finished run below `root`; what cannot be counted costs a line, not the rest."""
    evidence = Evidence(Path(root))
    for path in sorted(evidence.root.rglob(results.RECORD)):
        if _aside(path.parent, evidence.root):
            continue
        try:
            record = results.read(path.parent)
            wrong = list(_wrong(record))
        except (RecordError, OSError) as error:
            kind = _kind(path)
            reason = str(error).removeprefix(f"{path}: ").removeprefix(f"{kind}, ")
            evidence.report(kind, path, reason)
            continue
        contradictions = [] if wrong else list(_contradictions(record))
        if wrong:
            evidence.report("damaged", path, f"unusable {', '.join(wrong)}")
        elif contradictions:
            evidence.report("contradictory", path, "; ".join(contradictions))
        else:
            evidence.runs.append(Run(path.parent, record))
    _part(evidence)
    for path in sorted(evidence.root.rglob(results.FAILURE)):
        if not _aside(path.parent, evidence.root) and not (path.parent / results.RECORD).exists():
            evidence.report("failed", path, _failure(path))
    return evidence


def _aside(place: Path, root: Path) -> bool:
    """True for a run that was moved aside, wherever in its path that shows."""
    return any(mark in part for mark in MOVED_ASIDE for part in place.relative_to(root).parts)


def _kind(path: Path) -> str:
    """Why `results.read` refused a file."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return "damaged"
    if not isinstance(found, dict) or "schema" not in found:
        return "foreign"
    schema = found["schema"]
    if schema == results.SCHEMA:
        return "damaged"
    older = number(schema) is not None and schema < results.SCHEMA
    return "older schema" if older else "foreign"


def _wrong(record: Record) -> Iterator[str]:
    """Yields what lacks the shape that tables and figures rely on."""
    for name in ("adapter", "stored_bytes"):
        if number(record.parameters.get(name)) is None:
            yield f"parameters.{name}"
    for name in ("model", "task", "method"):
        if not isinstance(record.run.get(name), str):
            yield f"run.{name}"
        if not isinstance(record.config.get(name) or {}, dict):
            yield f"config.{name}"
    if record.metrics is not None:
        if not isinstance(record.metrics, dict):
            yield "metrics"
        elif not isinstance(record.metrics.get("primary"), dict):
            yield "metrics.primary"


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
            other = evidence.name(others[0] if run is first else first)
            kind, reason = (
                ("contradictory", f"another result of the very run in {other}; neither counts")
                if differing
                else ("duplicate", f"the very run in {other}, which counts")
            )
            evidence.report(kind, run.place / results.RECORD, reason)
    evidence.runs = sorted(kept, key=lambda run: run.place)


def _at_home(evidence: Evidence, run: Run) -> bool:
    """Whether a run lies where runs of its kind are written."""
    said = run.record.run
    return evidence.name(run).startswith(f"{said['model']}/{said['task']}/{said['method']}/")


def _agree(one: Record, other: Record) -> bool:
    return (one.parameters, one.metrics) == (other.parameters, other.metrics)


def _failure(path: Path) -> str:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        message = f"{found['error']}: {found['message']}"
    except (OSError, ValueError, LookupError, TypeError) as error:
        return f"the failure itself cannot be read ({error})"
    return message[:300]
