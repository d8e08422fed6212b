"""Bounds of every number of a run, whatever its meaning."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any

MAX_MAGNITUDE = 2**31 - 1
"""Largest integer that no library truncates or rejects."""


def find_violations(value: Any, key: str) -> Iterator[str]:
    """Yield a line for each number of a dataclass that is out of bounds.

    Args:
        value: value of a field; mappings are skipped, they are for other libraries.
        key: dotted key, "" for the whole configuration.
    """
    if is_dataclass(value):
        for field in fields(value):
            yield from find_violations(
                getattr(value, field.name), f"{key}.{field.name}".lstrip(".")
            )
    elif isinstance(value, list | tuple):
        if any(line for entry in value for line in find_violations(entry, key)):
            yield f"{key}={value}: must hold finite numbers of up to {MAX_MAGNITUDE:,}"
    elif isinstance(value, int) and abs(value) > MAX_MAGNITUDE:
        yield f"{key}={value}: must be at most {MAX_MAGNITUDE:,}"
    elif isinstance(value, float) and not math.isfinite(value):
        yield f"{key}={value}: must be finite"
