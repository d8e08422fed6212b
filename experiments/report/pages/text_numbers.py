"""Numbers that the paper's text claims, beside the formulas and our counts."""

from __future__ import annotations

from typing import Any

from experiments.report.comparison.run_index import Evidence, Run
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


def show(name: str, facts: dict[str, Any], evidence: Evidence) -> Page:
    """Sets every share, factor and formula of the text beside what was counted."""
    rows = [_share(entry, evidence) for entry in facts["shares"]]
    ratios = [row["ours"] for row in rows if row["ours"] is not None]
    same = sum(row["verdict"] == "reproduced" for row in rows)
    summary = f"{same} of {len(rows)} shares are the counts'."
    fewer = [round(100 / ratio) for ratio in ratios if ratio]
    least, most = facts["fewer"]["printed"]
    spread = f"; here {min(fewer)} to {max(fewer)} times" if fewer else ""
    blocks: list[Block] = [*heading(facts), Prose(f"**{summary}**")]
    blocks.append(
        Table(
            caption="Trained numbers as a share of LoRA's, per cent",
            columns=("What", *NUMBERS, "Verdict", "From"),
            lines=[_line(row, evidence) for row in rows],
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
    verdicts = [row["verdict"] for row in rows]
    return Page(
        name=name,
        title=facts["title"],
        blocks=blocks,
        rows=[{key: value for key, value in row.items() if key != "runs"} for row in rows],
        rule="last",
        summary=summary,
        verdicts={one: verdicts.count(one) for one in dict.fromkeys(verdicts)},
    )


def _share(entry: dict[str, Any], evidence: Evidence) -> dict[str, Any]:
    """A share by the formulas and by the counts of Table 1's runs."""
    runs: dict[str, Run | None] = {
        method: table1.find(evidence, entry["model"], method, size, entry[method][size])
        for method, size in (("fourierft", "n"), ("lora", "r"))
    }
    formula = 100 * entry["fourierft"]["formula"] / entry["lora"]["formula"]
    ours = None
    if all(runs.values()):
        counts = {method: run.record.parameters["adapter"] for method, run in runs.items()}
        ours = 100 * counts["fourierft"] / counts["lora"] if counts["lora"] else None
    if ours is None:
        verdict = NOT_RUN
    else:
        close = abs(ours - entry["printed"]) <= HALF + 1e-9
        verdict = "reproduced" if close else "not reproduced"
    return {
        "what": entry["what"],
        "printed": entry["printed"],
        "formula": formula,
        "ours": ours,
        "verdict": verdict,
        "basis": entry["basis"],
        "runs": runs,
    }


def _line(row: dict[str, Any], evidence: Evidence) -> Line:
    run = row["runs"]["fourierft"]
    ours = NOT_RUN if row["ours"] is None else f"{row['ours']:.2f}"
    return Line(
        cells=[
            row["what"],
            f"{row['printed']:.1f}",
            f"{row['formula']:.2f}",
            Shown(text=ours, link=link(evidence.root, run.place) if run else None),
            Shown(text=f"**{row['verdict']}**", tone=row["verdict"].replace(" ", "-")),
            row["basis"],
        ]
    )
