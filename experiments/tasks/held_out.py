"""Held-out rows of a table without a validation file."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from experiments.errors import DataError

if TYPE_CHECKING:
    import numpy as np

SPLIT_SEED = 0
"""Seed of the held-out rows: the same for every method and run seed."""
LONGEST = 2**18
"""Bytes up to which a record names the held-out rows of a split; more would make it unreadable."""


def draw_held_out(
    labels: Sequence[Any], share: float, by_class: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Split rows at random into those that stay and a held-out share.

    Args:
        labels: of every row.
        share: between 0 and 1, rounded up; at least one row, and as many as there are
            classes; a rare class may have none.
        by_class: keep the shares of the classes; a class with one row stays.

    Returns:
        Numbers of the rows, in order.

    Raises:
        DataError: there are too few rows.
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
    if size < 1:
        few = "no class has two rows left" if by_class else "there are fewer than two rows"
        raise DataError(f"{few}, so that none can be held out")
    kept, scored = train_test_split(
        several,
        test_size=size,
        random_state=SPLIT_SEED,
        stratify=values[several] if by_class else None,
    )
    return np.sort(np.concatenate([kept, rows[alone]])), np.sort(scored)


def describe(share: float, rows: np.ndarray, split: str = "validation") -> dict[str, Any]:
    """Describe a held-out split for the record; rows are counted from 1, without the header."""
    named = name_rows([str(row + 1) for row in rows], " ")
    return {"split": split, "share": share, "seed": SPLIT_SEED, "rows": named}


def name_rows(names: Sequence[str], separator: str) -> str:
    """Join the names of rows; above `LONGEST` bytes, return their number and a hash instead."""
    named = separator.join(names)
    content = named.encode(errors="surrogateescape")
    if len(content) <= LONGEST:
        return named
    return f"{len(names)} rows, sha256 {hashlib.sha256(content).hexdigest()}"
