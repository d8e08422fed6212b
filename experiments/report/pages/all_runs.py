"""Table of all finished training runs: settings, scores and cost."""

from __future__ import annotations

from typing import Any

from experiments.metrics.selection import RULES
from experiments.report.comparison.run_index import Run, RunIndex, number
from experiments.report.comparison.seed_groups import find_fallback
from experiments.report.render.document import Cell, Line, Page, Prose, Shown, Table, link

SCORES = ("Best", "Last", "Held-out")
NUMBERS = (*SCORES, "Parameters", "Head", "Seconds", "Peak MB", "Rate")
NAMES = ("model", "task", "method", "variant", "source", "recipe", "seed")
COLUMNS = ("Model", "Task", "Method, recipe and what differs", "Seed", "Metric", *NUMBERS)
MEGABYTE = 1024**2


def show(index: RunIndex) -> Page:
    """Build the page of all runs of an output folder."""
    trained = [run for run in index.runs if run.record.metrics]
    counted = len(index.runs) - len(trained)
    cells = [_cells(run, index) for run in trained]
    blocks = [
        Prose(
            "Scores with their 95 % bootstrap interval over the rows scored: of the best epoch, "
            "chosen on the same rows; of the last; and of the one chosen on half of the rows, "
            "scored on the other half. Tasks with a validation split (images) choose the best "
            "epoch there and are scored on the test split, so that best is held out already."
        ),
        Table(
            caption="Finished training runs",
            columns=COLUMNS,
            lines=[
                Line(cells=_words(cell, link(index.root, run.run_dir)))
                for cell, run in zip(cells, trained, strict=True)
            ],
            numbers=NUMBERS,
            heads=2,
            dense=True,
            filtered=True,
        ),
    ]
    if not trained:
        blocks.append(Prose("none yet: `python train.py`"))
    summary = f"{len(trained)} finished training run{'s' * (len(trained) != 1)}."
    if counted:
        summary += f" {counted} more record{'s' * (counted != 1)} of mode=count, without training."
    return Page(
        name="runs",
        title="All finished runs",
        blocks=blocks,
        rows=cells or [{"model": None}],
        summary=summary,
    )


def _cells(run: Run, index: RunIndex) -> dict[str, Any]:
    record, values = run.record, run.values
    cell = {name: record.run.get(name) for name in NAMES}
    cell["profile"] = record.run.get("profile")
    cell["metric"] = values.get("metrics.primary.name")
    cell["learning_rate"] = number(values.get("train.learning_rate"))
    cell["adapter"], cell["head"] = record.parameters["adapter"], record.parameters.get("head")
    for rule in RULES:
        chosen = (record.metrics or {}).get(rule) or {}
        cell[rule] = chosen.get("value")
        cell[f"{rule}_low"], cell[f"{rule}_high"] = chosen.get("interval") or (None, None)
    cell["train_s"] = record.time.get("train_s")
    cell["peak_bytes"] = record.memory.get("peak_gpu") or record.memory.get("peak_rss")
    cell["record"] = index.name(run)
    return cell


def _words(cell: dict[str, Any], record: str) -> list[Cell]:
    def score(rule: str) -> Cell:
        value, low, high = (cell[key] for key in (rule, f"{rule}_low", f"{rule}_high"))
        if value is None:
            return "-"
        number = Shown(text=f"{value:.3f}", link=record)
        if None in (low, high):
            return number
        return number, Shown(text=f"[{low:.3f}, {high:.3f}]", tone="interval")

    differs = cell["variant"] or (f"profile={cell['profile']}" if cell["profile"] else "")
    asked = f" (asked: {cell['source']})" if find_fallback(cell) else ""
    recipe = f"{cell['recipe'] or '-'}{asked}"
    return [
        *(str(cell[name] or "") for name in ("model", "task")),
        (
            cell["method"],
            Shown(text="; ".join(filter(None, [recipe, differs])), tone="interval"),
        ),
        Shown(text=str(cell["seed"]), link=record),
        cell["metric"] or "-",
        *(score(rule) for rule in RULES),
        f"{cell['adapter']:,}",
        f"{cell['head'] or 0:,}",
        f"{cell['train_s']:.0f}" if cell["train_s"] is not None else "-",
        f"{cell['peak_bytes'] / MEGABYTE:.0f}" if cell["peak_bytes"] else "-",
        f"{cell['learning_rate']:g}" if cell["learning_rate"] is not None else "-",
    ]
