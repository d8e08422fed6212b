"""Images of one layer's update: DeltaW as a matrix, and the size of every wave in it.

Arrays are colored and written as they are, a pixel a cell; axes and words are the page's own, so
that they follow its scheme. A figure of matplotlib would take twenty times as long.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.files import replace_file
from experiments.report.run_page.updates import Entries, LayerUpdate

MATRIX, WAVES = "berlin", "inferno"
"""Colormaps, dark in the middle or at the bottom: nothing is black in either scheme."""
SIDE = 448
"""Pixels of the spectrum of single entries; matrices beyond twice as many are thinned."""
DECADES = 2
"""Orders of magnitude below the largest wave that are seen."""
CLIPPED = 95.0
"""Percentile of |DeltaW| at which colors end."""
MIRRORED = 0.1
"""Brightness of an entry's mirror image."""
RINGED = 5
"""Largest entries that are ringed."""
STRONG = 0.1
"""Share of the entries whose part of the update is told."""


def draw_matrix(matrix: np.ndarray, title: str, path: Path) -> dict[str, Any]:
    """Write the image of a matrix; return its panel."""
    rows, columns = matrix.shape
    limit = float(np.percentile(np.abs(matrix), CLIPPED)) or float(np.abs(matrix).max()) or 1.0
    step = max(1, -(-max(matrix.shape) // (2 * SIDE)))
    shown = matrix[::step, ::step]
    _write(np.clip(shown / limit, -1, 1) * 127.5 + 127.5, MATRIX, path)
    thinned = f", every {step}th row and column" if step > 1 else ""
    return {
        "title": title,
        "file": path.name,
        "note": f"black: 0; full color: ±{limit:.2g} and beyond{thinned}",
        "x_label": f"input, 1 to {columns:,}",
        "y_label": f"output, 1 to {rows:,}",
        "x_ticks": [],
        "y_ticks": [],
        "rings": [],
    }


def draw_waves(update: LayerUpdate, change: bool, path: Path) -> dict[str, Any]:
    """Write the image of an update's spectrum; return its panel.

    Args:
        update: the layer's update.
        change: draw what training changed, instead of all of the update.
        path: file to write.
    """
    entries = update.entries(change=change)
    if entries is None:
        return _draw_dense(update.delta(), path)
    canvas, places = _draw_stars(entries, update.shape)
    _write(_logarithmic(canvas), WAVES, path)
    most = float(entries.sizes.max())
    largest = np.argsort(entries.sizes)[: -RINGED - 1 : -1] if most else []
    word = "wave" if entries.periodic else "entry"
    return {
        "title": f"{'Change' if change else 'Size'} of every {word}",
        "file": path.name,
        "note": _tell_brightness(most),
        **_label(entries.periodic, update.shape),
        "rings": [
            {
                "x": round(float(places[one, 1]) / SIDE, 4),
                "y": round(float(places[one, 0]) / SIDE, 4),
                "text": f"entry ({entries.rows[one]}, {entries.columns[one]}): "
                f"norm {entries.sizes[one]:.3g}",
            }
            for one in largest
        ],
    }


def _tell_brightness(most: float) -> str:
    return f"brightest: norm {most:.2g}; black: a hundredth of it or less"


def describe_entries(entries: Entries) -> str:
    """Return how much of the update the strongest entries hold."""
    squares = np.sort(entries.sizes.astype(float) ** 2)[::-1]
    count = max(1, round(STRONG * len(squares)))
    share = squares[:count].sum() / (squares.sum() or 1.0)
    return f"the strongest {count:,} of {len(squares):,} hold {share:.0%} of |ΔW|²"


def _draw_dense(matrix: np.ndarray, path: Path) -> dict[str, Any]:
    """Draw the whole spectrum of a matrix, in sizes of real waves as for FourierFT."""
    step = max(1, -(-max(matrix.shape) // (2 * SIDE)))
    sizes = np.abs(np.fft.fftshift(np.fft.fft2(matrix))) * np.sqrt(2 / matrix.size)
    most = float(sizes.max())
    for axis in (0, 1):  # the largest of a cell's waves: a single strong one is never left out
        sizes = np.maximum.reduceat(sizes, np.arange(0, sizes.shape[axis], step), axis=axis)
    _write(_logarithmic(sizes / (most or 1.0)), WAVES, path)
    return {
        "title": "Size of every wave",
        "file": path.name,
        "note": _tell_brightness(most),
        **_label(True, matrix.shape),
        "rings": [],
    }


def _draw_stars(entries: Entries, shape: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Draw a spot at every entry, the larger the brighter.

    Returns:
        Brightness from 0 to 1, (SIDE, SIDE), and places of the entries in it, (n, 2).
    """
    cells = np.stack([entries.rows, entries.columns], axis=1)
    half = np.array([size // 2 for size in shape])
    centred = (cells + half) % shape if entries.periodic else cells
    places = (centred + 0.5) / shape * SIDE
    width = float(np.clip(SIDE / np.sqrt(len(cells)) / 8, 0.7, 3.5))
    brightness = entries.sizes / (entries.sizes.max() or 1.0)
    spots = [(places, brightness)]
    if entries.periodic:  # the update is real: (u, v) and (-u, -v) are one wave
        mirrored = ((half - cells) % shape + 0.5) / shape * SIDE
        spots.insert(0, (mirrored, MIRRORED * brightness))
    canvas = np.zeros((SIDE, SIDE))
    reach = int(np.ceil(3.2 * width))
    for centres, values in spots:
        for (y, x), value in zip(centres, values, strict=True):
            top, left = max(0, int(y) - reach), max(0, int(x) - reach)
            part = canvas[top : int(y) + reach + 1, left : int(x) + reach + 1]
            down = (np.arange(part.shape[0]) + top + 0.5 - y) / width
            across = (np.arange(part.shape[1]) + left + 0.5 - x) / width
            spot = value * np.exp(-(down[:, None] ** 2 + across**2) / 2)
            np.maximum(part, spot, out=part)
    return canvas, places


def _logarithmic(brightness: np.ndarray) -> np.ndarray:
    """Return indices of a colormap, black below the last decade."""
    floor = 10.0**-DECADES
    return 255 * (1 + np.log10(np.maximum(brightness, floor)) / DECADES)


def _label(periodic: bool, shape: Sequence[int]) -> dict[str, Any]:
    """Return labels and ticks of the axes; ticks as shares of the side."""
    if not periodic:
        return {
            "x_label": f"function of inputs, 1 to {shape[1]:,}",
            "y_label": f"function of outputs, 1 to {shape[0]:,}",
            "x_ticks": [],
            "y_ticks": [],
        }
    ticks = [
        [[0.0, f"−{size // 2:,}"], [(size // 2 + 0.5) / size, "0"], [1.0, f"{(size - 1) // 2:,}"]]
        for size in shape
    ]
    return {
        "x_label": "frequency across inputs",
        "y_label": "frequency across outputs",
        "x_ticks": ticks[1],
        "y_ticks": ticks[0],
    }


def _write(indices: np.ndarray, colormap: str, path: Path) -> None:
    """Write an image of 256 colors, in one step."""
    from matplotlib import colormaps
    from PIL import Image

    colors = (colormaps[colormap](np.arange(256))[:, :3] * 255).round().astype(np.uint8)
    image = Image.fromarray(indices.round().astype(np.uint8), mode="P")
    image.putpalette(colors.tobytes())
    with replace_file(path) as draft:
        image.save(draft, "PNG")
