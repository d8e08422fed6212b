"""Fields that identify a run, and its folder named after them."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from enum import Enum
from pathlib import Path
from typing import Any

LOCAL = {"local": True}
"""Metadata of a field that only says where or how a run is computed, and does not identify it."""

BEFORE = "before"
"""Metadata key of a later field: the value that records without it were computed with."""


def find_local(*kinds: type) -> frozenset[str]:
    """Return the names of the local fields of dataclasses."""
    return frozenset(
        entry.name
        for kind in kinds
        for entry in dataclasses.fields(kind)
        if entry.metadata.get("local")
    )


def to_plain(value: Any) -> Any:
    """Convert dataclasses, enums and paths to JSON values."""
    if dataclasses.is_dataclass(value):
        return {
            entry.name: to_plain(getattr(value, entry.name)) for entry in dataclasses.fields(value)
        }
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, dict):
        return {str(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    """Flatten nested mappings into one with dotted keys."""
    if isinstance(value, dict) and (value or not prefix):
        return {
            key: leaf
            for name, item in value.items()
            for key, leaf in flatten(item, f"{prefix}{name}.").items()
        }
    return {prefix.rstrip("."): value}


def get_run_dir(config: Any) -> Path:
    """Return output/model/task/method[/variant]/seed=s."""
    run_dir = Path(config.output) / config.model.name / config.task.name / config.method.name
    return (run_dir / config.variant if config.variant else run_dir) / f"seed={config.seed}"


def name_variant(changes: dict[str, Any]) -> str:
    """Return the folder name of differences from the recipe, with a hash if too long or odd."""
    ends = [key.rpartition(".")[2] for key in changes]
    parts = []
    for (key, value), end in sorted(zip(changes.items(), ends, strict=True)):
        parts.append(f"{end if ends.count(end) == 1 else key}={_format_value(value)}")
    text = ",".join(parts)
    name = re.sub(r"[^\w.,=+-]+", "_", text)
    if len(name) > 100 or name != text:
        name = f"{name[:80]}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
    return name


def _format_value(value: Any) -> str:
    """Format a value for a folder name; numbers exactly, so that learning rates never collide."""
    if isinstance(value, float):
        return f"{value:g}" if float(f"{value:g}") == value else repr(value)
    return value if isinstance(value, str) else json.dumps(value)
