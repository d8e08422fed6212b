"""Metrics against scikit-learn and scipy, and where they have nothing to say."""

import math
import warnings

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef

from experiments.metrics import classification
from experiments.metrics.classification import METRICS, REGRESSION, make_evaluate_metric

OF_CLASSES = sorted(set(METRICS) - set(REGRESSION))


def classified(rows=200, classes=2, seed=0):
    draw = np.random.default_rng(seed)
    return draw.standard_normal((rows, classes)), draw.integers(0, classes, rows)


def graded(rows=200, seed=0):
    draw = np.random.default_rng(seed)
    references = np.round(5 * draw.random(rows), 1)
    return references[:, None] + draw.standard_normal((rows, 1)), references


@pytest.mark.parametrize("seed", range(5))
def test_two_classes_as_in_sklearn(seed):
    scores, labels = classified(seed=seed)
    classes = (scores[:, 1] > scores[:, 0]).astype(int)
    assert METRICS["accuracy"](scores, labels) == pytest.approx(accuracy_score(labels, classes))
    assert METRICS["matthews"](scores, labels) == pytest.approx(matthews_corrcoef(labels, classes))
    assert METRICS["f1"](scores, labels) == pytest.approx(f1_score(labels, classes))


def test_three_classes_as_in_sklearn():
    scores, labels = classified(classes=3)
    classes = scores.argmax(1)
    assert METRICS["accuracy"](scores, labels) == pytest.approx(accuracy_score(labels, classes))
    assert METRICS["matthews"](scores, labels) == pytest.approx(matthews_corrcoef(labels, classes))
    of_one = f1_score(labels, classes, average=None)[1]
    assert METRICS["f1"](scores, labels) == pytest.approx(of_one)


@pytest.mark.parametrize("shape", [(200, 1), (200,)])
def test_correlations_as_in_scipy(shape):
    scores, labels = graded()
    flat = scores[:, 0]
    scores = scores.reshape(shape)
    assert METRICS["pearson"](scores, labels) == pytest.approx(stats.pearsonr(flat, labels)[0])
    assert METRICS["spearman"](scores, labels) == pytest.approx(stats.spearmanr(flat, labels)[0])


def test_f1_is_of_class_one():
    scores = np.array([[0.0, 1.0], [0.0, 1.0], [1.0, 0.0], [1.0, 0.0]])
    assert METRICS["f1"](scores, np.array([1, 0, 0, 0])) == pytest.approx(2 / 3)


def test_scores_are_plain_numbers():
    for name in METRICS:
        made = graded() if name in REGRESSION else classified()
        assert type(METRICS[name](*made)) is float


@pytest.mark.parametrize(("name", "expected"), [("accuracy", 0.5), ("matthews", 0.0), ("f1", 0.0)])
def test_constant_classes(name, expected):
    scores, labels = np.tile([1.0, 0.0], (20, 1)), np.arange(20) % 2
    assert METRICS[name](scores, labels) == expected


@pytest.mark.parametrize("name", ["matthews", "f1"])
def test_one_class_present_and_predicted(name):
    assert METRICS[name](np.tile([1.0, 0.0], (20, 1)), np.zeros(20, int)) == 0.0


@pytest.mark.parametrize("name", REGRESSION)
def test_constant_side_correlates_with_nothing(name):
    scores, labels = graded()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert METRICS[name](np.ones_like(scores), labels) == 0.0
        assert METRICS[name](scores, np.ones_like(labels)) == 0.0


@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf, None])
def test_a_score_that_is_not_finite_is_shown_as_none(broken):
    assert (classification.format_score(broken), classification.format_score(0.25)) == (
        "not finite",
        "0.2500",
    )


@pytest.mark.parametrize("broken", [math.nan, math.inf])
@pytest.mark.parametrize("name", METRICS)
def test_diverged_predictions_score_nan(name, broken):
    """argmax takes NaN for the highest score: without care a dead network predicts a class."""
    scores, labels = graded() if name in REGRESSION else classified()
    scores[7, 0] = broken
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert math.isnan(METRICS[name](scores, labels))
        assert math.isnan(METRICS[name](np.full_like(scores, broken), labels))


@pytest.mark.parametrize("kind", ["classes", "numbers"])
def test_evaluate_gives_the_same(kind):
    """An `evaluate.Metric` in this process; the test session refuses every connection."""
    import evaluate

    names = OF_CLASSES if kind == "classes" else list(REGRESSION)
    scores, labels = classified(rows=60) if kind == "classes" else graded(rows=60)
    metric = make_evaluate_metric(names)
    assert isinstance(metric, evaluate.Metric)
    for start in (0, 20, 40):
        rows = slice(start, start + 20)
        metric.add_batch(predictions=scores[rows], references=labels[rows])
    found = metric.compute()
    assert set(found) == set(names)
    for name in names:
        assert found[name] == pytest.approx(METRICS[name](scores, labels), abs=1e-6)
