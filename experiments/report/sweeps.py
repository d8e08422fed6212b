"""Figures that set a score against a size: Figures 1, 4 and 5, each with its claims."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from experiments.report import claims, paper, settings, sweeping
from experiments.report.document import (
    RULES,
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
from experiments.report.evidence import Evidence
from experiments.report.settings import Setting
from experiments.report.verdict import Judgement


@dataclass(kw_only=True)
class Point:
    """One size of one series."""

    size: float | None
    x: float | None
    """Where it is drawn; None if the reference does not say."""
    known: float | None
    """What the paper's tables print for it."""
    setting: Setting | None = None
    scores: dict[str, list[float]] = field(default_factory=dict)
    """Of every seed, by selection rule."""
    obstacles: list[str] = field(default_factory=list)

    def score(self, rule: str) -> float | None:
        """Mean over the seeds; None if there is none."""
        found = self.scores.get(rule)
        return statistics.fmean(found) if found else None


@dataclass(kw_only=True)
class Panel:
    """One panel of the figure."""

    key: str
    title: str
    label: str
    ticks: list[float] | None
    rule: str
    series: dict[str, list[Point]]
    own: bool = True
    """False: drawn from another base model than the paper's."""

    @property
    def obstacles(self) -> list[str]:
        """Why its runs cannot be compared with the paper's."""
        found = [
            one for points in self.series.values() for point in points for one in point.obstacles
        ]
        return list(dict.fromkeys(found))

    @property
    def run(self) -> bool:
        """True if any point was run."""
        return any(point.setting for points in self.series.values() for point in points)


def show(name: str, facts: dict[str, Any], evidence: Evidence) -> Page:
    """Draws every point that was run beside the paper's claims and known points."""
    panels = list(_panels(facts, evidence))
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
            "print; grey: runs that cannot be compared",
            draw=partial(sweeping.draw, facts, panels),
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


def _panels(facts: dict[str, Any], evidence: Evidence) -> Iterator[Panel]:
    """The paper's panels, then those of other base models that were run the same way."""
    known, seen = paper.weights(), settings.fingerprints(evidence.runs)
    for entry in facts["panels"]:
        about = {"model": facts.get("model"), "scale": facts.get("scale", 1), **entry}
        series = entry.get("series") or facts["series"]
        models = sorted({run.record.run["model"] for run in evidence.select(task=entry["task"])})
        for model in [about["model"], *(one for one in models if one != about["model"])]:
            own = model == about["model"]
            panel = Panel(
                key=entry.get("key", entry["task"]) if own else f"{entry['task']} {model}",
                title=entry["title"] if own else f"{entry['title']}, {model}",
                label=entry["label"],
                ticks=entry.get("ticks") if own else None,
                rule="last" if entry.get("judged") else "best",
                series={},
                own=own,
            )
            for name, said in series.items():
                marks = said.get("known") or (entry.get("known") or {}).get(name) or []
                panel.series[name] = [
                    _point(
                        name,
                        said,
                        size,
                        dict(map(tuple, marks)) if own else {},
                        about | {"model": model},
                        evidence,
                    )
                    for size in said["values"]
                ]
            for points in panel.series.values():
                for point in points:
                    if point.setting is not None:
                        point.obstacles = settings.obstacles(point.setting, None, known, seen)
            if own or panel.run:
                yield panel


def _point(
    name: str,
    said: dict[str, Any],
    size: float | None,
    known: dict[float | None, float],
    about: dict[str, Any],
    evidence: Evidence,
) -> Point:
    """A point with the runs that answer it."""
    wanted = {"model": about["model"], "task": about["task"], "method": said.get("method", name)}
    wanted |= said.get("fields") or {}
    if said.get("size"):
        wanted[f"method.{said['size']}"] = size
    x = said.get("at") if size is None else size * said.get("per_size", 1)
    point = Point(size=size, x=x, known=known.get(size))
    runs = [
        run
        for run in evidence.select(model=wanted["model"], task=wanted["task"])
        if run.record.metrics and settings.answers(run, wanted)
    ]
    there = settings.settle(runs)
    if not there:
        return point
    hurdles = {id(one): settings.obstacles(one, None, paper.weights(), {}) for one in there}
    point.setting = settings.best(there, hurdles)[0]
    for rule in RULES:
        found = []
        for run in point.setting.runs.values():
            if about.get("judged"):
                grades = evidence.judged(run, about["judged"]) if rule == "last" else []
                score = grades[0]["average"] if grades else None
            else:
                score = run.score(rule, about["metric"])
            if score is not None:
                found.append(score * about["scale"])
        point.scores[rule] = found
    return point


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
            "; ".join(point.obstacles) or (point.setting.label if point.setting else "not run"),
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
