"""Panels of a figure of score over size: the paper's, and others like them."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from experiments.metrics.selection import RULES
from experiments.report.comparison import reference, seed_groups
from experiments.report.comparison.run_index import Run, RunIndex, number
from experiments.report.comparison.seed_groups import Setting


@dataclass(kw_only=True)
class Point:
    """One size of one series."""

    size: float | None
    x: float | None = None
    """Horizontal position; None if unknown."""
    known: float | None = None
    """Score that the paper's tables print for it."""
    setting: Setting | None = None
    trials: int | None = None
    """Settings among which a search chose this one; None for a point that is not searched."""
    scores: dict[str, list[float]] = field(default_factory=dict)
    """Scores of all seeds, by selection rule."""
    incomparable_reasons: list[str] = field(default_factory=list)
    interval: tuple[float, float] | None = None
    """95 % interval over the scored rows at the best epoch; its ends are means over seeds."""

    def score(self, rule: str) -> float | None:
        """Return the mean over the seeds; None without scores."""
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
    """False for a base model or task that the paper's figure does not have."""

    @property
    def incomparable_reasons(self) -> list[str]:
        """Reasons not to compare its runs with the paper's."""
        found = [
            one
            for points in self.series.values()
            for point in points
            for one in point.incomparable_reasons
        ]
        return list(dict.fromkeys(found))

    def placed(self, name: str) -> int:
        """Count the points of a series with a position and a score."""
        return sum(
            point.x is not None and point.score(self.rule) is not None
            for point in self.series[name]
        )

    @property
    def run(self) -> bool:
        """Return True if any point was run."""
        return any(point.setting for points in self.series.values() for point in points)


def read_panels(facts: dict[str, Any], index: RunIndex) -> Iterator[Panel]:
    """Yield the paper's panels, then those of other base models, then other tasks'.

    Of other base models and tasks the sizes that were run are shown, if a series has two of them
    with a score. Runs on other rows, of a limited number of steps, with random weights or of a
    profile get panels of their own. `facts["beyond"]` says what a record of another task must
    hold; without it there are no other tasks.
    """
    seen = seed_groups.fingerprints(index.runs)
    common = {
        "scale": facts.get("scale", 1),
        "of": facts["x"].get("of", "model"),
        "searched": facts.get("searched", False),
    }
    entries = [
        (common | {"model": facts.get("model"), **entry}, entry.get("series") or facts["series"])
        for entry in facts["panels"]
    ]
    for about, series in entries:
        yield _own(about, series, index, seen)
    runs = [run for run in index.runs if _primary(run)]
    subjects: dict[str, list[Any]] = {}  # of one the paper may have several base models
    for entry in entries:
        subjects.setdefault(_subject(entry[0]), []).append(entry)
    for subject, alike in subjects.items():
        about, series = alike[0]
        own = {one["model"] for one, _ in alike}
        others = [
            run
            for run in runs
            if run.record.run["task"] == about["task"] and run.record.run["model"] not in own
        ]
        yield from _others(about | {"title": subject}, series, others, index, seen)
    tasks = {entry["task"] for entry in facts["panels"]}
    rest: dict[str, list[Run]] = {}
    for run in runs if "beyond" in facts else ():
        fits = all(run.values.get(key) == value for key, value in facts["beyond"].items())
        if fits and run.record.run["task"] not in tasks:
            rest.setdefault(run.record.run["task"], []).append(run)
    for task, found in sorted(rest.items()):
        metric = _primary(found[0])
        label = f"{metric} x {common['scale']}"
        about = common | {"task": task, "title": task, "metric": metric, "label": label}
        yield from _others(about, facts["series"], found, index, seen)


def _own(
    about: dict[str, Any], series: dict[str, Any], index: RunIndex, seen: dict[str, set[str]]
) -> Panel:
    runs = index.select(model=about["model"], task=about["task"])
    panel = _empty(about, key=about.get("key", about["task"]), title=about["title"], own=True)
    for name, said in series.items():
        known = dict(map(tuple, said.get("known") or (about.get("known") or {}).get(name) or []))
        for size in said["values"]:
            point = _point(name, said, size, about, runs, index, seen)
            point.x = said.get("at") if size is None else size * said.get("per_size", 1)
            point.known = known.get(size)
            panel.series.setdefault(name, []).append(point)
    return panel


def _others(
    about: dict[str, Any],
    series: dict[str, Any],
    runs: Iterable[Run],
    index: RunIndex,
    seen: dict[str, set[str]],
) -> Iterator[Panel]:
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(f"{run.record.run['model']}{_ran(run)}", []).append(run)
    for title, found in sorted(groups.items()):
        key, title = f"{about['task']} {title}", f"{about['title']}, {title}"
        panel = _empty(about, key=key, title=title, own=False)
        for name, said in series.items():
            sizes = [None] if said.get("size") is None else _sizes(name, said, found)
            points = [_point(name, said, size, about, found, index, seen) for size in sizes]
            for point in points:
                if point.setting and (said.get("at") or said.get("per_size")):
                    point.x = _count_parameters(point.setting, about["of"])
                elif point.setting:
                    point.x = point.size
            panel.series[name] = points
        if any(panel.placed(name) > 1 for name in panel.series):
            yield panel


def _subject(about: dict[str, Any]) -> str:
    """Return the subject of a panel, without its base model."""
    return about.get("subject", about["title"])


def _ran(run: Run) -> str:
    """Describe how a run is smaller than its task and base model, for the title of its panel."""
    values = run.values
    cuts = seed_groups.CUTS.items()
    parts = [told.format(values[key]) for key, told in cuts if values.get(key) is not None]
    if values.get("model.pretrained") is False:
        parts.append("random weights")
    if profile := run.record.run.get("profile"):
        parts.append(f"profile {profile}")
    return "".join(f", {part}" for part in parts)


def _empty(about: dict[str, Any], *, key: str, title: str, own: bool) -> Panel:
    return Panel(
        key=key,
        title=title,
        label=about["label"],
        ticks=about.get("ticks") if own else None,
        rule="last" if about.get("judged") else "best",
        series={},
        own=own,
    )


def _point(
    name: str,
    said: dict[str, Any],
    size: float | None,
    about: dict[str, Any],
    runs: Iterable[Run],
    index: RunIndex,
    seen: dict[str, set[str]],
) -> Point:
    """Return a point with the runs that answer it."""
    point, known = Point(size=size), reference.weights()
    wanted = _wanted(name, said, size)
    there = seed_groups.group_seeds(
        run for run in runs if run.record.metrics and seed_groups.answers(run, wanted)
    )
    if not there:
        return point
    reasons_by_id = {
        id(one): seed_groups.incomparable_reasons(one, None, known, {}) for one in there
    }
    ordered = seed_groups.best(there, reasons_by_id)
    point.setting = ordered[0]
    if about["searched"]:
        fewest = len(reasons_by_id[id(ordered[0])])
        trials = [one for one in ordered if len(reasons_by_id[id(one)]) == fewest]
        point.setting, point.trials = max(trials, key=_study_score), len(trials)
    point.incomparable_reasons = seed_groups.incomparable_reasons(point.setting, None, known, seen)
    for rule in RULES:
        found = []
        for run in point.setting.runs.values():
            if about.get("judged"):
                grades = index.judged(run, about["judged"]) if rule == "last" else []
                score = grades[0]["average"] if grades else None
            else:
                score = run.score(rule, about["metric"])
            if score is not None:
                found.append(score * about["scale"])
        point.scores[rule] = found
    point.interval = _interval(point.setting, about)
    return point


def _study_score(setting: Setting) -> float:
    """Return a trial's score by the metric of the study: the primary one at its best epoch."""
    found = [run.score("best", run.primary.get("name") or "") for run in setting.runs.values()]
    values = [value for value in found if value is not None]
    return statistics.fmean(values) if values else -math.inf


def _interval(setting: Setting, about: dict[str, Any]) -> tuple[float, float] | None:
    found = []
    for run in setting.runs.values():
        ends = ((run.record.metrics or {}).get("best") or {}).get("interval")
        if about.get("metric") != _primary(run) or ends is None or None in ends:
            return None
        found.append(ends)
    low, high = (about["scale"] * statistics.fmean(ends) for ends in zip(*found, strict=True))
    return low, high


def _primary(run: Run) -> str | None:
    """Return the metric that selects the epoch; None if the record names none."""
    return run.primary.get("name")


def _wanted(name: str, said: dict[str, Any], size: float | None) -> dict[str, Any]:
    """Return the fields that a run of this size must have."""
    wanted = {"method": said.get("method", name), **(said.get("fields") or {})}
    return wanted | {f"method.{said['size']}": size} if said.get("size") else wanted


def _sizes(name: str, said: dict[str, Any], runs: Iterable[Run]) -> list[float]:
    """Return every size of a series that was run."""
    found = set()
    for run in runs:
        size = run.values.get(f"method.{said['size']}")
        if number(size) is not None and seed_groups.answers(run, _wanted(name, said, size)):
            found.add(size)
    return sorted(found)


def _count_parameters(setting: Setting, of: str) -> float | None:
    """Count the trained parameters without the head, of the model or of one of its matrices."""
    values = setting.first.values
    trained = number(values.get("parameters.adapter"))
    if of == "model" or trained is None:
        return trained
    layers = number(values.get("model.sizes.num_hidden_layers")) or 0
    matrices = layers * len(values.get("method.targets") or ())
    return trained / matrices if matrices else None
