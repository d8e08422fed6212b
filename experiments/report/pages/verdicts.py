"""Verdicts on every cell and claim, without their pages."""

from __future__ import annotations

from experiments.report.comparison import reference
from experiments.report.comparison.run_index import RunIndex
from experiments.report.comparison.verdict import Verdict
from experiments.report.pages import paper_claims, registry


def find_verdicts(index: RunIndex) -> dict[str, Verdict]:
    """Return the verdict on every cell of a table and every claim on scores, by its name.

    Raises:
        RecordError: the paper's numbers cannot be read.
    """
    found: dict[str, Verdict] = {}
    fill = paper_claims.fill_tables(index)
    for name in reference.names():
        if name in registry.OF_THE_PAPER:
            continue
        facts, cells = fill(name)
        for cell in cells:
            what = f"{name}, {cell.row.model_label}, {cell.row.label}, {cell.column.name}"
            found[what] = cell.verdict(facts["how"]["select"])
    findings, _ = paper_claims.find_findings(index, fill)
    return found | {
        f"{one.page}, {one.says}": one.judgement.verdict
        for one in findings
        if one.page not in paper_claims.OF_COUNTS
    }
