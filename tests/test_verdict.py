"""The one rule by which cells are judged, on numbers worked out by hand."""

import math

import pytest

from experiments.report.comparison.verdict import Printed, Statistic, Verdict, judge, standard_error

SPREAD = [63.8 + one for one in (-1.6, -0.8, 0.0, 0.8, 1.6)]  # sample standard deviation 1.2649


def ours(values, kind="median", ddof=1):
    return Statistic(values=dict(enumerate(values)), kind=kind, ddof=ddof)


def printed(value=63.8, spread=1.6, digits=1):
    return Printed(value=value, spread=spread, digits=digits)


def test_statistics():
    found = ours([1.0, 2.0, 9.0])
    assert (found.centre, found.runs) == (2.0, 3)
    assert found.spread == pytest.approx(math.sqrt(19))
    assert ours([1.0, 2.0, 9.0], "mean", 0).centre == 4.0
    assert ours([1.0, 2.0, 9.0], "mean", 0).spread == pytest.approx(math.sqrt(38 / 3))
    assert ours([1.0]).spread is None


@pytest.mark.parametrize(
    ("shift", "verdict"),
    [
        (0.0, Verdict.reproduced),
        (1.6, Verdict.reproduced),  # the edge of the printed ±
        (-1.6, Verdict.reproduced),
        # 2 * 1.2533 * sqrt(1.2649^2/5 + 1.6^2/5) + 0.05 = 2.336
        (1.7, Verdict.within_noise),
        (-2.3, Verdict.within_noise),
        (2.4, Verdict.not_reproduced),
        (-2.4, Verdict.not_reproduced),
    ],
)
def test_the_two_borders(shift, verdict):
    told = judge(printed(), ours([value + shift for value in SPREAD]), 5)
    assert told.verdict is verdict
    assert told.difference == pytest.approx(shift)
    assert (told.reason.partition(";")[0] == "below") is (shift == -2.4)


def test_standard_error_of_means_and_medians():
    mean = standard_error(1.6, ours(SPREAD, "mean"), 5)
    assert mean == pytest.approx(math.sqrt(1.6 / 5 + 1.6**2 / 5))
    assert standard_error(1.6, ours(SPREAD), 5) == pytest.approx(1.2533141 * mean)
    assert standard_error(None, ours(SPREAD, "mean"), 5) == pytest.approx(math.sqrt(2 * 1.6 / 5))


def test_without_a_printed_spread_it_must_round_to_the_number():
    close = [94.76, 94.8, 94.84]
    assert judge(printed(94.8, None), ours(close), 3).verdict is Verdict.reproduced
    assert judge(printed(94.8, None), ours([94.9] * 3), 3).verdict is Verdict.not_reproduced
    wide = [94.2, 94.9, 95.4]
    assert judge(printed(94.8, None), ours(wide), 3).verdict is Verdict.within_noise


def test_nothing_without_runs_seeds_or_a_cell():
    assert judge(printed(), None, 5).verdict is Verdict.not_run
    told = judge(printed(), ours(SPREAD[:4]), 5)
    assert (told.verdict, told.reason) == (Verdict.not_comparable, "4 of 5 seeds")
    assert judge(printed(), ours([*SPREAD, 63.8]), 5).verdict is Verdict.reproduced
    assert "over how many" in judge(printed(), ours(SPREAD), None).reason
    assert judge(None, ours(SPREAD), 5).verdict is Verdict.not_comparable
    told = judge(printed(), ours(SPREAD), 5, ["random weights"])
    assert (told.verdict, told.reason) == (Verdict.not_comparable, "random weights")


def test_numbers_as_the_table_prints_them():
    shown = printed(8.9, 0.02, digits=2)
    assert (shown.text(), shown.text(-0.031, sign=True)) == ("8.90", "−0.03")
    assert shown.half == pytest.approx(0.005)
