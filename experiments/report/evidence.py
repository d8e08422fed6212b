"""What came out: the finished runs below a folder, and what there could not be read."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from experiments import results
from experiments.errors import RecordError
from experiments.results import Record
from experiments.tracking import HISTORY, read_history


@dataclass(frozen=True)
class Run:
    """A finished run and where it lies."""

    place: Path
    record: Record

    @property
    def values(self) -> dict[str, Any]:
        """Configuration, parameters, metrics and time of the record as one mapping with
        dotted keys."""
        parts = {name: getattr(self.record, name) for name in ("parameters", "metrics", "time")}
        return results.flatten({**self.record.config, **parts})


@dataclass
class Evidence:
    """All finished runs of an output folder."""

    root: Path
    runs: list[Run] = field(default_factory=list)
    """In path order."""
    damaged: list[str] = field(default_factory=list)
    """One line per file that could not be read, with its name."""

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
        try:
            lines = read_history(run.place)
        except (OSError, UnicodeDecodeError) as error:
            self._report(f"{run.place / HISTORY}: damaged ({error})")
            return []
        points = [
            (line.get("epoch"), line[key])
            for line in lines
            if isinstance(line, dict) and key in line
        ]
        if not all(_is_number(value) for point in points for value in point):
            self._report(f"{run.place / HISTORY}: damaged, {key} or epoch is not a number")
            return []
        return [(float(epoch), float(value)) for epoch, value in points]

    def _report(self, message: str) -> None:
        if message not in self.damaged:
            self.damaged.append(message)


def collect(root: Path) -> Evidence:
    """Reads every finished run below `root`; a damaged record costs a message, not the others."""
    evidence = Evidence(Path(root))
    for path in sorted(evidence.root.rglob(results.RECORD)):
        if ".replaced-" in path.parent.name:
            continue
        try:
            record = results.read(path.parent)
            _check(path, record)
        except (RecordError, OSError) as error:
            evidence.damaged.append(" ".join(str(error).split()))
        else:
            evidence.runs.append(Run(path.parent, record))
    return evidence


def _check(path: Path, record: Record) -> None:
    """Raises RecordError unless the record has the shape that tables and figures rely on."""
    wrong = [
        name
        for name in ("run", "config", "parameters", "time")
        if not isinstance(getattr(record, name), dict)
    ]
    if not wrong:
        wrong = [
            f"parameters.{name}"
            for name in ("adapter", "stored_bytes")
            if not _is_number(record.parameters.get(name))
        ]
    if wrong:
        raise RecordError(f"{path}: damaged, unusable {', '.join(wrong)}")


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
