"""Column of labels: classes or numbers, told by its values."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from enum import Enum
from typing import Any

from experiments.errors import DataError
from experiments.tasks.image_folder import shorten_list

MOST_CLASSES = 20
"""Different whole numbers up to which a column is taken for classes."""
ROWS_A_CLASS = 5
"""Rows of each class on average below which more than two classes look like a mistake."""
_DECIMAL_COMMA = re.compile(r"[-+]?\d+,\d+")


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


def find_mixture(values: Sequence[Any]) -> Iterator[str]:
    """Yield why text is not taken for classes: most labels are numbers, and not a few whole ones.

    Args:
        values: labels of all rows, as `parse` returns them.
    """
    numbers = [number for value in values if (number := read_number(value)) is not None]
    mixed = any(isinstance(value, str) for value in values)
    of_classes = find_kind(numbers) is LabelKind.classification
    if mixed and 2 * len(numbers) > len(values) and not of_classes:
        yield _count_numbers(values)
        yield "mend or leave out these rows; task.kind=classification takes all labels for classes"


def describe_strays(values: Sequence[Any]) -> Iterator[str]:
    """Yield the rows of labels that are not numbers, and of decimal commas."""
    rows = [(row, value) for row, value in enumerate(values, 1) if not _is_number(value)]
    for comma in (False, True):
        found = [f"row {row} is {value!r:.60}" for row, value in rows if _has_comma(value) == comma]
        if found:
            yield shorten_list(found, 3) + " (decimal comma? write 0.5, not 0,5)" * comma


def find_oddities(values: Sequence[Any]) -> Iterator[str]:
    """Yield a line for each sign that classes are not what was meant.

    Args:
        values: labels of all rows, as `parse` returns them.
    """
    names = [name_class(value) for value in values]
    rows = Counter(names)
    if len(rows) > 2 and len(values) < ROWS_A_CLASS * len(rows):
        yield (
            f"{len(rows)} classes in {len(values)} rows: another column, or task.kind=regression?"
        )
    alone = [f"{name!r:.60} (row {row})" for row, name in enumerate(names, 1) if rows[name] == 1]
    if alone:
        yield f"classes with one row: {shorten_list(alone)}"
    alike: dict[str, list[str]] = {}
    for name in rows:
        alike.setdefault(" ".join(name.split()).casefold(), []).append(name)
    pairs = [" beside ".join(f"{one!r:.60}" for one in same) for same in alike.values() if same[1:]]
    if pairs:
        yield f"classes that differ by case or blanks alone: {shorten_list(pairs)}"
    numbers = sum(map(_is_number, values))
    if 2 * numbers > len(values) > numbers:
        yield _count_numbers(values)


def read_number(value: Any) -> float | None:
    """Return the number that a label is, with a decimal comma too; None for text."""
    try:
        return float(value.replace(",", ".") if _has_comma(value) else value)
    except ValueError:
        return None


def _count_numbers(values: Sequence[Any]) -> str:
    numbers = sum(map(_is_number, values))
    counted = [f"{numbers} of {len(values)} labels are numbers"] if numbers else []
    return "; ".join([*counted, *describe_strays(values)])


def _is_number(value: Any) -> bool:
    return not _has_comma(value) and read_number(value) is not None


def _has_comma(value: Any) -> bool:
    return isinstance(value, str) and _DECIMAL_COMMA.fullmatch(value) is not None


def name_classes(values: Sequence[Any]) -> list[str]:
    """Return the names of the classes: text by alphabet, numbers by size."""
    return list(dict.fromkeys(map(name_class, sorted(set(values)))))


def name_class(value: Any) -> str:
    """Return the name of a class; 1.0 is 1, as a column with fractions elsewhere has it."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
