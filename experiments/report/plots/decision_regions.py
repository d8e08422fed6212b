"""Second plot of Figure 7: classes that each network gives to the plane."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.report.comparison.toy_runs import percent
from experiments.report.plots import style
from experiments.results.stored import check_file

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure

    from experiments.report.comparison.toy_runs import ToyRun

FILE = "regions.npz"
CLASSES = (
    *("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#8a7300", "#56B4E9", "#7a3b9a", "#5b6570"),
)
"""Colors of classes, repeated for further ones."""
MARKS = "osD^vP*X"
"""Markers of classes, for readers who cannot tell the colors apart."""
WASH = 0.3  # opacity of a region
FAR = 1000
"""Bound on classes and coordinates."""
LARGEST = 2**24
"""Bytes of a file."""


def read(runs: Sequence[ToyRun], root: Path) -> dict[str, tuple[ToyRun, dict[str, Any]]]:
    """Return, per method, the run of the lowest seed with readable regions, and the regions."""
    import numpy as np

    found: dict[str, tuple[ToyRun, dict[str, Any]]] = {}
    for run in sorted(runs, key=lambda one: one.seed):
        path = root / run.record / FILE
        if run.method in found:
            continue
        try:
            check_file(path, LARGEST)
            with np.load(path, allow_pickle=False) as arrays:
                if sum(entry.file_size for entry in arrays.zip.infolist()) > LARGEST:
                    continue  # a few bytes may stand for gigabytes
                plane = {name: arrays[name] for name in ("classes", "reach", "points", "labels")}
            _check(plane)
        except Exception:  # absent or half-written, as numpy says in many kinds: a picture less
            continue
        found[run.method] = run, plane
    return found


def _check(plane: dict[str, np.ndarray]) -> None:
    """Raise ValueError for arrays that cannot be drawn."""
    import numpy as np

    classes, labels, points = plane["classes"], plane["labels"], plane["points"]
    shapes = (classes.ndim, labels.ndim, points.shape, plane["reach"].ndim)
    numbers = [classes, labels, points, plane["reach"]]
    if shapes != (2, 1, (len(labels), 2), 0) or not labels.size or not classes.size:
        raise ValueError("unexpected shapes")
    if not all(np.isfinite(array).all() and np.abs(array).max() < FAR for array in numbers):
        raise ValueError("values out of bounds")
    if min(classes.min(), labels.min()) < 0 or plane["reach"] <= 0:
        raise ValueError("negative values")


def draw(facts: dict[str, Any], planes: dict[str, tuple[ToyRun, dict[str, Any]]]) -> Figure:
    """Draw a panel per method."""
    shown = [method for method in facts["states"]["methods"] if method in planes]
    figure = style.blank(4.0 * len(shown), 4.4)
    for axes, method in zip(figure.subplots(1, len(shown), squeeze=False)[0], shown, strict=True):
        said, (run, plane) = facts["states"]["methods"][method], planes[method]
        _panel(axes, plane)
        told = f"training {percent(run.curve[-1][1])}"
        told += "" if run.test is None else f", test {percent(run.test)}"
        axes.set_title(f"{said['name']}, {said['size']} = {said['value']}\n{told}", fontsize=12)
        style.style(axes)
        axes.grid(False)
    figure.tight_layout()
    return figure


def _panel(axes: Any, plane: dict[str, np.ndarray]) -> None:
    from matplotlib.colors import BoundaryNorm, ListedColormap

    reach = float(plane["reach"])
    count = int(max(plane["classes"].max(), plane["labels"].max())) + 1
    colours = [CLASSES[number % len(CLASSES)] for number in range(count)]
    axes.imshow(
        plane["classes"],
        origin="lower",
        extent=(-reach, reach, -reach, reach),
        cmap=ListedColormap(colours),
        norm=BoundaryNorm([number - 0.5 for number in range(count + 1)], count),
        alpha=WASH,
        interpolation="nearest",
    )
    for number, colour in enumerate(colours):
        points = plane["points"][plane["labels"] == number]
        axes.scatter(*points.T, s=9, color=colour, marker=MARKS[number % len(MARKS)], linewidths=0)
