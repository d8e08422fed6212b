"""What the paper printed: the files of experiments/reference, one per table or figure."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import yaml

from experiments.errors import RecordError

REFERENCE = Path(__file__).resolve().parent.parent / "reference"
REPORT = Path(__file__).resolve().parent

OWN = ("runs",)
"""Pages about our runs alone, which have no reference file."""

COUNTS = {"": 1, "K": 1000, "M": 1000**2}
STORAGE = {"KB": 1024, "MB": 1024**2}
"""Bytes of the units that the paper's storage is in."""


def names() -> list[str]:
    """Every table and figure that has both a reference file and a module here, then our
    own pages."""
    known = [path.stem for path in REFERENCE.glob("*.yaml")]
    return [*sorted(name for name in known if (REPORT / f"{name}.py").exists()), *OWN]


def load(name: str) -> dict[str, Any]:
    """Reads a table's or figure's reference file; a page of our own has none.

    Raises:
        RecordError: it is not there, or not a mapping in YAML.
    """
    if name in OWN:
        return {}
    path = REFERENCE / f"{name}.yaml"
    try:
        facts = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise RecordError(f"{path}: the paper's numbers cannot be read ({reason})") from error
    if not isinstance(facts, dict):
        raise RecordError(f"{path}: the paper's numbers cannot be read (no mapping)")
    return facts


def count(printed: str) -> tuple[str, int]:
    """A printed count as digits and what its unit is worth: 8.39M -> ("8.39", 1000000)."""
    unit = printed[-1] if printed[-1] in COUNTS else ""
    return printed.removesuffix(unit), COUNTS[unit]


def agrees(digits: str, worth: int, exact: float) -> bool:
    """Whether printed digits are an exact number rounded to them; at a tie either way counts.

    Args:
        digits: as printed, without unit.
        worth: of the printed unit, for example 1024 (bytes) for KB.
        exact: in units of one.
    """
    printed = Decimal(digits)
    half = Decimal((0, (5,), printed.as_tuple().exponent - 1))  # of the last digit
    return abs(Decimal(exact) / worth - printed) <= half
