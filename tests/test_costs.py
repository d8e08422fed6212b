"""Costs: runs and trials, the forecast, and what the time left rests on."""

import math
from pathlib import Path

import pytest
from records import scored

from experiments.config import sweep
from experiments.config.compose import register
from experiments.report import costs, run_state, status
from experiments.report.comparison import reference
from experiments.report.costs import StatusRow
from experiments.report.forecast import forecast_seconds
from experiments.report.run_state import RunState, State
from experiments.results.identity import to_plain


def row(model="roberta_base", seconds=None, forecast=None, trials=1, missing=1, method="lora"):
    """A cell with a finished run that took `seconds`, and missing ones."""
    here = Path("nowhere")
    runs = {seed: RunState(state=State.missing, run_dir=here) for seed in range(1, 1 + missing)}
    if seconds is not None:
        runs[0] = RunState(state=State.done, run_dir=here, seconds=seconds)
    key = (model, "alpaca", method)
    return StatusRow(name=model, key=key, runs=runs, forecast=forecast, trials=trials)


def count_runs(name):
    """Runs of an experiment's sweep, without composing them."""
    axes = [
        one.partition("=")[2].split(",")
        for one in sweep.get_sweep_overrides([f"experiment={name}"])
    ]
    return math.prod(map(len, axes))


def test_another_models_seconds_say_nothing():
    """A toy's minute was taken for LLaMA-13B's hour."""
    found = [row("mlp", seconds=10.0), row("llama2_13b", forecast=3000.0), row("minilm")]
    left = costs.time_left(found)
    assert (left.measured, left.estimated, left.unknown) == (10.0, 3000.0, 1)
    told = costs.format_left(found, 1)
    assert "about 10 s left on one worker" in told
    assert "about 50.0 min more on one H200, estimated, not measured" in told
    assert "time left unknown for 1 runs" in told


def test_measured_seconds_come_before_the_forecast():
    found = [row(seconds=60.0, method="full"), row(forecast=9.0)]
    assert costs.time_left(found).measured == 120.0 and not costs.time_left(found).estimated


def test_trials_are_runs():
    """Figure 4 is 72 points of 30 trials."""
    register()
    names = ("figure4_fourierft", "figure4_fourierft_qqp", "figure4_lora")
    keys, trials = sweep.read_search("figure4")
    assert sum(map(count_runs, names)) * trials == 2160
    assert {"train.learning_rate", "method.alpha"} <= set(keys)
    assert sweep.read_search("table5") == ([], 1)
    table = costs.tabulate({"figure4": [row(trials=30, forecast=7200.0, missing=2)]})
    assert table.lines[0].cells == ["figure4", "1", "30", "60", "120"]
    assert costs.time_left([row(trials=30, forecast=2.0)]).estimated == 60.0


@pytest.mark.parametrize(
    ("choice", "least", "most"),
    [
        ("model=llama2_13b task=alpaca method=lora_all", 0.3, 3),
        ("model=roberta_base task=rte method=fourierft", 0.03, 0.3),
        ("model=vit_large task=dtd method=full", 0.03, 0.4),
        ("model=sd15 task=dreambooth method=fourierft", 0.03, 0.4),
    ],
)
def test_a_forecast_is_of_the_right_size(choice, least, most, compose):
    """In hours; the authors' 102 minutes of LLaMA-2 7B on a card a quarter as fast bound them."""
    assert least < forecast_seconds(compose(choice.split())) / 3600 < most


def test_finished_trials_are_counted(tmp_path, compose):
    """By what they share; another size is another search."""
    asked = ["model=roberta_base", "task=mrpc", "method=fourierft", "experiment=figure4_fourierft"]
    plain = to_plain(compose([*asked, "method.n=50"]))
    for number in range(3):
        changes = {"method.alpha": 3.0 + number, "train.learning_rate": 0.01}
        place = tmp_path / f"roberta_base/mrpc/fourierft/{number}/seed=0"
        scored(tmp_path, plain, 0, 0.8, seconds=59.0, changes=changes, place=place)
    for n, found in (("50", 3), ("100", 0)):
        config = compose([*asked, f"method.n={n}", f"output={tmp_path}"])
        state = run_state.look_at_trials(config, *sweep.read_search("figure4"))
        assert (state.state, state.finished) == (State.missing, found)
        assert state.note == ("3 of 30 trials" if found else "")
    one = StatusRow(name="", key=("roberta_base", "mrpc", ""), runs={0: state}, trials=30)
    assert costs.time_left([one]).unknown == 30
    state = run_state.look_at_trials(compose([*asked, "method.n=50", f"output={tmp_path}"]), *(
        ["train.learning_rate", "method.alpha"], 3))  # fmt: skip
    assert state.state is State.done and state.seconds == 60.0


def test_what_is_not_known_is_not_forecast(compose):
    assert forecast_seconds(compose(["model=minilm", "task=sst2", "method=lora"])) is None
    assert forecast_seconds(compose(["model=mlp", "task=toy", "method=lora"])) == 0.0


def test_a_run_that_trains_more_costs_more(compose):
    cost = {
        method: forecast_seconds(compose(["model=llama2_7b", "task=alpaca", f"method={method}"]))
        for method in ("lora", "full")
    }
    half = compose(["model=llama2_7b", "task=alpaca", "method=lora", "train.max_steps=100"])
    assert cost["lora"] < cost["full"] and forecast_seconds(half) < cost["lora"]


def test_the_authors_costs_are_at_hand():
    authors = reference.costs()["authors"]
    assert authors["minutes"]["alpaca"] == {"lora": 102, "fourierft": 167}
    assert authors["memory"]["fourierft"]["sst2"] == 5704


DOCUMENT = Path(__file__).resolve().parent.parent / "docs/costs.md"


def test_the_document_counts_the_runs_of_every_experiment():
    """After a change of a sweep: python docs/costs.py."""
    register()
    shown = {}
    for line in DOCUMENT.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if cells[0] in sweep.list_experiments():
            shown[cells[0]] = cells
    assert list(shown) == sweep.list_experiments()
    for name, (_, _, trials, runs, _) in shown.items():
        assert int(runs.replace(",", "")) == count_runs(name) * int(trials or 1)
    for name in ("figure6_lora", "table3_lin_large"):
        found = costs.tabulate({name: list(status.rows(name, (), Path("nowhere")))})
        assert found.lines[0].cells == shown[name]
