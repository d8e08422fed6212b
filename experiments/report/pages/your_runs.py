"""Page of what was run: curves, scores by method on the same rows, and cost, of every group."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from experiments.metrics.classification import LOWER_IS_BETTER
from experiments.metrics.selection import RULES
from experiments.report.comparison import names, run_groups
from experiments.report.comparison.intervals import Cover, Interval
from experiments.report.comparison.run_groups import RunGroup, ScoredSetting
from experiments.report.comparison.run_index import RunIndex
from experiments.report.plots import run_curves
from experiments.report.render.document import (
    RULE_NAMES,
    Block,
    Cell,
    Heading,
    Items,
    Line,
    Page,
    Picture,
    Prose,
    Shown,
    Table,
    link,
    link_page,
)
from experiments.results.history import TRAINING_LOSS

NAME = "your_runs"
GROUPS = 12
"""Groups with pictures and a comparison; the others have a line in the first table."""
FRONT_GROUPS = 3
"""Groups on the first page of the site."""
FRONT_LINES = 12
"""Lines of the table of groups there."""
SETTINGS = 10
"""Settings of a group in its comparison."""
SEEDS = 5
"""Seeds that are linked in a line."""
MARKS = {Cover.both: "", Cover.rows: "*", Cover.seeds: "†"}
INTERVALS = (
    "Intervals are 95 %, over the rows scored and over the seeds; * over the rows alone, as of "
    "fewer than three seeds; † over the seeds alone, where no predictions are stored. Differences "
    "are paired, by row and over the seeds that both settings have. The best epoch, and the best "
    "setting, are chosen on the rows that score them, which flatters both; only images have a "
    "split to choose the epoch on."
)
NOTHING = (
    "Nothing was trained yet: `python train.py` trains Figure 7's toy, in seconds. "
    "`python -m experiments.report` then shows it beside the paper's tables and figures."
)


def show(index: RunIndex) -> Page:
    """Build the page of all groups of finished runs."""
    groups = run_groups.find_groups(index)
    blocks: list[Block] = []
    front: list[Block] = []
    if not groups:
        blocks = front = [Prose(NOTHING)]
    if len(groups) > 1:
        blocks.append(_list_groups(groups, index, ""))
        front.append(_list_groups(groups[:FRONT_LINES], index, f"{NAME}.html"))
    parts = [_show_group(place, group, index) for place, group in enumerate(groups[:GROUPS], 1)]
    for part in parts:
        blocks += part
    for part in parts[:FRONT_GROUPS]:
        front += part
    if groups:
        blocks.append(Prose(INTERVALS))
        front += [Prose(INTERVALS), Items(list(_list_links(groups)))]
    runs = sum(len(group.runs) for group in groups)
    return Page(
        name=NAME,
        title="Your runs",
        blocks=blocks,
        front=front,
        rows=[row for group in groups for row in _raw(group, index)] or [{"model": None}],
        summary=f"{_count(runs, 'finished training run')} in {_count(len(groups), 'group')} of "
        "one base model, task and set of scored rows."
        if groups
        else "Nothing was trained yet.",
    )


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'s' * (number != 1)}"


def _list_links(groups: Sequence[RunGroup]) -> Iterator[Shown]:
    """Yield links to what the first page leaves out."""
    if len(groups) > FRONT_GROUPS:
        left = len(groups) - FRONT_GROUPS
        yield Shown(text=f"Curves and comparisons of {left} more", link=link_page(NAME))
    runs = sum(len(group.runs) for group in groups)
    yield Shown(
        text=f"All {runs} runs, a line each" if runs > 1 else "The run", link=link_page("runs")
    )
    yield Shown(text="Cost and score of every configuration", link=link_page("pareto"))


def _anchor(place: int) -> str:
    return f"group-{place}"


def _list_groups(groups: Sequence[RunGroup], index: RunIndex, page: str) -> Table:
    """Return a line for every group, with its best setting."""
    lines = []
    for place, group in enumerate(groups, 1):
        best = group.settings[0]
        score = best.scores.get(group.rule)
        there = page if place > FRONT_GROUPS else ""
        target = f"{there}#{_anchor(place)}" if place <= GROUPS else link_page("runs")
        lines.append(
            Line(
                cells=[
                    (
                        Shown(text=group.title, link=target),
                        Shown(text=group.conditions, tone="interval"),
                    ),
                    (
                        Shown(text=_format(score), link=link(index.root, best.runs[0].run_dir)),
                        Shown(text=names.name_metric(group.metric), tone="interval"),
                    ),
                    best.label,
                    str(len(group.runs)),
                ]
            )
        )
    return Table(
        caption="What was trained, the latest first",
        columns=["Base model and task", "Score", "of the best setting", "Runs"],
        lines=lines,
        numbers=["Score", "Runs"],
        filtered=not page,
    )


def _show_group(place: int, group: RunGroup, index: RunIndex) -> list[Block]:
    run_groups.add_comparison(group, SETTINGS)
    shown = group.settings[:SETTINGS]
    blocks: list[Block] = [Heading(group.title, _anchor(place))]
    blocks += _draw_pictures(place, group, index)
    blocks.append(_compare(group, shown, index))
    left = len(group.settings) - len(shown)
    if left:
        blocks.append(Items([Shown(text=f"{left} more settings", link=link_page("pareto"))]))
    return blocks


def _draw_pictures(place: int, group: RunGroup, index: RunIndex) -> Iterator[Picture]:
    drawn = group.settings[: run_curves.CURVES]
    key = run_groups.find_curve_key(group, index)
    curves = {
        one.label: [curve for run in one.runs if key and (curve := index.curve(run, key))]
        for one in drawn
    }
    many = f", the best {len(drawn)} of {len(group.settings)} settings"
    of = f"{group.title}{many if len(drawn) < len(group.settings) else ''}"
    if key and any(len(curve) > 1 for seeds in curves.values() for curve in seeds):
        what = "Training loss" if key == TRAINING_LOSS else "Score"
        ringed = "; rings: best epochs" if (key, group.rule) == (group.score_key, "best") else ""
        yield Picture(
            name=f"{NAME}_{place}_curves",
            alt=f"{what} by epoch: {of}.",
            caption=f"{what} by epoch, bold the mean over seeds{ringed}",
            draw=partial(run_curves.draw_curves, group, drawn, curves, key),
            half=True,
        )
    if len([one for one in drawn if one.scores.get(group.rule) is not None]) > 1:
        yield Picture(
            name=f"{NAME}_{place}_costs",
            alt=f"Score over adapter parameters and seconds of training: {of}; the table has them.",
            caption="Score over adapter parameters and seconds of training; bars: 95 %",
            draw=partial(run_curves.draw_costs, group, drawn),
            half=True,
        )


def _compare(group: RunGroup, shown: Sequence[ScoredSetting], index: RunIndex) -> Table:
    """Return a line for every setting."""
    rules = [
        rule for rule in ("best", "last") if any(one.scores.get(rule) is not None for one in shown)
    ]
    compared = any(one.difference for one in shown)
    scores = [RULE_NAMES[rule] for rule in rules]
    numbers = [*scores, *(["Less the best"] if compared else []), "Parameters", "Seconds"]
    metric = names.name_metric(group.metric) or "no score"
    lower = "lower is better" if group.metric in LOWER_IS_BETTER else ""
    told = ", ".join(filter(None, [metric, lower, group.conditions]))
    return Table(
        caption=f"{group.title}: {told}",
        columns=["Setting", *numbers, "Seeds"],
        lines=[
            Line(
                cells=[
                    one.label,
                    *(_score(one, rule, group) for rule in rules),
                    *([_difference(one, group)] if compared else []),
                    f"{one.parameters:,}",
                    "–" if one.seconds is None else f"{one.seconds:,.0f}",
                    tuple(_seeds(one, index)),
                ]
            )
            for one in shown
        ],
        numbers=numbers,
    )


def _score(one: ScoredSetting, rule: str, group: RunGroup) -> Cell:
    number = Shown(text=_format(one.scores.get(rule)))
    if rule != group.rule or one.interval is None:
        return number
    return number, _show_interval(one.interval, "")


def _show_interval(interval: Interval, sign: str) -> Shown:
    low, high = f"{interval.low:{sign}.3f}", f"{interval.high:{sign}.3f}"
    return Shown(text=f"[{low}, {high}]{MARKS[interval.cover]}", tone="interval")


def _difference(one: ScoredSetting, group: RunGroup) -> Cell:
    if one.difference is None:
        return "–" if one.scores.get(group.rule) is None else Shown(text="the best", tone="muted")
    shared, found = one.difference.seeds, one.difference_interval
    parts = [Shown(text=f"{one.difference.value:+.3f}")]
    parts += [] if found is None else [_show_interval(found, "+")]
    if shared < max(len(one.runs), len(group.settings[0].runs)):  # not the scores' own difference
        parts.append(Shown(text=f"({_count(shared, 'seed')})", tone="interval"))
    return tuple(parts)


def _seeds(one: ScoredSetting, index: RunIndex) -> Iterator[Shown]:
    runs = list(one.setting.runs.items())
    for seed, run in runs[:SEEDS]:
        yield Shown(text=str(seed), link=link(index.root, run.run_dir))
    if len(runs) > SEEDS:
        yield Shown(text=f"and {len(runs) - SEEDS} more", tone="muted")


def _format(score: float | None) -> str:
    return "–" if score is None else f"{score:.3f}"


def _raw(group: RunGroup, index: RunIndex) -> Iterator[dict[str, Any]]:
    for one in group.settings:
        interval, less, limits = one.interval, one.difference, one.difference_interval
        yield {
            "model": group.model,
            "task": group.task,
            "data": group.data,
            "rows": group.rows,
            "metric": group.metric,
            "setting": one.label,
            **{rule: one.scores.get(rule) for rule in RULES},
            "low": interval and interval.low,
            "high": interval and interval.high,
            "less_best": less and less.value,
            "less_best_low": limits and limits.low,
            "less_best_high": limits and limits.high,
            "parameters": one.parameters,
            "seconds": one.seconds,
            "seeds": len(one.runs),
            "records": " ".join(index.name(run) for run in one.runs),
        }
