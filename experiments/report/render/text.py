"""Pages as Markdown (also shown in the terminal), csv and LaTeX.

Not by pandas: its Markdown leaves `|` in cells unescaped and its LaTeX needs booktabs, for fifteen
lines less and half a second of import.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Sequence
from typing import Any

from experiments.report.comparison.verdict import Verdict
from experiments.report.render.document import (
    Block,
    Cell,
    Heading,
    Items,
    Page,
    Picture,
    Prose,
    Ruled,
    Shown,
    Table,
    pieces,
)

_CODE = re.compile(r"(`[^`\n]+`)")
_TAG = re.compile(r"<(?=[a-zA-Z/!?])")
_LINK = re.compile(r"\]([(\[])")
_SPECIAL = {
    **{letter: f"\\{letter}" for letter in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "−": "$-$",
    "<": "$<$",
    ">": "$>$",
}


def markdown(page: Page) -> str:
    """Render GitHub-flavored Markdown whose tables also line up as plain text.

    Markup in the text of records is escaped.
    """
    parts = [f"# {page.title}"]
    parts += ["\n".join(_lines(block, page.rule)) for block in page.blocks]
    return "\n\n".join(part for part in parts if part) + "\n"


def separated(page: Page) -> str:
    """Render the page's raw numbers as csv; None is an empty cell, and text is never a formula."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(page.rows[0]) if page.rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: _inert(value) for key, value in row.items()} for row in page.rows)
    return text.getvalue()


def _inert(value: Any) -> Any:
    """Put an apostrophe before text that a spreadsheet would compute as a formula."""
    formula = isinstance(value, str) and value.lstrip().startswith(("=", "+", "-", "@"))
    return f"'{value}" if formula else value


def _tame(text: str) -> str:
    """Escape tags, links and images in Markdown, except in code.

    Adjacent backticks follow other rules; such text is treated as having no code.
    """
    parts = [text] if "``" in text else _CODE.split(text)
    return "".join(
        part if place % 2 else _LINK.sub(r"]\\\1", _TAG.sub("&lt;", part))
        for place, part in enumerate(parts)
    )


def latex(page: Page) -> str:
    """Render the page's tables for LaTeX, without packages; its pictures need graphicx."""
    parts = [f"% {page.title}"]
    for block in page.blocks:
        if isinstance(block, Table):
            parts.append(_tabular(block, page.rule))
        elif isinstance(block, Picture):
            parts.append(
                "\\begin{figure}\n  \\centering\n"
                f"  \\includegraphics[width=\\linewidth]{{{block.name}.png}}\n"
                f"  \\caption{{{escaped(block.caption)}}}\n\\end{{figure}}"
            )
    return "\n\n".join(parts) + "\n"


def escaped(text: str) -> str:
    """Escape LaTeX's special characters."""
    return "".join(_SPECIAL.get(letter, letter) for letter in text.replace("**", ""))


def plain(cell: Cell, rule: str) -> str:
    """Return a cell as one line of text."""
    text = " ".join(filter(None, (_piece(piece, rule) for piece in pieces(cell))))
    return " ".join(text.splitlines())


def grid(
    columns: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[str] = ()
) -> list[str]:
    """Return a Markdown table whose columns also line up as plain text.

    Args:
        columns: header.
        rows: cells as text.
        right: right-aligned columns, for numbers.
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


def _piece(piece: str | Shown | Ruled, rule: str) -> str:
    if isinstance(piece, Ruled):
        piece = piece.of(rule)
    if isinstance(piece, Shown):
        return f"/ {piece.text}" if piece.tone == "paper" and piece.text else piece.text
    return piece


def _lines(block: Block, rule: str) -> Iterator[str]:
    if isinstance(block, Prose):
        yield _tame(block.text)
    elif isinstance(block, Heading):
        yield f"## {_tame(block.text)}"
    elif isinstance(block, Items):
        yield from (f"- {_tame(plain(line, rule))}" for line in block.lines)
    elif isinstance(block, Picture):
        yield f"![{_tame(block.alt)}]({block.name}.png)"
    else:
        hidden = Verdict.not_run.tone if block.brief else ""
        lines = [line for line in block.lines if line.tone != hidden]
        rows = [[_tame(plain(cell, rule)) for cell in line.cells] for line in lines]
        yield from grid(block.columns, rows, block.numbers) if rows else ["(none)"]


def _tabular(table: Table, rule: str) -> str:
    places = "".join("r" if name in table.numbers else "l" for name in table.columns)
    lines = [f"% {table.caption}", f"\\begin{{tabular}}{{{places}}}", "  \\hline"]
    lines.append("  " + " & ".join(map(escaped, table.columns)) + r" \\ \hline")
    for line in table.lines:
        cells = [escaped(plain(cell, rule).replace("`", "")) for cell in line.cells]
        lines.append("  " + " & ".join(cells) + r" \\")
    return "\n".join([*lines, "  \\hline", "\\end{tabular}"])
