"""Intervals of scores and differences, and the chances that each covers."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum

from experiments.report.comparison import paired
from experiments.report.comparison.paired import Difference, Sample
from experiments.report.comparison.run_index import Run

BOUNDS = {
    **dict.fromkeys(("accuracy", "f1"), (0.0, 1.0)),
    **dict.fromkeys(("matthews", "pearson", "spearman"), (-1.0, 1.0)),
}
"""Values that a metric can have; an interval from an error may reach beyond them."""


class Cover(Enum):
    """Chances that an interval covers."""

    both = "rows and seeds"
    rows = "rows"
    seeds = "seeds"


@dataclass(frozen=True, kw_only=True)
class Interval:
    """95 % interval of a score or a difference."""

    low: float
    high: float
    cover: Cover


def of_difference(found: Difference) -> Interval | None:
    """Return the interval of a difference; of fewer than three seeds over the rows alone."""
    if found.interval is not None:
        low, high = found.interval
        return Interval(low=low, high=high, cover=Cover.both if found.rows else Cover.seeds)
    if not found.floor or found.seeds >= paired.SEEDS:
        return None
    low, high = found.value - found.floor, found.value + found.floor
    return Interval(low=low, high=high, cover=Cover.rows)


def of_score(sample: Sample, runs: Sequence[Run], rule: str, metric: str | None) -> Interval | None:
    """Return the interval of a setting's score, over rows and seeds.

    Of fewer than three seeds, or without stored predictions, it is the mean of those that the
    records hold, over the rows alone; if they hold none, that of the predictions or of the seeds.

    Args:
        sample: scores of the setting.
        runs: its runs.
        rule: selection rule of the score.
        metric: of the score.
    """
    found = paired.estimate(sample)
    ends = [((run.record.metrics or {}).get(rule) or {}).get("interval") for run in runs]
    known = [end for end in ends if end and None not in end]
    if not found.rows and len(known) == len(ends):
        low, high = (statistics.fmean(values) for values in zip(*known, strict=True))
        return Interval(low=low, high=high, cover=Cover.rows)
    limits = of_difference(found)
    if limits is None:
        return None
    lowest, highest = BOUNDS.get(metric or "", (-math.inf, math.inf))
    return replace(limits, low=max(lowest, limits.low), high=min(highest, limits.high))
