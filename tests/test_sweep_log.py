"""What a sweep says of its runs, whichever process made them."""

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.config import sweep
from experiments.results.record import Record
from experiments.run import sweep_log

ROOT = Path(__file__).resolve().parent.parent
CHOICES = {"method": ["method=fourierft", "method=lora"], "seed": ["seed=0", "seed=1", "seed=2"]}
CHOICES |= {"train.epochs": ["train.epochs=3"]}


def record(value=0.75, interval=0.1):
    limits = [value - interval, value + interval]
    return make({"primary": {"name": "accuracy", "value": value, "interval": limits}}, 128)


def make(metrics, parameters):
    unread = dict.fromkeys(("run", "config", "time", "memory", "environment"), {})
    return Record(metrics=metrics, parameters={"adapter": parameters}, **unread)


def words(method, seed):
    return [f"method={method}", f"seed={seed}", "train.epochs=3"]


@pytest.fixture
def log(tmp_path, monkeypatch):
    monkeypatch.setenv(sweep_log.VARIABLE, "")  # taken back after the test
    sweep_log.begin(tmp_path, CHOICES)
    return tmp_path


def test_heading_counts_and_names_what_is_swept(log, capsys):
    sweep_log.announce(3, words("lora", 1))
    assert capsys.readouterr().out == "\nrun 3 of 6: method=lora seed=1\n"


def test_table_has_every_run_in_order(log, monkeypatch):
    monkeypatch.setattr(sys, "executable", str(Path.cwd() / ".venv/bin/python"))
    sweep_log.add_record(2, words("fourierft", 1), 7.6, record(0.5), before=False)
    sweep_log.add_record(1, words("fourierft", 0), 0.1, record(1.0), before=True)
    sweep_log.add_failure(3, words("fourierft", 2), 1.0, "train.py: no weights\n  - nor data")
    assert sweep_log.finish(log).splitlines()[1:] == [
        "6 runs: 1 done, 1 done before, 1 failed, 3 not finished",
        "run  method     seed  score                             seconds",
        "1    fourierft  0     accuracy 1.0000 [0.9000, 1.1000]  0        done before",
        "2    fourierft  1     accuracy 0.5000 [0.4000, 0.6000]  8        done",
        "3    fourierft  2                                       1        failed (1)",
        "(1) train.py: no weights - nor data",
        f"report: .venv/bin/python -m experiments.report --outputs {log} writes "
        f"{log}/report/index.html",
    ]
    assert sweep_log.finish(log) is None  # it is over


def test_one_reason_is_told_once(log):
    assert sweep_log.find_same_failure("no weights") is None
    for number in range(1, 7):
        sweep_log.add_failure(number, words("lora", number), 0.0, "no weights")
    assert sweep_log.find_same_failure("no weights") == 1
    assert sweep_log.find_same_failure("no data") is None
    table = sweep_log.finish(log)
    assert table.count("no weights") == 1 and "failed (1), and 3 more" in table
    assert table.count("lora") == sweep_log.SHOWN


def test_counts_and_diverged_runs_have_a_score_of_their_own(log):
    sweep_log.add_record(1, words("lora", 0), 0.2, make(None, 24000), before=False)
    sweep_log.add_record(2, words("lora", 1), 0.2, record(math.nan), before=False)
    lines = sweep_log.finish(log).splitlines()
    assert "adapter parameters 24,000" in lines[3] and "accuracy" not in lines[4]


def test_keys_that_are_added_have_their_values(tmp_path, monkeypatch):
    monkeypatch.setenv(sweep_log.VARIABLE, "")
    sweep_log.begin(tmp_path, {"method.r": ["++method.r=7", "++method.r=8"]})
    sweep_log.add_record(1, ["++method.r=7"], 0.2, record(), before=False)
    assert sweep_log.finish(tmp_path).splitlines()[3].split()[:2] == ["1", "7"]


def test_other_processes_add_to_the_log(log):
    code = (
        "from experiments.run import sweep_log; sweep_log.announce(1, ['seed=0']);"
        "sweep_log.add_failure(1, ['seed=0'], 2.0, 'elsewhere')"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "\nrun 1 of 6: seed=0\n", done.stderr
    assert "elsewhere" in sweep_log.finish(log)


def test_a_log_that_cannot_be_written_costs_no_run(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv(sweep_log.VARIABLE, "")
    (tmp_path / "file").touch()
    sweep_log.begin(tmp_path / "file", CHOICES)
    sweep_log.announce(1, ["seed=0"])
    sweep_log.add_record(1, ["seed=0"], 1.0, record(), before=False)
    assert sweep_log.finish(tmp_path) is None and capsys.readouterr().out == ""
    assert sweep_log.VARIABLE not in os.environ


def test_nothing_is_left_where_nothing_was_run(log):
    assert sweep_log.finish(log) is None
    assert not list((log / ".sweeps").iterdir())


@pytest.mark.parametrize(
    ("arguments", "runs"),
    [
        (["--multirun", "seed=0,1", "method=lora,fourierft"], 4),
        (["experiment=figure7"], 10),
        (["experiment=figure7", "seed=3", "method=lora,full,bitfit"], 3),
        (["seed=0"], None),
        (["experiment=figure77"], None),
    ],
)
def test_choices_of_a_command_line(arguments, runs):
    found = sweep.find_choices(arguments)
    assert runs == (None if found is None else math.prod(map(len, found.values())))


def test_runs_that_wandb_keeps_offline_are_sent_by_one_command(log):
    sweep_log.add_failure(1, words("lora", 0), 1.0, "none")
    assert "wandb" not in sweep_log.finish(log)
    sweep_log.begin(log, CHOICES | {"tracking.mode": ["tracking.mode=offline"]})
    sweep_log.add_failure(1, words("lora", 0), 1.0, "none")
    command = f"find {log} -name 'offline-run-*' -exec wandb sync {{}} +"
    assert sweep_log.finish(log).endswith(f"wandb: kept offline; {command} sends the runs")
