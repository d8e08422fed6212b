"""Column of labels: classes or numbers, told by its values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from enum import Enum
from typing import Any

from experiments.errors import DataError
from experiments.tasks.image_folder import shorten_list

MOST_CLASSES = 20
"""Different whole numbers up to which a column is taken for classes."""


class LabelKind(Enum):
    """Meaning of a column of labels."""

    classification = "classification"
    regression = "regression"


RULE = (
    f"text is a class; whole numbers are classes if there are at most {MOST_CLASSES} different "
    "ones; numbers with fractions are a regression"
)


def is_readable(kind: Any) -> bool:
    """Return True for types of pyarrow that hold text, truth values or numbers."""
    from pyarrow import types

    text = types.is_string(kind) or types.is_large_string(kind)
    return text or types.is_boolean(kind) or types.is_integer(kind) or types.is_floating(kind)


def parse_labels(column: Any, names: Sequence[str] | None = None) -> list[Any]:
    """Return labels as numbers where all of them are numbers, else as stripped text.

    Args:
        column: pyarrow's, without nulls.
        names: names of the classes, if the file holds their numbers.

    Raises:
        DataError: a number has no name.
    """
    values = column.to_pylist()
    if names is not None:
        hidden = [str(row) for row, v in enumerate(values, 1) if not 0 <= v < len(names)]
        if hidden:
            raise DataError(
                f"task.label: a column with labels outside 0 to {len(names) - 1} in {len(hidden)} "
                f"rows: {shorten_list(hidden)} (leave such rows out)"
            )
        return [names[value] for value in values]
    return parse(values)


def parse(values: Sequence[Any]) -> list[Any]:
    """Return cells as numbers where all of them are numbers, else as stripped text."""
    if any(isinstance(value, bool) for value in values):
        return [str(value) for value in values]
    if not all(isinstance(value, str) for value in values):
        return list(values)
    words = [value.strip() for value in values]
    for number in (int, float):
        try:
            return [number(word) for word in words]
        except ValueError:
            continue
    return words


def find_kind(values: Sequence[Any]) -> LabelKind | None:
    """Return the kind of a column of labels by `RULE`; None if whole numbers are too many."""
    if any(isinstance(value, str) for value in values):
        return LabelKind.classification
    if not all(math.isfinite(value) and value == math.floor(value) for value in values):
        return LabelKind.regression
    return LabelKind.classification if len(set(values)) <= MOST_CLASSES else None


def name_classes(values: Sequence[Any]) -> list[str]:
    """Return the names of the classes: text by alphabet, numbers by size."""
    return list(dict.fromkeys(map(name_class, sorted(set(values)))))


def name_class(value: Any) -> str:
    """Return the name of a class; 1.0 is 1, as a column with fractions elsewhere has it."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
