"""The wait for an array, on a scripted squeue."""

import os
import time

import pytest

from experiments.config import sweep
from experiments.run import sweep_log

pytest.importorskip("submitit")
from experiments.run import slurm_array  # noqa: E402  imports it


@pytest.fixture
def squeue(tmp_path, monkeypatch):
    """Answers what is written to a file; an empty one means that SLURM has forgotten the array."""
    answer, program = tmp_path / "answer", tmp_path / "bin/squeue"
    program.parent.mkdir()
    program.write_text(
        f'#!/bin/sh\n[ -e {answer} ] || {{ echo "Unable to contact controller" >&2; exit 1; }}\n'
        f'[ -s {answer} ] || {{ echo "Invalid job id specified" >&2; exit 1; }}\ncat {answer}\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=os.pathsep)
    return answer


@pytest.fixture
def watcher(tmp_path, squeue):
    (tmp_path / ".sweeps/now/.submitit/6_0").mkdir(parents=True)
    found = slurm_array.QueueWatcher(tmp_path / ".sweeps")
    for job in ("6", "6_0", "6_1"):  # submitit registers the array itself too
        found.register_job(job)
    return found


def told(capsys):
    return capsys.readouterr().out.splitlines()


def test_number_logs_and_progress_are_told_once(watcher, squeue, tmp_path, capsys):
    squeue.write_text("6_0|RUNNING|None\n6_1|PENDING|Resources\n")
    watcher.update()
    watcher.update()
    assert told(capsys) == [
        f"array 6: 2 cells, logs in {tmp_path}/.sweeps/now/.submitit/6_*; "
        "`squeue -j 6` shows it, `scancel 6` stops it",
        "array 6: 0 of 2 done, 1 running, 1 waiting",
    ]
    assert not watcher.is_done("6_0", "cache") and not watcher.is_done("6_1", "cache")
    squeue.write_text("6_0|COMPLETED|None\n6_1|RUNNING|None\n")
    watcher.update()
    assert told(capsys) == ["array 6: 1 of 2 done, 1 running"]
    assert watcher.is_done("6_0", "cache") and watcher.list_arrays() == ["6"]
    squeue.write_text("")
    watcher.update()
    assert watcher.is_done("6_1", "cache") and watcher.describe_rest() is None


def test_a_job_that_can_never_start_is_named_after_a_minute(watcher, squeue, monkeypatch, capsys):
    squeue.write_text("6_0|PENDING|PartitionConfig\n6_1|PENDING|PartitionConfig\n")
    watcher.update()
    assert told(capsys)[-1] == "array 6: 0 of 2 done, 2 waiting"
    later = time.time() + slurm_array.PATIENCE
    monkeypatch.setattr(time, "time", lambda: later)
    watcher.update()
    (line,) = told(capsys)
    assert "2 waiting (PartitionConfig): no node of the partition" in line
    assert "hydra.launcher.cpus_per_task, mem_gb" in line
    squeue.write_text("6_0|CANCELLED|None\n6_1|CANCELLED|None\n")
    watcher.update()
    assert told(capsys) == ["array 6: 0 of 2 done, 2 cancelled"]
    assert watcher.is_done("6_0", "cache"), "not waited for any more"


@pytest.mark.parametrize("state", ["REQUEUED", "PREEMPTED", "SUSPENDED", "CONFIGURING"])
def test_jobs_that_may_go_on_are_waited_for(watcher, squeue, state):
    squeue.write_text(f"6_0|{state}|None\n6_1|{state}|None\n")
    watcher.update()
    squeue.unlink()  # the controller does not answer
    watcher.update()
    assert not watcher.is_done("6_0", "cache") and watcher.list_arrays() == ["6"]


@pytest.fixture
def asked(watcher, tmp_path, monkeypatch):
    """Arguments of a sweep of two runs whose array is 6."""
    monkeypatch.setenv(sweep_log.VARIABLE, "")  # taken back after the test
    monkeypatch.setattr(slurm_array, "watch_queue", lambda output: watcher)
    monkeypatch.setattr(sweep, "find_choices", lambda arguments: {"seed": ["seed=0", "seed=1"]})
    return [f"output={tmp_path}", "hydra/launcher=slurm"]


def test_an_interrupted_launcher_says_that_the_array_goes_on(asked, monkeypatch, capsys):
    import train

    with pytest.raises(SystemExit, match="130"), train.summarize_sweep(asked):
        path = os.environ[sweep_log.VARIABLE]
        raise KeyboardInterrupt
    assert capsys.readouterr().err == (
        "train.py: array 6 goes on: `squeue -j 6` shows it, `scancel 6` stops it; "
        "when it has ended, the same command prints the table and runs what is missing\n"
    )
    monkeypatch.setenv(sweep_log.VARIABLE, path)  # as the array's jobs have it
    sweep_log.add_failure(1, ["seed=0"], 1.0, "out of memory")
    sweep_log.announce(2, ["seed=1"])  # a log of failures alone has no first line


@pytest.mark.parametrize(("code", "goes_on"), [("train.py: job 6_0: cancelled", True), (1, False)])
def test_a_launcher_that_gives_up_says_so_too(asked, code, goes_on):
    """The status 1 is that of a sweep whose last cell has ended."""
    import train

    with pytest.raises(SystemExit) as caught, train.summarize_sweep(asked):
        raise SystemExit(code)
    found = str(caught.value.code)
    assert found.startswith(str(code)) and ("array 6 goes on" in found) is goes_on
