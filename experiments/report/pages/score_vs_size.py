"""Figures that set a score against a size: Figures 1, 4 and 5, each with its claims."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import partial
from typing import Any

from experiments.metrics.selection import RULES
from experiments.report.comparison import claims, figure_claims
from experiments.report.comparison.claims import Claim
from experiments.report.comparison.panels import Panel, Point, read_panels
from experiments.report.comparison.run_index import RunIndex
from experiments.report.comparison.verdict import Verdict
from experiments.report.pages.claim_table import claim_table
from experiments.report.plots import size_curves
from experiments.report.render.document import (
    NOT_RUN,
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


def show(name: str, facts: dict[str, Any], index: RunIndex) -> Page:
    """Build the page of every point that was run beside the paper's claims and known points."""
    panels = list(read_panels(facts, index))
    found = weigh_claims(facts, panels)
    told = claims.judge(found)
    summary = claims.summarize(found, told)
    blocks: list[Block] = [
        *heading(facts),
        Prose(f"**{summary}**"),
        claim_table(f"What Figure {facts['figure']} claims, and what the runs say", found, told),
        Picture(
            name=name,
            alt=f"{title(facts)}. {summary}",
            caption=f"{title(facts)}: mean over seeds; hollow diamonds: what the paper's tables "
            f"print; pale: runs that cannot be compared{_bars(panels)}{_describe_axis(facts)}",
            draw=partial(size_curves.draw, facts, panels),
        ),
        Prose("The plotted values are an image in the paper; only the words can be compared."),
        Heading("Every point", "points"),
        _points(facts, panels, index),
        Prose(f"To run it: `{facts['run']}`. {claims.SEEDS_NEEDED}"),
        Heading("How claims are judged"),
        Prose(claims.RULE),
    ]
    for text, key in (("The paper does not say", "unsaid"), ("Notes", "notes")):
        if facts.get(key):
            blocks += [Heading(text), Items(facts[key])]
    return Page(
        name=name,
        title=title(facts),
        blocks=blocks,
        rows=list(_raw(panels, index)),
        rule="best",
        summary=summary,
        verdicts=Counter(one.verdict for one in told),
    )


def _bars(panels: list[Panel]) -> str:
    """Return the caption's part about intervals, which only panels beyond the paper's have."""
    if all(panel.own for panel in panels):
        return ""
    return "; bars and band: 95 % over the rows scored, the mean ends of the seeds' intervals"


def _describe_axis(facts: dict[str, Any]) -> str:
    """Return the caption's part about an axis that the paper scales otherwise."""
    return f"; {facts['paper_axis']}" if "paper_axis" in facts else ""


def weigh_claims(facts: dict[str, Any], panels: list[Panel]) -> list[Claim]:
    """Set the runs of the paper's panels against the figure's claims."""
    own = {panel.key: panel for panel in panels if panel.own}
    return [figure_claims.weigh(claim, own) for claim in facts["claims"]]


def _points(facts: dict[str, Any], panels: list[Panel], index: RunIndex) -> Table:
    lines = []
    for panel in panels:
        for points in panel.series.values():
            lines += [_line(panel, point, index) for point in points]
    return Table(
        caption=f"Points of Figure {facts['figure']}",
        columns=["Point", "Ours", "Paper's tables", "Seeds", "Remark"],
        lines=lines,
        numbers=("Ours", "Paper's tables", "Seeds"),
        filtered=True,
        brief=True,
    )


def _line(panel: Panel, point: Point, index: RunIndex) -> Line:
    record = link(index.root, point.setting.first.run_dir) if point.setting else None

    def ours(rule: str) -> Shown:
        score = point.score("last" if panel.rule == "last" else rule)  # grades know no epoch
        return Shown(text="–" if score is None else f"{score:.2f}", link=record)

    if point.setting is None:
        note, tone = NOT_RUN, Verdict.not_run.tone
    else:
        chosen = f"best of {point.trials} trials" if (point.trials or 0) > 1 else ""
        parts = [*point.incomparable_reasons, *point.reservations, point.setting.label, chosen]
        note = "; ".join(filter(None, parts))
        tone = "muted" if point.incomparable_reasons else None
    return Line(
        cells=[
            f"{panel.title}: {point.name}",
            Ruled(**{rule: ours(rule) for rule in RULES}),
            "" if point.known is None else f"{point.known:g}",
            str(len(point.setting.runs)) if point.setting else "",
            note,
        ],
        tone=tone,
    )


def _raw(panels: list[Panel], index: RunIndex) -> Iterator[dict[str, Any]]:
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
                    "trials": point.trials,
                    "obstacles": "; ".join(point.incomparable_reasons),
                    "records": " ".join(index.name(run) for run in runs),
                }
