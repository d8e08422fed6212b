"""Plot of Figure 7: training accuracy over epochs, single seeds thin, their mean bold."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from experiments.report.plots import style as canvas
from experiments.report.plots.style import PAPER, STYLES

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Curve = Sequence[tuple[float, float]]
"""(epoch, accuracy as a fraction) of every evaluation."""

SIZE = (6.0, 6.4)  # inches
LETTERS = 66  # per caption line


def draw(facts: dict[str, Any], drawn: dict[str, list[Curve]], caption: Sequence[str]) -> Figure:
    """Draw the figure.

    Args:
        facts: the reference file of Figure 7.
        drawn: curves of all seeds per method; methods without a curve are named as not run.
        caption: paragraphs under the figure.
    """
    states = facts["states"]
    figure = canvas.blank(*SIZE)
    axes = figure.subplots()
    for method, said in states["methods"].items():
        colour, style, _ = STYLES[method]
        label = f"{said['name']}, {said['size']} = {said['value']}"
        if not drawn[method]:
            axes.plot(
                [], [], color=colour, linestyle=style, linewidth=2.8, label=f"{label}: not run"
            )
            continue
        for curve in drawn[method]:
            epochs, values = zip(*curve, strict=True)
            axes.plot(
                epochs,
                np.multiply(values, 100),
                color=colour,
                linestyle=style,
                linewidth=0.8,
                alpha=0.4,
            )
        epochs, mean, low, high = band(drawn[method])
        axes.fill_between(epochs, 100 * low, 100 * high, color=colour, alpha=0.15, linewidth=0)
        axes.plot(epochs, 100 * mean, color=colour, linestyle=style, linewidth=2.8, label=label)
    for said in states["methods"].values():
        if said["epoch_about"]:
            label = f"paper: {said['name']} at 100 % (about {said['epoch_about']})"
            axes.axvline(
                said["epoch_about"], color=PAPER, linestyle="--", linewidth=1.6, label=label
            )
    last = max([states["epochs"], *(curve[-1][0] for seeds in drawn.values() for curve in seeds)])
    axes.set(
        xlim=(0, last),
        ylim=(0, 103),
        xticks=np.arange(0, last + 1, last / 4),
        yticks=range(0, 101, 20),
    )
    axes.set_xlabel("Epoch", fontsize=14)
    axes.set_ylabel("Training accuracy (%)", fontsize=14)
    canvas.style(axes)
    axes.tick_params(labelsize=13)
    figure.legend(
        *axes.get_legend_handles_labels(),
        loc="upper left",
        bbox_to_anchor=(0.03, 0.995),
        fontsize=13,
        frameon=False,
    )
    parts = [*caption, "Thin: single seeds. Bold: their mean. Band: lowest to highest."]
    unbroken = [part.replace(" %", "\u00a0%") for part in parts]
    text = "\n".join(textwrap.fill(part, LETTERS) for part in unbroken)
    rows = text.count("\n") + 1
    figure.text(0.03, 0.015, text, fontsize=11, va="bottom", linespacing=1.3)
    figure.subplots_adjust(left=0.14, right=0.95, top=0.83, bottom=0.12 + 0.0315 * rows)
    return figure


def band(seeds: Sequence[Curve]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Compute mean, lowest and highest accuracy of several seeds at every evaluated epoch.

    Seeds evaluated elsewhere are interpolated between their evaluations; epochs that not all seeds
    cover are left out.

    Returns:
        epochs, mean, low, high: (epochs,) each; accuracies as fractions.
    """
    start, end = max(curve[0][0] for curve in seeds), min(curve[-1][0] for curve in seeds)
    epochs = np.array(
        sorted({epoch for curve in seeds for epoch, _ in curve if start <= epoch <= end})
    )
    values = np.stack(
        [np.interp(epochs, *zip(*curve, strict=True)) for curve in seeds]
    )  # (seeds, epochs)
    return epochs, values.mean(axis=0), values.min(axis=0), values.max(axis=0)
