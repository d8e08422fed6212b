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

NUMBERS = ("Printed", "By the printed counts", "By the formulas", "Ours")
COUNTS_DIFFER = "printed counts differ"
"""The paper's printed counts do not round to its share."""
NOT_FORMULAS = "printed counts are not the formulas'"
HALF = 0.05
"""Half a unit of the last digit of a printed share."""


def show(name: str, facts: dict[str, Any], index: RunIndex) -> Page:
    """Build the page of the text's shares, factors and formulas beside our counts."""
    rows = [_share(entry, index) for entry in facts["shares"]]
    verdicts = Counter(row["verdict"] for row in rows)
    told = ", ".join(f"{verdicts[one]} {one.value}" for one in Verdict if verdicts[one])
    differing = sum(bool(row["misprint"]) for row in rows)
    summary = f"{len(rows)} shares: {told}; the paper's own numbers differ in {differing}."
    blocks: list[Block] = [*heading(facts), Prose(f"**{summary}**"), Prose(RULE)]
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
                _fewer(facts, rows),
                f"{facts['stored']['printed']} {facts['stored']['what']}. "
                f"Here: {facts['stored']['ours']}.",
            ]
        )
    )
    if any(row["ours"] is None for row in rows):
        blocks.append(Prose(f"Not run: `{facts['run']}`"))
    blocks += [Heading("Notes"), Items(facts["notes"])]
    return Page(
        name=name,
        title=facts["title"],
        blocks=blocks,
        rows=[_raw(row) for row in rows],
        rule="last",
        summary=summary,
        verdicts=verdicts,
    )


RULE = (
    "Ours are the counts of Table 1's built models; without them a share is **not run**. It is "
    "**reproduced** if ours rounds to it or lies within the rounding of the printed counts. It "
    "is **not comparable** where the paper's own numbers differ, as marked beside them: the "
    f"printed counts do not round to the share ({COUNTS_DIFFER}), or they do, but neither they "
    f"nor the share are what the formulas give ({NOT_FORMULAS}). Otherwise it is **not "
    "reproduced**."
)


def _share(entry: dict[str, Any], index: RunIndex) -> dict[str, Any]:
    """Compute a share by the printed counts, the formulas and the counts of Table 1's runs."""
    runs: dict[str, Run | None] = {
        method: table1.find(index, entry["model"], method, size, entry[method][size])
        for method, size in (("fourierft", "n"), ("lora", "r"))
    }
    ours = None
    if all(runs.values()):
        counts = {method: run.record.parameters["adapter"] for method, run in runs.items()}
        ours = 100 * counts["fourierft"] / counts["lora"] if counts["lora"] else None
    formula = 100 * entry["fourierft"]["formula"] / entry["lora"]["formula"]
    misprint = _find_misprint(entry, formula)
    return {
        "what": entry["what"],
        "printed": entry["printed"],
        "by_printed_counts": share(*entry["inputs"]),
        "formula": formula,
        "ours": ours,
        "verdict": _judge(entry, ours, misprint),
        "misprint": misprint,
        "basis": entry["basis"],
        "fewer": entry.get("fewer", True),
        "runs": runs,
    }


def _find_misprint(entry: dict[str, Any], formula: float) -> str:
    """Return where the paper's numbers of a share differ among themselves; "" if they do not."""
    least, most = share_range(*entry["inputs"])
    if not least - HALF <= entry["printed"] <= most + HALF:
        return COUNTS_DIFFER
    return "" if _agrees(entry, formula) else NOT_FORMULAS


def _judge(entry: dict[str, Any], ours: float | None, misprint: str) -> Verdict:
    if ours is None:
        return Verdict.not_run
    if misprint:
        return Verdict.not_comparable
    return Verdict.reproduced if _agrees(entry, ours) else Verdict.not_reproduced


def _agrees(entry: dict[str, Any], share: float) -> bool:
    """Return whether a share rounds to the printed one or is one of the printed counts'."""
    least, most = share_range(*entry["inputs"])
    return abs(share - entry["printed"]) <= HALF + 1e-9 or least <= share <= most


def share(part: str, whole: str) -> float:
    """Return the share, in per cent, that printed counts give."""
    part_digits, part_worth = reference.count(part)
    whole_digits, whole_worth = reference.count(whole)
    return 100 * float(part_digits) * part_worth / (float(whole_digits) * whole_worth)


def share_range(part: str, whole: str) -> tuple[float, float]:
    """Return the least and greatest share, in per cent, of counts that round to these."""
    (part_least, part_most), (whole_least, whole_most) = map(_rounded_from, (part, whole))
    return 100 * part_least / whole_most, 100 * part_most / whole_least


def _rounded_from(printed: str) -> tuple[float, float]:
    digits, worth = reference.count(printed)
    half = 0.5 * 10.0 ** -len(digits.partition(".")[2])
    return (float(digits) - half) * worth, (float(digits) + half) * worth


def _fewer(facts: dict[str, Any], rows: list[dict[str, Any]]) -> str:
    """Return the line on how many times fewer parameters are trained, over all shares."""
    least, most = facts["fewer"]["printed"]
    told = f"{least} to {most} {facts['fewer']['what']}"
    for words, key in (("the printed counts give", "by_printed_counts"), ("here", "ours")):
        within, beyond = (
            [100 / row[key] for row in rows if row[key] and row["fewer"] is counted]
            for counted in (True, False)
        )
        if within:
            told += f"; {words} {min(within):.2f} to {max(within):.0f}"
        if within and beyond:
            told += f" (with n = 10000 {min(beyond):.1f} and {max(beyond):.1f})"
    return f"{told}."


def _raw(row: dict[str, Any]) -> dict[str, Any]:
    """Return one line of the csv file."""
    kept = {key: value for key, value in row.items() if key not in ("runs", "fewer")}
    return kept | {"verdict": row["verdict"].value}


def _line(row: dict[str, Any], index: RunIndex) -> Line:
    run = row["runs"]["fourierft"]
    ours = NOT_RUN if row["ours"] is None else f"{row['ours']:.2f}"
    counted = f"{row['by_printed_counts']:.2f}"
    return Line(
        cells=[
            row["what"],
            f"{row['printed']:.1f}",
            (counted, Shown(text=f"({row['misprint']})", tone="interval"))
            if row["misprint"]
            else counted,
            f"{row['formula']:.2f}",
            Shown(text=ours, link=link(index.root, run.run_dir) if run else None),
            Shown(text=f"**{row['verdict'].value}**", tone=row["verdict"].tone),
            row["basis"],
        ]
    )
