"""Plots of a group of runs: training curves, and score over cost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from experiments.report.comparison import names
from experiments.report.plots import style
from experiments.report.plots.training_curves import Curve, band
from experiments.results.history import TRAINING_LOSS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from experiments.report.comparison.run_groups import RunGroup, ScoredSetting

WIDE, HIGH = 5.6, 3.2  # inches, legend aside
LINE = 0.22  # inches of a line of the legend
FEW = 12
"""Evaluations of a curve up to which each is marked."""
CURVES = 6
"""Settings with a curve: as many as there are colors."""
COLORED = ("fourierft", "lora", "full", "bitfit", "linear_probe", "peft")
"""Methods whose colors settings take in turn, first of all their own."""


def choose_styles(settings: Sequence[ScoredSetting]) -> Iterator[tuple[str, Any, str]]:
    """Yield color, line and mark of each setting: the method's own if no other has taken it."""
    taken: set[str] = set()
    own = {one.setting.run["method"] for one in settings}
    for one in settings:
        free = [name for name in COLORED if name not in taken]
        spare = [name for name in free if name not in own] or free
        method = one.setting.run["method"]
        name = method if method in free else next(iter(spare), None)
        taken.add(name or "")
        yield style.STYLES[name] if name else style.OTHER


def draw_curves(
    group: RunGroup, settings: Sequence[ScoredSetting], curves: Mapping[str, list[Curve]], key: str
) -> Figure:
    """Draw the mean curve of every setting, its seeds thin, and a ring at each best epoch.

    Args:
        group: of the runs.
        settings: at most `CURVES` of it.
        curves: of all seeds, by label.
        key: of the histories that the curves show.
    """
    metric = key.rpartition("/")[2]
    figure = style.blank(WIDE, HIGH + LINE * len(settings) + 0.1)
    axes = figure.subplots()
    style.style(axes)
    for one, (color, line, mark) in zip(settings, choose_styles(settings), strict=True):
        seeds = curves[one.label]
        if not seeds:
            axes.plot([], [], color=color, linestyle=line, label=f"{one.label}: no curve")
            continue
        for curve in seeds if len(seeds) > 1 else ():
            axes.plot(*zip(*curve, strict=True), color=color, linewidth=0.7, alpha=0.4)
        epochs, mean, _, _ = band(seeds)
        marked = mark if len(epochs) <= FEW else None
        axes.plot(epochs, mean, color=color, linestyle=line, marker=marked, label=one.label)
        if key == group.score_key and group.rule == "best":
            _ring_best(axes, one, color)
    axes.set_ylabel("Training loss" if key == TRAINING_LOSS else names.name_metric(metric))
    axes.set_xlabel("Epoch")
    axes.xaxis.get_major_locator().set_params(nbins=6, integer=axes.get_xlim()[1] > 2)
    _finish(figure, axes, len(settings))
    return figure


def draw_costs(group: RunGroup, settings: Sequence[ScoredSetting]) -> Figure:
    """Draw the score of every setting, with its interval, over its parameters and seconds."""
    figure = style.blank(WIDE, HIGH + LINE * len(settings) + 0.1)
    places = figure.subplots(1, 2, sharey=True)
    for axes, cost in zip(places, ("parameters", "seconds"), strict=True):
        style.style(axes)
        for one, (color, _, mark) in zip(settings, choose_styles(settings), strict=True):
            at, score = getattr(one, cost), one.scores.get(group.rule)
            if score is None:
                continue
            if at and one.interval is not None:
                axes.vlines(at, one.interval.low, one.interval.high, color=color, alpha=0.5)
            place = ([at], [score]) if at else ([], [])  # none on a logarithmic axis
            axes.plot(*place, color=color, marker=mark, linestyle="", label=one.label)
        there = [amount for one in settings if (amount := getattr(one, cost))]
        style.scale_amounts(axes, there)
        axes.set_xlabel("Adapter parameters" if cost == "parameters" else "Seconds of training")
    places[0].set_ylabel(names.name_metric(group.metric))
    _finish(figure, places[0], len(settings))
    return figure


def _ring_best(axes: Any, one: ScoredSetting, color: str) -> None:
    """Draw a ring at the epoch that each seed's score is taken from."""
    for run in one.runs:
        best = (run.record.metrics or {}).get("best") or {}
        if best.get("epoch") is not None and best.get("value") is not None:
            axes.plot(
                [best["epoch"]],
                [best["value"]],
                color=color,
                marker="o",
                markersize=9,
                markerfacecolor="none",
                linestyle="",
            )


def _finish(figure: Figure, axes: Any, lines: int) -> None:
    """Put the legend below the axes."""
    low = (LINE * lines + 0.1) / figure.get_figheight()
    figure.tight_layout(rect=(0, low, 1, 1))
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(
        handles,
        [style.literal(label) for label in labels],
        loc="lower left",
        frameon=False,
        fontsize=10,
        labelcolor=style.INK,
        borderaxespad=0.2,
        labelspacing=0.25,
    )
