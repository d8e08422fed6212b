"""The table in the paper's form: a row of the paper, ours above the paper's in every cell."""

from __future__ import annotations

import math
import statistics
from itertools import groupby
from typing import Any

from experiments.metrics.selection import RULES
from experiments.report.comparison import paper_table
from experiments.report.comparison import verdict as verdicts
from experiments.report.comparison.cells import PaperCell, Row
from experiments.report.comparison.verdict import Judgement, Printed, Statistic, Verdict
from experiments.report.render.document import NOT_RUN, Line, Ruled, Shown, Table, title


def matrix(facts: dict[str, Any], cells: list[PaperCell]) -> Table:
    """Return the table in the paper's form, ours above the paper's."""
    names = [column.name for column in paper_table.columns(facts)]
    averaged = any("average" in row for row in facts["rows"])
    lines = []
    for _, group in groupby(cells, key=lambda cell: cell.row.position):
        line = list(group)
        row = line[0].row
        shown = [(_number(cell), format_printed(cell.printed, cell.suspect)) for cell in line]
        if averaged:
            shown.append(_average(row, line, facts))
        lines.append(Line(cells=[row.model_label, (row.label, *_trained(row)), *shown]))
    columns = ["Base model", "Method", *names, *(["Average"] if averaged else [])]
    return Table(
        caption=f"{title(facts)}; in each cell ours, then the paper's",
        columns=columns,
        lines=lines,
        numbers=columns[2:],
        heads=2,
    )


def _trained(row: Row) -> list[Shown]:
    printed = row.facts.get("printed")
    return [Shown(text=f"({printed})", tone="muted")] if printed and row.method else []


def _number(cell: PaperCell) -> Ruled:
    """Return our number in the matrix, colored by its verdict and linked to its full line."""

    def shown(rule: str) -> Shown:
        ours, told = cell.ours[rule], cell.judgements[rule]
        if ours is None:
            return Shown(text="–", tone=Verdict.not_run.tone, note=cell.row.unavailable or NOT_RUN)
        fallback = cell.setting.fallback if cell.setting else None
        return Shown(
            text=format_value(cell, ours.centre) + (f" ({fallback})" if fallback else ""),
            link=f"#{cell.anchor}",
            tone=told.verdict.tone,
            note=": ".join(filter(None, (told.verdict.value, told.reason))),
        )

    return Ruled(**{rule: shown(rule) for rule in RULES})


def format_value(cell: PaperCell, value: float) -> str:
    """Format a value with the digits of its column."""
    return f"{value:.{cell.column.digits}f}"


def format_printed(printed: Printed | None, suspect: str | None = None) -> Shown:
    """Format a printed value of the paper, with its spread and any doubt."""
    if printed is None:
        return Shown(text="", tone="paper")
    spread = "" if printed.spread is None else f" ±{printed.text(printed.spread)}"
    mark = " (?)" if suspect else ""
    return Shown(text=f"{printed.text()}{spread}{mark}", tone="paper", note=suspect)


def _average(row: Row, line: list[PaperCell], facts: dict[str, Any]) -> tuple[Ruled, Shown]:
    """Return the mean of a row, with a verdict if all of its cells can be compared."""
    printed = None
    if row.facts.get("average") is not None:
        printed = Printed(value=row.facts["average"], spread=None, digits=line[0].column.digits)

    def shown(rule: str) -> Shown:
        ours = [cell.ours[rule] for cell in line]
        if any(one is None for one in ours):
            return Shown(text="–", tone=Verdict.not_run.tone)
        told = _judge_average(printed, line, rule, facts["how"]["runs"])
        mean = statistics.fmean(one.centre for one in ours)
        return Shown(
            text=format_value(line[0], mean),
            tone=told.verdict.tone,
            note=": ".join(filter(None, (told.verdict.value, told.reason))),
        )

    return Ruled(**{rule: shown(rule) for rule in RULES}), format_printed(printed)


def _judge_average(
    printed: Printed | None, line: list[PaperCell], rule: str, runs: int | None
) -> Judgement:
    """Judge a mean: it rounds to the printed one, or is within twice its standard error."""
    told = [cell.judgements[rule] for cell in line]
    if printed is None or any(one.verdict is Verdict.not_comparable for one in told):
        return Judgement(verdict=Verdict.not_comparable, reason="as some of its cells")
    ours: list[Statistic] = [cell.ours[rule] for cell in line]
    difference = statistics.fmean(one.centre for one in ours) - printed.value
    errors = [
        verdicts.standard_error(cell.printed.spread if cell.printed else None, one, runs)
        for cell, one in zip(line, ours, strict=True)
    ]
    error = math.hypot(*errors) / len(errors)
    if abs(difference) <= printed.half + 1e-9:
        verdict = Verdict.reproduced
    elif abs(difference) <= 2 * error + printed.half:
        verdict = Verdict.within_noise
    else:
        verdict = Verdict.not_reproduced
    return Judgement(verdict=verdict, difference=difference)
