"""Claims that rest on tables: in the paper's own numbers, and in the runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from experiments.report.comparison import paired, recipe_match, reference
from experiments.report.comparison.cells import PaperCell
from experiments.report.comparison.claims import (
    AS_GOOD,
    Claim,
    Evidence,
    comparison,
    every,
    most,
)
from experiments.report.comparison.paired import Sample
from experiments.report.comparison.paper_table import Column, Row

HALF = 0.05
"""Half a unit of the last digit of a printed gain."""
Read = Callable[[PaperCell], Sample | None]


@dataclass(kw_only=True)
class TableClaim:
    """A claim in words, with what the paper's table and the runs say about it."""

    facts: dict[str, Any]
    printed: Claim
    ours: Claim
    spread: float | None = None
    """Largest printed ± of the cells that are said to be better; None where none is printed."""
    doubts: list[str] = field(default_factory=list)
    """Doubts about the paper's own cells."""


def weigh(facts: dict[str, Any], table: dict[str, Any], cells: Sequence[PaperCell]) -> TableClaim:
    """Set a table's cells against a claim.

    Args:
        facts: an entry of claims.yaml.
        table: reference of the claim's page.
        cells: of that table, filled.
    """
    rule = table["how"]["select"]
    found = TableClaim(
        facts=facts,
        printed=Claim(says=facts["says"], unit="cases"),
        ours=Claim(says=facts["says"], unit="cases"),
    )
    for number, case in enumerate(facts["cases"]):
        of, others = find_rows(case, cells)
        over = case.get("over", facts.get("over"))
        columns = [
            one for one in find_columns(cells) if not isinstance(over, list) or one.key in over
        ]
        grid = {(cell.row.position, cell.column.key): cell for cell in cells}
        used = [grid[row.position, column.key] for row in (of, *others) for column in columns]
        for claim, read in (
            (found.printed, _printed),
            (found.ours, lambda one: read_ours(one, rule)),
        ):
            claim.missing += sum(read(cell) is None for cell in used)
            complete = all(read(cell) is not None for cell in used)
            averaged = complete and over == "average"
            if averaged and not _share_seeds((of, *others), columns, grid, read):
                claim.missing += 1
            elif complete:
                evidence = _case(facts, case, of, others, columns, over, grid, read)
                claim.parts[f"{number}"] = evidence
        for cell in used:
            spread = None if cell.printed is None else cell.printed.spread
            if cell.row is of and spread is not None and over != "average":
                found.spread = max(found.spread or 0.0, spread)
            if cell.setting is not None:
                _doubt(found.ours, cell, reference.weights(table))
            if cell.suspect:
                found.doubts.append(f"{cell.row.label}, {cell.column.name}: {cell.suspect}")
    return found


def _share_seeds(
    rows: Sequence[Row],
    columns: Sequence[Column],
    grid: dict[tuple[int, str], PaperCell],
    read: Read,
) -> bool:
    """Return True if each row has a seed that all columns have, as its average needs."""

    def seeds(row: Row, column: Column) -> set[int]:
        found = read(grid[row.position, column.key])
        return set() if found is None else set(found.values)

    return all(set.intersection(*(seeds(row, each) for each in columns)) for row in rows)


def find_rows(case: dict[str, Any], cells: Sequence[PaperCell]) -> tuple[Row, list[Row]]:
    """Return the row that is said to be better, and those that it is compared with."""
    rows = list({cell.row.position: cell.row for cell in cells}.values())
    [of] = [row for row in rows if _fits(row, case["of"])]
    if case["than"] == "others":
        same = of.facts["model"]
        return of, [row for row in rows if row is not of and row.facts["model"] == same]
    return of, [row for row in rows if _fits(row, case["than"])]


def _fits(row: Row, wanted: dict[str, Any]) -> bool:
    return all(row.facts.get(key) == value for key, value in wanted.items())


def find_columns(cells: Sequence[PaperCell]) -> list[Column]:
    """Return the columns of cells, each once."""
    return list({cell.column.key: cell.column for cell in cells}.values())


def _case(
    facts: dict[str, Any],
    case: dict[str, Any],
    of: Row,
    others: Sequence[Row],
    columns: Sequence[Column],
    over: Any,
    grid: dict[tuple[int, str], PaperCell],
    read: Read,
) -> Evidence:
    def get(row: Row, column: Column) -> Sample:
        found = read(grid[row.position, column.key])
        assert found is not None
        return found

    def compare(row: Row, column: Column | None) -> Evidence:
        if column is None and len(columns) == 1:
            [column] = columns
        if column is None:
            sides = [paired.average([get(one, each) for each in columns]) for one in (of, row)]
        else:
            sides = [get(of, column), get(row, column)]
        named = [of.label, row.label if row.model == of.model else row.model_label]
        where = f"average of {len(columns)} data sets" if column is None else column.name
        words = " against ".join(named)
        if column is not None and column.lower:
            words, sides = f"{' less '.join(named[::-1])} (lower is better)", sides[::-1]
        return _compare(facts["check"], f"{of.model_label}, {where}, {words}", sides, case)

    if over == "average":
        return every(compare(row, None) for row in others)
    combine = most if over == "most" else every
    return combine(every(compare(row, column) for row in others) for column in columns)


def _compare(check: str, words: str, sides: list[Sample], case: dict[str, Any]) -> Evidence:
    better, worse = sides
    if check == "as_good":
        return comparison(words, better, worse, AS_GOOD)
    if check == "above":
        return comparison(words, better, worse)
    gain = case["gain"]
    evidence = comparison(words, better, worse, ahead=1 + (gain - HALF) / 100)
    reached = 100 * evidence.shown.value / worse.mean
    words = f"{words}, {reached:+.1f} % for {gain:+.1f} %"
    holds = reached >= gain - HALF
    # Support says "above" alone: a smaller gain than the claimed one is none of it.
    return replace(evidence, words=words, holds=holds, support=evidence.support if holds else 1.0)


def _printed(cell: PaperCell) -> Sample | None:
    return None if cell.printed is None else Sample(values={0: cell.printed.value})


def read_ours(cell: PaperCell, rule: str) -> Sample | None:
    """Return our scores of a cell under a selection rule; None without any."""
    ours = cell.ours[rule]
    if ours is None or cell.setting is None:
        return None
    column = cell.column
    return paired.sample(
        ours.values,
        cell.setting.runs.items(),
        rule=rule,
        metric=column.metric,
        split=column.split,
        scale=column.scale,
    )


def _doubt(claim: Claim, cell: PaperCell, weights: dict[str, Any]) -> None:
    """Add what speaks against comparing the runs of a cell."""
    for one in cell.incomparable_reasons:
        lacking = recipe_match.lacks_recipe(one)
        words = f"{cell.row.label}: {one}" if lacking else one
        (claim.reservations if lacking else claim.reasons).append(words)
    known = weights.get(cell.row.model or "") or {}
    if known.get("fingerprint") is None:
        claim.reservations.append(recipe_match.UNVERIFIED)


def read_claims(
    filled: Callable[[str], tuple[dict[str, Any], Sequence[PaperCell]]],
) -> Iterator[TableClaim]:
    """Yield every claim of claims.yaml.

    Args:
        filled: function that returns reference and filled cells of a page.
    """
    for facts in reference.claims():
        yield weigh(facts, *filled(facts["page"]))
