"""The paper's figures with another base model, and their claims."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from experiments.report.comparison import (
    constant_answers,
    figure_claims,
    recipe_match,
    reference,
)
from experiments.report.comparison.claims import Claim
from experiments.report.comparison.other_networks import (
    CONSTANT,
    HOW_LONG,
    SCALINGS,
    NetworkClaim,
    choose_runs,
    find_networks,
    replace_weights,
)
from experiments.report.comparison.panels import Panel, read_panels
from experiments.report.comparison.points import Point, get_wanted
from experiments.report.comparison.run_index import Run, RunIndex
from experiments.report.comparison.seed_groups import answers


def ask_figures(index: RunIndex) -> Iterator[NetworkClaim]:
    """Yield every claim of Figures 1, 4 and 5 that runs of other base models speak to."""
    for name in ("figure1", "figure4", "figure5"):
        facts = reference.load(name)
        own = {panel.get("model", facts.get("model")) for panel in facts["panels"]}
        for model, runs in find_networks(index, own):
            moved, chosen, keys = transfer_figure(facts, model, runs)
            if chosen:
                drawn = read_panels(moved, RunIndex(index.root, chosen))
                panels = {one.key: one for one in drawn if one.own}
                for stated in facts["claims"]:
                    yield from _ask_figure(name, facts, stated, keys, panels, model, chosen)


def transfer_figure(
    facts: dict[str, Any], model: str, runs: list[Run]
) -> tuple[dict[str, Any], list[Run], dict[str, str]]:
    """Return a figure's reference with another base model, its runs, and the new key of a panel.

    Panels of one subject become one. The sizes of a panel are those that were run.
    """
    tasks = {run.record.run["task"] for run in runs}
    panels: dict[str, dict[str, Any]] = {}
    keys = {}
    for panel in facts["panels"]:
        if panel.get("judged"):
            continue
        stand_in = panel.get("stand_in", {})
        kept = {key: value for key, value in panel.items() if key != "known"}
        given = {**kept, **(stand_in if panel["task"] not in tasks else {}), "model": model}
        given["key"] = keys[panel.get("key", panel["task"])] = given["task"]
        given["series"] = {
            key: _move_series(said)
            for key, said in (panel.get("series") or facts["series"]).items()
        }
        panels.setdefault(given["key"], given)

    def find_point(run: Run) -> tuple[str, Any] | None:
        panel = panels.get(run.record.run["task"])
        for key, said in panel["series"].items() if panel else ():
            size = run.values.get(f"method.{said['size']}") if said.get("size") else None
            if (size is None) is (said.get("size") is None) and answers(
                run, get_wanted(key, said, size)
            ):
                return key, size
        return None

    def is_printed(run: Run) -> bool:
        key, size = find_point(run) or (None, None)
        return key is not None and size in panels[run.record.run["task"]]["series"][key]["values"]

    # Of conditions with as many points those of the paper's sizes.
    chosen = choose_runs(sorted(runs, key=is_printed, reverse=True), find_point)
    for task, panel in panels.items():
        points = {find_point(run) for run in chosen if run.record.run["task"] == task}
        for key, said in panel["series"].items():
            sizes = {point[1] for point in points if point is not None and point[0] == key}
            said["values"] = sorted(sizes, key=lambda size: size or 0)
    moved = {**facts, **replace_weights(model, runs), "panels": list(panels.values())}
    return moved, chosen, keys


def _move_series(said: dict[str, Any]) -> dict[str, Any]:
    """Return a figure's series without what it knows of the paper's points."""
    kept = {key: value for key, value in said.items() if key not in ("known", "at")}
    return {**kept, "fields": SCALINGS | said.get("fields", {})}


def _ask_figure(
    name: str,
    facts: dict[str, Any],
    stated: dict[str, Any],
    keys: dict[str, str],
    panels: dict[str, Panel],
    model: str,
    chosen: list[Run],
) -> Iterator[NetworkClaim]:
    """Yield a claim of a figure, if runs of the network speak to it."""
    claim = Claim(says=stated["says"])
    says = stated.get("elsewhere", stated["says"])
    asked = NetworkClaim(page=name, model=model, claim=claim, says=says)
    asked.untested = [
        panel.get("subject", panel["title"])
        for panel in facts["panels"]
        if (key := panel.get("key", panel["task"])) in stated["panels"]
        and keys.get(key) != panel["task"]  # it was not run, or another task stands in
    ]
    lacking: dict[str, list[str]] = {}
    for key in dict.fromkeys(keys[key] for key in stated["panels"] if key in keys):
        panel = panels[key]
        ends = _move_ends(stated, facts, panel)
        if ends is None:
            asked.untested.append(panel.title)
        else:
            moved = {**stated, **ends, "panels": [key]}
            for words in _list_lacking(facts, keys, key, panel, ends):
                lacking.setdefault(words, []).append(panel.title)
            asked.add(key, figure_claims.weigh(moved, {key: panel}))
            used = figure_claims.find_points(moved, panel)
            if not any(_is_learned(point, panel.rule) for point in used):
                asked.untested.append(f"{panel.title}: {CONSTANT}")
            varied = {*HOW_LONG} | {
                field
                for series, said in _get_series(facts, keys, key).items()
                for field in get_wanted(series, said, said.get("size"))
            }
            for point in used:
                if point.setting is not None:
                    changes = recipe_match.changes(point.setting, varied)
                    claim.reservations += [f"{point.name}: {one}" for one in changes]
    asked.untested += [f"{words} on {', '.join(there)}" for words, there in lacking.items()]
    if claim.parts:
        asked.describe_rows(chosen, [panels[key].key for key in claim.parts])
        yield asked


def _list_lacking(
    facts: dict[str, Any], keys: dict[str, str], key: str, panel: Panel, ends: dict[str, Any]
) -> Iterator[str]:
    """Yield the printed sizes of whole series in a claim that were not run on a panel."""
    printed = _get_series(facts, keys, key)
    for end in (one for one in ends.values() if isinstance(one, str)):
        ran = {point.size for point in panel.series[end]}
        sizes = printed[end].get("values", ())
        lacking = [f"{size:g}" for size in sizes if size is not None and size not in ran]
        if lacking:
            size = str(printed[end]["size"]).rpartition(".")[2]
            yield f"{printed[end]['name']}, {size}={', '.join(lacking)}"


def _get_series(facts: dict[str, Any], keys: dict[str, str], key: str) -> dict[str, Any]:
    """Return the paper's series of a transferred panel."""
    for panel in facts["panels"]:
        if keys.get(panel.get("key", panel["task"])) == key:
            return dict(panel.get("series") or facts["series"])
    raise KeyError(key)


def _is_learned(point: Point, rule: str) -> bool:
    found = point.sample(rule)
    if found is None or point.setting is None:
        return False
    run = point.setting.first
    return constant_answers.is_above(found, run, rule=rule, metric=point.metric, scale=point.scale)


def _move_ends(
    stated: dict[str, Any], facts: dict[str, Any], panel: Panel
) -> dict[str, Any] | None:
    """Return the ends of a claim on a panel; None if it lacks points that they need.

    Two points with equally many parameters in the paper are two such points here.
    """
    ends = {end: stated[end] for end in ("of", "than") if end in stated}
    least = 2 if stated["check"] in ("rises", "falls_somewhere") else 1
    named = [end if isinstance(end, str) else end[0] for end in ends.values()]
    if any(len(panel.series.get(name, ())) < least for name in named):
        return None
    points = [end for end in ends.values() if not isinstance(end, str)]
    if len(points) == 2 and len({_count_parameters(facts, *one) for one in points}) == 1:
        [(of, _), (than, size)] = points
        there = [one for one in panel.series[than] if one.size == size]
        wanted = {_get_trained(one) for one in there}
        same = [one.size for one in panel.series[of] if _get_trained(one) in wanted]
        if not same:
            return None
        ends["of"] = [of, same[0]]
    return ends


def _count_parameters(facts: dict[str, Any], series: str, size: float) -> float:
    """Count the parameters per matrix of a point of the paper's figure."""
    return size * facts["series"][series]["per_size"]


def _get_trained(point: Point) -> Any:
    """Return the trained parameters of a point, the head left out."""
    return point.setting and point.setting.first.values.get("parameters.adapter")
