"""The paper's tables with another base model, and their claims."""

from __future__ import annotations

import json
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from experiments.report.comparison import (
    cells,
    constant_answers,
    recipe_match,
    reference,
    table_claims,
)
from experiments.report.comparison.cells import PaperCell
from experiments.report.comparison.claims import Claim
from experiments.report.comparison.other_networks import (
    CONSTANT,
    HOW_LONG,
    SCALINGS,
    NetworkClaim,
    choose_runs,
    find_networks,
    replace_weights,
)
from experiments.report.comparison.paper_table import Column, Row, columns, rows
from experiments.report.comparison.run_index import Run, RunIndex
from experiments.report.comparison.seed_groups import answers

OF_SETTING = ("method", "name", "printed_name", "fields")
"""Keys of a row that are about its setting, beside its size."""
NO_JUDGE = "by the loss of held-out answers, not by grades"
NAMED = 2
"""Rows that were not run which are named; of more the number is."""


@dataclass(frozen=True, kw_only=True)
class Tested:
    """Cells of a case that can be compared, and what was not run of it."""

    of: Row
    """Row that is said to be better."""
    cells: set[tuple[int, str]]
    """Position of the row and key of the column."""
    columns: list[Column]
    """Columns that were not run."""
    rows: list[Row]
    """Rows that were not run in all of the other columns."""


def ask_tables(index: RunIndex) -> Iterator[NetworkClaim]:
    """Yield every claim of claims.yaml that runs of other base models speak to."""
    by_page: dict[str, list[dict[str, Any]]] = {}
    for facts in reference.claims():
        by_page.setdefault(facts["page"], []).append(facts)
    for page, stated in by_page.items():
        table = reference.load_table(page)
        own = {row.model for row in rows(table)}
        for model, runs in find_networks(index, own):
            moved = transfer_table(table, model, runs)
            spec = list(rows(moved))

            def find_row(run: Run, spec: list[Row] = spec) -> Hashable:
                fitting = (one for one in spec if one.method == run.record.run["method"])
                return next((one.position for one in fitting if answers(run, one.fields)), None)

            tasks = {one.task for one in columns(moved)}
            chosen = choose_runs([run for run in runs if run.record.run["task"] in tasks], find_row)
            if chosen:
                filled = cells.fill(moved, RunIndex(index.root, chosen))
                for facts in stated:
                    yield from _ask_table(facts, moved, filled, model, chosen)


def transfer_table(table: dict[str, Any], model: str, runs: list[Run]) -> dict[str, Any]:
    """Return the reference of a table with another base model in place of the paper's."""
    moved: dict[str, dict[str, Any]] = {}
    sizes = [about.get("size") for about in table.get("methods", {}).values()]
    for printed in table["rows"]:
        row = {key: printed[key] for key in (*OF_SETTING, *sizes) if key in printed}
        if row["method"] == "fourierft":
            row["fields"] = SCALINGS | row.get("fields", {})
        row["model"] = model
        moved.setdefault(json.dumps(row, sort_keys=True), row)
    stand_in = table.get("without_judge")
    return {
        **{key: value for key, value in table.items() if key not in ("datasets", "benchmarks")},
        **({"columns": [stand_in]} if stand_in else {}),
        **replace_weights(model, runs),
        "rows": list(moved.values()),
        "models": {},
    }


def _ask_table(
    facts: dict[str, Any],
    table: dict[str, Any],
    filled: list[PaperCell],
    model: str,
    chosen: list[Run],
) -> Iterator[NetworkClaim]:
    """Yield a claim of a table, if runs of the network speak to it."""
    claim = Claim(says=facts["says"], unit="cases")
    says = facts.get("elsewhere", facts["says"])
    asked = NetworkClaim(page=facts["page"], model=model, claim=claim, says=says)
    run = {(one.row.position, one.column.key) for one in filled if one.setting is not None}
    found: list[Tested] = []
    used: dict[str, PaperCell] = {}
    for number, case in enumerate(_transfer_cases(facts, model)):
        of, others = table_claims.find_rows(case, filled)
        over = case.get("over", facts.get("over"))
        there = table_claims.find_columns(filled)
        wanted = [one for one in there if not isinstance(over, list) or one.key in over]
        tested = _choose_cells(of, others, wanted, run)
        found.append(tested)
        if tested.cells:
            mine = [one for one in filled if (one.row.position, one.column.key) in tested.cells]
            check = "above" if facts["check"] == "ahead" else facts["check"]
            stated = {**facts, "check": check, "cases": [case]}
            asked.add(f"{number}", table_claims.weigh(stated, table, mine).ours)
            used |= {one.anchor: one for one in mine}
    if claim.parts:
        asked.untested = list(_name_untested(found))
        if table.get("without_judge"):
            asked.untested.append(NO_JUDGE)
        asked.untested += _list_unlearned(list(used.values()), table["how"]["select"])
        for cell in used.values():
            assert cell.setting is not None
            changes = recipe_match.changes(cell.setting, {*cell.row.fields, *HOW_LONG})
            claim.reservations += [f"{cell.row.label}: {one}" for one in changes]
        asked.describe_rows(chosen, {one.column.task for one in used.values()})
        yield asked


def _transfer_cases(facts: dict[str, Any], model: str) -> list[dict[str, Any]]:
    """Return the cases within one base model, each once, with the network in its place."""
    found: dict[str, dict[str, Any]] = {}
    for case in facts["cases"]:
        ends = [case[end]["model"] for end in ("of", "than") if isinstance(case[end], dict)]
        if len(set(ends)) > 1:
            continue  # compares two base models
        moved = {
            key: {**value, "model": model} if isinstance(value, dict) else value
            for key, value in case.items()
            if key != "gain"
        }
        found.setdefault(json.dumps(moved, sort_keys=True), moved)
    return list(found.values())


def _choose_cells(
    of: Row, others: list[Row], wanted: list[Column], run: set[tuple[int, str]]
) -> Tested:
    """Return the cells of a case that can be compared.

    Columns count in which the row that is said to be better was run and some other; then rows that
    were run in all of them.
    """
    there = [
        one
        for one in wanted
        if (of.position, one.key) in run and any((each.position, one.key) in run for each in others)
    ]
    compared = [each for each in others if all((each.position, one.key) in run for one in there)]
    both = there if compared else []
    return Tested(
        of=of,
        cells={(each.position, one.key) for each in (of, *compared) for one in both},
        columns=[one for one in wanted if one not in both],
        rows=[each for each in others if each not in compared] if both else [],
    )


def _list_unlearned(used: Sequence[PaperCell], rule: str) -> Iterator[str]:
    """Yield words for the columns in which no row is above a constant answer."""
    for column in table_claims.find_columns(used):
        there = [one for one in used if one.column.key == column.key]
        if not any(_is_learned(one, rule) for one in there):
            yield f"{column.name}: {CONSTANT}"


def _is_learned(cell: PaperCell, rule: str) -> bool:
    found = table_claims.read_ours(cell, rule)
    if found is None or cell.setting is None:
        return False
    about = cell.column
    return constant_answers.is_above(
        found,
        cell.setting.first,
        rule=rule,
        metric=about.metric,
        split=about.split,
        scale=about.scale,
    )


def _name_untested(found: Sequence[Tested]) -> Iterator[str]:
    """Yield words for the columns that no case was run on, then for what single cases lack."""
    lacking = [[one.name for one in each.columns] for each in found]
    nowhere = [name for name in lacking[0] if all(name in others for others in lacking)]
    yield from nowhere
    for each, lost in zip(found, lacking, strict=True):
        rest = [name for name in lost if name not in nowhere]
        if rest:
            yield f"{each.of.label} on {', '.join(rest)}"
        if each.rows:
            more = len(each.rows) - NAMED
            labels = ", ".join(row.label for row in each.rows[:NAMED])
            yield f"against {labels}" + (f" and {more} more" if more > 0 else "")
