"""Rows of an instruction, an optional input and an answer, as Stanford Alpaca's file holds them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.errors import DataError

if TYPE_CHECKING:
    from datasets import Dataset

COLUMNS = ("instruction", "input", "output")


def read_rows(path: Path, task: str) -> tuple[Dataset, str]:
    """Read the rows of a parquet or JSON file, and hash its bytes.

    Args:
        path: the file.
        task: name of the task, for errors.

    Raises:
        DataError: the file cannot be read, or holds other rows.
    """
    import pyarrow
    from datasets import Dataset
    from pyarrow import parquet

    try:
        content = path.read_bytes()
        if path.suffix == ".parquet":
            table = parquet.ParquetFile(pyarrow.BufferReader(content)).read()
        else:
            table = pyarrow.Table.from_pylist(_parse_objects(content))
    except (OSError, ValueError, RecursionError, OverflowError, pyarrow.ArrowException) as error:
        raise DataError(f"{path}: cannot be read as {path.suffix[1:]} ({error})") from error
    wrong = [
        f"no column {name!r} (columns: {', '.join(table.column_names) or 'none'})"
        for name in COLUMNS
        if name not in table.column_names
    ]
    wrong = wrong or list(_find_faults(table))
    if wrong:
        raise DataError(f"{path}: not the rows of task={task}", wrong)
    plain = table.select(list(COLUMNS)).replace_schema_metadata(None)
    return Dataset(plain), hashlib.sha256(content).hexdigest()


def _parse_objects(content: bytes) -> list[dict[str, Any]]:
    """Return the rows of a JSON file; ValueError if it holds anything else."""
    found = json.loads(content)
    if not isinstance(found, list):
        kind = (
            f"one object with {', '.join(list(found)[:5])}" if isinstance(found, dict) else "none"
        )
        raise ValueError(f"wanted a list of objects, one per row, there is {kind}")
    for number, row in enumerate(found, 1):
        if not isinstance(row, dict):
            raise ValueError(f"wanted a list of objects, entry {number} is {json.dumps(row)[:40]}")
    return found


def _find_faults(table: Any) -> Iterator[str]:
    """Yield columns that are not all text, and the lack of rows."""
    from pyarrow import types

    if not len(table):
        yield "no rows"
    for name in COLUMNS:
        column = table.column(name)
        if not (types.is_string(column.type) or types.is_large_string(column.type)):
            yield f"column {name!r} holds {column.type}, wanted text"
        elif column.null_count:
            yield f"column {name!r} is empty in {column.null_count} rows"
