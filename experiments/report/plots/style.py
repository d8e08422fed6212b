"""Style and files of plots: one palette, PNG for text, SVG in the reader's light or dark scheme."""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.files import replace_file, write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK, GRID, PAPER, GROUND = "#1b1f24", "#d5dae0", "#5b6570", "#ffffff"
"""Colors of text and axes, grid lines, the paper's numbers, background."""
STYLES = {
    "fourierft": ("#0072B2", "-", "o"),
    "lora": ("#D55E00", (0, (4, 1.5)), "s"),
    "full": ("#009E73", ":", "D"),
    "biased": ("#0072B2", "-", "o"),
    "unbiased": ("#D55E00", (0, (4, 1.5)), "s"),
    "bitfit": ("#CC79A7", "-.", "^"),
    "linear_probe": ("#8a7300", "-.", "v"),
    "peft": ("#56B4E9", "-.", "P"),
}
"""Colour, from a palette that colour-blind readers can tell apart, line style and mark, for print
in grey."""
OTHER = ("#7a7a7a", "-.", "X")
MOST_TICKS = 4
DOTS = 160  # per inch: text that can be read on a phone
DARK = {
    INK: "#e6e9ec",
    GRID: "#3a424b",
    PAPER: "#a3adb8",
    GROUND: "#14181d",
    "#0072B2": "#56a8e0",
    "#D55E00": "#ff8f45",
    "#009E73": "#2cc79a",
}
"""Replacement of each color in the dark scheme."""


def blank(width: float, height: float) -> Figure:
    """Return an empty figure, sized in inches; without pyplot, so that no backend is needed."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=DOTS, facecolor=GROUND)


def literal(text: str) -> str:
    """Escape dollar signs, which matplotlib would read as mathematics."""
    return text.replace("$", r"\$")


def style(axes: object) -> None:
    """Style axes with the palette."""
    axes.set_facecolor(GROUND)
    axes.grid(color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    for spine in axes.spines.values():
        spine.set_color(PAPER)
    axes.tick_params(colors=INK, labelsize=11)
    for label in (axes.xaxis.label, axes.yaxis.label, axes.title):
        label.set_color(INK)


def format_amount(value: float) -> str:
    """Format a count or a duration for a tick: 128, 1,000, 12k, 1.5M."""
    for unit, name in ((1e6, "M"), (1e3, "k")):
        if value >= max(unit, 1e4):
            return f"{value / unit:.3g}{name}"
    return f"{value:,.0f}" if value >= 100 else f"{value:.2g}"


def choose_ticks(low: float, high: float) -> list[float]:
    """Return up to four round numbers of a logarithmic axis; its two ends if there is only one."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for steps in ((1, 1.5, 2, 3, 4, 5, 7), (1, 2, 5), (1, 3), (1,)):
        found = [step * 10.0**ten for ten in decades for step in steps]
        found = [tick for tick in found if low <= tick <= high]
        if len(found) <= MOST_TICKS:
            break
    if len(found) > 1:
        return found[:: math.ceil(len(found) / MOST_TICKS)]
    return [low, high] if high > 1.3 * low else [low]


def scale_amounts(axes: Any, values: Iterable[float], ticks: Sequence[float] | None = None) -> None:
    """Give axes a horizontal logarithmic scale of amounts, with ticks that can be read.

    Args:
        axes: of matplotlib.
        values: positive amounts that are drawn.
        ticks: None chooses them.
    """
    there = [*values, *(ticks or ())]
    axes.set_xscale("log")
    axes.minorticks_off()
    if there:
        low, high = min(there), max(there)
        axes.set_xlim(0.7 * low, 1.4 * high)
        shown = ticks or choose_ticks(low, high)
        axes.set_xticks(shown, [format_amount(tick) for tick in shown])


def save(figure: Figure, folder: Path, name: str) -> list[Path]:
    """Write <name>.png and <name>.svg, each in one step."""
    paths = [folder / f"{name}.png", folder / f"{name}.svg"]
    with replace_file(paths[0]) as draft:
        figure.savefig(draft, format="png", metadata={"Software": None}, facecolor=GROUND)
    write_atomically(paths[1], _vector(figure, name))
    return paths


def _vector(figure: Figure, name: str) -> str:
    """Return SVG whose colors are variables, set by the reader's scheme."""
    import matplotlib

    text = io.StringIO()
    # Text stays text, so that it can be found; element names are the same in every process.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(
            text, format="svg", metadata={"Date": None, "Creator": None}, facecolor=GROUND
        )
    drawn = text.getvalue()
    light, dark = [], []
    for number, (colour, other) in enumerate(DARK.items()):
        light.append(f"--c{number}:{colour}")
        dark.append(f"--c{number}:{other}")
        drawn = drawn.replace(f": {colour.lower()}", f": var(--c{number})")
    scheme = (
        f"<style>:root{{{';'.join(light)}}}"
        f"@media (prefers-color-scheme:dark){{:root{{{';'.join(dark)}}}}}"
        f"text{{fill:var(--c0)}}</style>"
    )
    place = drawn.index(">", drawn.index("<svg")) + 1
    return drawn[:place] + scheme + drawn[place:]
