"""Checks of a figure's claims: each looks at one panel, and compares its points."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

from experiments.report.comparison import panels
from experiments.report.comparison.claims import (
    AS_GOOD,
    Claim,
    Evidence,
    comparison,
    every,
    most,
    some,
)
from experiments.report.comparison.paired import Sample

Curve = Mapping[Any, Sample]
"""Scores by size; None stands for a series without a size."""
Scores = Mapping[str, Curve]
"""Curves of a panel by series."""


def _beats(panel: Scores, of: Sequence[Any], than: Sequence[Any], factor: float = 1.0) -> Evidence:
    """Compare two points, each [series, size]."""
    better, worse = panel[of[0]][of[1]], panel[than[0]][than[1]]
    return comparison(f"{better.name} against {worse.name}", better, worse, factor)


def best_beats(panel: Scores, of: str, than: str) -> Evidence:
    """Compare the best of one series with the best of the other."""
    return some(
        every(_beats(panel, [of, size], [than, other]) for other in panel[than])
        for size in panel[of]
    )


def smallest_beats(panel: Scores, of: str, than: str) -> Evidence:
    """Compare the smallest size of one series with all of the other."""
    smallest = min(panel[of])
    return every(_beats(panel, [of, smallest], [than, other]) for other in panel[than])


def largest_level(panel: Scores, of: str, than: str) -> Evidence:
    """Compare the largest size of one series with nearly the other's best."""
    largest = max(panel[of])
    return every(_beats(panel, [of, largest], [than, other], AS_GOOD) for other in panel[than])


def point_beats(panel: Scores, of: Sequence[Any], than: Sequence[Any]) -> Evidence:
    """Compare two points."""
    return _beats(panel, of, than)


def rises(panel: Scores, of: str) -> Evidence:
    """Compare every size with the next smaller one."""
    return every(
        _beats(panel, [of, later], [of, sooner]) for sooner, later in pairwise(sorted(panel[of]))
    )


def falls_somewhere(panel: Scores, of: str) -> Evidence:
    """Compare every size with the next larger one, of which one must be worse."""
    return some(
        _beats(panel, [of, sooner], [of, later]) for sooner, later in pairwise(sorted(panel[of]))
    )


def beats_most(panel: Scores, of: str, than: str) -> Evidence:
    """Compare one series with the points of the other, of which most must be worse."""
    return some(
        most(_beats(panel, [of, size], [than, other]) for other in panel[than])
        for size in panel[of]
    )


CHECKS: dict[str, Callable[..., Evidence]] = {
    check.__name__: check
    for check in (
        *(best_beats, smallest_beats, largest_level, point_beats),
        *(rises, falls_somewhere, beats_most),
    )
}


def needs(claim: Mapping[str, Any], panel: panels.Panel) -> set[Any]:
    """Return the points (series, size) of a panel that a claim is about.

    Args:
        claim: an entry of a reference's `claims`.
        panel: of the figure.
    """
    found = set()
    for end in (claim.get("of"), claim.get("than")):
        if isinstance(end, (list, tuple)):
            found.add((end[0], end[1]))
        elif isinstance(end, str):
            found |= {(end, point.size) for point in panel.series[end]}
    return found


def find_points(claim: Mapping[str, Any], panel: panels.Panel) -> list[panels.Point]:
    """Return the points of a panel that a claim is about."""
    wanted = needs(claim, panel)
    return [
        point
        for name, points in panel.series.items()
        for point in points
        if (name, point.size) in wanted
    ]


def weigh(claim: Mapping[str, Any], own: Mapping[str, panels.Panel]) -> Claim:
    """Set the runs against a figure's claim.

    Args:
        claim: `says`, `check`, `of`, `than` and the keys of the `panels` it is about.
        own: the paper's panels, by key.
    """
    found = Claim(says=claim["says"])
    ends = {end: claim[end] for end in ("of", "than") if end in claim}
    for key in claim["panels"]:
        panel = own[key]
        scores = read_scores(panel)
        wanted = needs(claim, panel)
        lacking = sum(size not in scores[series] for series, size in wanted)
        found.missing += lacking
        if not lacking:
            evidence = CHECKS[claim["check"]](scores, **ends)
            found.parts[key] = replace(evidence, words=f"{panel.title}, {evidence.words}")
            about = find_points(claim, panel)
            found.reasons += [one for point in about for one in point.incomparable_reasons]
            found.reservations += [one for point in about for one in point.reservations]
    return found


def read_scores(panel: panels.Panel) -> Scores:
    """Return the scores of a panel's points that were run."""
    return {
        name: {
            point.size: sample
            for point in points
            if (sample := point.sample(panel.rule)) is not None
        }
        for name, points in panel.series.items()
    }


def describe_known(claim: Mapping[str, Any], drawn: Sequence[panels.Panel]) -> str:
    """Say what the tables' points of a figure tell about a claim on two series; "" if nothing."""
    of, than = claim.get("of"), claim.get("than")
    if claim["check"] not in ("best_beats", "smallest_beats") or not isinstance(than, str):
        return ""
    ahead = []
    for panel in drawn:
        if panel.own and panel.key in claim["panels"]:
            sides = [
                [point.known for point in panel.series[name] if point.known is not None]
                for name in (of, than)
            ]
            if all(sides):
                ahead.append(max(sides[0]) > max(sides[1]))
    if not ahead:
        return ""
    return f"by the points that its tables print, in {sum(ahead)} of {len(ahead)} panels"
