"""Which epoch a number is taken from, against brute force on made-up evaluations."""

import math

import numpy as np
import pytest

from experiments.metrics import selection
from experiments.metrics.classification import METRICS
from experiments.metrics.selection import Evaluation, select

accuracy = METRICS["accuracy"]


def of_classes(classes, references, step=1):
    """An evaluation that predicts these classes."""
    scores = np.eye(2)[np.asarray(classes)]
    return Evaluation(
        step=step, epoch=step / 10, predictions=scores, references=np.asarray(references)
    )


def made_up(epochs, rows, seed=0, right=0.7):
    """Evaluations of one split whose rows are right by chance."""
    draw = np.random.default_rng(seed)
    references = draw.integers(0, 2, rows)
    flips = draw.random((epochs, rows)) > right
    return [
        of_classes(np.where(flip, 1 - references, references), references, step=10 * (epoch + 1))
        for epoch, flip in enumerate(flips)
    ]


@pytest.fixture
def few_resamples(monkeypatch):
    """For tests that look at choices, not at intervals."""
    monkeypatch.setattr(selection, "RESAMPLES", 10)


@pytest.mark.parametrize("seed", range(8))
def test_choices_by_brute_force(seed, few_resamples):
    entries = made_up(epochs=7, rows=31, seed=seed)
    found = select(entries, accuracy)
    rights = [(e.predictions.argmax(1) == e.references) for e in entries]
    scores = [right.mean() for right in rights]

    first_best = min(range(7), key=lambda epoch: (-scores[epoch], epoch))
    assert found["best"]["step"] == entries[first_best].step
    assert found["best"]["epoch"] == entries[first_best].epoch
    assert found["best"]["value"] == pytest.approx(max(scores))
    assert (found["last"]["step"], found["last"]["value"]) == (70, pytest.approx(scores[-1]))

    order = np.random.default_rng(0).permutation(31)
    half, other = order[:15], order[15:]
    steps, values = [], []
    for chosen_on, scored_on in ((half, other), (other, half)):
        on_half = [right[chosen_on].mean() for right in rights]
        epoch = min(range(7), key=lambda epoch: (-on_half[epoch], epoch))
        steps.append(entries[epoch].step)
        values.append(rights[epoch][scored_on].mean())
    assert found["heldout"]["steps"] == steps
    assert found["heldout"]["epochs"] == [step / 10 for step in steps]
    assert found["heldout"]["value"] == pytest.approx(np.mean(values))


def test_heldout_never_scores_what_it_chose_on(few_resamples):
    """One epoch is right on the first half alone, the other on the second: chosen, and wrong."""
    order = np.random.default_rng(selection.HALVES_SEED).permutation(20)
    references = np.zeros(20, int)
    entries = []
    for step, half in ((1, order[:10]), (2, order[10:])):
        classes = np.ones(20, int)
        classes[half] = 0
        entries.append(of_classes(classes, references, step))
    found = select(entries, accuracy)["heldout"]
    assert (found["steps"], found["value"]) == ([1, 2], 0.0)


def test_ties_take_the_first(few_resamples):
    references = np.arange(8) % 2
    entries = [of_classes(references, references, step) for step in (1, 2, 3)]
    found = select(entries, accuracy)
    assert (found["best"]["step"], found["last"]["step"]) == (1, 3)
    assert found["heldout"]["steps"] == [1, 1]


def test_halves_do_not_depend_on_method_metric_or_random_state(few_resamples):
    seen = []

    def spy(predictions, references):
        seen.append(tuple(references))
        return float(references.sum())  # any number: the rows are what is looked at

    rows = 24
    for seed in (1, 2):
        np.random.seed(seed)
        scores = np.random.default_rng(seed).random((rows, 2))
        entry = Evaluation(step=1, epoch=1.0, predictions=scores, references=np.arange(rows))
        select([entry], spy)
    halves = len(seen) // 2
    assert seen[:halves] == seen[halves:]
    parts = {part for part in seen if len(part) == rows // 2 and len(set(part)) == rows // 2}
    assert len(parts) == 2 and set.union(*map(set, parts)) == set(range(rows))


@pytest.mark.parametrize(("rows", "split"), [(3, False), (4, True)])
def test_too_few_rows_are_not_halved(rows, split, few_resamples):
    assert (select(made_up(2, rows), accuracy)["heldout"] is not None) is split


@pytest.mark.parametrize("place", ["best", "last", "heldout"])
def test_interval_contains_the_value(place):
    for seed in range(2):
        found = select(made_up(epochs=3, rows=120, seed=seed), accuracy)[place]
        low, high = found["interval"]
        assert low < found["value"] < high


@pytest.mark.parametrize("place", ["best", "last", "heldout"])
def test_interval_shrinks_with_the_rows(place):
    def width(rows):
        low, high = select(made_up(epochs=2, rows=rows), accuracy)[place]["interval"]
        return high - low

    widths = [width(rows) for rows in (50, 200, 800)]
    # Sixteen times the rows, a quarter of the width.
    assert widths[0] > widths[1] > widths[2]
    assert widths[0] / widths[2] == pytest.approx(4, rel=0.35)


def test_interval_is_that_of_the_binomial():
    found = select(made_up(epochs=1, rows=1000, right=0.8), accuracy)["best"]
    expected = 1.96 * math.sqrt(found["value"] * (1 - found["value"]) / 1000)
    assert (found["interval"][1] - found["interval"][0]) / 2 == pytest.approx(expected, rel=0.1)


@pytest.mark.slow
def test_intervals_cover_the_truth(monkeypatch):
    """Of 150 data sets with a known accuracy of 0.8, about 95 % of the intervals hold it."""
    monkeypatch.setattr(selection, "RESAMPLES", 150)
    covered = 0
    for seed in range(150):
        entry = made_up(epochs=1, rows=200, seed=seed, right=0.8)[0]
        low, high = selection._bootstrap_interval([(entry, np.arange(200))], accuracy)
        covered += low <= 0.8 <= high
    assert 0.88 <= covered / 150 <= 0.99


def test_interval_is_the_same_every_time():
    entries = made_up(epochs=2, rows=40)
    assert select(entries, accuracy) == select(entries, accuracy)


@pytest.mark.parametrize("broken", [0, 1, 2])
def test_nan_never_wins(broken, few_resamples):
    entries = made_up(epochs=3, rows=40, right=0.6)
    nan = np.full_like(entries[broken].predictions, math.nan)
    entries[broken] = Evaluation(
        step=entries[broken].step, epoch=0.0, predictions=nan, references=entries[0].references
    )
    found = select(entries, accuracy)
    scores = [accuracy(entry.predictions, entry.references) for entry in entries]
    assert math.isnan(scores[broken])
    assert found["best"]["value"] == np.nanmax(scores)
    assert entries[broken].step not in (found["best"]["step"], *found["heldout"]["steps"])
    assert math.isnan(found["last"]["value"]) is (broken == 2)


@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("on_another_split", [False, True])
def test_where_no_score_is_finite_there_is_no_best(broken, on_another_split, few_resamples):
    entries = [
        Evaluation(step=step, epoch=1.0, predictions=np.zeros((9, 2)), references=np.ones(9))
        for step in (1, 2)
    ]
    found = select(
        entries, lambda predictions, references: broken, entries if on_another_split else None
    )
    assert found["best"] is None and found["heldout"] is None
    assert found["last"]["step"] == 2 and not math.isfinite(found["last"]["value"])


@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf])
def test_a_score_that_is_not_finite_never_wins(broken, few_resamples):
    entries = made_up(epochs=2, rows=40, right=0.6)
    entries[0].predictions[:] = math.nan
    metric = lambda scores, labels: accuracy(scores, labels) if scores[0, 0] in (0, 1) else broken  # noqa: E731
    found = select(entries, metric)
    assert found["best"]["step"] == entries[1].step
    assert found["heldout"]["steps"] == [entries[1].step] * 2
