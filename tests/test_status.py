"""The status board, on folders as runs leave them."""

import json

import pytest
from records import scored

from experiments.config import sweep
from experiments.report import costs, run_state
from experiments.report.__main__ import main
from experiments.report.run_state import State
from experiments.results import lock
from experiments.results.identity import to_plain
from experiments.results.record import write_failure


@pytest.fixture
def outputs(tmp_path):
    """Of Figure 7: two done, one at work, one failed, one stopped, five never begun."""
    root = tmp_path / "outputs"
    fourierft, _ = sweep.compose_cells("figure7", [f"output={root}"])
    config = to_plain(fourierft.config)
    scored(root, config, 0, 1.0, seconds=59.0, weights=None)
    scored(root, config, 1, 1.0, seconds=79.0, weights=None)
    for seed in (2, 3, 4):
        place = root / f"mlp/toy/fourierft/seed={seed}"
        place.mkdir(parents=True)
        line = {"step": 500, "epoch": 500.0, "elapsed_s": 20.0, "train/loss": 0.5}
        (place / "history.jsonl").write_text(json.dumps(line) + "\n")
    write_failure(place.with_name("seed=3"), MemoryError("too much\nof it"))
    return root


def test_the_board(outputs, capsys):
    with lock.acquire_lock(outputs / "mlp/toy/fourierft/seed=2"):
        assert main(["status", "experiment=figure7", "--outputs", str(outputs)]) == 0
    shown = capsys.readouterr().out
    row = next(line for line in shown.splitlines() if line.startswith("| method=fourierft"))
    cells = [cell.strip() for cell in row.strip("|").split("|")[1:]]
    assert cells == ["done", "done", "running", "failed", "missing"]
    assert "2 of 10 runs done, 1 running, 1 failed, 6 missing" in shown
    # Seven at the mean of 60 and 80 s, and the running one: a quarter in 20 s.
    assert f"about {(7 * 70 + 60) / 60:.1f} min left on one worker" in shown
    assert "seed=2: running, epoch 500 of 2000" in shown
    assert "seed=3: failed, MemoryError: too much" in shown
    assert "seed=4: missing, stopped after epoch 500" in shown
    page = (outputs / "report/status.html").read_text()
    assert page.count('class="done"') == 2 and 'aria-current="page">Status' in page


def test_overrides_alone_are_a_sweep_of_their_own(tmp_path, capsys):
    outputs = tmp_path / "outputs"
    given = ["model=mlp", "task=toy", "method=fourierft,lora", "seed=0,1"]
    config = to_plain(next(iter(sweep.compose_cells(None, [*given, f"output={outputs}"]))).config)
    scored(outputs, config, 0, 1.0, weights=None)
    asked = ["status", *given, "hydra/launcher=slurm", "--outputs", str(outputs)]
    assert main(asked) == 0
    shown = capsys.readouterr().out
    assert "1 of 4 runs done, 3 missing" in shown and "table1" not in shown
    rows = [line.split("|")[2].strip() for line in shown.splitlines() if "| method=" in line]
    assert rows == ["done", "missing"]
    command = f"train.py -m {' '.join(given)} output={outputs}"
    assert f"To continue: `.venv/bin/python {command}`" in shown


def test_a_dead_runs_lock_is_no_run(outputs):
    place = outputs / "mlp/toy/fourierft/seed=2"
    (place / lock.LOCK).write_text(json.dumps({"machine": "elsewhere", "host": "far"}))
    config = next(iter(sweep.compose_cells("figure7"))).config
    assert run_state.look(place, config).state is State.running, "its heart beats"
    import os

    os.utime(place / lock.LOCK, (0, 0))
    assert run_state.look(place, config).state is State.missing
    dead = {**lock._describe_process(), "pid": 2**22 + 1}
    (place / lock.LOCK).write_text(json.dumps(dead))
    assert lock.find_owner(place) is None and (place / lock.LOCK).exists()


def test_damaged_and_foreign_records_are_failures(outputs):
    config = next(iter(sweep.compose_cells("figure7"))).config
    place = outputs / "mlp/toy/fourierft/seed=0"
    config.seed = 0
    assert run_state.look(place, config).state is State.done
    config.train.epochs = 7
    found = run_state.look(place, config)
    assert found.state is State.failed and "different settings" in found.note
    (place / "metrics.json").write_text("{")
    assert "damaged" in run_state.look(place, config).note


def test_nothing_done_nothing_promised(tmp_path, capsys):
    assert main(["status", "experiment=figure7", "--outputs", str(tmp_path)]) == 0
    assert "0 of 10 runs done, 10 missing; time left unknown" in capsys.readouterr().out


def test_a_figure_of_several_experiments_and_how_to_go_on(tmp_path, capsys):
    narrow = ["task=rte", "model=minilm", "task.path=two words"]
    assert main(["status", "experiment=figure4", *narrow, "--outputs", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    given = f"task=rte model=minilm 'task.path=two words' output={tmp_path}`"
    start = "To continue: `.venv/bin/python -m experiments.search search=figure4"
    for name in ("figure4_fourierft", "figure4_fourierft_qqp", "figure4_lora"):
        assert f"{start} experiment={name} {given}" in shown
    assert "| figure4_lora" in shown and "unknown" in shown, "MiniLM has no forecast"


def test_wrong_requests(tmp_path, capsys):
    assert main(["status", "experiment=figure99", "--outputs", str(tmp_path)]) == 1
    assert "experiment=figure99: unknown" in capsys.readouterr().err
    assert not (tmp_path / "report").exists(), "no board takes the place of an older one"
    with pytest.raises(SystemExit, match="2"):
        main(["status", "figure7"])


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (59, "59 s"),
        (119, "119 s"),
        (600, "10.0 min"),
        (9000, "2.5 h"),
        (200000, "2.3 d"),
    ],  # fmt: skip
)
def test_durations(seconds, shown):
    assert costs.duration(seconds) == shown


def test_folders_of_any_name(tmp_path, capsys):
    root = tmp_path / "it's, [a] ${b} = 'c'"
    config = to_plain(next(iter(sweep.compose_cells("figure7"))).config)
    scored(root, config, 0, 1.0, weights=None)
    asked = ["status", "experiment=figure7", "seed=0,1", "--outputs", str(root)]
    assert main(asked) == 0
    assert "1 of 4 runs done" in capsys.readouterr().out
