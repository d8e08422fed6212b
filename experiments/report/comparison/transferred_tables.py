"""The paper's tables with another base model, and their claims."""

from __future__ import annotations

import json
from collections.abc import Hashable, Iterator
from typing import Any

from experiments.report.comparison import cells, reference, table_claims
from experiments.report.comparison.cells import PaperCell
from experiments.report.comparison.claims import Claim
from experiments.report.comparison.other_networks import (
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
    asked = NetworkClaim(page=facts["page"], model=model, claim=claim)
    run = {(one.row.position, one.column.key) for one in filled if one.setting is not None}
    tasks = set()
    for number, case in enumerate(_transfer_cases(facts, model)):
        of, others = table_claims.find_rows(case, filled)
        over = case.get("over", facts.get("over"))
        there = table_claims.find_columns(filled)
        wanted = [one for one in there if not isinstance(over, list) or one.key in over]
        tested, lacking = _choose_cells(of, others, wanted, run)
        asked.untested += lacking
        if tested:
            mine = [one for one in filled if (one.row.position, one.column.key) in tested]
            check = "above" if facts["check"] == "ahead" else facts["check"]
            stated = {**facts, "check": check, "cases": [case]}
            asked.add(f"{number}", table_claims.weigh(stated, table, mine).ours)
            tasks |= {one.column.task for one in mine}
    if claim.parts:
        if table.get("without_judge"):
            claim.reservations.append(NO_JUDGE)
        asked.describe_rows(chosen, tasks)
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
) -> tuple[set[tuple[int, str]], list[str]]:
    """Return the cells that can be compared, and words for the columns and rows that were not run.

    Columns count in which the row that is said to be better was run and some other; then rows that
    were run in all of them.
    """
    there = [
        one
        for one in wanted
        if (of.position, one.key) in run and any((each.position, one.key) in run for each in others)
    ]
    compared = [each for each in others if all((each.position, one.key) in run for one in there)]
    words = [one.name for one in wanted if one not in there]
    words += [f"against {each.label}" for each in others if each not in compared]
    if not there or not compared:
        return set(), words
    return {(each.position, one.key) for each in (of, *compared) for one in there}, words
