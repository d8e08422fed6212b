"""The cells of an experiment, or of what is typed, are those that Hydra's sweeper would run."""

import pytest

from experiments.config import sweep
from experiments.errors import ConfigError
from experiments.results.identity import get_run_dir


def test_figure7s_cells(compose):
    found = list(sweep.compose_cells("figure7"))
    assert [cell.overrides for cell in found] == [["method=fourierft"], ["method=lora"]]
    assert found[0].seeds == [0, 1, 2, 3, 4]
    assert found[1].config == compose(["experiment=figure7", "method=lora"])
    assert str(get_run_dir(found[1].config)) == "outputs/mlp/toy/lora/seed=0"


def test_what_is_typed_wins_over_the_experiment():
    given = ["method=lora", "seed=7", "train.epochs=range(2,5)", "output=elsewhere"]
    found = list(sweep.compose_cells("figure7", given))
    assert [cell.overrides for cell in found] == [
        [f"train.epochs={epochs}"] for epochs in (2, 3, 4)
    ]
    assert found[0].seeds == [7] and found[0].config.output == "elsewhere"


def test_cells_that_are_none_say_why():
    [cell] = sweep.compose_cells("figure7", ["method=lora", "method.r=0"])
    assert cell.config is None and "method.r=0" in cell.problem


@pytest.mark.parametrize(
    ("name", "given", "said"),
    [
        ("figure99", [], "experiment=figure99: unknown (allowed: "),
        ("figure7", ["method.alpha=interval(1,9)"], "is a search"),
        ("figure7", ["search=figure4"], "is a search"),
        ("figure7", ["method"], "experiment=figure7: "),
    ],
)
def test_what_cannot_be_expanded(name, given, said):
    with pytest.raises(ConfigError, match="^") as caught:
        list(sweep.compose_cells(name, given))
    assert said in str(caught.value)


def test_every_experiment_can_be_asked_for():
    assert {"figure7", "table1"} <= set(sweep.list_experiments())


def test_cells_of_what_is_typed_alone():
    given = ["task=toy", "method=fourierft,lora", "seed=0,1"]
    found = list(sweep.compose_cells(None, given))
    assert [cell.overrides for cell in found] == [["method=fourierft"], ["method=lora"]]
    assert [cell.complete for cell in found] == [
        ["task=toy", f"method={name}"] for name in ("fourierft", "lora")
    ]
    assert all(cell.seeds == [0, 1] and not cell.problem for cell in found)
    with pytest.raises(ConfigError, match="overrides: method.alpha=.* is a search"):
        list(sweep.compose_cells(None, ["method.alpha=interval(1,2)"]))
