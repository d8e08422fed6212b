"""Points of a figure of score over size: one size of one series, with the runs that answer it."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from experiments.metrics.selection import RULES
from experiments.report.comparison import paired, recipe_match, seed_groups
from experiments.report.comparison.grades import find_grade
from experiments.report.comparison.paired import Sample
from experiments.report.comparison.paper_table import JUDGE
from experiments.report.comparison.run_index import Run, RunIndex
from experiments.report.comparison.seed_groups import Setting


@dataclass(kw_only=True)
class Point:
    """One size of one series."""

    name: str
    """Series and size."""
    size: float | None
    x: float | None = None
    """Horizontal position; None if unknown."""
    known: float | None = None
    """Score that the paper's tables print for it."""
    setting: Setting | None = None
    trials: int | None = None
    """Settings among which a search chose this one; None for a point that is not searched."""
    metric: str | None = None
    """Metric of the scores; None for grades."""
    scale: float = 1.0
    """Factor from the metric to the scores."""
    scores: dict[str, dict[int, float]] = field(default_factory=dict)
    """Scores by selection rule and seed."""
    incomparable_reasons: list[str] = field(default_factory=list)
    reservations: list[str] = field(default_factory=list)
    """Words that no verdict on its runs is given without."""
    interval: tuple[float, float] | None = None
    """95 % interval over the scored rows at the best epoch; its ends are means over seeds."""

    def score(self, rule: str) -> float | None:
        """Return the mean over the seeds; None without scores."""
        found = self.scores.get(rule)
        return statistics.fmean(found.values()) if found else None

    def sample(self, rule: str) -> Sample | None:
        """Return the scores by seed, with resampled rows where they are stored; None without."""
        found = self.scores.get(rule)
        if not found or self.setting is None:
            return None
        runs = self.setting.runs.items()
        sample = paired.sample(found, runs, rule=rule, metric=self.metric, scale=self.scale)
        return replace(sample, name=self.name)


def find_point(
    name: str,
    said: dict[str, Any],
    size: float | None,
    about: dict[str, Any],
    runs: Iterable[Run],
    index: RunIndex,
    seen: dict[str, set[str]],
    *,
    own: bool = False,
) -> Point:
    """Return a point with the runs that answer it.

    Args:
        name: of the series.
        said: its entry in the reference.
        size: of the point.
        about: the panel's entry.
        runs: among which to look.
        index: of all runs.
        seen: fingerprints of all inputs there are.
        own: the panel is the paper's, so that its recipe counts.
    """
    metric = None if about.get("judged") else about["metric"]
    shown = said["name"] if said.get("size") is None else f"{said['name']}, {said['size']}={size}"
    point = Point(name=shown, size=size, metric=metric, scale=about["scale"])
    known = about["weights"]
    wanted = get_wanted(name, said, size)
    if own:
        wanted |= (about.get("fields") or {}).get(name, {})
    there = seed_groups.group_seeds(
        run for run in runs if run.record.metrics and seed_groups.answers(run, wanted)
    )
    if not there:
        return point
    reasons_by_id = {
        id(one): seed_groups.incomparable_reasons(one, None, known, {}, about["cut"])
        for one in there
    }
    searched = dict.fromkeys(about["searched"] or ())
    deviations_by_id = {
        id(one): recipe_match.deviations(one, wanted | searched) if own else [] for one in there
    }
    ordered = seed_groups.best(there, reasons_by_id, deviations_by_id)
    point.setting = ordered[0]
    if about["searched"]:
        point.setting, point.trials = _best_trial(ordered, reasons_by_id, deviations_by_id)
    deviations = deviations_by_id[id(point.setting)]
    point.incomparable_reasons = [
        *seed_groups.incomparable_reasons(point.setting, None, known, seen, about["cut"]),
        *(one for one in deviations if not recipe_match.lacks_recipe(one)),
    ]
    point.reservations = [
        f"{said['name']}: {one}" for one in deviations if recipe_match.lacks_recipe(one)
    ]
    if (known.get(point.setting.run["model"]) or {}).get("fingerprint") is None:
        point.reservations.append(recipe_match.UNVERIFIED)
    for rule in RULES:
        scores = {seed: _score(run, rule, about, index) for seed, run in point.setting.runs.items()}
        point.scores[rule] = {
            seed: score * about["scale"] for seed, score in scores.items() if score is not None
        }
    if about.get("judged"):
        point.incomparable_reasons += _graded(point.setting, about, index)
    else:
        runs = len(point.setting.runs)
        point.incomparable_reasons += paired.name_lost(runs - len(point.scores["best"]), runs)
    point.interval = _interval(point.setting, about)
    return point


def _score(run: Run, rule: str, about: dict[str, Any], index: RunIndex) -> float | None:
    if not about.get("judged"):
        return run.score(rule, about["metric"])
    if rule != "last":
        return None
    grade = find_grade(index, run, about["judged"], JUDGE, about["kind"])
    return None if grade is None else grade.average


def _graded(setting: Setting, about: dict[str, Any], index: RunIndex) -> list[str]:
    """Return the reasons not to compare grades, with the paper's or within the panel."""
    found: list[str] = []
    for run in setting.runs.values():
        grade = find_grade(index, run, about["judged"], JUDGE, about["kind"])
        if grade is not None:
            found += grade.incomparable_reasons(JUDGE)
        elif index.judged(run, about["judged"]):
            found.append("graded by another judge, or other prompts or questions, than the rest")
    return list(dict.fromkeys(found))


def _best_trial(
    ordered: list[Setting],
    reasons_by_id: dict[int, list[str]],
    deviations_by_id: dict[int, list[str]],
) -> tuple[Setting, int]:
    """Return the best trial of a search, and the number of trials.

    One that was repeated with more seeds is the one that the search chose, though its mean may now
    be below what another reached once.
    """

    def order(one: Setting) -> tuple[int, int]:
        return len(reasons_by_id[id(one)]), len(deviations_by_id[id(one)])

    trials = [one for one in ordered if order(one) == order(ordered[0])]
    return (
        max(trials, key=lambda one: (len(one.runs) >= paired.SEEDS, _study_score(one))),
        len(trials),
    )


def _study_score(setting: Setting) -> float:
    """Return a trial's score by the metric of the study: the primary one at its best epoch."""
    found = [run.score("best", get_primary(run) or "") for run in setting.runs.values()]
    values = [value for value in found if value is not None]
    return statistics.fmean(values) if values else -math.inf


def _interval(setting: Setting, about: dict[str, Any]) -> tuple[float, float] | None:
    found = []
    for run in setting.runs.values():
        ends = ((run.record.metrics or {}).get("best") or {}).get("interval")
        if about.get("metric") != get_primary(run) or ends is None or None in ends:
            return None
        found.append(ends)
    low, high = (about["scale"] * statistics.fmean(ends) for ends in zip(*found, strict=True))
    return low, high


def get_primary(run: Run) -> str | None:
    """Return the metric that selects the epoch; None if the record names none."""
    return run.primary.get("name")


def get_wanted(name: str, said: dict[str, Any], size: float | None) -> dict[str, Any]:
    """Return the fields that a run of this size must have."""
    wanted = {"method": said.get("method", name), **(said.get("fields") or {})}
    return wanted | {f"method.{said['size']}": size} if said.get("size") else wanted
