"""Types of the entries of lists, and bounds of every number of a run, whatever its meaning."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any, get_args, get_origin, get_type_hints

MAX_MAGNITUDE = 2**31 - 1
"""Largest integer that no library truncates or rejects."""
LISTED: dict[type, tuple[type, ...]] = {float: (float, int), int: (int,), str: (str,)}
"""Types that an entry of a list may have, by the type of its field."""


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


def find_mistyped(part: Any, prefix: str = "") -> Iterator[str]:
    """Yield every list with entries of the wrong type.

    OmegaConf lets them pass where a whole list is replaced.
    """
    hints = get_type_hints(type(part))
    for entry in fields(part):
        value, key = getattr(part, entry.name), f"{prefix}{entry.name}"
        if is_dataclass(value):
            yield from find_mistyped(value, f"{key}.")
        elif isinstance(value, list):
            for hint in (hints[entry.name], *get_args(hints[entry.name])):
                kind = (get_args(hint) or (None,))[0] if get_origin(hint) is list else None
                if kind in LISTED and not all(type(one) in LISTED[kind] for one in value):
                    yield f"{key}={value!r:.200}: must be a list of {kind.__name__}"
