"""Axes of amounts, whose ticks people can read."""

import pytest

from experiments.report.comparison import reference
from experiments.report.comparison.panels import read_panels
from experiments.report.comparison.run_index import RunIndex
from experiments.report.plots import size_curves, style


@pytest.mark.parametrize(
    "low, high, ticks",
    [
        (14.69, 93.2, [20, 50]),
        (22.9, 78.1, [30, 40, 50, 70]),
        (50, 23040, [100, 1000, 10000]),
        (128, 128, [128]),
        (57600, 60100, [57600]),
        (1e2, 1e9, [1e2, 1e4, 1e6, 1e8]),
    ],
)
def test_ticks_are_round_numbers(low, high, ticks):
    assert style.choose_ticks(low, high) == pytest.approx(ticks)


def test_amounts_are_written_for_people():
    amounts = [0.2, 14.69, 128, 12_000, 22_565_376]
    assert [*map(style.format_amount, amounts)] == ["0.2", "15", "128", "12k", "22.6M"]


def test_figure_4_is_over_parameters_not_their_logarithm(tmp_path):
    facts = reference.load("figure4")
    figure = size_curves.draw(facts, list(read_panels(facts, RunIndex(tmp_path))))
    axes = figure.axes[0]
    assert (axes.get_xscale(), axes.get_xlabel()) == ("log", "Trained parameters per matrix")
    shown = [label.get_text() for label in axes.get_xticklabels()]
    assert shown == ["50", "200", "1,000", "5,000", "20k"]
    assert "natural logarithm" in facts["paper_axis"]
