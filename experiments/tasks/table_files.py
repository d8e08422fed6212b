"""Tables of the user's own: CSV, TSV, JSON lines or parquet, by pandas' and pyarrow's readers."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.errors import DataError, DataMissing, suggest
from experiments.hub.fingerprints import Files, combine_digests, get_stamp
from experiments.tasks.separated_values import SEPARATORS, decode_text, read_separated

if TYPE_CHECKING:
    import pyarrow

JSON = (".jsonl", ".ndjson", ".json")
ENDINGS = (*SEPARATORS, *JSON, ".parquet")
SPLIT_NAMES = {"train": ("train",), "validation": ("validation", "valid", "val", "dev")}
"""File names of the splits, without ending; parquet may be sharded (train-00000-of-00002)."""


def find_splits(given: str | None, key: str = "task.path") -> dict[str, list[Path]]:
    """Return the files of `train` and, where there is one, of `validation`.

    Args:
        given: a file or a folder of files named after their splits.
        key: setting or option that `given` is the value of, for messages.

    Raises:
        DataMissing: the file or folder does not exist.
        DataError: nothing usable is there.
    """
    allowed = ", ".join(ENDINGS)
    if given is None:
        raise DataError(f"{key}=null: names a file ({allowed}) or a folder of such files")
    path = Path(given).expanduser()
    if not path.exists():
        raise DataMissing(f"{key}={given}: no such file or folder")
    if not path.is_dir():
        if path.suffix not in ENDINGS:
            raise DataError(
                f"{key}={given}: its name ends with {path.suffix or 'nothing'!r} "
                f"(allowed: {allowed})"
            )
        return {"train": [path]}
    files = sorted(item for item in path.iterdir() if item.suffix in ENDINGS and item.is_file())
    found = {
        split: named
        for split, names in SPLIT_NAMES.items()
        if (named := [item for item in files if _read_split_name(item) in names])
    }
    if not found and len(files) == 1:
        return {"train": files}
    problems = [] if "train" in found else [f"no train file ({allowed}) there"]
    for split, named in found.items():
        if len(named) > 1 and {item.suffix for item in named} != {".parquet"}:
            problems.append(f"several files of {split}: {', '.join(item.name for item in named)}")
    if problems:
        there = ", ".join(sorted(item.name for item in path.iterdir())[:12]) or "nothing"
        raise DataError(
            f"{key}={given}: not a folder of one train file and, if you have one, one "
            "validation file",
            [*problems, f"the folder holds: {there}"],
        )
    return found


def _read_split_name(path: Path) -> str:
    """Return `train` of train.csv and of train-00000-of-00002.parquet."""
    return path.name.removesuffix(path.suffix).partition("-")[0].lower()


def list_inputs(given: str | None) -> dict[str, Files]:
    """Return the files of every split, as `Task.inputs` does."""
    return {f"{split} data": Files(paths=paths) for split, paths in find_splits(given).items()}


def read_splits(given: str | None) -> dict[str, pyarrow.Table]:
    """Read every split; see `find_splits` and `read_tables`."""
    return {split: read_tables(paths) for split, paths in find_splits(given).items()}


def compute_hash(given: str | None) -> str:
    """Compute a hash of all files' bytes."""
    paths = [path for found in find_splits(given).values() for path in found]
    return combine_digests(hashlib.sha256(path.read_bytes()).digest() for path in paths)


def find_column_fault(table: pyarrow.Table, key: str, name: str) -> str | None:
    """Return why a table has not exactly one column of this name, None if it has.

    Args:
        table: of the user's.
        key: setting that names the column, for messages.
        name: of the column.
    """
    columns = table.column_names
    if columns.count(name) == 1:
        return None
    if name in columns:
        number = {2: "two"}.get(columns.count(name), columns.count(name))
        return f"{key}={name}: {number} columns named {name!r}, rename all but one"
    there = ", ".join(columns) or "none"
    return f"{key}={name}: no such column (columns: {there}){suggest(name, columns)}"


def read_tables(paths: Sequence[Path]) -> pyarrow.Table:
    """Read the files of a split; the last split read is kept, for whoever asks next.

    Every cell of a CSV or TSV file is text, and an empty one is null.

    Raises:
        DataError: a file cannot be read, or does not fit the others.
    """
    import pyarrow

    tables = [_read_table(path, get_stamp(path)) for path in paths]
    if len(tables) == 1:
        return tables[0]  # concat_tables refuses columns of one name, which may not matter
    try:
        return pyarrow.concat_tables(tables, promote_options="permissive")
    except pyarrow.ArrowException as error:
        raise DataError(
            f"{paths[0].parent}: files of one split that do not fit together ({error})"
        ) from error


@functools.lru_cache(maxsize=2)
def _read_table(path: Path, stamp: tuple[int, ...]) -> pyarrow.Table:
    """Read a file as it is at a time, which `stamp` stands for."""
    import pyarrow

    try:
        if path.suffix in SEPARATORS:
            return read_separated(path)
        if path.suffix in JSON:
            return _read_json(path)
        return _read_parquet(path)
    except DataError:
        raise
    except (ValueError, pyarrow.ArrowException, Warning) as error:  # pandas' are ValueErrors
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{path}: cannot be read ({reason:.300})") from error


def _read_parquet(path: Path) -> pyarrow.Table:
    from pyarrow import parquet, types

    table = parquet.ParquetFile(path).read()
    for place, name in enumerate(table.column_names):
        column = table.column(place)
        if types.is_dictionary(column.type):  # categories of pandas
            table = table.set_column(place, name, column.cast(column.type.value_type))
    return table


def _read_json(path: Path) -> pyarrow.Table:
    import pyarrow
    from pyarrow import json as arrow_json

    text = decode_text(path)
    if not text.lstrip().startswith("["):
        return arrow_json.read_json(pyarrow.BufferReader(text.encode()))
    rows: Any = json.loads(text)
    if not all(isinstance(row, dict) for row in rows):
        raise ValueError("not a list of objects")
    return pyarrow.Table.from_pylist(rows)
