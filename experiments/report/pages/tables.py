"""The page of a table: ours, the paper's, the difference and the verdict of every cell."""

from __future__ import annotations

from collections import Counter
from typing import Any

from experiments.metrics.selection import RULES
from experiments.report.comparison import cells as grid
from experiments.report.comparison import paper_table
from experiments.report.comparison import verdict as verdicts
from experiments.report.comparison.cells import PaperCell
from experiments.report.comparison.recipe_match import UNVERIFIED
from experiments.report.comparison.run_index import RunIndex
from experiments.report.comparison.verdict import Verdict
from experiments.report.pages.paper_form import format_printed, format_value, matrix
from experiments.report.render.document import (
    Block,
    Heading,
    Items,
    Line,
    Page,
    Prose,
    Ruled,
    Shown,
    Table,
    heading,
    link,
    title,
)


def show(name: str, facts: dict[str, Any], index: RunIndex) -> Page:
    """Build the page of the paper's cells beside the runs that answer them."""
    cells = grid.fill(facts, index)
    others = grid.extra_runs(facts, index, cells)
    rule = facts["how"]["select"]
    counts = Counter(cell.verdict(rule) for cell in cells)
    told = _told(counts)
    if any(UNVERIFIED in cell.judgements[rule].reason for cell in cells):
        told = f"{told[:-1]}; {UNVERIFIED}."
    blocks: list[Block] = [*heading(facts), Prose(_protocol(facts)), Prose(f"**{told}**")]
    blocks.append(matrix(facts, cells))
    if counts[Verdict.not_run]:
        blocks.append(Prose(f"Not run: `{facts['run']}`"))
    blocks += [Heading("Every cell", "cells"), _long(facts, cells, index)]
    if others:
        blocks += [
            Heading("Other runs of these tasks", "others"),
            Prose("Base models, sizes and smoke tests that the table lacks: shown, never judged."),
            _extra_table(others, index),
        ]
    blocks += [*_remarks(facts, cells), Heading("How it is judged"), Prose(verdicts.RULE)]
    return Page(
        name=name,
        title=title(facts),
        blocks=blocks,
        rows=[_raw(cell, index) for cell in [*cells, *others]],
        rule=rule,
        papers=True,
        summary=told,
        verdicts=counts,
    )


def _protocol(facts: dict[str, Any]) -> str:
    how = facts["how"]
    unit = f" Unit: {facts['unit']}." if facts.get("unit") else ""
    return f"How the paper's numbers came about: {how['said']}. Not said: {how['open']}.{unit}"


def _told(counts: Counter[Verdict]) -> str:
    """3 of 90 cells reproduced, 1 within noise, 86 not run."""
    parts = [f"{counts[one]} {one.value}" for one in Verdict if counts[one]]
    return f"{sum(counts.values())} cells: {', '.join(parts)}."


def _long(facts: dict[str, Any], cells: list[PaperCell], index: RunIndex) -> Table:
    """Return a line per cell."""
    columns = ["Cell", "Ours", "Paper", "Difference", "Verdict", "Runs by seed"]
    return Table(
        caption=f"{title(facts)}, cell by cell",
        columns=columns,
        lines=[_line(cell, index) for cell in cells],
        numbers=("Ours", "Paper", "Difference"),
        filtered=True,
        brief=True,
    )


def _line(cell: PaperCell, index: RunIndex) -> Line:
    printed = cell.printed
    named = f"{cell.row.model_label}, {cell.row.label}: {cell.column.name}"
    shown = format_printed(printed, cell.suspect)
    return Line(
        cells=[
            named,
            Ruled(**{rule: _ours(cell, rule) for rule in RULES}),
            Shown(text=shown.text, note=shown.note),
            Ruled(**{rule: _difference(cell, rule) for rule in RULES}),
            Ruled(**{rule: _verdict(cell, rule) for rule in RULES}),
            _seeds(cell, index),
        ],
        anchor=cell.anchor,
        tone=None if cell.setting else Verdict.not_run.tone,
    )


def _ours(cell: PaperCell, rule: str) -> Shown:
    ours = cell.ours[rule]
    if ours is None:
        return Shown(text="–")
    spread = "" if ours.spread is None else f" ±{format_value(cell, ours.spread)}"
    tone = "muted" if cell.incomparable_reasons else None
    return Shown(text=f"{format_value(cell, ours.centre)}{spread}", tone=tone)


def _difference(cell: PaperCell, rule: str) -> Shown:
    difference = cell.judgements[rule].difference
    if difference is None or cell.printed is None:
        return Shown(text="")
    return Shown(text=cell.printed.text(difference, sign=True))


def _verdict(cell: PaperCell, rule: str) -> Shown:
    told = cell.judgements[rule]
    reason = told.reason or (cell.row.unavailable if told.verdict is Verdict.not_run else "")
    text = f"**{told.verdict.value}**" + (f" ({reason})" if reason else "")
    return Shown(text=text, tone=told.verdict.tone)


def _seeds(cell: PaperCell, index: RunIndex) -> tuple[Shown | Ruled, ...]:
    """Return every run's number with a link to its record."""
    if cell.setting is None:
        return (Shown(text=""),)
    parts: list[Shown | Ruled] = []
    for part, run in cell.setting.runs.items():

        def shown(rule: str, part: Any = part, place: Any = run.run_dir) -> Shown:
            ours = cell.ours[rule]
            value = ours.parts.get(part) if ours else None
            text = "–" if value is None else format_value(cell, value)
            return Shown(text=f"{part}: {text}", link=link(index.root, place))

        parts.append(Ruled(**{rule: shown(rule) for rule in RULES}))
    why = f"; shown for: {cell.why_shown}" if cell.why_shown else ""
    parts.append(Shown(text=f"[{cell.setting.label}{why}]", tone="muted"))
    for other in cell.others:
        place = link(index.root, other.first.run_dir)
        text = f"also: {other.label} ({len(other.runs)} seeds)"
        parts.append(Shown(text=text, link=place, tone="muted"))
    return tuple(parts)


def _extra_table(cells: list[PaperCell], index: RunIndex) -> Table:
    """Return the table of runs on the same tasks without a cell in the paper."""
    return Table(
        caption="Runs of the table's tasks that are none of its cells",
        columns=["Run", "Ours", "Why no verdict", "Runs by seed"],
        lines=[
            Line(
                cells=[
                    f"{cell.row.model_label}, {cell.row.label}: {cell.column.name}",
                    Ruled(**{rule: _ours(cell, rule) for rule in RULES}),
                    "; ".join(cell.incomparable_reasons) or "no such cell in the paper",
                    _seeds(cell, index),
                ],
                tone="muted",
            )
            for cell in cells
            if cell.setting is not None
        ],
        numbers=("Ours",),
        filtered=True,
    )


def _remarks(facts: dict[str, Any], cells: list[PaperCell]) -> list[Block]:
    """Return the remarks on the paper's own numbers."""
    doubtful = [
        f"{cell.row.model_label}, {cell.row.label}, {cell.column.name}: {cell.suspect}"
        for cell in cells
        if cell.suspect
    ]
    logged = [
        f"{row.model_label}, {column.name}: best epoch {found['best']}, last {found['last']}, "
        f"spread of the best {found['spread']}"
        for row in paper_table.rows(facts)
        for column in paper_table.columns(facts)
        if (found := (row.facts.get("logs") or {}).get(column.key))
    ]
    blocks: list[Block] = []
    for text, lines in (
        ("Doubtful cells of the paper, marked (?)", doubtful),
        ("Medians of the authors' own logs", logged),
        ("Notes", list(map(str, facts.get("notes", ())))),
    ):
        if lines:
            blocks += [Heading(text), Items(lines)]
    return blocks


def _raw(cell: PaperCell, index: RunIndex) -> dict[str, Any]:
    """One line of the csv file."""
    told = {rule: cell.judgements[rule] for rule in RULES}
    ours = {rule: cell.ours[rule] for rule in RULES}
    runs = cell.setting.runs.values() if cell.setting else ()
    return {
        "row": cell.row.position if cell.row.position > 0 else None,
        "model": cell.row.model,
        "method": cell.row.method or cell.row.label,
        "label": cell.row.label,
        "column": cell.column.key,
        "metric": cell.column.metric or cell.column.judged,
        **{f"ours_{rule}": one and one.centre for rule, one in ours.items()},
        **{f"spread_{rule}": one and one.spread for rule, one in ours.items()},
        "seeds": len(cell.setting.runs) if cell.setting else 0,
        "paper": cell.printed and cell.printed.value,
        "paper_spread": cell.printed and cell.printed.spread,
        **{f"verdict_{rule}": one.verdict.value for rule, one in told.items()},
        **{f"reason_{rule}": one.reason for rule, one in told.items()},
        "suspect": cell.suspect,
        "source": cell.setting and cell.setting.run.get("source"),
        "recipe": cell.setting and cell.setting.run.get("recipe"),
        "records": " ".join(index.name(run) for run in runs),
    }
