"""A shown table or figure: text for people, rows for machines, and sometimes a picture."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.results import write_atomically

NOT_RUN = "not run"


@dataclass(frozen=True, kw_only=True)
class Page:
    """One artefact as it is printed and written."""

    text: str
    """GitHub-flavoured Markdown; also what the terminal shows."""
    rows: list[dict[str, Any]]
    """Raw numbers; the keys of the first row are the columns of the csv file, None is
    an empty cell."""
    draw: Callable[[Path], None] | None = None
    """Writes the picture to a path, as PNG."""

    def write(self, folder: Path, name: str) -> list[Path]:
        """Writes <name>.md, .csv and, where there is a picture, .png; returns what was written."""
        folder.mkdir(parents=True, exist_ok=True)
        paths = [folder / f"{name}.md", folder / f"{name}.csv"]
        write_atomically(paths[0], self.text)
        write_atomically(paths[1], self._csv())
        if self.draw is not None:
            paths.append(folder / f"{name}.png")
            draft = folder / f".{name}.draft.png"
            self.draw(draft)
            os.replace(draft, paths[-1])
        return paths

    def _csv(self) -> str:
        text = io.StringIO()
        writer = csv.DictWriter(text, list(self.rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        return text.getvalue()


def heading(facts: dict[str, Any]) -> list[str]:
    """Title, claim and source of a table or figure as Markdown lines."""
    kind = "Table" if "table" in facts else "Figure"
    return [
        f"# {kind} {facts[kind.lower()]}: {facts['title']}",
        "",
        f"The paper: {facts['claim']}",
        "",
        f"Source: {facts['source']}.",
        "",
    ]


def table(
    columns: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[str] = ()
) -> list[str]:
    """A Markdown table whose columns also line up as plain text.

    Args:
        columns: header.
        rows: cells as text.
        right: columns set to the right, for numbers.
    """
    cells = [[cell.replace("|", "\\|") for cell in row] for row in (columns, *rows)]
    widths = [max(3, *(len(row[place]) for row in cells)) for place in range(len(columns))]
    rule = [
        "-" * (width - 1) + ":" if name in right else "-" * width
        for name, width in zip(columns, widths, strict=True)
    ]
    lines = []
    for row in (cells[0], rule, *cells[1:]):
        placed = [
            cell.rjust(width) if name in right else cell.ljust(width)
            for name, cell, width in zip(columns, row, widths, strict=True)
        ]
        lines.append(f"| {' | '.join(placed)} |")
    return lines


def troubles(damaged: Sequence[str]) -> list[str]:
    """Markdown lines that list files which could not be read; none if all could."""
    return (
        ["", "Left out, cannot be read:", "", *(f"- {line}" for line in damaged)] if damaged else []
    )
