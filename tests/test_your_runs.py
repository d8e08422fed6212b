"""The first section of the report: what was run."""

import json

from test_run_groups import add_run, with_n

from experiments.report.__main__ import main
from experiments.report.comparison import run_groups, run_index
from experiments.report.pages import registry, your_runs
from experiments.report.plots import run_curves
from experiments.report.plots.style import STYLES
from experiments.report.render import text
from experiments.report.render.document import Heading, Picture, Table


def build(root):
    return registry.build("your_runs", run_index.collect(root))


def test_scores_by_method_and_their_difference(tmp_path):
    add_run(tmp_path, right=(20, 30, 28))
    add_run(tmp_path, method="lora", right=(34, 36, 34), parameters=73728)
    page = build(tmp_path)
    told = text.markdown(page)
    [lora] = [line for line in told.splitlines() if line.startswith("| LoRA ")]
    [ours] = [line for line in told.splitlines() if line.startswith("| FourierFT ")]
    assert "0.900 [0.100, 1.000]*" in lora and "the best" in lora and "73,728" in lora
    assert "-0.150 [" in ours and "]*" in ours and ours.split("|")[3].strip() == "0.700"
    assert page.rows[1]["less_best"] < page.rows[1]["less_best_high"] < 0
    curves, costs = page.pictures
    [axes] = curves.draw().axes
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("Epoch", "Accuracy")
    assert [*axes.lines[0].get_ydata()] == [34 / 40, 36 / 40, 34 / 40]
    assert [one.get_xlabel() for one in costs.draw().axes] == [
        "Adapter parameters",
        "Seconds of training",
    ]


def test_a_difference_over_fewer_seeds_than_the_scores_says_so(tmp_path):
    for seed in range(3):
        add_run(tmp_path, seed=seed, right=(30 + seed,))
    for seed in range(2):
        add_run(tmp_path, method="lora", seed=seed, right=(38,))
    [told] = [line for line in text.markdown(build(tmp_path)).splitlines() if "| FourierFT" in line]
    assert told.split("|")[4].strip().endswith("(2 seeds)")
    add_run(tmp_path, method="lora", seed=2, right=(38,))
    assert "seeds)" not in text.markdown(build(tmp_path))


def test_every_setting_has_a_color_a_method_its_own_first(tmp_path):
    for n in (1, 2, 3):
        add_run(tmp_path, config=with_n(n), right=(40 - n,))
    add_run(tmp_path, method="lora", right=(1,))
    [group] = run_groups.find_groups(run_index.collect(tmp_path))
    colors = [color for color, _, _ in run_curves.choose_styles(group.settings)]
    assert (colors[0], colors[3]) == (STYLES["fourierft"][0], STYLES["lora"][0])
    assert len(set(colors)) == 4


def test_a_setting_without_adapter_parameters_stands_in_the_legend(tmp_path):
    """A logarithmic axis has no place for it, that of the seconds has."""
    add_run(tmp_path)
    add_run(tmp_path, method="linear_probe", right=(35,), parameters=0)
    [costs] = build(tmp_path).pictures
    figure = costs.draw()
    told = [text.get_text() for text in figure.legends[0].get_texts()]
    assert told == ["Linear probe", "FourierFT"]
    drawn = [[len(line.get_xdata()) for line in axes.lines] for axes in figure.axes]
    assert drawn == [[0, 1], [1, 1]]


def test_one_evaluation_makes_no_curve_and_no_score_no_comparison(tmp_path):
    place = add_run(tmp_path, task="alpaca")
    record = json.loads((place / "metrics.json").read_text())
    record["metrics"] = {"primary": {}, "last": {"epoch": 1.0}}
    (place / "metrics.json").write_text(json.dumps(record))
    page = build(tmp_path)
    assert not [*page.pictures]
    [table] = page.tables
    assert table.columns == ["Setting", "Parameters", "Seconds", "Seeds"]


def test_nothing_trained_is_said(tmp_path):
    page = build(tmp_path)
    assert "python train.py" in text.markdown(page) and page.summary == "Nothing was trained yet."
    assert "`python -m experiments.report`" in text.markdown(page)


def test_very_many_runs_stay_a_short_section(tmp_path):
    """Of one group the best settings, of many groups the latest; all others behind links."""
    for number in range(30):
        add_run(tmp_path, config=with_n(number + 1), right=(number,))
    for number in range(20):
        add_run(tmp_path, task=f"mine{number}", finished=f"2026-11-30T09:00:{number:02}+0000")
    front = build(tmp_path).front
    tables = [block for block in front if isinstance(block, Table)]
    assert len(tables) == 1 + your_runs.FRONT_GROUPS
    assert [len(one.lines) for one in tables] == [your_runs.FRONT_LINES, your_runs.SETTINGS, 1, 1]
    assert len([block for block in front if isinstance(block, Heading)]) == your_runs.FRONT_GROUPS
    assert len([block for block in front if isinstance(block, Picture)]) <= 2
    links = [line.link for line in front[-1].lines]
    assert links == ["page:your_runs", "page:runs", "page:pareto"]
    assert "All 50 runs" in front[-1].lines[1].text


def test_the_first_page_opens_with_it_and_keeps_it(tmp_path, monkeypatch):
    """Tables without a run are folded, and a report of one page leaves the section there."""
    add_run(tmp_path)
    monkeypatch.setattr(registry.reference, "names", lambda: ["table2", "table6"])
    own = {name: registry.OWN[name] for name in ("your_runs", "runs", "pareto")}
    monkeypatch.setattr(registry, "OWN", own)
    assert main(["--outputs", str(tmp_path)]) == 0
    first = (tmp_path / "report/index.html").read_text()
    place = [
        first.index(word) for word in ("<h1>Your runs", "MiniLM on reviews", "Beside the paper")
    ]
    assert place == sorted(place)
    folded = first[first.index("<details") : first.index("</details>")]
    assert "2 tables and figures without a run of yours" in folded and "table6.html" in folded
    assert main(["table2", "--outputs", str(tmp_path)]) == 0
    assert "MiniLM on reviews" in (tmp_path / "report/index.html").read_text()
