"""Differences from the paper: its misprints, doubts and open questions, and their handling here."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from experiments.errors import RecordError
from experiments.report.comparison import paper_table, reference
from experiments.report.comparison.run_index import RunIndex
from experiments.report.render.document import Block, Heading, Items, Page, Prose, Shown, title

INTRODUCTION = (
    "Each reference file of this project notes where the paper contradicts itself, its authors' "
    "scripts or logs, or a formula, and what it does not say. Nothing here is guessed: what is "
    "unknown stays unknown."
)
LISTS = {
    "notes": "",
    "unsaid": "not said: ",
    "unknown": "not said: ",
    "misprints": "misprint: ",
    "flags": "",
}
"""Keys of a reference that hold remarks, and the prefix of each."""


def show(index: RunIndex) -> Page:
    """Build the page of the remarks of every reference."""
    blocks: list[Block] = [Prose(INTRODUCTION)]
    rows = []
    for name in reference.names():
        try:
            facts = reference.load(name)
        except RecordError as error:
            blocks += [Heading(name), Prose(str(error))]
            continue
        remarks = list(dict.fromkeys(_remarks(facts)))
        if remarks:
            opening = Shown(text=f"see {title(facts)}", link=f"page:{name}")
            blocks += [Heading(title(facts), name), Items([*remarks, opening])]
            rows += [{"page": name, "remark": remark} for remark in remarks]
    return Page(
        name="differences",
        title="What differs from the paper, and why",
        blocks=blocks,
        rows=rows or [{"page": None}],
        summary=f"{len(rows)} remarks.",
    )


def _remarks(facts: dict[str, Any]) -> Iterator[str]:
    for key, before in LISTS.items():
        found = facts.get(key)
        if isinstance(found, list):
            yield from (f"{before}{_text(one)}" for one in found)
    for entry in facts.get("leaves_open", ()):
        yield f"not said: {entry['what'] if isinstance(entry, dict) else entry}"
    if "how" in facts:
        yield f"not said about the numbers: {facts['how']['open']}"
    for row in facts.get("rows", ()):
        yield from _of_row(facts, row)


def _of_row(facts: dict[str, Any], row: dict[str, Any]) -> Iterator[str]:
    """Yield misprints, doubts and absences of one row of a table."""
    methods = facts.get("methods", {})
    model = (facts.get("models", {}).get(row.get("model")) or {}).get(
        "name", row.get("base", row.get("model"))
    )
    about = methods.get(row.get("method")) or {}
    called = (row.get("name"), row.get("printed_name"), about.get("name"), row.get("method"))
    name = f"{model}, {next((one for one in called if one), None)}"
    misprints = row.get("misprint") or {}
    for reason in misprints.values() if isinstance(misprints, dict) else [misprints]:
        yield f"misprint: {name}, printed {row.get('printed')}: {reason}"
    for key, reason in (row.get("suspect") or {}).items():
        yield f"doubtful: {name}, {facts.get('names', {}).get(key, key)}: {reason}"
    if row.get("unavailable") or ("method" in row and row["method"] is None):
        reason = row.get("unavailable", paper_table.ABSENT)
        yield f"not here: {name}, {row.get('printed')}: {reason}"
    for method, labels in methods.items():  # Table 1 has a cell for each method in every row
        cell = row.get(method)
        if isinstance(cell, dict):
            for reason in (cell.get("misprint") or {}).values():
                yield f"misprint: {row['base']}, {labels['name']}: {reason}"


def _text(remark: Any) -> str:
    return remark if isinstance(remark, str) else ", ".join(f"{k}: {v}" for k, v in remark.items())
