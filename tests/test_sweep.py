"""The cells of a sweep that is typed, without an experiment of conf/."""

import pytest

from experiments import sweep
from experiments.errors import ConfigError


def test_cells_of_a_typed_sweep():
    found = list(sweep.cells(None, ["task=toy", "method=fourierft,lora", "seed=0,1"]))
    assert [cell.overrides for cell in found] == [["method=fourierft"], ["method=lora"]]
    assert [cell.config.method.name for cell in found] == ["fourierft", "lora"]
    assert all(cell.seeds == [0, 1] and not cell.problem for cell in found)


def test_a_search_has_no_cells_and_a_mistake_is_named():
    with pytest.raises(ConfigError, match="overrides: method.alpha=.* is a search"):
        list(sweep.cells(None, ["method.alpha=interval(1,2)"]))
    with pytest.raises(ConfigError, match="experiment=nope: unknown"):
        list(sweep.cells("nope"))
    (cell,) = sweep.cells(None, ["model=mlp", "task=cola"])
    assert cell.config is None and "classification" in cell.problem
