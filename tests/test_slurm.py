"""A sweep as an array on a real SLURM, and on processes of this machine, gives the records of one
process that does cell after cell; a cell that is stopped on the way is queued again and goes on."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import slurm_cluster
from processes import train
from records import contents

ROOT = Path(__file__).resolve().parent.parent
CELLS = ["method=fourierft,lora", "seed=0,1"]
# Long enough that a cell still has most of its way before it when it is told to stop.
TOY = ["train.epochs=1200", "train.eval_every=100", "train.checkpoint_every=1"]
ON_SLURM = [
    "hydra/launcher=slurm",
    "hydra.launcher.partition=debug",
    "hydra.launcher.cpus_per_task=1",
    "hydra.launcher.mem_gb=1",
    "hydra.launcher.timeout_min=30",
]


def sweep(output: Path, *arguments: str, **environment: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "train.py", "-m", *TOY, f"output={output}", *arguments],
        cwd=ROOT,
        env=os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def wait(condition, process, seconds=300):
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.1)


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """All cells, on processes of this machine."""
    output = tmp_path_factory.mktemp("reference")
    process = sweep(output, *CELLS, "hydra/launcher=processes")
    text, _ = process.communicate(timeout=500)
    assert process.returncode == 0, text
    found = contents(output)
    assert len(found) == 4
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
    process = train("-m", *TOY, f"output={tmp_path}", "method=fourierft,lora")
    text, _ = process.communicate(timeout=500)
    assert process.returncode == 0, text
    found = contents(tmp_path)
    assert len(found) == 2 and found == {name: reference[name] for name in found}


@pytest.mark.slow
def test_an_array_with_a_cell_that_is_queued_again_gives_the_records_of_one_process(
    reference, cluster, tmp_path
):
    """Its warning signal asks cell 0 to stop, as before a time limit or a preemption."""
    output = tmp_path / "outputs"
    process = sweep(output, *CELLS, *ON_SLURM, SLURM_CONF=cluster["SLURM_CONF"])
    squeue = ["squeue", "--noheader", "--array", "--format=%F_%K"]

    def arrays() -> set[str]:
        queue = subprocess.run(squeue, env=cluster, capture_output=True, text=True, check=True)
        return {line.partition("_")[0] for line in queue.stdout.split()}

    wait(arrays, process)
    (array,) = arrays()
    stop = ["scancel", "--signal=USR2", f"{array}_0"]
    # The state comes last: with two of them there, the first checkpoint is whole.
    checkpoints = "mlp/toy/fourierft/*/seed=0/checkpoints/checkpoint-*/trainer_state.json"
    wait(lambda: len(list(output.glob(checkpoints))) >= 2, process)
    first = next(output.glob("mlp/toy/fourierft/*/seed=0"))
    wait(lambda: subprocess.run(stop, env=cluster, capture_output=True).returncode == 0, process)
    wait(lambda: not (first / "lock.json").exists(), process)
    assert not (first / "metrics.json").exists() and not (first / "failure.json").exists()
    text, _ = process.communicate(timeout=500)
    assert process.returncode == 0, text
    assert contents(output) == reference
    times = {
        path.parent: json.loads(path.read_text())["time"] for path in output.rglob("metrics.json")
    }
    assert [place for place, spent in times.items() if spent["resumed_from"]] == [first]
    logs = list(output.glob(f".sweeps/*/.submitit/{array}_0/*.out"))
    assert any("resuming from step" in path.read_text() for path in logs)
