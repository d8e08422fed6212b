"""Scores of a trial on either half of the scored rows: one half chooses, the other is reported."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from experiments.errors import RecordError
from experiments.metrics.classification import LOWER_IS_BETTER
from experiments.metrics.selection import BOOTSTRAP_SEED, HALVES_SEED, Evaluation
from experiments.report.comparison.paired import OF_ROWS, RESAMPLES, Sample
from experiments.results import predictions
from experiments.results.record import Record


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One finished run of a contestant."""

    rate: float
    seed: int
    record: Record
    run_dir: Path
    halves: tuple[float, float]
    """Scores of the last evaluation on the two halves of its rows."""

    @property
    def metric(self) -> str:
        """Name of the metric."""
        return str((self.record.metrics or {})["primary"]["name"])


def read_trial(run_dir: Path, record: Record, rate: float, seed: int) -> Trial:
    """Score the last evaluation of a finished run.

    Raises:
        RecordError: its predictions are not stored.
    """
    primary = (record.metrics or {})["primary"]
    entry = _load(run_dir, record)
    first, second = (
        _compute(primary["name"], entry, rows) for rows in split_rows(len(entry.references))
    )
    return Trial(rate=rate, seed=seed, record=record, run_dir=run_dir, halves=(first, second))


def split_rows(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the row numbers of the two halves, the same as those of `heldout` in records."""
    order = np.random.default_rng(HALVES_SEED).permutation(count)
    return order[: count // 2], order[count // 2 :]


def _compute(metric: str, entry: Evaluation, rows: np.ndarray) -> float:
    return OF_ROWS[metric](entry.predictions[rows], entry.references[rows])


def choose(trials: Sequence[Trial], half: int) -> Trial:
    """Return the trial with the best score on one half; one that diverged is the worst."""
    sign = -1.0 if trials[0].metric in LOWER_IS_BETTER else 1.0

    def order(trial: Trial) -> float:
        score = sign * trial.halves[half]
        return score if math.isfinite(score) else -math.inf

    return max(trials, key=order)


def combine(chosen: Sequence[Mapping[int, Trial]], name: str) -> Sample:
    """Return the score of a contestant by seed: mean over the halves, each chosen on the other.

    Args:
        chosen: trials by seed at the rate that the first half chose, and that the second did.
        name: of the contestant.
    """
    shared = sorted(chosen[0].keys() & chosen[1].keys())
    values, rows, count = {}, {}, 0
    for seed in shared:
        pair = [by_seed[seed] for by_seed in chosen]
        values[seed] = statistics.fmean(pair[half].halves[1 - half] for half in (0, 1))
        parts = [_resample(pair[half], 1 - half) for half in (0, 1)]
        rows[seed] = np.mean([scores for scores, _ in parts], axis=0)
        count = sum(number for _, number in parts)
    return Sample(values=values, rows=rows, count=count, name=name)


def _resample(trial: Trial, half: int) -> tuple[np.ndarray, int]:
    """Return scores of resampled rows of one half; the same rows are drawn for every trial."""
    entry = _load(trial.run_dir, trial.record)
    rows = split_rows(len(entry.references))[half]
    draw = np.random.default_rng([BOOTSTRAP_SEED, len(rows), half])
    scores = [_compute(trial.metric, entry, draw.choice(rows, len(rows))) for _ in range(RESAMPLES)]
    return np.array(scores), len(rows)


def _load(run_dir: Path, record: Record) -> Evaluation:
    metrics = record.metrics or {}
    entry = predictions.load_step(run_dir, metrics["primary"]["split"], metrics["last"]["step"])
    if entry is None:
        raise RecordError(f"{run_dir}: the predictions of its last evaluation are missing")
    return entry
