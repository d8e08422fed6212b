"""Numbers in the paper's text, beside the formulas and our counts."""

from __future__ import annotations

from collections import Counter
from typing import Any

from experiments.report.comparison import reference
from experiments.report.comparison.run_index import Run, RunIndex
from experiments.report.comparison.verdict import Verdict
from experiments.report.pages import table1
from experiments.report.render.document import (
    NOT_RUN,
    Block,
    Heading,
    Items,
    Line,
    Page,
    Prose,
    Shown,
    Table,
    heading,
    link,
)

NUMBERS = ("Printed", "By the formulas", "Ours")
HALF = 0.05
"""Half a unit of the last digit of a printed share."""


def show(name: str, facts: dict[str, Any], index: RunIndex) -> Page:
    """Build the page of the text's shares, factors and formulas beside our counts."""
    rows = [_share(entry, index) for entry in facts["shares"]]
    ratios = [row["ours"] for row in rows if row["ours"] is not None]
    same = sum(row["verdict"] is Verdict.reproduced for row in rows)
    summary = f"{same} of {len(rows)} shares are the counts'."
    fewer = [round(100 / ratio) for ratio in ratios if ratio]
    least, most = facts["fewer"]["printed"]
    spread = f"; here {min(fewer)} to {max(fewer)} times" if fewer else ""
    blocks: list[Block] = [*heading(facts), Prose(f"**{summary}**")]
    blocks.append(
        Table(
            caption="Trained parameters as a share of LoRA's, per cent",
            columns=("What", *NUMBERS, "Verdict", "From"),
            lines=[_line(row, index) for row in rows],
            numbers=NUMBERS,
        )
    )
    blocks.append(
        Items(
            [
                f"{facts['fewer']['what']}: {least} to {most}{spread}.",
                f"{facts['stored']['printed']} {facts['stored']['what']}. "
                f"Here: {facts['stored']['ours']}.",
            ]
        )
    )
    if not ratios:
        blocks.append(Prose(f"Not run: `{facts['run']}`"))
    blocks += [Heading("Notes"), Items(facts["notes"])]
    return Page(
        name=name,
        title=facts["title"],
        blocks=blocks,
        rows=[_raw(row) for row in rows],
        rule="last",
        summary=summary,
        verdicts=Counter(row["verdict"] for row in rows),
    )


def _share(entry: dict[str, Any], index: RunIndex) -> dict[str, Any]:
    """Compute a share by the formulas and by the counts of Table 1's runs."""
    runs: dict[str, Run | None] = {
        method: table1.find(index, entry["model"], method, size, entry[method][size])
        for method, size in (("fourierft", "n"), ("lora", "r"))
    }
    formula = 100 * entry["fourierft"]["formula"] / entry["lora"]["formula"]
    ours = None
    if all(runs.values()):
        counts = {method: run.record.parameters["adapter"] for method, run in runs.items()}
        ours = 100 * counts["fourierft"] / counts["lora"] if counts["lora"] else None
    if ours is None:
        verdict = Verdict.not_run
    else:
        least, most = share_range(*entry["inputs"])
        exact = abs(ours - entry["printed"]) <= HALF + 1e-9
        close = exact or least <= ours <= most
        verdict = Verdict.reproduced if close else Verdict.not_reproduced
    return {
        "what": entry["what"],
        "printed": entry["printed"],
        "formula": formula,
        "ours": ours,
        "verdict": verdict,
        "basis": entry["basis"],
        "runs": runs,
    }


def share_range(part: str, whole: str) -> tuple[float, float]:
    """Return the least and greatest share, in per cent, of counts that round to these."""
    (part_least, part_most), (whole_least, whole_most) = map(_rounded_from, (part, whole))
    return 100 * part_least / whole_most, 100 * part_most / whole_least


def _rounded_from(printed: str) -> tuple[float, float]:
    digits, worth = reference.count(printed)
    half = 0.5 * 10.0 ** -len(digits.partition(".")[2])
    return (float(digits) - half) * worth, (float(digits) + half) * worth


def _raw(row: dict[str, Any]) -> dict[str, Any]:
    """Return one line of the csv file."""
    kept = {key: value for key, value in row.items() if key != "runs"}
    return kept | {"verdict": row["verdict"].value}


def _line(row: dict[str, Any], index: RunIndex) -> Line:
    run = row["runs"]["fourierft"]
    ours = NOT_RUN if row["ours"] is None else f"{row['ours']:.2f}"
    return Line(
        cells=[
            row["what"],
            f"{row['printed']:.1f}",
            f"{row['formula']:.2f}",
            Shown(text=ours, link=link(index.root, run.run_dir) if run else None),
            Shown(text=f"**{row['verdict'].value}**", tone=row["verdict"].tone),
            row["basis"],
        ]
    )
