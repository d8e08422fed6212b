"""CSV and TSV files as spreadsheets and people write them; what cannot be read is said by row."""

from __future__ import annotations

import csv
import io
import re
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from experiments.errors import DataError

if TYPE_CHECKING:
    import pyarrow

SEPARATORS = {".csv": ",", ".tsv": "\t"}
OTHERS = (",", ";", "\t", "|")
"""Separators of a file whose header has none of those that its name promises."""
NAMED = re.compile(r"sep=([^\r\n])(?=\r?\n)", re.IGNORECASE)
"""First line by which Excel learns the separator."""
REMEDY = "save it as UTF-8 (in a spreadsheet: 'CSV UTF-8')"
csv.field_size_limit(sys.maxsize)  # texts may be longer than its 131,072 characters


def read_separated(path: Path) -> pyarrow.Table:
    """Read a file with a header; every cell is text, and an empty one is null.

    Columns of one name keep it.

    Raises:
        DataError: the file is not UTF-8, or a row does not fit the header.
    """
    import pandas
    import pyarrow

    text = decode_text(path)
    separator, named = SEPARATORS[path.suffix], NAMED.match(text)
    if named:
        separator, text = named[1], text[named.end() :]  # an empty line stays: it counts
    header, separator = _read_header(text, separator)
    with warnings.catch_warnings():
        # Else rows with more cells than the header lose the last ones.
        warnings.simplefilter("error", pandas.errors.ParserWarning)
        try:
            frame = pandas.read_csv(
                io.StringIO(text, newline=""),
                sep=separator,
                dtype=str,
                keep_default_na=False,  # "NA" and "None" are words
                na_values=[""],
                index_col=False,
            )
        except (ValueError, pandas.errors.ParserWarning):
            _raise_fault(path, text, separator)
            raise
    within = "[\t\n]" if separator == "\t" else "\n"  # a TSV file has no cells of several lines
    broken = frame.apply(lambda column: column.str.contains(within, na=False)).any(axis=1)
    if broken.any():
        _raise_fault(path, text, separator)
        if separator == "\t":
            row = int(broken.to_numpy().argmax()) + 1
            raise DataError(f"{path}: {_describe_quotation(f'row {row}')}")
    table = pyarrow.Table.from_pandas(frame, preserve_index=False).replace_schema_metadata(None)
    if len(header) != len(frame.columns):
        return table
    return table.rename_columns(  # pandas numbers columns of one name
        [
            written if written and header.count(written) > 1 else name
            for name, written in zip(frame.columns, header, strict=True)
        ]
    )


def decode_text(path: Path) -> str:
    """Return the text of a UTF-8 file, with or without a byte order mark.

    Raises:
        DataError: the file has another encoding; names the row.
    """
    content = path.read_bytes()
    if content[:2] in (b"\xff\xfe", b"\xfe\xff") or b"\0" in content[:64]:
        raise DataError(f"{path}: this is UTF-16 (or not text): {REMEDY}")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        place = f"line {line}"
        if path.suffix in SEPARATORS:
            begun = content[: error.start].decode("utf-8-sig") + "?"
            rows = csv.reader(io.StringIO(begun, newline=""))
            number = sum(not _is_blank(row) for row in rows) - 1
            place = f"row {number}" if number else "the header"
            place += f" (line {rows.line_num})"
        byte = content[error.start]
        raise DataError(
            f"{path}: not UTF-8: byte {byte:#x} in {place}, as other encodings write "
            f"{bytes([byte]).decode('cp1252', 'replace')!r}: {REMEDY}"
        ) from error


def _read_header(text: str, separator: str) -> tuple[list[str], str]:
    """Return the names in the header and the separator of the file."""
    first = next((line for line in io.StringIO(text, newline="") if line.strip()), "")
    for one in (separator, *OTHERS):
        if len(next(csv.reader([first], delimiter=one), [])) > 1:
            separator = one
            break
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    return next((row for row in rows if not _is_blank(row)), []), separator


def _is_blank(row: list[str]) -> bool:
    """Return True for a line without text, which counts for nothing."""
    return not row or (len(row) == 1 and not row[0].strip())


def _raise_fault(path: Path, text: str, separator: str) -> None:
    """Raise a DataError about the first row that does not fit, if there is one."""
    fault = _find_fault(text, separator)
    if fault is not None:
        raise DataError(f"{path}: {fault}")


def _find_fault(text: str, separator: str) -> str | None:
    """Describe the first row with too many cells, or with an open quotation mark.

    Rows are counted without the header, as in all messages, and lines as an editor counts them.
    """
    if not text.strip():
        return "cannot be read (it is empty)"
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    number, width = -1, 0
    while True:
        line = rows.line_num + 1
        try:
            row = next(rows)
        except StopIteration:
            return None
        except csv.Error as error:
            number += 1
            spans = rows.line_num > line and "expected after" in str(error)
            if spans or "unexpected end" in str(error):
                place = f"row {number}" if number else "the header"
                return _describe_quotation(f"{place} (line {line})")
            continue
        if _is_blank(row):
            continue
        number, width = number + 1, width or len(row)
        if len(row) > width:
            return (
                f"row {number} (line {line}) has {len(row)} cells, the header {width}: a text with "
                f"{separator!r} in it needs quotation marks around it"
            )


def _describe_quotation(place: str) -> str:
    return (
        f"a quotation mark in {place} opens a cell that goes on over the next lines: close it; "
        'a mark within a text is doubled ("")'
    )
