"""Labelled images in parquet files, as `datasets` writes them or with plain bytes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from experiments.errors import DataError
from experiments.tasks.image_folder import Labelled

LABEL_NAMES = ("label", "labels", "fine_label", "class", "target")
"""Columns tried for the label if neither a setting nor class names decide."""


def read_parquet(
    paths: Sequence[Path], classes: int, label_column: str | None, digest: Any
) -> tuple[Labelled, list[str]]:
    """Read images and labels of parquet files, as `datasets` writes them or with plain bytes.

    Args:
        paths: files of one split.
        classes: number that a column of class names must have to be the label's.
        label_column: name of the label's column, None to find it.
        digest: hash to update with the files' bytes.

    Returns:
        The images, and a line for each problem.
    """
    import pyarrow
    from pyarrow import parquet

    split, problems = Labelled(), []
    for path in paths:
        try:
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
            file = parquet.ParquetFile(path, memory_map=True)
            columns = _find_columns(file.schema_arrow, classes, label_column)
            if isinstance(columns, str):
                problems.append(f"{path.name}: {columns}")
                continue
            image, label = columns
            table = file.read(columns=[image, label])
        except (OSError, pyarrow.ArrowException) as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            problems.append(f"{path}: cannot be read as parquet ({reason})")
            continue
        names = read_class_names(file.schema_arrow).get(label)
        if split.contents and names != split.names:
            problems.append(f"{path.name}: other class names than in {paths[0].name}")
        split.names = names
        labels = table.column(label).to_pylist()
        kinds = {type(one) for one in [*split.labels[:1], *labels] if one is not None}
        if len(kinds) > 1:
            problems.append(f"{path.name}: class names here and class numbers in other files")
            continue
        empty = 0
        for row, content in enumerate(_list_buffers(table.column(image))):
            if content is None or labels[row] is None:
                empty += 1
                continue
            split.contents.append(content)
            split.labels.append(labels[row])
            split.places.append(f"{path.name} row {row}")
        if empty:
            problems.append(f"{path.name}: {empty} rows without image bytes or without label")
    return split, problems


def read_classes(paths: Sequence[Path], label: str | None) -> tuple[str, list[str]]:
    """Return the label's column of parquet files, and the names of its classes.

    Raises:
        DataError: a file cannot be read, or leaves the column unclear.
    """
    import pyarrow
    from pyarrow import parquet

    found: set[Any] = set()
    for path in paths:
        try:
            file = parquet.ParquetFile(path)
            columns = _find_columns(file.schema_arrow, None, label)
            if isinstance(columns, str):
                raise DataError(f"{path}: {columns}")
            label = columns[1]
            names = read_class_names(file.schema_arrow).get(label)
            if names is not None:
                return label, names
            found |= set(file.read(columns=[label]).column(0).drop_null().to_pylist())
        except (OSError, pyarrow.ArrowException) as error:
            raise DataError(f"{path}: cannot be read as parquet ({error})") from error
    numbers = [value for value in found if isinstance(value, int)]
    if numbers:
        return label or "", [str(number) for number in range(max(numbers) + 1)]
    return label or "", sorted(found)


def _find_columns(schema: Any, classes: int | None, label: str | None) -> tuple[str, str] | str:
    """Return the names of the image's and the label's column, or why they are unclear."""
    from pyarrow import types

    there = f"(columns: {', '.join(schema.names) or 'none'})"
    images = [entry.name for entry in schema if _holds_images(entry.type)]
    if len(images) != 1:
        many = f"several columns of images, {', '.join(images)}" if images else "no image column"
        return f"{many} {there}"
    if label is not None:
        if label not in schema.names:
            return f"task.label_column={label}: no such column {there}"
        candidates = [label]
    else:
        noted = read_class_names(schema).items()
        named = [name for name, one in noted if classes in (None, len(one))]
        candidates = named or [name for name in LABEL_NAMES if name in schema.names][:1]
    if len(candidates) != 1:
        many = f"labels could be {' or '.join(candidates)}" if candidates else "no label column"
        return f"{many}; task.label_column=NAME says which {there}"
    kind = schema.field(candidates[0]).type
    if not (types.is_integer(kind) or types.is_string(kind) or types.is_large_string(kind)):
        return f"column {candidates[0]!r} holds {kind}, wanted whole numbers or class names"
    return images[0], candidates[0]


def _holds_images(kind: Any) -> bool:
    from pyarrow import types

    if types.is_struct(kind):
        return any(_holds_images(entry.type) for entry in kind if entry.name == "bytes")
    return types.is_binary(kind) or types.is_large_binary(kind)


def read_class_names(schema: Any) -> dict[str, list[str]]:
    """Return columns of class labels and their class names, from the metadata of `datasets`."""
    try:
        noted = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
        features = noted["info"]["features"].items()
    except (ValueError, LookupError, TypeError, AttributeError):
        return {}  # a note of something else, or none
    return {
        column: feature["names"]
        for column, feature in features
        if column in schema.names
        and isinstance(feature, dict)
        and isinstance(feature.get("names"), list)
    }


def _list_buffers(column: Any) -> Iterator[Any]:
    """Yield buffers of the encoded images: views of the table's memory, not copies."""
    from pyarrow import types

    for chunk in column.chunks:
        values = chunk.field("bytes") if types.is_struct(chunk.type) else chunk
        for value in values:
            yield value.as_buffer() if value.is_valid else None
