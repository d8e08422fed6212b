"""Deviations from the paper: what it says, what runs here instead, why, and the expected effect."""

from __future__ import annotations

from typing import Any

from experiments.report.comparison import reference
from experiments.report.comparison.run_index import RunIndex
from experiments.report.render.document import Block, Heading, Items, Page, Prose

INTRODUCTION = (
    "Every place where this project differs from the paper (arXiv 2405.03003v1), or chose what it "
    "leaves open or says in two ways. A number in brackets is an inconsistency of the paper with "
    "itself, its authors' code or their logs. Effects are expected, not measured. Settings of a "
    "run are named as in `conf/`."
)
PARTS = {"paper": "Paper", "used": "Used", "why": "Why", "effect": "Effect"}


def show(index: RunIndex | None = None) -> Page:
    """Build the page; no run changes it."""
    facts = reference.deviations()
    blocks: list[Block] = [Prose(INTRODUCTION)]
    rows = []
    for key, section in facts["sections"].items():
        blocks.append(Heading(section, key))
        for entry in facts["entries"]:
            if entry["section"] == key:
                blocks += [Prose(_head(entry)), Items(_lines(entry))]
                rows.append(
                    {"section": key, "subject": entry["subject"], "where": entry["where"]}
                    | {part: _text(entry, part) for part in PARTS}
                )
    known = {entry["inconsistency"] for entry in facts["entries"] if "inconsistency" in entry}
    return Page(
        name="deviations",
        title="Deviations from the paper",
        blocks=blocks,
        rows=rows,
        summary=f"{len(rows)} deviations and choices, {len(known)} inconsistencies of the paper.",
    )


def _head(entry: dict[str, Any]) -> str:
    number = f" [{entry['inconsistency']}]" if "inconsistency" in entry else ""
    return f"**{entry['subject']}**{number}, {entry['where']}"


def _lines(entry: dict[str, Any]) -> list[str]:
    return [f"{label}: {_text(entry, part)}" for part, label in PARTS.items()]


def _text(entry: dict[str, Any], part: str) -> str:
    return " ".join(entry[part].split())
