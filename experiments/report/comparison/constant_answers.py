"""Scores of a constant answer, which says the same of every row: what was learned is above them."""

from __future__ import annotations

import functools
from pathlib import Path

from experiments.errors import RecordError
from experiments.report.comparison import intervals, paired
from experiments.report.comparison.paired import Sample
from experiments.report.comparison.run_index import Run
from experiments.results import predictions


def is_above(
    found: Sample,
    run: Run,
    *,
    rule: str,
    metric: str | None,
    split: str | None = None,
    scale: float = 1.0,
) -> bool:
    """Return True if a setting is told to be above the best constant answer, or none is known.

    Args:
        found: scores of the setting.
        run: any of its runs.
        rule: selection of the epoch.
        metric: of the scores.
        split: None means the primary one.
        scale: factor from the metric to the scores.
    """
    step, there = run.find_step(rule), split or run.primary.get("split")
    if metric is None or there is None or step is None:
        return True
    constant = score_constant(run.run_dir, there, step, metric)
    if constant is None:
        return True
    limits = intervals.of_difference(paired.estimate(found))
    return (found.mean if limits is None else limits.low) > scale * constant


@functools.cache
def score_constant(run_dir: Path, split: str, step: int, metric: str) -> float | None:
    """Return the score of the best constant answer; None if it is not known.

    A correlation with one is 0. The most frequent class is the most accurate answer, and class 1
    that of the highest F1.
    """
    if metric in ("matthews", "pearson", "spearman"):
        return 0.0
    if metric not in ("accuracy", "f1"):
        return None
    import numpy as np

    try:
        entry = predictions.load_step(run_dir, split, step)
    except (RecordError, OSError):
        return None  # `experiments.results verify` reports it
    if entry is None or not len(entry.references):
        return None
    _, counts = np.unique(entry.references, return_counts=True)
    share = float((entry.references == 1).mean())
    return float(counts.max() / counts.sum()) if metric == "accuracy" else 2 * share / (1 + share)
