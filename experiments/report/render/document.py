"""Content of a page, independent of its format: prose, tables, pictures, and csv rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

from experiments.report.comparison.verdict import Verdict

NOT_RUN = Verdict.not_run.value
RULE_NAMES = {"best": "Best epoch", "last": "Last epoch", "heldout": "Held-out half"}


@dataclass(frozen=True, kw_only=True)
class Shown:
    """Piece of text in a cell. Prose and pieces may contain `code` and **strong** words."""

    text: str
    link: str | None = None
    """`run:<folder>`, `page:<name>`, `#<anchor>`, or a path relative to the written page."""
    tone: str | None = None
    """Color: tone of a verdict, `paper`, `muted`, or a state of the status board; `interval` goes
    below its number."""
    note: str | None = None
    """Tooltip."""


@dataclass(frozen=True, kw_only=True)
class Ruled:
    """Piece that depends on the selection rule."""

    best: Shown
    last: Shown
    heldout: Shown

    def of(self, rule: str) -> Shown:
        """Return the piece of one rule."""
        return getattr(self, rule)


Piece = str | Shown | Ruled
Cell = Piece | tuple[Piece, ...]


@dataclass(frozen=True, kw_only=True)
class Line:
    """Row of a table."""

    cells: Sequence[Cell]
    anchor: str | None = None
    tone: str | None = None


@dataclass(frozen=True, kw_only=True)
class Table:
    """Table; the first `heads` cells of every line name the line."""

    caption: str
    columns: Sequence[str]
    lines: Sequence[Line]
    numbers: Sequence[str] = ()
    """Right-aligned columns."""
    heads: int = 1
    filtered: bool = False
    """True if long enough for a filter, where scripts run."""
    brief: bool = False
    """True: text formats leave out lines that were not run."""
    cards: bool = False
    """True if phones show every line as a card, its verdict first; for tables of sentences."""
    dense: bool = False
    """True if it has so many columns that they only fit in small print."""


@dataclass(frozen=True)
class Prose:
    """Paragraph."""

    text: str


@dataclass(frozen=True)
class Items:
    """List."""

    lines: Sequence[str | Shown]


@dataclass(frozen=True)
class Heading:
    """Heading below the page's title."""

    text: str
    anchor: str | None = None


@dataclass(frozen=True, kw_only=True)
class Picture:
    """Figure in files: <name>.svg for the site, <name>.png beside it."""

    name: str
    alt: str
    caption: str
    draw: Callable[[], Any]
    """Function that returns a matplotlib Figure."""
    half: bool = False
    """True if two of them stand side by side where there is room."""


Block = Prose | Items | Heading | Table | Picture


@dataclass(kw_only=True)
class Page:
    """One page of the report."""

    name: str
    """File stem."""
    title: str
    blocks: list[Block]
    rows: list[dict[str, Any]] = field(default_factory=list)
    """Raw numbers; the keys of the first row are the columns of the csv file."""
    rule: str = "best"
    """Selection rule shown first, and the only one in text formats."""
    papers: bool = False
    """True if `rule` is the paper's own."""
    summary: str = ""
    """One sentence for the overview."""
    front: list[Block] = field(default_factory=list)
    """Blocks of it on the first page of the site, where it is the first section."""
    verdicts: Mapping[Enum, int] = field(default_factory=dict)
    """Number of cells or claims by `Verdict`; on the status board, of runs by `State`."""

    @property
    def ruled(self) -> bool:
        """Return True if anything on the page depends on the selection rule."""
        return any(
            isinstance(piece, Ruled)
            for table in self.tables
            for line in table.lines
            for cell in line.cells
            for piece in pieces(cell)
        )

    @property
    def tables(self) -> Iterator[Table]:
        """Tables of the page."""
        return (block for block in self.blocks if isinstance(block, Table))

    @property
    def links(self) -> Iterator[str]:
        """Links of its tables and lists."""
        for block in (*self.blocks, *self.front):
            if isinstance(block, Table):
                found = [
                    piece for line in block.lines for cell in line.cells for piece in pieces(cell)
                ]
            else:
                found = list(block.lines) if isinstance(block, Items) else []
            for piece in found:
                ruled = (
                    [piece.best, piece.last, piece.heldout] if isinstance(piece, Ruled) else [piece]
                )
                yield from (one.link for one in ruled if isinstance(one, Shown) and one.link)

    @property
    def pictures(self) -> Iterator[Picture]:
        """Pictures of the page."""
        return (block for block in self.blocks if isinstance(block, Picture))


def pieces(cell: Cell) -> tuple[Piece, ...]:
    """Return the pieces of a cell."""
    return cell if isinstance(cell, tuple) else (cell,)


def everywhere(shown: Shown) -> Ruled:
    """Return a piece that is the same under every rule."""
    return Ruled(best=shown, last=shown, heldout=shown)


def heading(facts: dict[str, Any]) -> list[Block]:
    """Return claim and source of a reference as the opening of its page."""
    return [Prose(f"The paper: {facts['claim'].strip()}"), Prose(f"Source: {facts['source']}.")]


def title(facts: dict[str, Any]) -> str:
    """Return the title of a page, for example "Table 2: GLUE with RoBERTa"."""
    kind = next((kind for kind in ("table", "figure") if kind in facts), None)
    return f"{kind.capitalize()} {facts[kind]}: {facts['title']}" if kind else facts["title"]


def link_page(name: str) -> str:
    """Return the link to another page of the report."""
    return f"page:{name}"


def link(root: Path, run_dir: Path) -> str:
    """Return the link to a run's page."""
    return f"run:{run_dir.relative_to(root).as_posix()}"
