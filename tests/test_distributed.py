"""Several processes of torchrun are one run: its numbers, one record, one failure."""

import json
from pathlib import Path

import pytest
from processes import ranks, torchrun

from experiments.errors import UserError
from experiments.results.history import read_history
from experiments.run import distributed
from experiments.run.main import run
from experiments.training.backends import check_device

REGRESSION = [
    "model=roberta_base",
    "model.pretrained=false",
    "+model.sizes.hidden_size=32",
    "+model.sizes.num_hidden_layers=2",
    "+model.sizes.num_attention_heads=2",
    "+model.sizes.intermediate_size=64",
    "+model.sizes.initializer_range=0.2",  # or predictions would hardly differ from row to row
    "+model.sizes.hidden_dropout_prob=0",
    "+model.sizes.attention_probs_dropout_prob=0",
    "task=stsb",
    "task.train_rows=35",  # the second step of an epoch has 3 rows, for 2 or 4 processes
    "task.eval_rows=40",
    "source=none",
    "train.batch_size=32",
    "train.eval_batch_size=16",
    "train.epochs=5",
    "train.eval_every=0.5",
    "train.checkpoint_every=0",
]
METHODS = {
    "fourierft": [
        *("method=fourierft", "method.n=100", "method.alpha=3", "train.relative_rate=true"),
        *("train.learning_rate=5e-2", "train.head_learning_rate=5e-3"),
    ],
    "lora": ["method=lora", "method.r=4", "method.alpha=8", "train.learning_rate=5e-3"],
}


def two_ranks(*overrides: str) -> str:
    """What train.py prints on two ranks."""
    statuses, printed = ranks(2, "train.py", *overrides)
    assert statuses == [0, 0], printed[-3000:]
    return printed


def flat(value, key=""):
    """Nested mappings and lists as one mapping."""
    if not isinstance(value, (dict, list)):
        return {key: value}
    items = value.items() if isinstance(value, dict) else enumerate(value)
    return {name: leaf for part, one in items for name, leaf in flat(one, f"{key}/{part}").items()}


def folder_of(root: Path) -> Path:
    return next(root.rglob("metrics.json")).parent


def losses(root: Path) -> list[float]:
    lines = read_history(folder_of(root))
    return [line["train/loss"] for line in lines if "train/loss" in line]


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture
def given(data_folder, tmp_path):
    """Overrides of a run with a method below a folder of tmp_path."""
    data = f"task.path={data_folder}/glue/stsb"
    return lambda method, folder: [
        *REGRESSION, *METHODS[method], data, f"output={tmp_path / folder}"
    ]  # fmt: skip


def check_same(together: Path, alone) -> None:
    """Compares the record of several ranks with that of one process: every loss and metric."""
    place = folder_of(together)
    record = json.loads((place / "metrics.json").read_text())
    one, two = losses(Path(alone.config["output"])), losses(together)
    assert len(one) == 10 and one[-2] < one[0] and two == pytest.approx(one, abs=1e-5)
    there, here = flat(record["metrics"]), flat(alone.metrics)
    numbers = [name for name, value in here.items() if isinstance(value, (int, float))]
    assert len(numbers) > 20 and there.keys() == here.keys()
    for name in here:
        wanted = pytest.approx(here[name], abs=1e-5) if name in numbers else here[name]
        assert there[name] == wanted, name
    assert record["parameters"] == alone.parameters
    assert record["environment"]["ranks"] == 2 and alone.environment["ranks"] == 1
    assert len(list((place / "predictions").iterdir())) == 10


@pytest.mark.slow
def test_two_ranks_give_the_numbers_of_one_process(given, compose, tmp_path):
    """Then skipped like any run, and a forced repetition by torchrun that fails on the second rank
    leaves the finished run where it was."""
    alone = run(compose(given("fourierft", "alone")))
    together = given("fourierft", "together")
    assert two_ranks(*together).count("best pearson") == 1
    check_same(tmp_path / "together", alone)

    before = files(tmp_path / "together")
    assert two_ranks(*together).count("done before") == 1
    assert files(tmp_path / "together") == before
    status, printed = torchrun(2, "tests/failing_rank.py", "1", *together, "force=true")
    assert status != 0 and "rank 1 fails" in printed, printed[-3000:]
    place = folder_of(tmp_path / "together")
    failed = files(place.with_name(f"{place.name}.failed-1"))
    after = {
        name: held for name, held in files(tmp_path / "together").items() if ".failed-1" not in name
    }
    assert after == before
    assert json.loads(failed["failure.json"])["message"] == "rank 1 fails"


@pytest.mark.slow
def test_two_ranks_of_lora_give_the_numbers_of_one_process(given, compose, tmp_path):
    alone = run(compose(given("lora", "alone")))
    assert two_ranks(*given("lora", "together")).count("best pearson") == 1
    check_same(tmp_path / "together", alone)


@pytest.mark.slow
def test_a_failure_is_recorded_once_and_ends_all(given, tmp_path):
    statuses, printed = ranks(2, "tests/failing_rank.py", "0", *given("lora", ""))
    assert all(statuses), statuses
    (path,) = tmp_path.rglob("failure.json")
    failure = json.loads(path.read_text())
    assert failure["error"] == "ArithmeticError" and failure["message"] == "rank 0 fails"
    assert printed.count("ArithmeticError: rank 0 fails") == 1, printed
    assert not list(tmp_path.rglob("metrics.json")) and not list(tmp_path.rglob("lock.json"))


@pytest.mark.slow
def test_a_sweep_under_torchrun_is_refused_once(tmp_path):
    statuses, printed = ranks(2, "train.py", "seed=0,1", f"output={tmp_path}", "-m")
    assert all(statuses) and printed.count("train.py: torchrun and a sweep") == 1, printed
    assert not list(tmp_path.rglob("config.yaml"))


def test_rows_that_cannot_be_dealt_out_are_refused(monkeypatch, compose, tmp_path):
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(UserError, match="train.batch_size=64 cannot be divided among 3 processes"):
        run(compose(["train.batch_size=64", f"output={tmp_path}"]))
    assert not list(tmp_path.iterdir())


def test_more_processes_than_gpus_are_refused(monkeypatch, compose):
    import torch

    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(UserError, match="2 processes on 1 GPUs"):
        check_device(compose([]).train)
    check_device(compose(["train.device=cpu"]).train)


def test_one_process_asks_nobody(monkeypatch):
    monkeypatch.setattr(distributed, "_store", lambda: pytest.fail("looked for other ranks"))
    with distributed.delay_sigterm(), distributed.main_process_first("x"):
        distributed.set("x")
    assert distributed.on_first_failure(lambda: None)
    distributed.shutdown()
    with pytest.raises(SystemExit, match="why"):
        distributed.abort("why")
