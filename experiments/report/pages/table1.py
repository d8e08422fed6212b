"""Table 1: counts and bytes of built models beside the paper's formulas and what it printed."""

from __future__ import annotations

from collections import Counter
from typing import Any

from experiments.report.comparison import reference
from experiments.report.comparison.run_index import Run, RunIndex
from experiments.report.comparison.verdict import Verdict
from experiments.report.render.document import (
    NOT_RUN,
    Cell,
    Items,
    Line,
    Page,
    Prose,
    Shown,
    Table,
    heading,
    link,
    title,
)

NUMBERS = ("r or n", "Count", "Formula", "Printed count", "Stored", "Printed size")
COLUMNS = ("Base model", "Method", *NUMBERS[:4], "Verdict", *NUMBERS[4:])
NUMBER_BYTES = 4
"""The paper's sizes are those of 32-bit numbers."""


def show(name: str, facts: dict[str, Any], index: RunIndex) -> Page:
    """Build the page of the paper's cells beside the recorded counts."""
    notes: list[str] = []
    lines, raw = [], []
    for place, row in enumerate(facts["rows"]):
        for method, labels in facts["methods"].items():
            run = find(index, row["model"], method, labels["size"], row[method][labels["size"]])
            cell = _compare(row, method, labels, run)
            marks = _mark(row, method, labels, notes)
            record = link(index.root, run.run_dir) if run else None
            lines.append(Line(cells=_words(cell, labels, marks, record)))
            raw.append({"row": place + 1, **cell, "record": index.name(run) if run else None})
    table = Table(caption=title(facts), columns=COLUMNS, lines=lines, numbers=NUMBERS, heads=3)
    summary, missing = _summary(raw)
    blocks = [*heading(facts), Prose(_formulas(facts)), Prose(f"**{summary}**"), table]
    blocks += [Prose(f"Not run: `{facts['run']}`")] if missing else []
    blocks += [Prose(_sound(raw)), Prose("Misprints in the paper's table:"), Items(notes)]
    blocks.append(Prose(f"Stored: 32-bit numbers, 1 KB = 1024 bytes. {facts['entries'].strip()}"))
    return Page(
        name=name,
        title=title(facts),
        blocks=blocks,
        rows=raw,
        summary=summary,
        verdicts=Counter(map(_judge, raw)),
    )


def find(index: RunIndex, model: str, method: str, size_name: str, size: int) -> Run | None:
    """Return the counted run of a cell, preferably of the table's own experiment, or None."""
    counted = index.select(model=model, method=method, task="none", mode="count", profile=None)
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
    """Return one line of the csv file: our, the formula's and the paper's numbers of a cell."""
    cell, size = row[method], labels["size"]
    digits, worth = reference.count(cell["printed"])
    stored, unit = cell["storage_printed"], reference.STORAGE[cell["storage_unit"]]
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
        "count_printed_is_formula": reference.agrees(digits, worth, cell["formula"]),
        "equal": count == cell["formula"],
        "verdict": verdict,
        "stored_bytes_ours": ours.get("stored_bytes"),
        "storage_printed": stored,
        "storage_unit": cell["storage_unit"],
        "storage_printed_is_formula": reference.agrees(
            str(stored), unit, cell["formula"] * NUMBER_BYTES
        ),
        "misprint": "; ".join(cell.get("misprint", {}).values()),
    }


def _mark(
    row: dict[str, Any], method: str, labels: dict[str, str], notes: list[str]
) -> dict[str, str]:
    """Add a cell's misprints to the numbered notes; return the mark of each misprinted value."""
    cell, size, marks = row[method], labels["size"], {}
    for value, reason in cell.get("misprint", {}).items():
        marks[value] = f" [{len(notes) + 1}]"
        where = f"{row['base']}, {labels['name']} {size}={cell[size]}"
        notes.append(f"[{len(notes) + 1}] {where}: {reason}")
    return marks


def _words(
    cell: dict[str, Any], labels: dict[str, str], marks: dict[str, str], record: str | None
) -> list[Cell]:
    """Return the cells of one shown line, in the order of COLUMNS."""
    unit, count, stored = cell["storage_unit"], cell["count_ours"], cell["stored_bytes_ours"]
    ours = NOT_RUN if count is None else f"{count:,}"
    return [
        cell["base_model"],
        labels["name"],
        f"{cell['size_name']}={cell['size']}{marks.get(labels['size'], '')}",
        Shown(text=ours, link=record),
        f"{cell['count_formula']:,}",
        f"{cell['count_printed_string']}{marks.get('count', '')}",
        Shown(text=cell["verdict"], tone=_judge(cell).tone),
        NOT_RUN if stored is None else f"{stored / reference.STORAGE[unit]:.6g} {unit}",
        f"{cell['storage_printed']:g} {unit}{marks.get('storage', '')}",
    ]


def _formulas(facts: dict[str, Any]) -> str:
    parts = [f"{labels['name']} `{labels['formula']}`" for labels in facts["methods"].values()]
    return f"Formulas: {', '.join(parts)}. [number]: a misprint of the paper, explained below."


def _summary(raw: list[dict[str, Any]]) -> tuple[str, int]:
    """Summarise how many counts equal the formula; also return how many are missing."""
    equal = sum(cell["count_ours"] == cell["count_formula"] for cell in raw)
    missing = sum(cell["count_ours"] is None for cell in raw)
    if missing == len(raw):
        return f"{len(raw)} counts: {missing} not run.", missing
    differing = len(raw) - equal - missing
    words = f"{equal} of {len(raw)} counts equal the formula"
    words += f", {differing} differ" if differing else ""
    words += f", {missing} not run" if missing else ""
    return f"{words}.", missing


def _judge(cell: dict[str, Any]) -> Verdict:
    """Judge a count, which needs no pretrained weights: it equals the formula or it does not."""
    if cell["count_ours"] is None:
        return Verdict.not_run
    return Verdict.reproduced if cell["equal"] else Verdict.not_reproduced


def _sound(raw: list[dict[str, Any]]) -> str:
    """Summarise how many of the paper's numbers agree with the formula."""
    counts, sizes = (
        sum(cell[f"{value}_printed_is_formula"] for cell in raw) for value in ("count", "storage")
    )
    return (
        f"Of what the paper prints, {counts} of {len(raw)} counts and {sizes} of {len(raw)} "
        "sizes are the formula's to the last digit."
    )
