"""Figure 3: the probability maps of Equation 5. It draws a formula and needs no run."""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from experiments.report.comparison.run_index import RunIndex
from experiments.report.comparison.verdict import Verdict
from experiments.report.plots import style
from experiments.report.render.document import (
    Heading,
    Items,
    Line,
    Page,
    Picture,
    Prose,
    Shown,
    Table,
    heading,
    title,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

AGREES = 1e-6
"""Relative difference up to which two sums over the map are the same."""


def show(name: str, facts: dict[str, Any], index: RunIndex) -> Page:
    """Build the page of the map for each of the paper's central frequencies."""
    maps = {center: centred(facts, center) for center in facts["centers"]}
    rows = [_measured(facts, center, values) for center, values in maps.items()]
    same = sum(row["agrees"] for row in rows)
    summary = f"{same} of {len(rows)} maps are Equation 5's."
    return Page(
        name=name,
        title=title(facts),
        blocks=[
            *heading(facts),
            Prose(f"**{summary}**"),
            Picture(
                name=name,
                alt="Five squares: a disc, then rings of growing radius, the last cut off.",
                caption="Probability of an entry, not normalised; zero frequency in the middle",
                draw=partial(_draw, facts, maps),
            ),
            Table(
                caption="Sum and mean radius of each map, ours and recomputed from Equation 5",
                columns=["f_c", "Sum", "By Eq. 5", "Mean radius", "Radius by Eq. 5", "Verdict"],
                lines=[_line(row) for row in rows],
                numbers=("f_c", "Sum", "By Eq. 5", "Mean radius", "Radius by Eq. 5"),
            ),
            Heading("Notes"),
            Items(facts["notes"]),
        ],
        rows=rows,
        rule="last",
        summary=summary,
        verdicts=Counter(_judge(row) for row in rows),
    )


def centred(facts: dict[str, Any], center: float) -> np.ndarray:
    """Compute Equation 5 on the paper's grid, with zero frequency in the middle.

    Uses numpy so that reports do not import torch; tests compare it with `fourierft.band_pass`.
    """
    distance = _distance(facts["shape"])
    with np.errstate(divide="ignore", invalid="ignore"):
        values = np.exp(-(((distance**2 - center**2) / (distance * facts["bandwidth"])) ** 2))
    values[distance == 0] = 1.0 if center == 0 else 0.0  # the limits
    return values


def _distance(shape: list[int]) -> np.ndarray:
    """Return the distance of every cell from the center."""
    rows, columns = (np.arange(size) - size // 2 for size in shape)
    return np.hypot(rows[:, None], columns[None, :])


def _measured(facts: dict[str, Any], center: float, values: np.ndarray) -> dict[str, Any]:
    radius = _distance(facts["shape"])
    total = float(values[radius > 0].sum())  # the limit at the centre is ours, not Equation 5's
    mean = float((values * radius).sum() / total)
    said = facts["computed"][center]
    wanted = said["sum"], said["mean_radius"]
    return {
        "center": center,
        "sum": total,
        "sum_expected": wanted[0],
        "mean_radius": mean,
        "mean_radius_expected": wanted[1],
        "agrees": bool(np.allclose((total, mean), wanted, rtol=AGREES, atol=5e-4)),
    }


def _judge(row: dict[str, Any]) -> Verdict:
    return Verdict.reproduced if row["agrees"] else Verdict.not_reproduced


def _line(row: dict[str, Any]) -> Line:
    verdict = _judge(row)
    return Line(
        cells=[
            str(row["center"]),
            f"{row['sum']:,.1f}",
            f"{row['sum_expected']:,.1f}",
            f"{row['mean_radius']:.1f}",
            f"{row['mean_radius_expected']:.1f}",
            Shown(text=f"**{verdict.value}**", tone=verdict.tone),
        ]
    )


def _draw(facts: dict[str, Any], maps: dict[float, np.ndarray]) -> Figure:
    figure = style.blank(10.6, 2.7)
    places = figure.subplots(1, len(maps))
    for axes, (center, values) in zip(places, maps.items(), strict=True):
        half = facts["shape"][0] // 2
        # A quarter of the resolution is more than the picture has dots.
        drawn = axes.imshow(
            values[::4, ::4], cmap="viridis", vmin=0, vmax=1, extent=(-half, half, half, -half)
        )
        axes.set_title(f"$f_c$ = {center}", fontsize=12, color=style.INK)
        axes.tick_params(colors=style.INK, labelsize=9)
        axes.set_xticks([-250, 0, 250])
        axes.set_yticks([-250, 0, 250] if axes is places[0] else [])
    bar = figure.colorbar(drawn, ax=places, ticks=[0, 0.5, 1], fraction=0.012, pad=0.015)
    bar.ax.tick_params(colors=style.INK, labelsize=10)
    return figure
