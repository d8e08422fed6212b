"""Panels of a figure of score over size: the paper's, and others like them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from experiments.report.comparison import names, reference, seed_groups
from experiments.report.comparison.grades import find_shared_kind
from experiments.report.comparison.paper_table import JUDGE
from experiments.report.comparison.points import Point, find_point, get_primary, get_wanted
from experiments.report.comparison.run_index import Run, RunIndex, number
from experiments.report.comparison.seed_groups import Setting
from experiments.report.comparison.subsets import CUTS, find_cuts


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

    @property
    def reservations(self) -> list[str]:
        """Words that no verdict on its runs is given without."""
        found = [
            one for points in self.series.values() for point in points for one in point.reservations
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
        "searched": facts.get("searched"),
        "weights": reference.weights(facts),
        "cut": facts.get("cut", ()),
        "papers": "weights" not in facts,
    }
    entries = [
        (common | {"model": facts.get("model"), **entry}, entry.get("series") or facts["series"])
        for entry in facts["panels"]
    ]
    for about, series in entries:
        yield _own(about, series, index, seen)
    runs = [run for run in index.runs if get_primary(run)]
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
        metric = get_primary(found[0])
        label, title = names.name_metric(metric, common["scale"]), names.name_task(task)
        about = common | {"task": task, "title": title, "metric": metric, "label": label}
        yield from _others(about, facts["series"], found, index, seen)


def _own(
    about: dict[str, Any], series: dict[str, Any], index: RunIndex, seen: dict[str, set[str]]
) -> Panel:
    runs = index.select(model=about["model"], task=about["task"])
    about = _with_kind(about, runs, index)
    panel = _empty(about, key=about.get("key", about["task"]), title=about["title"], own=True)
    for name, said in series.items():
        known = dict(map(tuple, said.get("known") or (about.get("known") or {}).get(name) or []))
        for size in said["values"]:
            point = find_point(name, said, size, about, runs, index, seen, own=about["papers"])
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
        key = f"{about['task']} {title}"
        title = (
            f"{about['title']}, {names.name_model(found[0].record.run['model'])}{_ran(found[0])}"
        )
        here = _with_kind(about, found, index)
        panel = _empty(about, key=key, title=title, own=False)
        for name, said in series.items():
            sizes = [None] if said.get("size") is None else _sizes(name, said, found)
            points = [find_point(name, said, size, here, found, index, seen) for size in sizes]
            for point in points:
                if point.setting and (said.get("at") or said.get("per_size")):
                    point.x = _count_parameters(point.setting, about["of"])
                elif point.setting:
                    point.x = point.size
            panel.series[name] = points
        if any(panel.placed(name) > 1 for name in panel.series):
            yield panel


def _with_kind(about: dict[str, Any], runs: Iterable[Run], index: RunIndex) -> dict[str, Any]:
    """Return the panel's entry with the kind of grades that it compares, if it is about grades."""
    if not about.get("judged"):
        return about
    return about | {"kind": find_shared_kind(index, runs, about["judged"], JUDGE)}


def _subject(about: dict[str, Any]) -> str:
    """Return the subject of a panel, without its base model."""
    return about.get("subject", about["title"])


def _ran(run: Run) -> str:
    """Describe how a run is smaller than its task and base model, for the title of its panel."""
    parts = [CUTS[key].format(value) for key, value in find_cuts(run).items()]
    if run.values.get("model.pretrained") is False:
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


def _sizes(name: str, said: dict[str, Any], runs: Iterable[Run]) -> list[float]:
    """Return every size of a series that was run."""
    found = set()
    for run in runs:
        size = run.values.get(f"method.{said['size']}")
        if number(size) is not None and seed_groups.answers(run, get_wanted(name, said, size)):
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
