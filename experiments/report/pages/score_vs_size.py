"""Figures that set a score against a size: Figures 1, 4 and 5, each with its claims."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import partial
from typing import Any

from experiments.metrics.selection import RULES
from experiments.report.comparison import claims
from experiments.report.comparison.panels import Panel, Point, of_figure
from experiments.report.comparison.run_index import Evidence
from experiments.report.comparison.verdict import Judgement
from experiments.report.plots import size_curves
from experiments.report.render.document import (
    Block,
    Heading,
    Items,
    Line,
    Page,
    Picture,
    Prose,
    Ruled,
    Shown,
    Table,
    heading,
    link,
    title,
)


def show(name: str, facts: dict[str, Any], evidence: Evidence) -> Page:
    """Draws every point that was run beside the paper's claims and known points."""
    panels = list(of_figure(facts, evidence))
    own = {panel.key: panel for panel in panels if panel.own}
    told = [(claim["says"], _weigh(claim, own)) for claim in facts["claims"]]
    counts = Counter(judgement.verdict.value for _, judgement in told)
    summary = "; ".join(f"{says}: {one.verdict.value}" for says, one in told) + "."
    blocks: list[Block] = [
        *heading(facts),
        _claims(facts, told),
        Picture(
            name=name,
            alt=f"{title(facts)}. {summary}",
            caption=f"{title(facts)}: mean over seeds; hollow diamonds: what the paper's tables "
            f"print; pale: runs that cannot be compared{_bars(panels)}",
            draw=partial(size_curves.draw, facts, panels),
        ),
        Prose("The plotted values are an image in the paper; only the words can be compared."),
        Heading("Every point", "points"),
        _points(facts, panels, evidence),
        Prose(f"To run it: `{facts['run']}`"),
    ]
    for text, key in (("The paper does not say", "unsaid"), ("Notes", "notes")):
        if facts.get(key):
            blocks += [Heading(text), Items(facts[key])]
    return Page(
        name=name,
        title=title(facts),
        blocks=blocks,
        rows=list(_raw(panels, evidence)),
        rule="best",
        summary=summary,
        verdicts=dict(counts),
    )


def _bars(panels: list[Panel]) -> str:
    """What the caption says of the intervals, which only panels beyond the paper's have."""
    if all(panel.own for panel in panels):
        return ""
    return "; bars and band: 95 % over the rows scored, the mean ends of the seeds' intervals"


def _weigh(claim: dict[str, Any], own: dict[str, Panel]) -> Judgement:
    scores = {
        key: {
            name: {
                point.size: score
                for point in points
                if (score := point.score(panel.rule)) is not None
            }
            for name, points in panel.series.items()
        }
        for key, panel in own.items()
    }
    sizes = {
        key: {name: [point.size for point in points] for name, points in panel.series.items()}
        for key, panel in own.items()
    }
    return claims.weigh(claim, scores, sizes, {key: one.obstacles for key, one in own.items()})


def _claims(facts: dict[str, Any], told: list[tuple[str, Judgement]]) -> Table:
    return Table(
        caption=f"What Figure {facts['figure']} claims, and what the runs say",
        columns=["The paper's claim", "Verdict"],
        lines=[
            Line(
                cells=[
                    says,
                    Shown(
                        text=f"**{one.verdict.value}**"
                        + (f" ({one.reason})" if one.reason else ""),
                        tone=one.verdict.tone,
                    ),
                ]
            )
            for says, one in told
        ],
    )


def _points(facts: dict[str, Any], panels: list[Panel], evidence: Evidence) -> Table:
    lines = []
    for panel in panels:
        for name, points in panel.series.items():
            said = _said(facts, panel, name)
            for point in points:
                lines.append(_line(panel, said, point, evidence))
    return Table(
        caption=f"Points of Figure {facts['figure']}",
        columns=["Point", "Ours", "Paper's tables", "Seeds", "Remark"],
        lines=lines,
        numbers=("Ours", "Paper's tables", "Seeds"),
        filtered=True,
        brief=True,
    )


def _said(facts: dict[str, Any], panel: Panel, name: str) -> dict[str, Any]:
    """What the reference says of a series."""
    for entry in facts["panels"]:
        if "series" in entry and entry.get("key") == panel.key:
            return entry["series"][name]
    return facts["series"][name] if "series" in facts else facts["panels"][0]["series"][name]


def _line(panel: Panel, said: dict[str, Any], point: Point, evidence: Evidence) -> Line:
    size = "" if said.get("size") is None else f", {said['size']}={point.size}"
    record = link(evidence.root, point.setting.first.place) if point.setting else None

    def ours(rule: str) -> Shown:
        score = point.score("last" if panel.rule == "last" else rule)  # grades know no epoch
        return Shown(text="–" if score is None else f"{score:.2f}", link=record)

    return Line(
        cells=[
            f"{panel.title}: {said['name']}{size}",
            Ruled(**{rule: ours(rule) for rule in RULES}),
            "" if point.known is None else f"{point.known:g}",
            str(len(point.setting.runs)) if point.setting else "",
            "; ".join([*point.obstacles, point.setting.label]) if point.setting else "not run",
        ],
        tone="not-run" if point.setting is None else "muted" if point.obstacles else None,
    )


def _raw(panels: list[Panel], evidence: Evidence) -> Iterator[dict[str, Any]]:
    for panel in panels:
        for name, points in panel.series.items():
            for point in points:
                runs = point.setting.runs.values() if point.setting else ()
                yield {
                    "panel": panel.title,
                    "series": name,
                    "size": point.size,
                    "x": point.x,
                    **{f"ours_{rule}": point.score(rule) for rule in RULES},
                    "paper": point.known,
                    "seeds": len(runs),
                    "obstacles": "; ".join(point.obstacles),
                    "records": " ".join(evidence.name(run) for run in runs),
                }
