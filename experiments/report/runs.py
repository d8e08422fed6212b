"""Every finished training run as one table: what was trained, what came out, what it took."""

from __future__ import annotations

from typing import Any

from experiments.report.evidence import Evidence, Run
from experiments.report.page import Page, table, troubles

NUMBERS = ("Learning rate", "Adapter", "Head", "Best", "Last", "Held-out", "Seconds", "Peak MB")
COLUMNS = ("Model", "Task", "Method", "Differs", "Seed", "Metric", *NUMBERS)
MEGABYTE = 1024**2


def show(facts: dict[str, Any], evidence: Evidence) -> Page:
    """Lists the runs of an output folder; `facts` is empty, since the paper prints no
    such table."""
    trained = [run for run in evidence.runs if run.record.metrics]
    cells = [_cells(run, evidence) for run in trained]
    lines = [
        "# Finished runs",
        "",
        "Scores with their 95 % bootstrap interval over the rows scored: of the best epoch, chosen",
        "on the same rows; of the last; and of the one chosen on half of the rows, scored on the",
        "other half. Tasks with a validation split (images) choose the best epoch there and are",
        "scored on the test split, so that best is held out already.",
        "",
        *table(COLUMNS, [_words(cell) for cell in cells], NUMBERS),
    ]
    if not trained:
        lines.append("\nnone yet: python train.py")
    return Page(
        text="\n".join([*lines, *troubles(evidence.damaged)]) + "\n",
        rows=cells or [{"model": None}],
    )


def _cells(run: Run, evidence: Evidence) -> dict[str, Any]:
    record, values = run.record, run.values
    cell = {name: record.run.get(name) for name in ("model", "task", "method", "variant", "seed")}
    cell["metric"] = values.get("metrics.primary.name")
    cell["learning_rate"] = values.get("train.learning_rate")
    cell["adapter"], cell["head"] = record.parameters["adapter"], record.parameters.get("head")
    for rule in ("best", "last", "heldout"):
        chosen = (record.metrics or {}).get(rule) or {}
        cell[rule] = chosen.get("value")
        cell[f"{rule}_low"], cell[f"{rule}_high"] = chosen.get("interval") or (None, None)
    cell["train_s"] = record.time.get("train_s")
    cell["peak_bytes"] = record.memory.get("peak_gpu") or record.memory.get("peak_rss")
    cell["record"] = evidence.name(run)
    return cell


def _words(cell: dict[str, Any]) -> list[str]:
    def score(rule: str) -> str:
        value, low, high = (cell[key] for key in (rule, f"{rule}_low", f"{rule}_high"))
        if value is None:
            return "-"
        return f"{value:.3f}" if low is None else f"{value:.3f} [{low:.3f}, {high:.3f}]"

    return [
        *(str(cell[name] or "") for name in ("model", "task", "method", "variant")),
        str(cell["seed"]),
        cell["metric"] or "-",
        f"{cell['learning_rate']:g}" if cell["learning_rate"] is not None else "-",
        f"{cell['adapter']:,}",
        f"{cell['head'] or 0:,}",
        *(score(rule) for rule in ("best", "last", "heldout")),
        f"{cell['train_s']:.0f}" if cell["train_s"] is not None else "-",
        f"{cell['peak_bytes'] / MEGABYTE:.0f}" if cell["peak_bytes"] else "-",
    ]
