"""Time of a batch over the number of adapters in it, a panel per layer."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.report.plots import style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LINES = {
    "bank": ("FourierFT, rows stay", style.STYLES["fourierft"]),
    "bank, once": ("FourierFT, new rows", style.STYLES["peft"]),
    "LoRA, adapter_names": ("LoRA r=8, one by one (PEFT)", style.STYLES["lora"]),
    "LoRA, gathered": ("LoRA r=8, gathered matrices", style.STYLES["bitfit"]),
    "merged": ("a merged weight per adapter", style.OTHER),
}

LOWEST = 0.05
"""Of the base layer's time: less is drawn as this, for nothing at all has no logarithm."""


def draw(rows: list[dict[str, Any]]) -> Figure:
    """Draw the rows of `sections.decode`."""
    sides = list(dict.fromkeys(row["d"] for row in rows))
    figure = style.blank(2.6 * len(sides) + 0.6, 3.6)
    places = figure.subplots(1, len(sides), squeeze=False)[0]
    for axes, side in zip(places, sides, strict=True):
        own = [row for row in rows if row["d"] == side]
        lowest = LOWEST * own[0]["base"]
        style.style(axes)
        for form, (label, (colour, dash, mark)) in LINES.items():
            found = [(row["adapters"], max(row[form], lowest)) for row in own if form in row]
            axes.plot(
                *zip(*found, strict=True) if found else ([], []),
                color=colour,
                linestyle=dash,
                marker=mark,
                markersize=5,
                label=label,
            )
        axes.axhline(own[0]["base"], color=style.PAPER, linewidth=1, label="the base layer itself")
        axes.set(xscale="log", yscale="log", xlabel="different adapters in the batch")
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.set_title(f"{side} x {side} ({own[0]['of']})", fontsize=11, color=style.INK)
    places[0].set_ylabel(f"added to a batch of {rows[0]['rows']} tokens, ms", color=style.INK)
    figure.tight_layout(rect=(0, 0, 1, 0.86))
    figure.legend(
        *places[0].get_legend_handles_labels(),
        loc="upper center",
        ncols=3,
        frameon=False,
        fontsize=10,
        labelcolor=style.INK,
    )
    return figure


def save(rows: list[dict[str, Any]], path: Path) -> None:
    """Write the picture as PNG."""
    draw(rows).savefig(path, format="png", metadata={"Software": None}, facecolor=style.GROUND)
