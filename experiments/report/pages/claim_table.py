"""Table of a page's claims with their verdicts."""

from __future__ import annotations

from collections.abc import Sequence

from experiments.report.comparison.claims import Claim
from experiments.report.comparison.verdict import Judgement
from experiments.report.render.document import Line, Shown, Table


def claim_table(caption: str, found: Sequence[Claim], told: Sequence[Judgement]) -> Table:
    """Return a line per claim."""
    return Table(
        caption=caption,
        columns=["The paper's claim", "Verdict", "What it rests on"],
        lines=[
            Line(cells=[one.says, show_verdict(judgement), judgement.reason])
            for one, judgement in zip(found, told, strict=True)
        ],
    )


def show_verdict(judgement: Judgement) -> Shown:
    """Return a verdict in its color."""
    return Shown(text=f"**{judgement.verdict.value}**", tone=judgement.verdict.tone)
