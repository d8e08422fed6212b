"""Draws docs/architecture.png: the folders of `experiments` in their order, and their imports.

    python docs/architecture.py

Order and imports are read from `tests/test_imports.py` and the sources; the picture holds them as
text too, by which `tests/test_architecture_page.py` sees that it is of today's folders.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import test_imports  # noqa: E402

PICTURE = Path(__file__).with_suffix(".png")
FLOORS = ("#eef2f7", "#ffffff")
INK = "#1f2d3d"


def read_folders() -> list[dict[str, object]]:
    """Folders and single modules of `experiments`, the highest first.

    Each has its floor (0: what everything rests on), its number of modules, and the number of its
    modules that import each folder below.
    """
    order = test_imports.EXPERIMENTS
    found = []
    for floor in reversed(range(len(order))):
        for folder in sorted(order[floor]):
            names = [
                name for name in test_imports.of("experiments") if test_imports.own(name) == folder
            ]
            imports: dict[str, int] = {}
            for name in names:
                modules = test_imports.imported(name)
                for part in sorted(test_imports.parts(modules, "experiments", order) - {folder}):
                    imports[part] = imports.get(part, 0) + 1
            found.append(
                {"name": folder, "floor": floor, "modules": len(names), "imports": imports}
            )
    return found


def draw(folders: list[dict[str, object]], path: Path) -> None:
    """Draws a row and a column per folder: a row's numbers say how many of its modules import."""
    from matplotlib import colormaps
    from matplotlib.figure import Figure
    from matplotlib.patches import FancyBboxPatch, Rectangle

    size = len(folders)
    figure = Figure(figsize=(11, 0.42 * size + 1.3), dpi=110, facecolor="white")
    axes = figure.add_axes((0.01, 0.01, 0.98, 0.98))
    axes.set_xlim(-6.2, size + 0.9)
    axes.set_ylim(size + 0.3, -2.3)
    axes.axis("off")
    column = {one["name"]: place for place, one in enumerate(folders)}
    most = max(max(one["imports"].values(), default=1) for one in folders)
    for place, one in enumerate(folders):
        shade = FLOORS[one["floor"] % 2]
        axes.add_patch(Rectangle((-6.1, place), size + 6.2, 1, color=shade, lw=0))
        box = FancyBboxPatch(
            (-5.9, place + 0.16), 3.3, 0.68, boxstyle="round,pad=0,rounding_size=0.15",
            facecolor="#33669a" if one["modules"] > 1 else "#7d96ad", lw=0,
        )  # fmt: skip
        axes.add_patch(box)
        called = f"{one['name']}/" if one["modules"] > 1 else f"{one['name']}.py"
        axes.text(-4.25, place + 0.5, called, color="white", ha="center", va="center", size=10)
        count = f"{one['modules']} module{'s' * (one['modules'] != 1)}"
        axes.text(-0.35, place + 0.5, count, color=INK, ha="right", va="center", size=9)
        axes.text(place + 0.5, -0.15, one["name"], color=INK, rotation=50, size=10)
        axes.add_patch(Rectangle((place + 0.04, place + 0.04), 0.92, 0.92, color="#c3ccd6", lw=0))
        for name, number in one["imports"].items():
            across = column[name]
            depth = 0.25 + 0.7 * number / most
            colour = colormaps["Blues"](depth)
            axes.add_patch(Rectangle((across + 0.04, place + 0.04), 0.92, 0.92, color=colour, lw=0))
            ink = "white" if depth > 0.6 else INK
            axes.text(
                across + 0.5, place + 0.52, number, color=ink, ha="center", va="center", size=9
            )
    axes.text(-6.1, -0.5, "Imports in experiments/", color=INK, size=13, weight="bold")
    notes = (
        "A number counts the modules of the row's folder that import the\n"
        "column's. A band is a floor, whose folders do not import each other.\n"
        "Nothing stands left of the diagonal: no import leads up."
    )
    axes.text(0.3, size - 3, notes, color=INK, size=11, va="center", linespacing=1.5)
    figure.savefig(path, metadata={"Folders": json.dumps(folders)})


if __name__ == "__main__":
    draw(read_folders(), PICTURE)
