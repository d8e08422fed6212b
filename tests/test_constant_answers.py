"""A constant answer's scores, and what is told to be above them."""

import numpy as np
import pytest

from experiments.metrics.selection import Evaluation
from experiments.report.comparison import constant_answers
from experiments.report.comparison.paired import OF_ROWS, Sample
from experiments.report.comparison.run_index import Run
from experiments.results import predictions
from experiments.results.record import Record

LABELS = np.array([1, 1, 1, 0, 1, 0, 1])


@pytest.fixture
def run(tmp_path):
    scores = np.eye(2)[np.ones(len(LABELS), int)]
    entry = Evaluation(epoch=1.0, step=3, predictions=scores, references=LABELS)
    predictions.save(tmp_path, "validation", entry)
    metrics = {"primary": {"split": "validation"}, "best": {"step": 3}}
    empty = {part: {} for part in ("run", "config", "parameters", "time", "memory", "environment")}
    return Run(tmp_path, Record(metrics=metrics, **empty)), entry


@pytest.mark.parametrize("metric", ["accuracy", "f1", "matthews"])
def test_class_1_everywhere_is_the_constant_here(run, metric):
    run, entry = run
    expected = OF_ROWS[metric](entry.predictions, entry.references)
    found = constant_answers.score_constant(run.run_dir, "validation", 3, metric)
    assert found == pytest.approx(expected)


def test_only_what_is_told_to_be_above_it_is_above(run):
    run, _ = run
    near = Sample(values={0: 70.0, 1: 74.0, 2: 76.0})
    far = Sample(values={0: 78.0, 1: 78.5, 2: 78.2})
    told = {"rule": "best", "metric": "accuracy", "scale": 100}
    assert not constant_answers.is_above(near, run, **told)  # 71.4 are of class 1
    assert constant_answers.is_above(far, run, **told)
    assert constant_answers.is_above(near, run, rule="best", metric="bleu")
    assert constant_answers.is_above(near, run, rule="last", metric="accuracy")
