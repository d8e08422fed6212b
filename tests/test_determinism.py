"""train.deterministic: flags set for the training alone; what has no deterministic way is named."""

import os

import pytest
import torch

from experiments.config.run_config import Config
from experiments.errors import UserError
from experiments.results.identity import to_plain
from experiments.run.main import run
from experiments.training.determinism import VARIABLES, deterministic_algorithms
from experiments.training.train_config import Train
from experiments.training.trainer import Trainer

RECIPE = {"epochs": 1, "batch_size": 1, "learning_rate": 1}


def flags():
    cudnn = torch.backends.cudnn
    variables = {name: os.environ.get(name) for name in VARIABLES}
    return (
        torch.are_deterministic_algorithms_enabled(),
        (cudnn.deterministic, cudnn.benchmark),
        variables,
    )


def test_flags_hold_while_a_run_trains_and_two_runs_are_equal(compose, tmp_path, monkeypatch):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "of the user")
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    before, during, training_step = flags(), [], Trainer.training_step

    def noting_step(self, *args, **kwargs):
        during.append(flags())
        return training_step(self, *args, **kwargs)

    monkeypatch.setattr(Trainer, "training_step", noting_step)
    words = ["model=mlp", "task=toy", "method=fourierft", "train.max_steps=2"]
    records = []
    for place, asked in ("one", "true"), ("two", "true"), ("plain", "false"):
        given = [*words, f"train.deterministic={asked}", f"output={tmp_path / place}"]
        records.append(run(compose(given)))
        assert flags() == before
    assert during == [(True, (True, False), VARIABLES)] * 4 + [before] * 2
    one, two, plain = records
    assert one.adapter == two.adapter == plain.adapter  # hashes of the files
    assert one.environment["deterministic"] and not plain.environment["deterministic"]


def test_it_is_not_another_result(compose):
    plain = compose(["model=mlp", "task=toy"])
    asked = compose(["model=mlp", "task=toy", "train.deterministic=true"])
    assert Config.identify(to_plain(plain)) == Config.identify(to_plain(asked))
    assert plain.variant == asked.variant


def test_an_operation_without_a_deterministic_way_is_named():
    before = flags()
    with (
        pytest.raises(UserError, match="train.deterministic=true: put_ has no deterministic"),
        deterministic_algorithms(Train(**RECIPE, deterministic=True)),
    ):
        torch.zeros(3).put_(torch.tensor([1]), torch.tensor([1.0]), accumulate=False)
    with (
        pytest.raises(RuntimeError, match="another trouble"),
        deterministic_algorithms(Train(**RECIPE, deterministic=True)),
    ):
        raise RuntimeError("another trouble")
    assert flags() == before
