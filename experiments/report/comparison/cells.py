"""The cells of a table: what the paper prints there, and which runs answer it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from experiments.metrics.selection import RULES
from experiments.report.comparison import reference, seed_groups
from experiments.report.comparison.paper_table import Column, Row, columns, pair, rows
from experiments.report.comparison.run_index import Evidence, Run
from experiments.report.comparison.seed_groups import Setting
from experiments.report.comparison.verdict import Judgement, Printed, Statistic, Verdict, judge

OTHER_RULE = "another selection of the epoch than the paper's"


@dataclass(kw_only=True)
class Cell:
    """A cell of the paper's table beside ours."""

    row: Row
    column: Column
    printed: Printed | None
    setting: Setting | None = None
    """The runs it shows."""
    others: list[Setting] = field(default_factory=list)
    """Other ways in which it was run."""
    obstacles: list[str] = field(default_factory=list)
    ours: dict[str, Statistic | None] = field(default_factory=dict)
    """By selection rule."""
    judgements: dict[str, Judgement] = field(default_factory=dict)
    """By selection rule."""
    suspect: str | None = None
    """Why the paper's own number is doubtful."""

    @property
    def anchor(self) -> str:
        """Its place on the table's page."""
        return f"cell-{self.row.place}-{self.column.key}"

    def verdict(self, rule: str) -> Verdict:
        """The verdict under a selection rule."""
        return self.judgements[rule].verdict


def fill(facts: dict[str, Any], evidence: Evidence) -> list[Cell]:
    """Every cell of a table, row by row, with the runs that answer it."""
    known, seen = reference.weights(), seed_groups.fingerprints(evidence.runs)
    trained: dict[tuple[Any, ...], list[Run]] = {}
    for run in evidence.runs:
        if run.record.metrics:
            said = run.record.run
            trained.setdefault((said["model"], said["task"], said["method"]), []).append(run)
    found, spec = [], columns(facts)
    for row in rows(facts):
        for column in spec:
            value, spread = pair(row.facts, column.key)
            printed = (
                None if value is None else Printed(value=value, spread=spread, digits=column.digits)
            )
            cell = Cell(row=row, column=column, printed=printed)
            suspect = row.facts.get("suspect") or {}
            cell.suspect = suspect.get(column.key) if isinstance(suspect, dict) else None
            candidates = trained.get((row.model, column.task, row.method), [])
            mine = [run for run in candidates if seed_groups.answers(run, row.fields)]
            answer(cell, mine, facts, evidence, known, seen)
            found.append(cell)
    return found


def answer(
    cell: Cell,
    runs: list[Run],
    facts: dict[str, Any],
    evidence: Evidence,
    known: dict[str, Any],
    seen: dict[str, set[str]],
) -> None:
    """Fills a cell with the best comparable of its settings."""
    how = facts["how"]
    there = seed_groups.settle(runs)
    sizes = (facts.get("datasets") or {}).get(cell.column.task)
    hurdles = {id(one): seed_groups.obstacles(one, sizes, known, seen) for one in there}
    ordered = seed_groups.best(there, hurdles)
    if ordered:
        cell.setting, *cell.others = ordered
        cell.obstacles = hurdles[id(cell.setting)]
    for rule in RULES:
        cell.ours[rule] = statistic(cell, rule, how, evidence)
        reasons = list(cell.obstacles)
        if cell.column.judged and cell.setting is not None:
            reasons += _judges(cell, evidence)
        if rule != how["select"]:
            reasons.append(OTHER_RULE)
        cell.judgements[rule] = judge(cell.printed, cell.ours[rule], how["runs"], reasons)


def statistic(cell: Cell, rule: str, how: dict[str, Any], evidence: Evidence) -> Statistic | None:
    """Our number of a cell under a selection rule; None if no run has one."""
    if cell.setting is None:
        return None
    column, values = cell.column, {}
    for seed, run in cell.setting.runs.items():
        if column.judged:
            grades = evidence.judged(run, column.judged) if rule == "last" else []
            preferred = [one for one in grades if one["judge"] == column.judge] or grades
            score = preferred[0]["average"] if preferred else None
        else:
            score = run.score(rule, column.metric, column.split)
        if score is not None:
            values[seed] = score * column.scale
    if not values:
        return None
    ddof = 1 if how["spread"] is None else how["spread"]
    return Statistic(values=values, kind=how["statistic"], ddof=ddof)


def _judges(cell: Cell, evidence: Evidence) -> list[str]:
    """What speaks against grades that another than the paper's judge gave."""
    judges = {
        one["judge"]
        for run in cell.setting.runs.values()
        for one in evidence.judged(run, cell.column.judged)
    }
    wanted = cell.column.judge
    return [] if not judges or wanted in judges else [f"judged by {', '.join(sorted(judges))}"]


def strangers(facts: dict[str, Any], evidence: Evidence, cells: list[Cell]) -> list[Cell]:
    """Cells that the paper does not have: other base models and sizes on the table's tasks."""
    known, seen = reference.weights(), seed_groups.fingerprints(evidence.runs)
    shown = {
        id(run)
        for cell in cells
        for setting in (cell.setting, *cell.others)
        if setting is not None
        for run in setting.runs.values()
    }
    spec = {column.task: column for column in columns(facts)}
    methods = {about.get("config", name) for name, about in facts.get("methods", {}).items()}
    groups: dict[tuple[str, ...], list[Run]] = {}
    for run in evidence.runs:
        said = run.record.run
        if run.record.metrics and id(run) not in shown and said["task"] in spec:
            if said["method"] in methods:
                key = (
                    said["model"],
                    said["method"],
                    str(said.get("variant") or ""),
                    str(said.get("profile") or ""),
                )
                groups.setdefault(key, []).append(run)
    found = []
    for place, ((model, method, variant, profile), runs) in enumerate(sorted(groups.items())):
        parts = [method, variant or (f"profile={profile}" if profile else "")]
        row = Row(
            place=-1 - place,
            model=model,
            method=method,
            label=", ".join(filter(None, parts)),
            model_label=model,
            fields={},
            facts={},
        )
        for column in spec.values():
            cell = Cell(row=row, column=column, printed=None)
            mine = [run for run in runs if run.record.run["task"] == column.task]
            answer(cell, mine, facts, evidence, known, seen)
            found.append(cell)
    return found
