"""Checks of a figure's claims in words: each check looks at one panel."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

from experiments.report.comparison.verdict import Judgement, Verdict

Curve = Mapping[float | None, float]
"""Score by size; None stands for a series without a size."""
Panel = Mapping[str, Curve]
LEVEL = 0.99
"""Share of a score that counts as equally good."""


def best_beats(panel: Panel, of: str, than: str) -> bool:
    """Check that the best of one series is above the best of the other."""
    return max(panel[of].values()) > max(panel[than].values())


def smallest_beats(panel: Panel, of: str, than: str) -> bool:
    """Check that the smallest size of one series is above all of the other."""
    return panel[of][min(panel[of])] > max(panel[than].values())


def largest_level(panel: Panel, of: str, than: str) -> bool:
    """Check that the largest size of one series is as good as the other's best."""
    return panel[of][max(panel[of])] >= LEVEL * max(panel[than].values())


def point_beats(panel: Panel, of: Sequence[Any], than: Sequence[Any]) -> bool:
    """Check that one point is above another; each is [series, size]."""
    return panel[of[0]][of[1]] > panel[than[0]][than[1]]


def rises(panel: Panel, of: str) -> bool:
    """Check that no size is worse than the next smaller one."""
    ordered = [panel[of][size] for size in sorted(panel[of])]
    return all(later >= sooner for sooner, later in pairwise(ordered))


def falls_somewhere(panel: Panel, of: str) -> bool:
    """Check that some size is worse than the next smaller one."""
    return not rises(panel, of)


def beats_most(panel: Panel, of: str, than: str) -> bool:
    """Check that one series is above more than half of the other's points."""
    own = max(panel[of].values())
    return sum(own > other for other in panel[than].values()) > len(panel[than]) / 2


def some_beats(panel: Panel, of: str, than: str) -> bool:
    """Check that some point of one series is above the other."""
    return best_beats(panel, of, than)


CHECKS: dict[str, Callable[..., bool]] = {
    check.__name__: check
    for check in (
        *(best_beats, smallest_beats, largest_level, point_beats),
        *(rises, falls_somewhere, beats_most, some_beats),
    )
}


def needs(claim: Mapping[str, Any], sizes: Mapping[str, Sequence[float | None]]) -> set[Any]:
    """Return the points (series, size) that a claim is about.

    Args:
        claim: an entry of a reference's `claims`.
        sizes: of every series of the figure.
    """
    found = set()
    for end in (claim.get("of"), claim.get("than")):
        if isinstance(end, (list, tuple)):
            found.add((end[0], end[1]))
        elif end is not None:
            found |= {(end, size) for size in sizes[end]}
    return found


def weigh(
    claim: Mapping[str, Any],
    panels: Mapping[str, Panel],
    sizes: Mapping[str, Mapping[str, Sequence[float | None]]],
    incomparable_reasons: Mapping[str, Sequence[str]],
) -> Judgement:
    """Judge a claim by the runs.

    Args:
        claim: `check`, `of`, `than` and the keys of the `panels` it is about.
        panels: our scores by panel, series and size.
        sizes: of every panel and series of the figure.
        incomparable_reasons: reasons not to compare the runs of a panel.
    """
    held, missing, reasons = [], 0, []
    ends = {end: claim[end] for end in ("of", "than") if end in claim}
    for key in claim["panels"]:
        panel = panels.get(key, {})
        wanted = needs(claim, sizes[key])
        lacking = sum(size not in panel.get(series, {}) for series, size in wanted)
        missing += lacking
        if not lacking:
            held.append(CHECKS[claim["check"]](panel, **ends))
            reasons += incomparable_reasons.get(key, [])
    if not held:
        return Judgement(verdict=Verdict.not_run, reason=f"{missing} points missing")
    words = f"holds in {sum(held)} of {len(held)} panels"
    words += f", {missing} points missing" if missing else ""
    if reasons:
        reason = "; ".join([words, *dict.fromkeys(reasons)])
        return Judgement(verdict=Verdict.not_comparable, reason=reason)
    if not all(held):
        return Judgement(verdict=Verdict.not_reproduced, reason=words)
    if missing:
        return Judgement(verdict=Verdict.not_run, reason=words)
    return Judgement(verdict=Verdict.reproduced, reason=words)
