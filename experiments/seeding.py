"""Random streams of a run: head, adapter, data order and dropout never share draws."""

from __future__ import annotations

import hashlib


def stream(seed: int, name: str) -> int:
    """Seed of one random stream of a run: head, adapter, data and dropout never share draws."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{name}".encode()).digest()[:4])
