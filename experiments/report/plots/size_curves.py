"""Plot of score over size: a panel per task, a line per series."""

from __future__ import annotations

import math
import textwrap
from typing import TYPE_CHECKING, Any

from experiments.report.comparison.verdict import Verdict
from experiments.report.plots import style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from experiments.report.comparison.panels import Panel, Point

DRAWN = 36
"""Panels beyond this many are only in the table: an image has at most 65,535 pixels."""
WIDE, HIGH = 3.3, 2.75  # inches of a panel
FADED = 0.45
WIDTH = 30  # letters of a line of a panel's title
LETTERS = 42  # of the remark above a panel; the table on the page holds all of it


def draw(facts: dict[str, Any], panels: list[Panel]) -> Figure:
    """Draw the figure, at most three panels wide."""
    panels = panels[:DRAWN]
    across = min(3 if len(panels) != 4 else 2, len(panels))
    down = math.ceil(len(panels) / across)
    figure = style.blank(max(WIDE * across, 5.2), HIGH * down + 0.9)
    places = figure.subplots(down, across, squeeze=False).ravel()
    for axes in places[len(panels) :]:
        axes.set_visible(False)
    for axes, panel in zip(places, panels, strict=False):
        _panel(axes, panel, facts)
    handles: dict[str, Any] = {}
    for axes in places[: len(panels)]:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    if any(
        point.known is not None
        for panel in panels
        for points in panel.series.values()
        for point in points
    ):
        (mark,) = places[0].plot(
            [],
            [],
            marker="d",
            linestyle=(0, (1, 3)),
            color=style.PAPER,
            markerfacecolor="none",
            markersize=9,
        )
        handles["the paper's tables"] = mark
    top = 1 - 0.42 / figure.get_figheight()
    figure.tight_layout(rect=(0, 0, 1, top))
    figure.legend(
        handles.values(),
        handles.keys(),
        loc="upper center",
        ncols=min(4, len(handles)),
        frameon=False,
        fontsize=10,
        labelcolor=style.INK,
    )
    return figure


def _panel(axes: Any, panel: Panel, facts: dict[str, Any]) -> None:
    horizontal = facts["x"]
    series = (
        next(
            (entry["series"] for entry in facts["panels"] if entry.get("key") == panel.key),
            None,
        )
        or facts.get("series")
        or facts["panels"][0]["series"]
    )
    style.style(axes)
    across = [_placed(point.x, horizontal) for points in panel.series.values() for point in points]
    known = [one for one in across if one is not None]
    for name, points in panel.series.items():
        colour, line, mark = style.STYLES.get(name, style.OTHER)
        label = series[name]["name"]
        drawn = [
            (place, score)
            for point in points
            if (score := point.score(panel.rule)) is not None
            and (place := _placed(point.x, horizontal)) is not None
        ]
        faded = FADED if panel.incomparable_reasons or not panel.own else 1.0
        axes.plot([], [], color=colour, linestyle=line, marker=mark, label=label)
        if drawn:
            axes.plot(
                *zip(*drawn, strict=True),
                color=colour,
                linestyle=line,
                marker=mark,
                markersize=6,
                alpha=faded,
            )
        if not panel.own:
            _intervals(axes, points, horizontal, colour)
        for point in points:
            if (score := point.score(panel.rule)) is not None and _everywhere(point):
                axes.axhline(score, color=colour, linestyle=line, alpha=faded)
        _known(axes, points, horizontal, colour)
    ticks = horizontal.get("ticks")
    if horizontal["scale"] == "log":
        style.scale_amounts(axes, known, ticks)
    elif ticks:
        low, high = min([*known, *ticks]), max([*known, *ticks])
        room = 0.06 * (high - low)
        axes.set_xlim(low - room, high + room)
        if high - low <= 2 * (ticks[-1] - ticks[0]):
            axes.set_xticks(ticks)
    _vertical(axes, panel)
    reason = ""  # beyond the paper's, the title tells the base model and how the runs were cut
    if panel.own:
        reason = "; ".join(panel.incomparable_reasons) if panel.run else Verdict.not_run.value
    text = textwrap.fill(style.literal(panel.title), WIDTH, break_long_words=False)
    axes.set_title(text, fontsize=12, pad=17 if reason else 6)
    axes.set_xlabel(horizontal["label"], fontsize=10)
    axes.set_ylabel(panel.label, fontsize=10)
    if reason:
        shown = reason if len(reason) <= LETTERS else f"{reason[: LETTERS - 1]}…"
        axes.text(
            0.5,
            1.03,
            style.literal(shown),
            transform=axes.transAxes,
            ha="center",
            fontsize=9,
            color=style.PAPER,
        )


def _vertical(axes: Any, panel: Panel) -> None:
    """Set the paper's ticks if our points are near them, and limits that fit everything drawn."""
    found = [
        score
        for points in panel.series.values()
        for point in points
        for score in (
            point.score(panel.rule),
            point.known,
            *((point.interval or ()) if not panel.own else ()),
        )
        if score is not None
    ]
    ticks = panel.ticks or []
    if not [*found, *ticks]:
        axes.set_yticks([])
        return
    low, high = min([*found, *ticks]), max([*found, *ticks])
    room = 0.08 * (high - low) or 0.5
    axes.set_ylim(low - room, high + room)
    if ticks and high - low <= 2 * (ticks[-1] - ticks[0]):
        axes.set_yticks(ticks)


def _intervals(axes: Any, points: list[Point], horizontal: dict[str, Any], colour: str) -> None:
    """Draw intervals over the scored rows: thin bars, or a band if a series has no sizes."""
    for point in points:
        place = _placed(point.x, horizontal)
        if point.interval is None:
            continue
        if _everywhere(point):
            axes.axhspan(*point.interval, color=colour, alpha=0.08, linewidth=0)
        elif place is not None:
            axes.vlines(place, *point.interval, color=colour, alpha=FADED, linewidth=1)


def _known(axes: Any, points: list[Point], horizontal: dict[str, Any], colour: str) -> None:
    """Draw the score that the paper's tables print: a diamond, or a line without a position."""
    for point in points:
        if point.known is None:
            continue
        place = _placed(point.x, horizontal)
        if place is None:
            axes.axhline(point.known, color=colour, linewidth=1, linestyle=(0, (1, 3)))
        else:
            axes.plot(
                [place],
                [point.known],
                marker="d",
                markersize=9,
                linestyle="",
                markerfacecolor="none",
                markeredgecolor=colour,
                markeredgewidth=1.6,
            )


def _everywhere(point: Point) -> bool:
    """Return True for the only point of a series without sizes, if it has no position."""
    return point.size is None and point.x is None


def _placed(x: float | None, horizontal: dict[str, Any]) -> float | None:
    if x is None or horizontal["scale"] != "log":
        return x
    return x if x > 0 else None  # a record may say 0, and a logarithmic axis has no place for it
