"""Pages of single runs: curves and the difference from the recipe."""

from __future__ import annotations

import json

import pytest
from records import scored

from experiments.report.comparison import run_index
from experiments.report.render import site
from experiments.report.run_page import charts, curves, recipe_difference
from experiments.results.identity import to_plain

TOY = ("model=mlp", "task=toy", "method=fourierft")


@pytest.fixture
def make_page(tmp_path, compose):
    """Writes the record of a run with the given history; returns run, index and its page."""

    def make(*overrides, history=(), changes=None):
        config = to_plain(compose([*TOY, *overrides]))
        place = scored(tmp_path / "outputs", config, 0, 0.9, changes=changes)
        lines = [{"step": 10 * line["epoch"], "elapsed_s": 1.0, **line} for line in history]
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (place / "history.jsonl").write_text(text)
        index = run_index.collect(tmp_path / "outputs")
        site.write([], index, tmp_path / "site", [])
        (page,) = (tmp_path / "site/runs").glob("*.html")
        return index.runs[0], index, page.read_text()

    return make


def test_loss_and_score_are_drawn_and_the_best_epoch_is_ringed(make_page):
    history = [
        {"epoch": epoch, key: value}
        for epoch, loss, score in ((1, 0.7, 0.5), (2, 0.4, 0.8), (3, 0.1, 0.9), (4, 0.2, 0.85))
        for key, value in (("train/loss", loss), ("validation/accuracy", score))
    ]
    run, index, page = make_page(history=history)
    loss, score = curves.draw_charts(run, index)
    assert (loss.title, loss.mark) == ("Training loss", None)
    assert score.title == "Accuracy" and "best epoch, 3: 0.9" in score.summary
    assert (score.mark.x, score.mark.y) == (score.series[0].dots[2].x, score.series[0].dots[2].y)
    highest = min(dot.y for dot in score.series[0].dots)
    assert score.mark.y == highest and loss.series[0].dots[2].y > loss.series[0].dots[0].y
    assert [text for _, text in loss.x_ticks] == ["0", "1", "2", "3", "4"]
    assert [text for _, text in loss.y_ticks][-1] == "0.8"
    assert page.count("<svg") == 2 and "Epoch of 10 steps" in page and "Ringed: best" in page


@pytest.mark.parametrize(
    ("values", "ticks"),
    [
        ([0.55, 0.6125], ["0.54", "0.56", "0.58", "0.60", "0.62"]),
        ([0.5, 0.5], ["0.2", "0.3", "0.4", "0.5", "0.6", "0.7", "0.8"]),
        ([-3e-5, 4e-5], ["−0.00004", "−0.00002", "0", "0.00002", "0.00004"]),
        ([0.0, 40000.0], ["0", "10,000", "20,000", "30,000", "40,000"]),
    ],
)
def test_ticks_can_be_told_apart(values, ticks):
    found = [text for _, text in charts._axis(min(values), max(values), 200, 0).ticks]
    assert len({*found}) == len(found) and found == ticks


def test_long_curves_keep_their_extremes():
    """A peak of one step among ten thousand is seen, and the page stays small."""
    placed = [
        (round(step * 410 / 10_000, 1), 5.0 if step == 4321 else 100.0) for step in range(10_000)
    ]
    thin = charts._thin(placed)
    assert len(thin) < 900 and min(y for _, y in thin) == 5.0


def test_a_diverged_run_without_points_has_no_chart(make_page):
    run, index, page = make_page(history=[{"epoch": 1, "train/loss": None}])
    assert curves.draw_charts(run, index) == [] and "<svg" not in page


def test_the_page_says_what_differs_from_the_recipe(make_page):
    overrides = "train.learning_rate=0.0625", "method.init=zeros", "method.n=32"
    run, _, page = make_page(*overrides)
    found = recipe_difference.compare(run)
    assert [(key, here) for key, _, here in found.lines] == [
        ("method.init", "zeros"),
        ("method.n", "32"),
        ("train.learning_rate", "0.0625"),
    ]
    assert {"normal", "128"} <= {wanted for _, wanted, _ in found.lines}
    assert "the recipe <code>ours</code> for FourierFT on MLP" in page
    for key, wanted, here in found.lines:
        row = f'<code>{key}</code></th><td class="muted">{wanted}</td><td><strong>{here}</strong>'
        assert row in page


def test_a_run_of_its_recipe_says_so(make_page):
    run, _, page = make_page()
    assert recipe_difference.compare(run).lines == []
    assert "They are those of the recipe <code>ours</code>" in page


def test_without_a_recipe_the_defaults_are_compared(make_page):
    run, _, page = make_page(
        "method=bitfit", "train.epochs=7", "train.learning_rate=0.1", "train.batch_size=4"
    )
    assert "the defaults of <code>conf/</code>: there is no recipe" in page
    assert ("train.epochs", "–", "7") in {*recipe_difference.compare(run).lines}


def test_runs_of_unknown_parts_have_no_difference(make_page):
    run, _, _ = make_page()
    run.record.run["model"] = "gone"
    assert recipe_difference.compare(run) is None
