"""What a page says, however it is written: prose, tables, pictures, and rows for machines."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

NOT_RUN = "not run"
RULE_NAMES = {"best": "Best epoch", "last": "Last epoch", "heldout": "Held-out half"}


@dataclass(frozen=True, kw_only=True)
class Shown:
    """A piece of text in a cell. Prose and pieces may hold `code` and **strong** words."""

    text: str
    link: str | None = None
    """`run:<folder>`, `page:<name>`, `#<anchor>`, or a path relative to the written page."""
    tone: str | None = None
    """How it is coloured: a verdict, `paper`, `muted`, or a state of the status board."""
    note: str | None = None
    """What a pointer resting on it shows."""


@dataclass(frozen=True, kw_only=True)
class Ruled:
    """A piece that depends on the selection rule."""

    best: Shown
    last: Shown
    heldout: Shown

    def of(self, rule: str) -> Shown:
        """The piece of one rule."""
        return getattr(self, rule)


Piece = str | Shown | Ruled
Cell = Piece | tuple[Piece, ...]


@dataclass(frozen=True, kw_only=True)
class Line:
    """A row of a table."""

    cells: Sequence[Cell]
    anchor: str | None = None
    tone: str | None = None


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table; the first `heads` cells of every line name the line."""

    caption: str
    columns: Sequence[str]
    lines: Sequence[Line]
    numbers: Sequence[str] = ()
    """Columns set to the right."""
    heads: int = 1
    filtered: bool = False
    """Long enough to be worth a filter where scripts run."""
    brief: bool = False
    """As text, lines of what was not run are left out."""


@dataclass(frozen=True)
class Prose:
    """A paragraph."""

    text: str


@dataclass(frozen=True)
class Items:
    """A list."""

    lines: Sequence[str | Shown]


@dataclass(frozen=True)
class Heading:
    """A heading below the page's title."""

    text: str
    anchor: str | None = None


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A figure as file: <name>.svg for the site, <name>.png beside it."""

    name: str
    alt: str
    caption: str
    draw: Callable[[], Any]
    """Returns a matplotlib Figure."""


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
    """Selection rule that is shown first, and the only one in text."""
    papers: bool = False
    """True if `rule` is the paper's own."""
    summary: str = ""
    """One sentence for the overview."""
    verdicts: dict[str, int] = field(default_factory=dict)
    """How many cells or claims have which verdict."""

    @property
    def ruled(self) -> bool:
        """True if anything on the page depends on the selection rule."""
        return any(
            isinstance(piece, Ruled)
            for table in self.tables
            for line in table.lines
            for cell in line.cells
            for piece in pieces(cell)
        )

    @property
    def tables(self) -> Iterator[Table]:
        """Its tables."""
        return (block for block in self.blocks if isinstance(block, Table))

    @property
    def links(self) -> Iterator[str]:
        """Where its tables and lists lead."""
        for block in self.blocks:
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
        """Its pictures."""
        return (block for block in self.blocks if isinstance(block, Picture))


def pieces(cell: Cell) -> tuple[Piece, ...]:
    """A cell as its pieces."""
    return cell if isinstance(cell, tuple) else (cell,)


def everywhere(shown: Shown) -> Ruled:
    """A piece that is the same under every rule, in a place that is switched."""
    return Ruled(best=shown, last=shown, heldout=shown)


def heading(facts: dict[str, Any]) -> list[Block]:
    """Claim and source of a reference as the opening of its page."""
    return [Prose(f"The paper: {facts['claim'].strip()}"), Prose(f"Source: {facts['source']}.")]


def title(facts: dict[str, Any]) -> str:
    """Table 2: GLUE with RoBERTa."""
    kind = next((kind for kind in ("table", "figure") if kind in facts), None)
    return f"{kind.capitalize()} {facts[kind]}: {facts['title']}" if kind else facts["title"]


def link(root: Path, place: Path) -> str:
    """Link to a run's page."""
    return f"run:{place.relative_to(root).as_posix()}"
