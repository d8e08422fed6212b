"""A sweep as an array on a real SLURM, and on processes of this machine, gives the records of one
process that does cell after cell; a cell that is stopped on the way is queued again and goes on."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import slurm_cluster
from processes import train
from records import contents

ROOT = Path(__file__).resolve().parent.parent
CELLS = "method=fourierft,lora"
TOY = ["train.epochs=100", "train.eval_every=5", "train.checkpoint_every=1"]
ON_SLURM = [
    "hydra/launcher=slurm",
    "hydra.launcher.partition=debug",
    "hydra.launcher.cpus_per_task=1",
    "hydra.launcher.mem_gb=1",
    "hydra.launcher.timeout_min=30",
]


def sweep(output: Path, *arguments: str, **environment: str) -> subprocess.Popen:
    """With a launcher, which would wait for ever in a process that was forked."""
    return subprocess.Popen(
        [sys.executable, "train.py", "-m", CELLS, *TOY, f"output={output}", *arguments],
        cwd=ROOT,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def wait(condition, process, seconds=300):
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


@contextlib.contextmanager
def paused(pid: int):
    """Stops a process, so that it is not done before it is signalled."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """One process that does cell after cell."""
    output = tmp_path_factory.mktemp("reference")
    process = train("-m", CELLS, *TOY, f"output={output}")
    text, _ = process.communicate(timeout=300)
    assert process.returncode == 0, text
    found = contents(output)
    assert len(found) == 2
    return found


@pytest.fixture
def cluster(tmp_path):
    reason = slurm_cluster.missing()
    if reason:
        pytest.skip(reason)
    folder = tmp_path / "cluster"
    folder.mkdir()
    with slurm_cluster.cluster(folder) as environment:
        yield environment


@pytest.mark.slow
def test_processes_of_this_machine_give_the_records_of_one(reference, tmp_path):
    process = sweep(tmp_path, "hydra/launcher=processes")
    text, _ = process.communicate(timeout=300)
    assert process.returncode == 0, text
    assert contents(tmp_path) == reference


@pytest.mark.slow
def test_an_array_with_a_cell_that_is_queued_again_gives_the_records_of_one_process(
    reference, cluster, tmp_path
):
    """Its warning signal asks cell 0 to stop, as before a time limit or a preemption."""
    output = tmp_path / "outputs"
    process = sweep(output, *ON_SLURM, SLURM_CONF=cluster["SLURM_CONF"])
    # The state comes last: with two of them there, the first checkpoint is whole.
    checkpoints = "mlp/toy/fourierft/*/seed=0/checkpoints/checkpoint-*/trainer_state.json"
    wait(lambda: len(list(output.glob(checkpoints))) >= 2, process)
    (first,) = output.glob("mlp/toy/fourierft/*/seed=0")
    with paused(json.loads((first / "lock.json").read_text())["pid"]):
        squeue = ["squeue", "--noheader", "--array", "--format=%F_%K"]
        queue = subprocess.run(squeue, env=cluster, capture_output=True, text=True, check=True)
        (array,) = {line.partition("_")[0] for line in queue.stdout.split()}
        stop = ["scancel", "--signal=USR2", f"{array}_0"]
        subprocess.run(stop, env=cluster, check=True)
    wait(lambda: not (first / "lock.json").exists(), process)
    assert not (first / "metrics.json").exists() and not (first / "failure.json").exists()
    text, _ = process.communicate(timeout=300)
    assert process.returncode == 0, text
    assert contents(output) == reference
    times = {
        path.parent: json.loads(path.read_text())["time"] for path in output.rglob("metrics.json")
    }
    assert [place for place, spent in times.items() if spent["resumed_from"]] == [first]
    logs = list(output.glob(f".sweeps/*/.submitit/{array}_0/*.out"))
    assert any("resuming from step" in path.read_text() for path in logs)
