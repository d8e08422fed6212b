"""train.sharding=fsdp: the losses, files and checkpoints of one process, on ranks that share it."""

import json
import re

import pytest
from processes import ranks
from safetensors.torch import load_file
from test_distributed import METHODS, REGRESSION, folder_of, losses

from experiments.config.run_config import Config
from experiments.errors import UserError
from experiments.results.identity import to_plain
from experiments.run import distributed
from experiments.run.main import run
from experiments.training.trainer import Trainer

SHARDED = "train.sharding=fsdp"
METHODS = METHODS | {"full": ["method=full", "train.learning_rate=1e-4"]}
FEW = ["train.epochs=4", "task.eval_rows=24", "train.checkpoint_every=1"]


def weights(root):
    (path,) = folder_of(root).glob("adapter/*.safetensors")
    return load_file(path)


def fail_at(step):
    """A training step that raises when it is called for the so-manieth time."""
    steps, training_step = [], Trainer.training_step

    def failing_step(self, *args, **kwargs):
        steps.append(None)
        if len(steps) == step:
            raise ArithmeticError("interrupted")
        return training_step(self, *args, **kwargs)

    return failing_step


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_a_run_goes_on_sharded_and_ends_as_one_process_would(
    method, compose, data_folder, tmp_path, monkeypatch
):
    """Begun by one process, continued from its checkpoint by two that share the network."""
    words = [*REGRESSION, *METHODS[method], *FEW, f"task.path={data_folder}/glue/stsb"]
    alone = run(compose([*words, f"output={tmp_path}/alone"]))
    words.append(f"output={tmp_path}/shared")
    with monkeypatch.context() as patch, pytest.raises(ArithmeticError):
        patch.setattr(Trainer, "training_step", fail_at(3))
        run(compose(words))
    statuses, printed = ranks(2, "train.py", *words, SHARDED)
    assert statuses == [0, 0], printed[-3000:]

    record = json.loads((folder_of(tmp_path / "shared") / "metrics.json").read_text())
    assert record["time"]["resumed_from"] == 2
    one, two = losses(tmp_path / "alone"), losses(tmp_path / "shared")
    assert len(one) == 4 and two == pytest.approx(one, abs=1e-5)
    here, there = weights(tmp_path / "alone"), weights(tmp_path / "shared")
    assert here.keys() == there.keys()
    for name, value in here.items():
        # AdamW makes whole steps of the few gradients that are nothing but rounding errors.
        assert ((there[name] - value).abs() < 1e-4).float().mean() > 0.95, name
    mine, theirs = (metrics["primary"]["value"] for metrics in (alone.metrics, record["metrics"]))
    assert theirs == pytest.approx(mine, abs=1e-5)
    assert record["parameters"] == alone.parameters
    found = record["environment"]
    assert (found["sharding"], found["ranks"]) == ("fsdp", 2)
    assert alone.environment["sharding"] == "none"


@pytest.mark.slow
def test_a_sharded_run_goes_on_in_one_process(compose, data_folder, tmp_path):
    words = [*REGRESSION, *METHODS["fourierft"], *FEW, f"task.path={data_folder}/glue/stsb"]
    alone = run(compose([*words, f"output={tmp_path}/alone"]))
    words.append(f"output={tmp_path}/shared")
    statuses, printed = ranks(4, "tests/failing_rank.py", "0", *words, SHARDED)
    assert 0 not in statuses, printed[-3000:]
    again = run(compose(words))
    assert again.time["resumed_from"] == 2
    assert losses(tmp_path / "shared") == pytest.approx(losses(tmp_path / "alone"), abs=1e-5)
    mine, theirs = (one.metrics["primary"]["value"] for one in (alone, again))
    assert theirs == pytest.approx(mine, abs=1e-5)


def test_sharding_is_not_another_result(compose):
    plain, shared = (
        compose(["model=roberta_base", "task=stsb", *extra]) for extra in ((), (SHARDED,))
    )
    assert Config.identify(to_plain(plain)) == Config.identify(to_plain(shared))
    assert plain.variant == shared.variant == ""


def test_one_process_has_nobody_to_share_with(compose, tmp_path):
    words = ["model=roberta_base", "task=stsb", SHARDED, f"output={tmp_path}"]
    with pytest.raises(UserError, match="one process has nothing to share") as found:
        run(compose(words))
    assert "torchrun --nproc_per_node" in str(found.value)
    assert not list(tmp_path.iterdir())
    with pytest.raises(UserError, match="cannot be divided"):
        distributed.check_processes(3, 2, sharded=False)


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["model=mlp", "task=toy"], "model=mlp"),
        (["model=sd_tiny", "task=dreambooth"], "model=sd_tiny"),
        (["model=llama2_7b", "task=alpaca", "model.quantization=nf4"], "model.quantization=nf4"),
        (["model=llama2_7b", "task=alpaca", "model.quantization=int8"], "model.quantization=int8"),
        (["model=roberta_base", "task=rte", "method=adalora"], "method=adalora"),
        (["model=roberta_base", "task=rte", "train.precision=fp16"], "train.precision=fp16"),
    ],
)
def test_what_cannot_be_shared_is_refused_by_name(compose, words, named):
    with pytest.raises(UserError, match=re.escape(f"train.sharding=fsdp: {named}")):
        compose([*words, SHARDED])
