"""The plan of `make small`: composed and checked, never run."""

import dataclasses
import itertools
import math
from pathlib import Path

import pytest
import yaml

from experiments import small
from experiments.config.compose import CONF
from experiments.report.comparison import reference
from experiments.training.train_config import Train

PLAN = yaml.safe_load(small.PLAN.read_text(encoding="utf-8"))
SWEEPS = [
    dict(word.split("=") for word in line.split())
    for part in PLAN["parts"]
    for line in part["sweeps"]
]


def test_every_run_is_planned_once_and_has_a_recipe_of_ours():
    runs = []
    for axes in SWEEPS:
        chosen = (text.split(",") for text in axes.values())
        runs += [dict(zip(axes, values, strict=True)) for values in itertools.product(*chosen)]
    assert len({str(sorted(run.items())) for run in runs}) == len(runs)
    for run in runs:
        assert (CONF / f"recipe/ours/{run['method']}_{run['model']}.yaml").is_file()
        assert all((CONF / group / f"{run[group]}.yaml").is_file() for group in ("model", "task"))
        fields = {f"train.{one.name}" for one in dataclasses.fields(Train)}
        assert {key for key in run if key.startswith("train.")} <= fields


def test_the_plan_fits_two_hours_and_its_most_telling_parts_one():
    parts = PLAN["parts"]
    assert 60 < sum(part["minutes"] for part in parts) <= 125
    hour = list(small.select_parts(parts, 60))
    assert hour[0] is parts[0] and 45 < sum(part["minutes"] for part in hour) <= 60
    assert list(small.select_parts(parts, math.inf)) == parts
    with pytest.raises(small.ConfigError, match="--minutes 1: the shortest part takes"):
        small.read_plan(None, Path("outputs"), 1)
    assert {page for part in PLAN["parts"] for page in part["pages"]} <= {*reference.names()}
    assert len(PLAN["seeds"]) == 3, "fewer tell nothing"


@pytest.mark.parametrize("model", ["minilm", "vit_s", "smollm2_135m"])
def test_a_sweep_becomes_short_runs_below_the_outputs(model, tmp_path):
    axes = next(one for one in SWEEPS if one["model"] == model)
    words = [f"{key}={text.split(',')[0]}" for key, text in axes.items()]
    found = small.compose_sweep([*words, "seed=0,1,2"], tmp_path)
    assert [one.seed for one in found.configs] == [0, 1, 2] and found.count_done() == 0
    assert all(one.output == str(tmp_path) and one.recipe == "ours" for one in found.configs)
    assert all(one.task.train_rows for one in found.configs)


def test_missing_data_are_named_at_once(tmp_path, capsys):
    (tmp_path / "glue/mrpc").mkdir(parents=True)
    with pytest.raises(small.DataError) as error:
        small.read_plan(tmp_path, tmp_path / "outputs")
    assert "no cifar10/ and no glue/cifar10/" in error.value.problems
    assert not any("mrpc" in line for line in error.value.problems)


def test_tasks_of_a_sweep_need_one_folder(tmp_path):
    for axes in SWEEPS:
        for task in axes["task"].split(","):
            (tmp_path / task).mkdir(exist_ok=True)
    (tmp_path / "mrpc").rmdir()
    (tmp_path / "glue/mrpc").mkdir(parents=True)
    with pytest.raises(small.DataError, match=r"one folder[^$]*glue/mrpc"):
        small.read_plan(tmp_path, tmp_path / "outputs")
