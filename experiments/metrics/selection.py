"""Selection of an epoch: best, last, or chosen on one half and scored on the other.

The paper reports the best of up to 158 dev epochs, which flatters; every record therefore holds all
three, each with a 95 % bootstrap interval over the rows of the split (it does not cover seeds or
selection). Where a split of its own chooses the epoch, best is honest and takes the place of the
third. A score that is not finite is never chosen: without any other there is no best.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np

RULES = ("best", "last", "heldout")
"""Rules of selection; a page with such numbers can be switched between them."""


class Select(Enum):
    """Evaluation that a table's number is taken from."""

    best = "best"
    last = "last"


Metric = Callable[[np.ndarray, np.ndarray], float]

HALVES_SEED = 0  # one cut of the split, the same for every method and seed
BOOTSTRAP_SEED = 0
RESAMPLES = 1000


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Predictions of one evaluation of one split."""

    step: int
    """Optimizer steps taken."""
    epoch: float
    """Epochs trained."""
    predictions: np.ndarray
    """Outputs of the model, (rows, labels)."""
    references: np.ndarray
    """Labels, (rows,)."""


def select(
    evaluations: Sequence[Evaluation],
    metric: Metric,
    chosen_on: Sequence[Evaluation] | None = None,
) -> dict[str, dict[str, Any] | None]:
    """Score the best, the last and the held-out epoch.

    Args:
        evaluations: of one split, in the order of training, at least one.
        metric: higher is better.
        chosen_on: of the same steps on another split; best is then the epoch that is best there,
            with its `chosen_on` {value} there, and heldout is None.

    Returns:
        `best`, `last`: {epoch, step, value, interval}; `heldout`: {epochs, steps, value, interval},
        None for fewer than four rows. The first of equal epochs counts as best. Where no score is
        finite, `best` and `heldout` are None.
    """
    scores = [
        metric(entry.predictions, entry.references)
        for entry in (evaluations if chosen_on is None else chosen_on)
    ]
    place = _find_first_highest(scores)
    best = None if place is None else _describe_evaluation(evaluations[place], metric)
    if best is not None and place is not None and chosen_on is not None:
        best["chosen_on"] = {"value": scores[place]}
    return {
        "best": best,
        "last": _describe_evaluation(evaluations[-1], metric),
        "heldout": _select_heldout(evaluations, metric) if chosen_on is None else None,
    }


def _find_first_highest(scores: Sequence[float]) -> int | None:
    finite = np.isfinite(scores)
    return int(np.argmax(np.where(finite, scores, -np.inf))) if finite.any() else None


def _describe_evaluation(entry: Evaluation, metric: Metric) -> dict[str, Any]:
    rows = np.arange(len(entry.references))
    return {
        "epoch": entry.epoch,
        "step": entry.step,
        "value": metric(entry.predictions, entry.references),
        "interval": _bootstrap_interval([(entry, rows)], metric),
    }


def _select_heldout(evaluations: Sequence[Evaluation], metric: Metric) -> dict[str, Any] | None:
    rows = len(evaluations[0].references)
    if rows < 4:
        return None
    order = np.random.default_rng(HALVES_SEED).permutation(rows)
    halves = order[: rows // 2], order[rows // 2 :]
    parts = []
    for chosen_on, scored_on in (halves, halves[::-1]):
        scores = [
            metric(entry.predictions[chosen_on], entry.references[chosen_on])
            for entry in evaluations
        ]
        place = _find_first_highest(scores)
        if place is None:
            return None
        parts.append((evaluations[place], scored_on))
    return {
        "epochs": [entry.epoch for entry, _ in parts],
        "steps": [entry.step for entry, _ in parts],
        "value": float(
            np.mean(
                [metric(entry.predictions[rows], entry.references[rows]) for entry, rows in parts]
            )
        ),
        "interval": _bootstrap_interval(parts, metric),
    }


def _bootstrap_interval(
    parts: Sequence[tuple[Evaluation, np.ndarray]], metric: Metric
) -> list[float]:
    """Return 2.5 % and 97.5 % quantiles of the parts' mean score over resampled rows."""
    draw = np.random.default_rng(BOOTSTRAP_SEED)
    values = []
    for _ in range(RESAMPLES):
        resampled = [(entry, draw.choice(rows, len(rows))) for entry, rows in parts]
        values.append(
            np.mean(
                [
                    metric(entry.predictions[rows], entry.references[rows])
                    for entry, rows in resampled
                ]
            )
        )
    return [float(value) for value in np.quantile(values, [0.025, 0.975])]
