"""Files of the E2E challenge: meaning representations and their reference texts."""

from __future__ import annotations

import csv
import hashlib
import io
import re
from collections.abc import Iterator
from pathlib import Path

from experiments.errors import DataError

ROWS = {"train": 42061, "validation": 4672, "test": 4693}
"""Rows of the challenge's data, which the paper uses (its appendix A: about 42000, 4600, 4600)."""
MEANINGS = 630
"""Distinct meanings of the test rows."""
COLUMNS = {
    "parquet": ("meaning_representation", "human_reference"),
    "csv": ("mr", "ref"),
}
CSV = {"train": "trainset.csv", "validation": "devset.csv", "test": "testset_w_refs.csv"}
ATTRIBUTES = {"eatType": "Type", "priceRange": "price", "familyFriendly": "family friendly"}
"""Attributes with another name in the data of microsoft/LoRA."""
_ATTRIBUTE = re.compile(r"\s*([^\[\],\s][^\[\],]*)\[([^\[\]]*)\](?:,|\s*$)")

FORMAT = 1
"""Version of `linearise`, so that cached tokens of an earlier format are not used."""

MeaningPair = tuple[str, str]
"""Meaning and reference."""


def find_files(folder: Path, place: str) -> dict[str, Path]:
    """Find one file per split: parquet, as in a folder or on the hub, or the challenge's CSV.

    Args:
        folder: folder of the files.
        place: name of the folder in error messages.

    Raises:
        DataError: splits without a file.
    """
    found: dict[str, Path] = {}
    for split in ROWS:
        names = (f"{split}.parquet", f"default/{split}/0000.parquet", CSV[split])
        present = [folder / name for name in names if (folder / name).is_file()]
        if present:
            found[split] = present[0]
    missing = [
        f"no {split}.parquet and no {CSV[split]} there" for split in ROWS if split not in found
    ]
    if "test" not in found and (folder / "testset.csv").is_file():
        missing.append("testset.csv holds no references, so nothing could be scored with it")
    if missing:
        names_there = sorted(item.name for item in folder.iterdir())[:12]
        missing.append(f"the folder holds: {', '.join(names_there) or 'nothing'}")
        raise DataError(f"{place}: not E2E's data", missing)
    return found


def read(paths: dict[str, Path], place: str) -> tuple[dict[str, list[MeaningPair]], str]:
    """Read the rows of every split, and hash the files' bytes.

    Raises:
        DataError: unreadable files, missing columns, empty cells, all at once.
    """
    splits, problems, digest = {}, [], hashlib.sha256()
    for split, path in paths.items():
        try:
            content = path.read_bytes()
            digest.update(content)
            splits[split] = _parse_rows(content, path.suffix.removeprefix("."))
        except (OSError, DataError) as error:
            problems.append(f"{path.name}: {error}")
    if problems:
        raise DataError(f"{place}: wrong data", problems)
    return splits, digest.hexdigest()


def find_differences(splits: dict[str, list[MeaningPair]]) -> Iterator[str]:
    """Yield the counts in which these rows differ from the paper's."""
    for split, rows in splits.items():
        if len(rows) != ROWS[split]:
            yield f"{len(rows)} {split} rows, the paper's data have {ROWS[split]}"
    distinct = len({given for given, _ in splits["test"]})
    if distinct != MEANINGS:
        yield f"{distinct} distinct meanings to test, the paper's data have {MEANINGS}"


def linearise(meaning: str) -> str:
    """Rewrite 'name[Zizzi], eatType[pub]' as 'name : Zizzi | Type : pub'.

    The format is that of microsoft/LoRA's files, the words are the challenge's own: those files
    put spaces around punctuation.

    Raises:
        DataError: the text is not a list of attributes.
    """
    parts, position = [], 0
    while position < len(meaning):
        found = _ATTRIBUTE.match(meaning, position)
        if found is None:
            raise DataError(f"not a meaning representation, name[value], ...: {meaning!r}")
        name, value = found.groups()
        parts.append(f"{ATTRIBUTES.get(name, name)} : {value}")
        position = found.end()
    return " | ".join(parts)


def _parse_rows(content: bytes, kind: str) -> list[MeaningPair]:
    """Read the rows of a file; DataError for damage, missing columns and empty cells."""
    given, wanted = COLUMNS[kind]
    if kind == "csv":
        try:
            lines = list(csv.DictReader(io.StringIO(content.decode("utf-8-sig"), newline="")))
        except (UnicodeDecodeError, csv.Error) as error:
            raise DataError(f"cannot be read as CSV ({error})") from error
        columns = {name for line in lines[:1] for name in line}
        table = {
            name: [line[name] for line in lines] for name in (given, wanted) if name in columns
        }
    else:
        import pyarrow
        from pyarrow import parquet

        try:
            found = parquet.ParquetFile(pyarrow.BufferReader(content)).read()
        except (OSError, pyarrow.ArrowException) as error:
            reason = str(error).strip().partition("\n")[0]
            raise DataError(f"cannot be read as parquet ({reason})") from error
        columns = set(found.column_names)
        table = {
            name: found.column(name).to_pylist() for name in (given, wanted) if name in columns
        }
    missing = [name for name in (given, wanted) if name not in table]
    if missing:
        there = ", ".join(sorted(map(str, columns))) or "none"
        raise DataError(f"no column {', '.join(map(repr, missing))} (columns: {there})")
    rows = list(zip(table[given], table[wanted], strict=True))
    if not rows:
        raise DataError("no rows")
    empty = [
        number
        for number, row in enumerate(rows, 1)
        if not all(isinstance(text, str) and text.strip() for text in row)
    ]
    if empty:
        raise DataError(
            f"{len(empty)} of {len(rows)} rows lack {given} or {wanted}, first row {empty[0]}"
        )
    for meaning in dict(rows):
        try:
            linearise(meaning)
        except DataError as error:
            number = next(number for number, row in enumerate(rows, 1) if row[0] == meaning)
            raise DataError(f"row {number}: {error}") from error
    return rows
