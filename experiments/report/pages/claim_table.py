"""Table of a page's claims with their verdicts."""

from __future__ import annotations

from collections.abc import Sequence

from experiments.report.comparison import paired
from experiments.report.comparison.claims import Claim, describe
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
        cards=True,
    )


def describe_claim(claim: Claim, judgement: Judgement) -> str:
    """Say in a line what the runs tell about a claim."""
    evidence = claim.evidence
    if evidence is None:
        return "–"
    held = sum(one.holds for one in claim.parts.values())
    words = [f"holds in {held} of {len(claim.parts)} {claim.unit}", describe(evidence)]
    return "; ".join([*words, *filter(None, [judgement.needed])])


def list_untested(claim: Claim, what: str) -> list[str]:
    """Return words for what the runs leave open.

    Args:
        claim: the claim.
        what: name of what can be missing: cells or points.
    """
    evidence = claim.evidence
    words = [f"{claim.missing} {what}"] if claim.missing else []
    if evidence is None:
        return words or ["all of it"]
    lacking = paired.SEEDS - evidence.seeds
    if lacking > 0:
        words.append(f"{lacking} more shared seed{'s' * (lacking > 1)}")
    return list(dict.fromkeys([*words, *claim.reasons, *claim.reservations]))


def show_verdict(judgement: Judgement, partial: bool = False) -> Shown:
    """Return a verdict in its color."""
    return Shown(text=f"**{say_verdict(judgement, partial)}**", tone=judgement.verdict.tone)


def say_verdict(judgement: Judgement, partial: bool) -> str:
    """Return a verdict in words; one on a claim that was tested in part says so."""
    return f"{judgement.verdict.value}, as far as tested" if partial else judgement.verdict.value
