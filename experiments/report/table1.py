"""Table 1: counts and bytes of built models beside the paper's formulas and what it printed."""

from __future__ import annotations

from typing import Any

from experiments.report import paper
from experiments.report.evidence import Evidence, Run
from experiments.report.page import NOT_RUN, Page, heading, table, troubles

NUMBERS = ("r or n", "Count", "Formula", "Printed count", "Stored", "Printed size")
COLUMNS = ("Base model", "Method", *NUMBERS[:4], "Verdict", *NUMBERS[4:])
NUMBER_BYTES = 4
"""The paper's sizes are those of 32-bit numbers."""


def show(facts: dict[str, Any], evidence: Evidence) -> Page:
    """Sets every cell of the paper's table beside the count that a run recorded for it."""
    notes: list[str] = []
    shown, raw = [], []
    for place, row in enumerate(facts["rows"]):
        for method, labels in facts["methods"].items():
            run = find(evidence, row["model"], method, labels["size"], row[method][labels["size"]])
            cell = _compare(row, method, labels, run)
            marks = _mark(row, method, labels, notes)
            shown.append(_words(cell, labels, marks))
            record = evidence.name(run) if run else None
            raw.append({"row": place + 1, **cell, "record": record})
    lines = [*heading(facts), *_formulas(facts), "", *table(COLUMNS, shown, NUMBERS), ""]
    lines += [*_summary(raw, facts), "", "Misprints in the paper's table:", "", *notes, ""]
    lines += [f"Stored: 32-bit numbers, 1 KB = 1024 bytes. {facts['entries']}"]
    return Page(text="\n".join([*lines, *troubles(evidence.damaged)]) + "\n", rows=raw)


def find(evidence: Evidence, model: str, method: str, size_name: str, size: int) -> Run | None:
    """The counted run of a cell, that of the table's own experiment before any other;
    None if there is none."""
    counted = evidence.select(model=model, method=method, task="none", mode="count", profile=None)
    fitting = [
        run
        for run in counted
        if run.values.get(f"method.{size_name}") == size
        and run.values.get("method.targets") == run.values.get("model.attention")
    ]
    return min(fitting, key=lambda run: run.record.run.get("experiment") != "table1", default=None)


def _compare(
    row: dict[str, Any], method: str, labels: dict[str, str], run: Run | None
) -> dict[str, Any]:
    """One line of the csv file: ours, the formula's and the paper's numbers of a cell."""
    cell, size = row[method], labels["size"]
    digits, worth = paper.count(cell["printed"])
    stored, unit = cell["storage_printed"], paper.STORAGE[cell["storage_unit"]]
    ours = run.record.parameters if run else {}
    count = ours.get("adapter")
    if count is None:
        verdict = NOT_RUN
    elif count == cell["formula"]:
        verdict = "equals formula"
    else:
        verdict = f"differs by {count - cell['formula']:+,}"
    return {
        "base_model": row["base"],
        "model": row["model"],
        "method": method,
        "size_name": size,
        "size": cell[size],
        "size_printed": cell.get(f"{size}_printed", cell[size]),
        "count_ours": count,
        "count_formula": cell["formula"],
        "count_printed": round(float(digits) * worth),
        "count_printed_string": cell["printed"],
        "count_printed_is_formula": paper.agrees(digits, worth, cell["formula"]),
        "verdict": verdict,
        "stored_bytes_ours": ours.get("stored_bytes"),
        "storage_printed": stored,
        "storage_unit": cell["storage_unit"],
        "storage_printed_is_formula": paper.agrees(
            str(stored), unit, cell["formula"] * NUMBER_BYTES
        ),
        "misprint": "; ".join(cell.get("misprint", {}).values()),
    }


def _mark(
    row: dict[str, Any], method: str, labels: dict[str, str], notes: list[str]
) -> dict[str, str]:
    """Adds a cell's misprints to the numbered notes; returns the mark of each value that is one."""
    cell, size, marks = row[method], labels["size"], {}
    for value, reason in cell.get("misprint", {}).items():
        marks[value] = f" [{len(notes) + 1}]"
        where = f"{row['base']}, {labels['name']} {size}={cell[size]}"
        notes.append(f"- [{len(notes) + 1}] {where}: {reason}")
    return marks


def _words(cell: dict[str, Any], labels: dict[str, str], marks: dict[str, str]) -> list[str]:
    """The cells of one shown line, in the order of COLUMNS."""
    unit, count, stored = cell["storage_unit"], cell["count_ours"], cell["stored_bytes_ours"]
    return [
        cell["base_model"],
        labels["name"],
        f"{cell['size_name']}={cell['size']}{marks.get(labels['size'], '')}",
        NOT_RUN if count is None else f"{count:,}",
        f"{cell['count_formula']:,}",
        f"{cell['count_printed_string']}{marks.get('count', '')}",
        cell["verdict"],
        NOT_RUN if stored is None else f"{stored / paper.STORAGE[unit]:.6g} {unit}",
        f"{cell['storage_printed']:g} {unit}{marks.get('storage', '')}",
    ]


def _formulas(facts: dict[str, Any]) -> list[str]:
    parts = [f"{labels['name']} `{labels['formula']}`" for labels in facts["methods"].values()]
    return [f"Formulas: {', '.join(parts)}. [number]: a misprint of the paper, explained below."]


def _summary(raw: list[dict[str, Any]], facts: dict[str, Any]) -> list[str]:
    """How many counts and printed numbers are the formula's, and the command for what
    is missing."""
    equal = sum(cell["count_ours"] == cell["count_formula"] for cell in raw)
    missing = sum(cell["count_ours"] is None for cell in raw)
    differing = len(raw) - equal - missing
    words = f"**{equal} of {len(raw)} counts equal the formula"
    words += f", {differing} differ" if differing else ""
    words += f", {missing} not run.** Not run: `{facts['run']}`" if missing else ".**"
    sound = [
        sum(cell[f"{value}_printed_is_formula"] for cell in raw) for value in ("count", "storage")
    ]
    paper_words = (
        f"Of what the paper prints, {sound[0]} of {len(raw)} counts and {sound[1]} of {len(raw)}"
    )
    paper_words += " sizes are the formula's to the last digit."
    return [words, "", paper_words]
