"""Curves of one run: training loss and score over epochs."""

from __future__ import annotations

from collections.abc import Sequence

from experiments.report.comparison.names import name_metric
from experiments.report.comparison.run_index import Run, RunIndex, number
from experiments.report.run_page.charts import Chart, Points, draw_chart
from experiments.results.history import TRAINING_LOSS


def draw_charts(run: Run, index: RunIndex) -> list[Chart]:
    """Return charts of training loss and primary metric; none of what the history lacks.

    Args:
        run: a finished run.
        index: its index, where a damaged history is reported.
    """
    lines = index.lines(run)
    keys = dict.fromkeys(key for line in lines for key in line if key != TRAINING_LOSS)
    metric, split = run.primary.get("name"), run.primary.get("split")
    scored = [key for key in keys if key.partition("/")[2] == metric]
    scored.sort(key=lambda key: key != f"{split}/{metric}")  # the split that counts comes first
    losses, scores = (_read(run, index, names) for names in ([TRAINING_LOSS], scored))
    label = _label_epochs(lines)
    charts = [draw_chart("Training loss", losses, label)] if losses else []
    if scores:
        by_split = {name.partition("/")[0]: points for name, points in scores.items()}
        charts.append(draw_chart(name_metric(metric), by_split, label, _find_mark(run, scores)))
    return charts


def _read(run: Run, index: RunIndex, names: list[str]) -> dict[str, Points]:
    return {name: points for name in names if (points := index.curve(run, name))}


def _find_mark(run: Run, scores: dict[str, Points]) -> tuple[float, float, str] | None:
    """Return epoch, value and words of the best epoch, else of the last, on the first curve."""
    metrics = run.record.metrics or {}
    rule = next((rule for rule in ("best", "last") if metrics.get(rule)), None)
    epoch = number(metrics[rule].get("epoch")) if rule else None
    near = [value for at, value in next(iter(scores.values())) if at == epoch]
    return (epoch, near[-1], f"{rule} epoch, {epoch:g}: {near[-1]:.4g}") if near else None


def _label_epochs(lines: Sequence[dict]) -> str:
    """Return the label of the epochs, with the steps of one if the last line tells."""
    last = lines[-1] if lines else {"epoch": 0}
    if last["epoch"] <= 0:
        return "Epoch"
    steps = round(last["step"] / last["epoch"])
    return f"Epoch of {steps:,} step{'s' * (steps != 1)}"
