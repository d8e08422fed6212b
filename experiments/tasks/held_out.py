"""Held-out rows of a table without a validation file."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

SPLIT_SEED = 0
"""Seed of the held-out rows: the same for every method and run seed."""


def draw_held_out(
    labels: Sequence[Any], share: float, by_class: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Split rows at random into those that stay and a held-out share.

    Args:
        labels: of every row.
        share: between 0 and 1, rounded up; at least one row, and of classes one each.
        by_class: keep the shares of the classes; a class with one row stays.

    Returns:
        Numbers of the rows, in order.
    """
    import numpy as np
    from sklearn.model_selection import train_test_split

    values = np.asarray(labels)
    rows = np.arange(len(values))
    alone: np.ndarray = np.zeros(len(values), bool)
    if by_class:
        _, number, count = np.unique(values, return_inverse=True, return_counts=True)
        alone = count[number] == 1
    several = rows[~alone]
    least = len(np.unique(values[several])) if by_class else 1
    size = min(max(math.ceil(share * len(values)), least), len(several) - least)
    kept, scored = train_test_split(
        several,
        test_size=size,
        random_state=SPLIT_SEED,
        stratify=values[several] if by_class else None,
    )
    return np.sort(np.concatenate([kept, rows[alone]])), np.sort(scored)


def describe(share: float, rows: np.ndarray, split: str = "validation") -> dict[str, Any]:
    """Describe a held-out split for the record; rows are counted from 1, without the header."""
    named = " ".join(str(row + 1) for row in rows)
    return {"split": split, "share": share, "seed": SPLIT_SEED, "rows": named}
