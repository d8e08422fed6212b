"""Section of a run's page on its update: images of a few layers, and norms of all.

Made once: it is kept beside the page until the adapter is another one.
"""

from __future__ import annotations

import hashlib
import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.errors import RecordError
from experiments.files import write_atomically
from experiments.report.comparison.run_index import Run, RunIndex
from experiments.report.run_page import update_images, updates
from experiments.report.run_page.charts import Chart, draw_chart
from experiments.report.run_page.updates import LayerUpdate
from experiments.results import kept_adapter, stored

SECTION = "update.json"
FORM = 3
"""Version of images and words: others are made again."""
NEWEST = 3
"""Runs whose update a whole report draws; the others' are drawn if asked for."""
FIGURES = 12
"""Layers that are drawn at most."""
CELLS = 2 * 10**8
"""Cells of all updates that norms are computed of; of larger networks, every k-th layer's."""


def find_newest(index: RunIndex) -> list[Run]:
    """Return the newest runs whose update can be shown."""
    newest = sorted(index.runs, key=lambda run: str(run.record.time.get("started")), reverse=True)
    shown = (run for run in newest if updates.read_kind(run))
    return [run for run, _ in zip(shown, range(NEWEST), strict=False)]


def read_section(run: Run, folder: Path) -> dict[str, Any] | None:
    """Return the section that lies in a folder; None if it is of another adapter, or missing."""
    try:
        found = stored.read_json(folder / SECTION)
        return found if found["key"] == _compute_key(run) else None
    except (RecordError, LookupError, TypeError):
        return None


def make_section(run: Run, folder: Path) -> dict[str, Any] | None:
    """Return the section, with its images in a folder; None for methods without such an update.

    Raises:
        UserError: the adapter cannot be read, or its network cannot be built.
        OSError: the folder cannot be written.
    """
    kind = updates.read_kind(run)
    if kind is None:
        return None
    known = read_section(run, folder)
    if known is not None:
        return known
    layers = updates.read_updates(run)
    folder.mkdir(parents=True, exist_ok=True)
    base = updates.read_base_norms(run, layers)
    norms = [_measure(layer, base.get(layer.name)) for layer in _thin(layers)]
    section = {
        "key": _compute_key(run),
        "intro": _introduce(run, kind, layers),
        "summary": _summarise(norms, len(layers)),
        "legend": _explain(layers[0]),
        "norms": norms,
        "figures": [
            _draw(layer, base.get(layer.name), folder, number)
            for number, layer in enumerate(choose_layers(layers))
        ],
    }
    write_atomically(folder / SECTION, json.dumps(section, indent=1) + "\n")
    return section


def draw_norms(norms: Sequence[dict[str, Any]]) -> list[Chart]:
    """Return charts of the norms over blocks, a line for each kind of layer; none of one block."""
    if any(one["base"] for one in norms):
        ratios = [(one, 100 * one["norm"] / one["base"]) for one in norms if one["base"]]
        drawn = [("|ΔW| in % of |W0|", ratios)]
    else:
        drawn = [("|ΔW|", [(one, one["norm"]) for one in norms])]
    moved = [(one, 100 * one["change"] / one["start"]) for one in norms if one["start"]]
    if moved:
        drawn.append(("Change by training in % of |ΔW| at the start", moved))
    charts = []
    for title, values in drawn:
        lines: dict[str, list[tuple[float, float]]] = {}
        for one, value in values:
            if one["block"] is not None:
                lines.setdefault(one["kind"], []).append((one["block"], value))
        lines = {kind: sorted(points) for kind, points in lines.items() if len(points) > 1}
        if lines:
            charts.append(draw_chart(title, lines, "Block", x_name="block", least=0.0))
    return charts


def choose_layers(layers: Sequence[LayerUpdate]) -> list[LayerUpdate]:
    """Return the first, middle and last layer of each kind; fewer where there are many kinds."""
    kinds: dict[str, list[LayerUpdate]] = {}
    for layer in layers:
        kinds.setdefault(layer.kind, []).append(layer)
    chosen = []
    for same in list(kinds.values())[:FIGURES]:
        same.sort(key=lambda one: -1 if one.block is None else one.block)
        places = dict.fromkeys([0, len(same) // 2, len(same) - 1])
        most = max(1, FIGURES // len(kinds))
        chosen += [same[place] for place in list(places)[-most:]]
    return chosen


def _compute_key(run: Run) -> str:
    hashes = run.record.adapter
    if hashes is None:
        hashes = kept_adapter.compute_hashes(run.run_dir / kept_adapter.FOLDER)
    return hashlib.sha256(json.dumps([FORM, hashes], sort_keys=True).encode()).hexdigest()


def _thin(layers: Sequence[LayerUpdate]) -> Sequence[LayerUpdate]:
    cells = sum(layer.shape[0] * layer.shape[1] for layer in layers)
    return layers[:: -(-cells // CELLS)]


def _measure(layer: LayerUpdate, base: float | None) -> dict[str, Any]:
    delta, start = layer.delta(), layer.start()
    return {
        "name": layer.name,
        "kind": layer.kind,
        "block": layer.block,
        "shape": list(layer.shape),
        "norm": float(np.linalg.norm(delta)),
        "base": base,
        "start": None if start is None else float(np.linalg.norm(start)),
        "change": None if start is None else float(np.linalg.norm(delta - start)),
    }


def _introduce(run: Run, kind: str, layers: Sequence[LayerUpdate]) -> str:
    """Say what the update is made of."""
    count = f"each of {len(layers)} matrices" if len(layers) > 1 else "one matrix"
    first = layers[0].entries()
    if first is None:
        rank = getattr(layers[0].layer, "r", {}).get("default")
        made = "made of factors"
        if kind == "LORA":
            rows = "a multiple of one row" if rank == 1 else f"a mixture of the same {rank} rows"
            made = f"the product of two factors of rank {rank}: every row is {rows}, hence stripes"
        return f"Training adds ΔW to the frozen weight W0 of {count}: {made}."
    sizes = sorted({len(layer.entries().sizes) for layer in layers})
    amount = " to ".join(f"{size:,}" for size in dict.fromkeys([sizes[0], sizes[-1]]))
    basis = layers[0].layer.fourierft_basis["default"]
    if first.periodic:
        pieces, chosen = "waves", "Their frequencies"
    else:
        pieces, chosen = f"products of two functions of the basis `{basis}`", "These"
    starts = "zero" if layers[0].start_coefficients is None else "random sizes"
    return (
        f"FourierFT adds ΔW to the frozen weight W0 of {count}: a sum of {amount} {pieces}. "
        f"{chosen} were drawn before training, by the entry seed; their sizes were trained, "
        f"from {starts}."
    )


def _explain(first: LayerUpdate) -> str:
    """Say how the spectrum is read."""
    entries = first.entries()
    if entries is not None and not entries.periodic:
        return (
            "Each spot is a trained entry, the brighter the larger; its place says which two "
            "functions it multiplies. Ringed: the five largest."
        )
    spots = "Each spot is a trained wave" if entries else "Each point is a wave"
    rest = (
        " Ringed: the five largest. Dim spots are mirror images: (u, v) and (−u, −v) are one wave. "
        "Waves of unrelated frequencies add up to what looks like noise; slow ones that are large "
        "show in ΔW as stripes."
    )
    return (
        f"{spots}, the brighter the larger: slow ones in the middle, the finest at the edges; on "
        "the horizontal line through 0 are those that vary with the input alone."
        f"{rest if entries else ''}"
    )


def _summarise(norms: Sequence[dict[str, Any]], layers: int) -> str:
    """Tell the norms of all layers in a sentence."""
    left = f" (every {-(-layers // len(norms))}th layer measured)" if len(norms) < layers else ""
    ratios = [one["norm"] / one["base"] for one in norms if one["base"]]
    if ratios:
        said = f"|ΔW| is {_spread(ratios, '.0%')} of |W0|{left}."
    else:
        said = f"|ΔW| is {_spread([one['norm'] for one in norms], '.3g')}{left}; "
        said += "|W0| is not known: the base weights that the run began with are not here."
    moved = [one["change"] / one["start"] for one in norms if one["start"]]
    if moved:
        said += f" Training changed it by {_spread(moved, '.0%')} of what it was at the start."
    return f"{said} Norms are Frobenius norms."


def _spread(values: Sequence[float], form: str) -> str:
    if len(values) == 1:
        return format(values[0], form)
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{middle:{form}} (median; {low:{form}} to {high:{form}})"


def _draw(layer: LayerUpdate, base: float | None, folder: Path, number: int) -> dict[str, Any]:
    """Write the images of a layer; return its figure."""
    delta, start, place = layer.delta(), layer.start(), folder / f"layer{number}"
    matrices = (
        {"ΔW": delta} if start is None else {"ΔW at the start": start, "ΔW at the end": delta}
    )
    panels = [
        update_images.draw_matrix(matrix, title, Path(f"{place}-matrix{one}.png"))
        for one, (title, matrix) in enumerate(matrices.items())
    ]
    panels.append(update_images.draw_waves(layer, False, Path(f"{place}-waves.png")))
    if start is not None:
        panels.append(update_images.draw_waves(layer, True, Path(f"{place}-change.png")))
    rows, columns = layer.shape
    norm = float(np.linalg.norm(delta))
    share = f", {norm / base:.0%} of |W0|" if base else ""
    entries = layer.entries()
    held = [] if entries is None else [update_images.describe_entries(entries)]
    return {
        "title": f"{'' if layer.block is None else f'Block {layer.block}, '}{layer.kind}",
        "caption": f"`{layer.name}`, {rows:,}\u00a0×\u00a0{columns:,}: "
        f"{'; '.join([f'|ΔW| = {norm:.3g}{share}', *held])}.",
        "panels": panels,
    }
