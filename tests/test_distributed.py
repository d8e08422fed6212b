"""Several processes of torchrun are one run: its numbers, one record, one failure."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from processes import ranks as ranks_of

from experiments.errors import UserError
from experiments.results.history import read_history
from experiments.run import distributed
from experiments.run.main import run
from experiments.training.device import check_device

ROOT = Path(__file__).resolve().parent.parent
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
    "task.train_rows=32",
    "task.eval_rows=72",
    "source=none",
    "train.batch_size=32",
    "train.eval_batch_size=16",
    "train.epochs=20",
    "train.checkpoint_every=0",
]
METHODS = {
    "fourierft": ["method=fourierft", "method.n=100", "method.alpha=3", "train.learning_rate=5e-2"],
    "lora": ["method=lora", "method.r=4", "method.alpha=8", "train.learning_rate=5e-3"],
}


def torchrun(script: str, *arguments: str, attempts: int = 2) -> subprocess.CompletedProcess:
    """Two processes; once more if one is aborted, as gloo's start-up was once seen to."""
    for _ in range(attempts):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2"]
        address = ["--master_addr=127.0.0.1", f"--master_port={port}"]
        done = subprocess.run(
            [*command, *address, script, *arguments],
            capture_output=True,
            text=True,
            timeout=300,
            cwd=ROOT,
            env=os.environ | {"HF_HUB_OFFLINE": "1"},
        )
        if "SIGABRT" not in done.stderr:
            break
    return done


def two_ranks(method: str, *overrides: str) -> str:
    """What train.py prints on two ranks, which torchrun starts for the first of the methods."""
    if method == "fourierft":
        done = torchrun("train.py", *overrides)
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout
    started = ranks_of(2, *overrides)
    printed = "".join(process.communicate(timeout=300)[0] for process in started)
    assert [process.returncode for process in started] == [0, 0], printed[-3000:]
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


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_two_ranks_give_the_numbers_of_one_process(method, compose, data_folder, tmp_path):
    """Every loss, metric and prediction; then skipped like any run, and a forced repetition that
    fails on the second rank leaves the finished run where it was."""
    overrides = [*REGRESSION, *METHODS[method], f"task.path={data_folder}/glue/stsb"]
    alone = run(compose([*overrides, f"output={tmp_path}/alone"]))
    together = [*overrides, f"output={tmp_path}/together"]
    assert two_ranks(method, *together).count("best pearson") == 1
    place = folder_of(tmp_path / "together")
    record = json.loads((place / "metrics.json").read_text())

    one, two = losses(tmp_path / "alone"), losses(tmp_path / "together")
    assert len(one) == 20 and one[-1] < one[0] and two == pytest.approx(one, abs=1e-5)
    there, here = flat(record["metrics"]), flat(alone.metrics)
    numbers = [name for name, value in here.items() if isinstance(value, (int, float))]
    assert len(numbers) > 20 and there.keys() == here.keys()
    for name in here:
        wanted = pytest.approx(here[name], abs=1e-5) if name in numbers else here[name]
        assert there[name] == wanted, name
    assert record["parameters"] == alone.parameters
    assert record["environment"]["ranks"] == 2 and alone.environment["ranks"] == 1
    assert len(list((place / "predictions").iterdir())) == 20
    if method != "fourierft":
        return

    before = files(tmp_path / "together")
    assert two_ranks("forked", *together).count("done before") == 1
    assert files(tmp_path / "together") == before
    done = torchrun("tests/failing_rank.py", "1", *together, "force=true", attempts=1)
    assert done.returncode != 0
    failed = files(place.with_name(f"{place.name}.failed-1"))
    after = {
        name: held for name, held in files(tmp_path / "together").items() if ".failed-1" not in name
    }
    assert after == before
    assert json.loads(failed["failure.json"])["message"] == "rank 1 fails"


@pytest.mark.slow
def test_a_failure_is_recorded_once_and_ends_all(data_folder, tmp_path):
    overrides = [*REGRESSION, *METHODS["lora"], f"task.path={data_folder}/glue/stsb"]
    done = torchrun("tests/failing_rank.py", "0", *overrides, f"output={tmp_path}", attempts=1)
    assert done.returncode != 0
    (path,) = tmp_path.rglob("failure.json")
    failure = json.loads(path.read_text())
    assert failure["error"] == "ArithmeticError" and failure["message"] == "rank 0 fails"
    assert done.stderr.count("ArithmeticError: rank 0 fails") == 1, done.stderr
    assert not list(tmp_path.rglob("metrics.json")) and not list(tmp_path.rglob("lock.json"))


@pytest.mark.slow
def test_a_sweep_under_torchrun_is_refused_once(tmp_path):
    done = torchrun("train.py", "seed=0,1", f"output={tmp_path}", "-m")
    assert done.returncode != 0 and done.stderr.count("train.py: torchrun and a sweep") == 1
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
