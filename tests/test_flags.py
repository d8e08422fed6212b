"""Flags told from overrides: Hydra's work wherever they stand, others say what to write."""

import pytest

from experiments.config import flags


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (["--seed=1"], "--seed=1: write seed=1"),
        (["--method.n=5", "task=toy"], "--method.n=5: write method.n=5"),
        (["-seed=1"], "-seed=1: write seed=1"),
        (["--epochs", "3"], "--epochs 3: write epochs=3"),
        (["--fast"], "--fast: not a flag (values are written key=value"),
        (["--fast", "seed=1"], "--fast: not a flag"),
        (["--cfg", "everything"], "--cfg/-c: invalid choice: 'everything'"),
        (["--resolve"], "--resolve: only with --cfg"),
        (["-m", "--cfg", "job"], "--multirun and --cfg: only one at a time"),
        (["--config-path=x"], "--config-path=x: the configuration is conf/; --config-dir"),
        (["--config-name=other"], "--config-name=other: unknown (allowed: train)"),
        (["--config-dir=/no/such"], "--config-dir=/no/such: no such folder"),
        (["--experimental-rerun=x"], "--experimental-rerun=x: runs keep no pickles"),
        (["--config-dir"], "--config-dir"),
        (["--multirun=3"], "--multirun"),
    ],
)
def test_what_is_no_flag(typed, said):
    (line,) = flags.parse_arguments(typed).problems
    assert said in line


@pytest.mark.parametrize("order", [(0, 1, 2), (1, 0, 2), (2, 1, 0)])
def test_flags_may_stand_anywhere(order, tmp_path):
    parts = [["seed=1", "method=lora"], ["-m"], ["-cd", str(tmp_path)]]
    found = flags.parse_arguments([word for place in order for word in parts[place]])
    assert found.problems == [] and found.overrides == ["seed=1", "method=lora"]
    assert found.arguments == [f"--config-dir={tmp_path}", "--multirun", "seed=1", "method=lora"]


def test_overrides_around_a_flag_keep_their_order():
    found = flags.parse_arguments(["seed=1", "-c", "job", "seed=2", "--resolve", "seed=3"])
    assert found.arguments == ["--cfg=job", "--resolve", "seed=1", "seed=2", "seed=3"]
    assert flags.parse_arguments(["--config-name=train"]).arguments == []


def test_help_and_completion_are_asked_for():
    for typed in (["--hydra-help"], ["-h"], ["-sc", "install=bash"]):
        assert flags.parse_arguments(typed).asks
    assert not flags.parse_arguments(["--info"]).asks
