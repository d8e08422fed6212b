"""Metrics of predictions and references: pure functions on arrays.

Every value is a fraction, not a percentage.

`METRICS` names what a task may ask for. The same scores are an in-process `evaluate.Metric`
(`make_evaluate_metric`), which unlike `evaluate.load("glue")` needs no hub. A network that diverged
predicts NaN; its score is NaN too, never by chance that of the class with number 0.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

Metric = Callable[["np.ndarray", "np.ndarray"], float]


def _require_finite(metric: Metric) -> Metric:
    """Return the metric, NaN if a prediction is NaN or infinite."""

    @functools.wraps(metric)
    def guarded(predictions: np.ndarray, references: np.ndarray) -> float:
        import numpy as np

        return metric(predictions, references) if np.isfinite(predictions).all() else math.nan

    return guarded


def format_score(score: float | None) -> str:
    """Return a score as the terminal shows it, or "not finite"."""
    return f"{score:.4f}" if score is not None and math.isfinite(score) else "not finite"


def _to_classes(predictions: np.ndarray) -> np.ndarray:
    """Map scores (rows, classes) to class numbers (rows,)."""
    return predictions.argmax(-1)


@_require_finite
def accuracy(predictions: np.ndarray, references: np.ndarray) -> float:
    """Return the share of rows whose highest score is the reference class.

    Predictions (rows, classes), references (rows,).
    """
    return float((_to_classes(predictions) == references).mean())


@_require_finite
def matthews(predictions: np.ndarray, references: np.ndarray) -> float:
    """Return the Matthews correlation of classes; 0 if one side is constant.

    From the confusion matrix, as scikit-learn defines it for any number of classes: its own
    function takes milliseconds, and bootstrap intervals call this thousands of times.
    """
    import numpy as np

    size = predictions.shape[-1]
    labels: np.ndarray = references.astype(np.int64)
    confusion = np.bincount(labels * size + _to_classes(predictions), minlength=size * size)
    confusion = confusion.reshape(size, size).astype(np.float64)  # (reference, predicted)
    rows, there, said = confusion.sum(), confusion.sum(1), confusion.sum(0)
    spread = (rows**2 - there @ there) * (rows**2 - said @ said)
    return float((np.trace(confusion) * rows - there @ said) / np.sqrt(spread)) if spread else 0.0


@_require_finite
def f1(predictions: np.ndarray, references: np.ndarray) -> float:
    """Return F1 of class 1 against all others; 0 if it is neither predicted nor present.

    Counted here for the same reason as `matthews`.
    """
    said, there = _to_classes(predictions) == 1, references == 1
    total = int(said.sum()) + int(there.sum())
    return 2 * int((said & there).sum()) / total if total else 0.0


@_require_finite
def pearson(predictions: np.ndarray, references: np.ndarray) -> float:
    """Return Pearson's correlation of predictions (rows, 1) or (rows,); 0 if one is constant."""
    return _correlation("pearsonr", predictions, references)


@_require_finite
def spearman(predictions: np.ndarray, references: np.ndarray) -> float:
    """Return Spearman's correlation of predictions (rows, 1) or (rows,); 0 if one is constant."""
    return _correlation("spearmanr", predictions, references)


def _correlation(kind: str, predictions: np.ndarray, references: np.ndarray) -> float:
    import numpy as np
    from scipy import stats

    values = predictions.reshape(len(references))
    if np.ptp(values) == 0 or np.ptp(references) == 0:
        return 0.0
    return float(getattr(stats, kind)(values, references).statistic)


METRICS: dict[str, Metric] = {
    "accuracy": accuracy,
    "matthews": matthews,
    "f1": f1,
    "pearson": pearson,
    "spearman": spearman,
}


def cross_entropy(sums: np.ndarray, tokens: np.ndarray) -> float:
    """Mean negative log likelihood per token, of each row's sum and its number of tokens."""
    return float(sums.sum() / max(1, tokens.sum()))


LOWER_IS_BETTER = ("cross_entropy", "fid", "frechet_pixels")
"""Metrics that are better when lower, those that tasks compute themselves included."""
REGRESSION = ("pearson", "spearman")
"""Metrics that compare numbers; the others compare classes."""


def make_evaluate_metric(names: list[str]) -> Any:
    """Return the metrics as one `evaluate.Metric`, whose predictions are a row of scores each."""
    import datasets
    import evaluate
    import numpy as np

    class Scores(evaluate.Metric):
        def _info(self) -> evaluate.MetricInfo:
            features = datasets.Features(
                {
                    "predictions": datasets.Sequence(datasets.Value("float32")),
                    "references": datasets.Value("float32"),
                }
            )
            return evaluate.MetricInfo(description=__doc__ or "", citation="", features=features)

        def _compute(self, predictions: list, references: list) -> dict[str, float]:
            scores, labels = np.asarray(predictions), np.asarray(references)
            return {name: METRICS[name](scores, labels) for name in names}

    return Scores()
