"""What differs from a recipe, as the name of a folder."""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any


def variant(changes: dict[str, Any]) -> str:
    """Folder name for what differs from the recipe; a hash where it would be too long or odd."""
    ends = [key.rpartition(".")[2] for key in changes]
    parts = []
    for (key, value), end in sorted(zip(changes.items(), ends, strict=True)):
        parts.append(f"{end if ends.count(end) == 1 else key}={_shown(value)}")
    text = ",".join(parts)
    name = re.sub(r"[^\w.,=+-]+", "_", text)
    if len(name) > 100 or name != text:
        name = f"{name[:80]}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
    return name


def _shown(value: Any) -> str:
    """A value in a folder name; numbers exactly, so that two learning rates never share one."""
    if isinstance(value, float):
        return f"{value:g}" if float(f"{value:g}") == value else repr(value)
    return value if isinstance(value, str) else json.dumps(value)
