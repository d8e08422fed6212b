"""Bounds that every number of a run keeps, whatever it means."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any

LARGEST = 2**31 - 1
"""Of whole numbers: what no library beneath cuts or refuses."""


def find(value: Any, key: str) -> Iterator[str]:
    """Yields a line for each number within a dataclass that no run can work with.

    Args:
        value: a field's value; mappings are left alone, they are for other libraries.
        key: its dotted key, "" for the whole configuration.
    """
    if is_dataclass(value):
        for field in fields(value):
            yield from find(getattr(value, field.name), f"{key}.{field.name}".lstrip("."))
    elif isinstance(value, list | tuple):
        if any(line for entry in value for line in find(entry, key)):
            yield f"{key}={value}: must hold finite numbers of up to {LARGEST:,}"
    elif isinstance(value, int) and abs(value) > LARGEST:
        yield f"{key}={value}: must be at most {LARGEST:,}"
    elif isinstance(value, float) and not math.isfinite(value):
        yield f"{key}={value}: must be finite"
