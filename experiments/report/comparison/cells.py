"""Cells of a table: the paper's printed numbers and the runs that answer them."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from experiments.metrics.selection import RULES
from experiments.report.comparison import paired, recipe_match, reference, seed_groups
from experiments.report.comparison.grades import find_grade
from experiments.report.comparison.paper_table import Column, Row, columns, pair, rows
from experiments.report.comparison.run_index import Run, RunIndex
from experiments.report.comparison.seed_groups import Setting
from experiments.report.comparison.verdict import (
    JUDGED,
    Judgement,
    Printed,
    Statistic,
    Verdict,
    judge,
)

KNOWN_SOURCES = ("2106.09685",)
"""Papers whose protocol we know, by their number on arXiv."""
UNKNOWN_SOURCE = "the source's protocol is unknown"
OTHER_RULE = "another selection of the epoch than the paper's"


@dataclass(kw_only=True)
class PaperCell:
    """Cell of the paper's table beside ours."""

    row: Row
    column: Column
    printed: Printed | None
    setting: Setting | None = None
    """Runs that it shows."""
    others: list[Setting] = field(default_factory=list)
    """Other settings in which it was run."""
    why_shown: str = ""
    """Reason that the cell shows its setting and not another."""
    incomparable_reasons: list[str] = field(default_factory=list)
    ours: dict[str, Statistic | None] = field(default_factory=dict)
    """By selection rule."""
    judgements: dict[str, Judgement] = field(default_factory=dict)
    """By selection rule."""
    suspect: str | None = None
    """Reason to doubt the paper's own number."""

    @property
    def anchor(self) -> str:
        """Anchor of the cell on the table's page."""
        return f"cell-{self.row.position}-{self.column.key}"

    def verdict(self, rule: str) -> Verdict:
        """Return the verdict under a selection rule."""
        return self.judgements[rule].verdict


def fill(facts: dict[str, Any], index: RunIndex) -> list[PaperCell]:
    """Return every cell of a table, row by row, with the runs that answer it."""
    known, seen = reference.weights(facts), seed_groups.fingerprints(index.runs)
    trained: dict[tuple[Any, ...], list[Run]] = {}
    for run in index.runs:
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
            cell = PaperCell(row=row, column=column, printed=printed)
            suspect = row.facts.get("suspect") or {}
            cell.suspect = suspect.get(column.key) if isinstance(suspect, dict) else None
            candidates = trained.get((row.model, column.task, row.method), [])
            mine = [run for run in candidates if seed_groups.answers(run, row.fields)]
            answer(cell, mine, facts, index, known, seen)
            found.append(cell)
    return found


def answer(
    cell: PaperCell,
    runs: list[Run],
    facts: dict[str, Any],
    index: RunIndex,
    known: dict[str, Any],
    seen: dict[str, set[str]],
) -> None:
    """Fill a cell with the setting that compares best."""
    how = facts["how"]
    pooled = facts.get("pooled") or {}
    there = seed_groups.group_seeds(runs, pooled.get("key"))
    sizes = (facts.get("datasets") or {}).get(cell.column.task)
    reasons_by_id = {
        id(one): [
            *seed_groups.incomparable_reasons(
                one, sizes, known, seen, {*cell.row.fields, *facts.get("cut", ())}
            ),
            *_missing_parts(one, pooled),
        ]
        for one in there
    }
    deviations_by_id = {
        id(one): []
        if cell.printed is None or cell.row.facts.get("untuned")
        else recipe_match.deviations(one, {*cell.row.fields, pooled.get("key")})
        for one in there
    }
    ordered = seed_groups.best(there, reasons_by_id, deviations_by_id)
    if ordered:
        cell.setting, *cell.others = ordered
        shown = id(cell.setting)
        cell.incomparable_reasons = reasons_by_id[shown] + deviations_by_id[shown]
        if cell.others:
            cell.why_shown = seed_groups.why_first(*ordered[:2], reasons_by_id, deviations_by_id)
        if cell.column.judged:
            cell.incomparable_reasons += _judges(cell, index)
        else:
            cell.incomparable_reasons += _lost(cell, how["select"])
    for rule in RULES:
        cell.ours[rule] = statistic(cell, rule, how, index)
        reasons = list(cell.incomparable_reasons)
        reasons += _source(cell.row, how)
        if rule != how["select"]:
            reasons.append(OTHER_RULE)
        told = judge(cell.printed, cell.ours[rule], how["runs"], reasons)
        weights = known.get(cell.row.model) or {}
        if told.verdict in JUDGED and weights.get("fingerprint") is None:
            words = filter(None, (told.reason, recipe_match.UNVERIFIED))
            told = replace(told, reason="; ".join(words))
        cell.judgements[rule] = told


def statistic(cell: PaperCell, rule: str, how: dict[str, Any], index: RunIndex) -> Statistic | None:
    """Return our number for a cell under a selection rule; None if no run has one."""
    if cell.setting is None:
        return None
    column, values = cell.column, {}
    by_seed: dict[int, list[float]] = {}
    for part, run in cell.setting.runs.items():
        if column.judged:
            grade = find_grade(index, run, column.judged, column.judge) if rule == "last" else None
            score = grade.average if grade else None
        else:
            score = run.score(rule, column.metric, column.split)
        if score is not None:
            values[part] = score * column.scale
            by_seed.setdefault(run.seed, []).append(values[part])
    if not values:
        return None
    ddof = 1 if how["spread"] is None else how["spread"]
    means = {seed: statistics.fmean(found) for seed, found in by_seed.items()}
    return Statistic(values=means, kind=how["statistic"], ddof=ddof, parts=values)


def _lost(cell: PaperCell, rule: str) -> list[str]:
    """Return the reason not to compare a mean that leaves seeds out."""
    column, runs = cell.column, list(cell.setting.runs.values()) if cell.setting else []
    lost = sum(run.score(rule, column.metric, column.split) is None for run in runs)
    return paired.name_lost(lost, len(runs))


def _missing_parts(setting: Setting, pooled: dict[str, Any]) -> Iterator[str]:
    """Yield a reason if the mean is over fewer parts than the paper's."""
    missing = [one for one in pooled.get("values", ()) if one not in setting.parts]
    if missing:
        name, number = pooled["key"].rpartition(".")[2], len(pooled["values"])
        yield f"{number - len(missing)} of the {number} {name}s of {pooled['where']}"


def _source(row: Row, how: dict[str, Any]) -> Iterator[str]:
    """Yield the reasons not to compare runs with a row that the paper copied."""
    source = row.facts.get("copied")
    if not source:
        return
    if not any(known in source for known in KNOWN_SOURCES):
        yield UNKNOWN_SOURCE
    elif how.get("copied_select", how["select"]) != how["select"]:
        yield f"copied from a paper that takes the {how['copied_select']} epoch"


def _judges(cell: PaperCell, index: RunIndex) -> list[str]:
    """Return the reasons not to compare the grades shown with the paper's."""
    column = cell.column
    grades = [
        find_grade(index, run, column.judged, column.judge) for run in cell.setting.runs.values()
    ]
    reasons = [reason for one in grades if one for reason in one.incomparable_reasons(column.judge)]
    return list(dict.fromkeys(reasons))


def extra_runs(facts: dict[str, Any], index: RunIndex, cells: list[PaperCell]) -> list[PaperCell]:
    """Return cells missing from the paper: other base models and sizes on the table's tasks."""
    known, seen = reference.weights(), seed_groups.fingerprints(index.runs)
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
    for run in index.runs:
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
    for position, ((model, method, variant, profile), runs) in enumerate(sorted(groups.items())):
        parts = [method, variant or (f"profile={profile}" if profile else "")]
        row = Row(
            position=-1 - position,
            model=model,
            method=method,
            label=", ".join(filter(None, parts)),
            model_label=model,
            fields={},
            facts={},
        )
        for column in spec.values():
            cell = PaperCell(row=row, column=column, printed=None)
            mine = [run for run in runs if run.record.run["task"] == column.task]
            answer(cell, mine, facts, index, known, seen)
            found.append(cell)
    return found
