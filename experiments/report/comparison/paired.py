"""Paired differences of two settings, over seeds and rows, with their intervals."""

from __future__ import annotations

import functools
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from experiments.errors import RecordError
from experiments.metrics.classification import METRICS, cross_entropy
from experiments.metrics.selection import BOOTSTRAP_SEED
from experiments.report.comparison.run_index import Run
from experiments.results import predictions

if TYPE_CHECKING:
    import numpy as np

SMALLEST_VARIANCE = 1e-18
"""Variance of a mean difference below which it is rounding."""
SEEDS = 3
"""Seeds that both settings must share before anything is told."""
LEVEL = 0.05
"""Probability up to which a difference counts as told."""
OF_ROWS = METRICS | {"cross_entropy": cross_entropy}
"""Metrics of stored predictions."""
RESAMPLES = 200
"""Resamples of the rows: enough for a standard error, unlike the ends of an interval."""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Scores of one setting."""

    values: Mapping[int, float]
    """By seed."""
    rows: Mapping[int, np.ndarray] = field(default_factory=dict)
    """By seed, scores of the resampled rows; a seed without stored predictions is missing."""
    count: int = 0
    """Rows scored; 0 if they are not known."""
    name: str = ""
    """Words for the setting."""

    @property
    def mean(self) -> float:
        """Mean over the seeds."""
        return statistics.fmean(self.values.values())


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Mean of one setting minus that of another."""

    value: float
    seeds: int
    """Seeds that both have."""
    rows: int = 0
    """Rows that both were scored on and the error covers; 0: it covers the seeds alone."""
    error: float | None = None
    """Standard error; None for too few seeds."""
    freedom: float = math.inf
    """Degrees of freedom of the error."""
    row_error: float | None = None
    """Share of the rows in the error; None without stored predictions."""

    @property
    def probability(self) -> float:
        """Probability of a difference this high or higher if there were none; 1 if untold."""
        if self.error is None:
            return 1.0
        if self.error == 0:
            return 0.0 if self.value > 0 else 1.0
        from scipy import stats

        return float(stats.t.sf(self.value / self.error, self.freedom))

    @property
    def interval(self) -> tuple[float, float] | None:
        """95 % interval; None for too few seeds."""
        reach = self.find_reach()
        return None if reach is None else (self.value - reach, self.value + reach)

    def find_reach(self, level: float = LEVEL) -> float | None:
        """Return the smallest difference that is told at a level; None for too few seeds."""
        if self.error is None:
            return None
        from scipy import stats

        return float(stats.t.ppf(1 - level / 2, self.freedom)) * self.error

    @property
    def floor(self) -> float | None:
        """Half width of the interval over the rows alone; None if they are not stored."""
        return None if self.row_error is None else 1.96 * self.row_error


def compare(of: Sample, than: Sample, factor: float = 1.0) -> Difference:
    """Return `of` minus `factor` times `than`, paired by seed and by row.

    The squared standard error is the sum of two: the variance between the seeds' differences over
    their number, and the variance of the mean difference over resampled rows. Their degrees of
    freedom are Welch's.
    """
    import numpy as np

    shared = sorted(of.values.keys() & than.values.keys())
    differences = [of.values[seed] - factor * than.values[seed] for seed in shared]
    if not differences:
        return Difference(value=of.mean - factor * than.mean, seeds=0)
    stored = [of.rows[seed] - factor * than.rows[seed] for seed in shared if _both(of, than, seed)]
    row_error = None
    if len(stored) == len(shared) and of.count == than.count:
        row_error = float(np.mean(stored, axis=0).std(ddof=1))
    found = Difference(value=statistics.fmean(differences), seeds=len(shared), row_error=row_error)
    if len(shared) < SEEDS:
        return found
    of_seeds = statistics.variance(differences) / len(shared)
    of_rows = (row_error or 0.0) ** 2
    if of_seeds < SMALLEST_VARIANCE and not of_rows:
        return found  # seeds that happen to agree say nothing about the error
    freedom = math.inf
    if of_seeds > 0:
        freedom = (of_seeds + of_rows) ** 2 * (len(shared) - 1) / of_seeds**2
    return replace(
        found,
        rows=0 if row_error is None else of.count,
        error=math.sqrt(of_seeds + of_rows),
        freedom=freedom,
    )


def name_lost(lost: int, runs: int) -> list[str]:
    """Return the reason not to compare runs some of which have no score: the others survived."""
    return [f"{lost} of {runs} seeds without a score, as of one that diverged"] if lost else []


def estimate(of: Sample) -> Difference:
    """Return the mean of a setting with its error over seeds and rows, as `compare` has it."""
    import numpy as np

    nothing = {seed: np.zeros_like(rows) for seed, rows in of.rows.items()}
    return compare(of, Sample(values=dict.fromkeys(of.values, 0.0), rows=nothing, count=of.count))


def _both(of: Sample, than: Sample, seed: int) -> bool:
    return seed in of.rows and seed in than.rows


def average(samples: Sequence[Sample]) -> Sample:
    """Return the mean of several samples, at the seeds that all have."""
    import numpy as np

    shared = set.intersection(*(set(one.values) for one in samples))
    stored = [seed for seed in shared if all(seed in one.rows for one in samples)]
    return Sample(
        values={seed: statistics.fmean(one.values[seed] for one in samples) for seed in shared},
        rows={seed: np.mean([one.rows[seed] for one in samples], axis=0) for seed in stored},
        count=sum(one.count for one in samples),
    )


def sample(
    values: Mapping[int, float],
    runs: Iterable[tuple[int, Run]],
    *,
    rule: str,
    metric: str | None,
    split: str | None = None,
    scale: float = 1.0,
) -> Sample:
    """Return the sample of runs, with resampled rows where their predictions are stored.

    Args:
        values: scaled scores by seed.
        runs: the same seeds with their runs.
        rule: selection of the epoch.
        metric: of `OF_ROWS`; any other has no rows.
        split: None means the primary one.
        scale: factor from a metric to `values`.
    """
    rows, counts = {}, set()
    for seed, run in runs if metric in OF_ROWS else ():
        step, there = run.find_step(rule), split or run.primary.get("split")
        if seed in values and step is not None and there is not None:
            found = resampled(run.run_dir, there, step, metric)
            if found is not None:
                rows[seed], count = scale * found[0], found[1]
                counts.add(count)
    return Sample(values=values, rows=rows, count=counts.pop() if len(counts) == 1 else 0)


@functools.cache
def resampled(run_dir: Path, split: str, step: int, metric: str) -> tuple[np.ndarray, int] | None:
    """Return scores of resampled rows of one stored evaluation, and the number of its rows.

    The same rows are drawn for all runs that were scored on as many. None if it is not stored or
    cannot be read, which `experiments.results verify` reports.
    """
    import numpy as np

    try:
        entry = predictions.load_step(run_dir, split, step)
    except (RecordError, OSError):
        return None
    if entry is None:
        return None
    count = len(entry.references)
    draw = np.random.default_rng([BOOTSTRAP_SEED, count])
    take = OF_ROWS[metric]
    scores = []
    for _ in range(RESAMPLES):
        rows = draw.choice(count, count)
        try:
            scores.append(take(entry.predictions[rows], entry.references[rows]))
        except Exception:  # of arrays that are not this metric's, which `verify` reports
            return None
    return (np.array(scores), count) if np.isfinite(scores).all() else None
