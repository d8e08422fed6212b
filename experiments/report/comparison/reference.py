"""Printed numbers of the paper: the files of experiments/reference, one per table or figure."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import yaml

from experiments.errors import RecordError

REFERENCE = Path(__file__).resolve().parents[2] / "reference"
ABOUT = ("claims", "costs", "deviations", "protocols", "weights")
"""Files about the tables that are not tables themselves."""

COUNTS = {"": 1, "k": 1000, "K": 1000, "M": 1000**2}
STORAGE = {"KB": 1024, "MB": 1024**2}
"""Bytes of the units of the paper's storage column."""
UNKNOWN_PROTOCOL: dict[str, Any] = {
    **{"statistic": "mean", "spread": None, "runs": None, "seeds": None, "select": "best"},
    "said": "nothing",
    "open": "the number of runs, their seeds and the choice of the epoch, so no verdict is given",
}
"""Protocol of a table without an entry in protocols.yaml."""
TABLE_KEYS = ("title", "source", "claim", "run", "rows")
"""Keys that the file of a table of scores must have."""
COLUMN_KEYS = ({"columns"}, {"task", "benchmarks"}, {"task", "metrics"})
"""Sets of keys of which one names the columns, beside `order` with `metric` or `metrics`."""


def names() -> list[str]:
    """Return every table and figure with a reference file, in the paper's order, then the text."""
    found = [path.stem for path in REFERENCE.glob("*.yaml") if path.stem not in ABOUT]
    return sorted(found, key=_order)


def _order(name: str) -> tuple[int, int, str]:
    kind = name.rstrip("0123456789")
    number = name[len(kind) :]
    kinds = ("table", "figure")
    return kinds.index(kind) if number and kind in kinds else 2, int(number or 0), name


def load(name: str) -> dict[str, Any]:
    """Read the reference file of a table or figure, a table's together with its protocol.

    Raises:
        RecordError: the file is missing, or not a YAML mapping.
    """
    facts = _read(name)
    if isinstance(facts.get("datasets"), str):  # the name of the table that has them
        facts = {**facts, "datasets": _read(facts["datasets"]).get("datasets")}
    protocol = protocols().get(name)
    return facts if protocol is None else {**protocol.get("form", {}), **facts, "how": protocol}


def costs() -> dict[str, Any]:
    """Return the facts behind the forecast of GPU hours, and the authors' own costs."""
    return _read("costs")


def deviations() -> dict[str, Any]:
    """Return where this project differs from the paper, or chose what it leaves open."""
    return _read("deviations")


def load_table(name: str) -> dict[str, Any]:
    """As `load`, of a table of scores: complete, and with `UNKNOWN_PROTOCOL` if it has no other.

    Raises:
        RecordError: it cannot be read, or lacks keys.
    """
    facts = load(name)
    wrong = list(_incomplete(facts))
    if wrong:
        raise RecordError(f"{REFERENCE / name}.yaml: not a complete table", wrong)
    return {"how": UNKNOWN_PROTOCOL, **facts}


def _incomplete(facts: dict[str, Any]) -> Iterator[str]:
    for key in TABLE_KEYS:
        if not facts.get(key):
            yield f"{key}: missing"
    rows = facts.get("rows") or ()
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        yield "rows: must be a list of mappings"
    else:
        for number, row in enumerate(rows, 1):
            missing = [key for key in ("model", "method") if key not in row]
            if missing:
                yield f"row {number}: no {' and '.join(missing)}"
    if "order" in facts and not {"metric", "metrics"} & facts.keys():
        yield "metric: missing (the metric of the tasks in `order`)"
    if "order" not in facts and not any(keys <= facts.keys() for keys in COLUMN_KEYS):
        yield "order: missing (the tasks of the columns; else `columns`, or `task` with `metrics`)"


def protocols() -> dict[str, Any]:
    """Read the protocol of each table's numbers."""
    return _read("protocols")


def weights(facts: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return repository and fingerprint of the base models of a reference; the paper's by default.

    Args:
        facts: with `weights`, if it is about other base models (`other_networks`).
    """
    return (facts or {}).get("weights") or _read("weights")


def claims() -> list[dict[str, Any]]:
    """Read the claims that rest on tables."""
    return _read("claims")["claims"]


def _read(name: str) -> dict[str, Any]:
    path = REFERENCE / f"{name}.yaml"
    try:
        return _parsed(path, path.stat().st_mtime_ns)
    except (OSError, UnicodeDecodeError, yaml.YAMLError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise RecordError(f"{path}: the paper's numbers cannot be read ({reason})") from error


@functools.cache
def _parsed(path: Path, changed: int) -> dict[str, Any]:
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    facts = yaml.load(path.read_text(encoding="utf-8"), Loader=loader)
    if not isinstance(facts, dict):
        raise TypeError("no mapping")
    return facts


def count(printed: str) -> tuple[str, int]:
    """Split a printed count into digits and the value of its unit: 8.39M -> ("8.39", 1000000)."""
    unit = printed[-1] if printed[-1] in COUNTS else ""
    return printed.removesuffix(unit), COUNTS[unit]


def agrees(digits: str, worth: int, exact: float) -> bool:
    """Return True if an exact number rounds to the printed digits; ties may round either way.

    Args:
        digits: as printed, without unit.
        worth: value of the printed unit, for example 1024 (bytes) for KB.
        exact: in units of one.
    """
    printed = Decimal(digits)
    half = Decimal((0, (5,), printed.as_tuple().exponent - 1))  # of the last digit
    return abs(Decimal(exact) / worth - printed) <= half
