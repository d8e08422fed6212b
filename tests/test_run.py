"""Whole runs: skipped, refused, repeated, interrupted and resumed; in this process where that
suffices."""

import hashlib
import json
from pathlib import Path

import pytest
from processes import train

from experiments.errors import RecordError, UserError
from experiments.results.history import read_history
from experiments.run import data_cache
from experiments.run.main import run

TOY = ["train.epochs=60", "train.eval_every=20"]


@pytest.fixture
def toy(compose, tmp_path):
    """A toy run of 60 epochs below tmp_path."""
    return lambda *overrides: compose([*TOY, f"output={tmp_path}", *overrides])


def tree(folder: Path) -> dict[str, str]:
    """Every file below a folder with its hash and time."""
    return {
        str(
            path.relative_to(folder)
        ): f"{hashlib.sha256(path.read_bytes()).hexdigest()} {path.stat().st_mtime_ns}"
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def folder_of(root: Path) -> Path:
    return next(root.rglob("metrics.json")).parent


def test_a_run_folder_holds_what_the_contract_says(toy, tmp_path):
    record = run(toy())
    place = folder_of(tmp_path)
    assert {item.name for item in place.iterdir()} == {
        "metrics.json",
        "config.yaml",
        "predictions",
        "history.jsonl",
        "adapter",
        "run.log",
        "regions.npz",
    }
    written = json.loads((place / "metrics.json").read_text())
    assert written["metrics"] == record.metrics
    assert {"best", "last", "heldout", "primary"} <= set(written["metrics"])
    assert written["parameters"] == {"adapter": 128, "head": 0, "base": 4808, "stored_bytes": 512}
    assert len(list((place / "predictions").iterdir())) == 2 * 3, "two splits"
    assert place == tmp_path / "mlp/toy/fourierft/epochs=60/seed=0"


def test_a_finished_run_is_skipped_and_stays_byte_identical(toy, tmp_path, capsys):
    first = run(toy())
    before = tree(tmp_path)
    again = run(toy("tracking=tensorboard", "train.device=cpu"))
    assert tree(tmp_path) == before
    assert again.metrics == first.metrics
    assert "done before" in capsys.readouterr().out


def test_another_configuration_at_the_same_path_is_refused_with_the_differing_keys(toy, tmp_path):
    run(toy())
    before = tree(tmp_path)
    other = toy()
    other.method.alpha, other.train.learning_rate = 17.0, 0.5
    with pytest.raises(RecordError) as refusal:
        run(other)
    assert "method.alpha: found 16.0, expected 17.0" in str(refusal.value)
    assert "train.learning_rate" in str(refusal.value) and "force=true" in str(refusal.value)
    assert tree(tmp_path) == before


@pytest.mark.slow
def test_force_repeats_in_place_and_keeps_the_old_one(toy, tmp_path):
    first = run(toy())
    place = folder_of(tmp_path)
    before = tree(place)
    second = run(toy("force=true"))
    assert second.metrics == first.metrics
    assert tree(place.with_name("seed=0.replaced-1")) == before


@pytest.mark.slow
def test_a_forced_repetition_that_fails_leaves_the_finished_run(toy, tmp_path, monkeypatch):
    def unreadable(*_):
        raise UserError("the data cannot be read")

    run(toy())
    place = folder_of(tmp_path)
    before = tree(place)
    with pytest.raises(UserError):
        config = toy("force=true")
        monkeypatch.setattr(type(config.task), "load", unreadable)
        monkeypatch.setattr(data_cache, "_last", None)  # else the first run's rows would do
        run(config)
    assert tree(place) == before
    assert (place.with_name("seed=0.failed-1") / "failure.json").exists()
    assert not place.with_name("seed=0.replaced-1").exists()


@pytest.mark.slow
def test_a_service_that_fails_at_the_end_costs_no_run(toy, tmp_path, monkeypatch, capsys):
    config = toy()
    monkeypatch.setattr(type(config.tracking), "finish", lambda *_: 1 / 0)
    run(config)
    assert folder_of(tmp_path) and "could not be closed" in capsys.readouterr().out


@pytest.mark.slow
def test_the_same_run_twice_gives_the_same_numbers_and_another_seed_does_not(toy, tmp_path):
    one, two = run(toy(f"output={tmp_path}/a")), run(toy(f"output={tmp_path}/b"))
    other = run(toy("seed=1"))
    assert one.metrics == two.metrics
    histories = [read_history(folder_of(tmp_path / name)) for name in "ab"]
    assert [line["train/loss"] for line in histories[0] if "train/loss" in line] == [
        line["train/loss"] for line in histories[1] if "train/loss" in line
    ]
    assert (
        other.metrics["last"] != one.metrics["last"] or other.metrics["best"] != one.metrics["best"]
    )


def test_methods_start_from_the_same_base_model_and_data(toy, tmp_path):
    """A run's base model depends on the seed alone, so that methods are compared on equal terms."""
    import torch

    from experiments.seeding import stream

    nets = []
    for method in ("fourierft", "lora"):
        config = toy(f"method={method}")
        torch.manual_seed(stream(config.seed, "head"))
        nets.append(config.model.build(config.task.head, None).state_dict())
    assert all(torch.equal(nets[0][name], nets[1][name]) for name in nets[0])


@pytest.mark.slow
def test_a_failed_run_leaves_a_failure_and_no_record_and_can_be_repeated(
    toy, tmp_path, monkeypatch
):
    config = toy()
    monkeypatch.setattr(type(config.task), "load", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run(config)
    place = next(tmp_path.rglob("failure.json")).parent
    failure = json.loads((place / "failure.json").read_text())
    assert failure["error"] == "ZeroDivisionError" and "Traceback" in failure["traceback"]
    assert not (place / "metrics.json").exists() and not (place / "lock.json").exists()
    monkeypatch.undo()
    run(toy())
    assert (place / "metrics.json").exists() and not (place / "failure.json").exists()


def test_missing_weights_and_data_are_one_error_and_leave_no_folder(compose, tmp_path):
    with pytest.raises(UserError) as missing:
        run(compose(["model=roberta_base", "task=cola", f"output={tmp_path}"]))
    for word in (
        "FacebookAI/roberta-base",
        "nyu-mll/glue",
        "hf download",
        "model.path",
        "task.path",
    ):
        assert word in str(missing.value)
    assert list(tmp_path.iterdir()) == []


def test_a_device_that_is_not_there_is_said_before_anything_else(compose, tmp_path, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    asked = ["model=roberta_base", "task=cola", f"output={tmp_path}", "train.device=cuda"]
    with pytest.raises(UserError, match="train.device=cuda: no GPU found"):
        run(compose(asked))
    assert list(tmp_path.iterdir()) == []


def test_counting_needs_no_weights_and_trains_nothing(compose, tmp_path):
    record = run(compose(["mode=count", "model=roberta_base", "task=cola", f"output={tmp_path}"]))
    assert record.parameters["adapter"] == 24_000
    assert record.parameters["head"] == 592_130
    assert record.metrics is None


@pytest.mark.slow
def test_a_killed_run_resumes_and_ends_bit_identical(tmp_path, data_folder):
    """SIGKILL after some epochs, dropout on: metrics, curve, predictions and adapter equal an
    uninterrupted run's."""
    overrides = [
        "model=roberta_base",
        "model.pretrained=false",
        "+model.sizes.hidden_size=64",
        "+model.sizes.num_hidden_layers=2",
        "+model.sizes.num_attention_heads=2",
        "+model.sizes.intermediate_size=128",
        "task=cola",
        f"task.path={data_folder}/glue/cola",
        "task.train_rows=64",
        "task.eval_rows=32",
        "source=none",
        "method.n=100",
        "method.alpha=30",
        "train.batch_size=16",
        "train.epochs=12",
        "train.learning_rate=5e-2",
        "train.group_by_length=true",
    ]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    process = train(*overrides, f"output={whole}")
    output, _ = process.communicate(timeout=400)
    assert process.returncode == 0, output
    evaluated = "*/*/*/*/*/predictions/*.npz"
    train(*overrides, f"output={killed}").kill_when(lambda: len(list(killed.glob(evaluated))) >= 5)
    assert not list(killed.rglob("metrics.json"))
    process = train(*overrides, f"output={killed}")
    output, _ = process.communicate(timeout=400)
    assert process.returncode == 0 and "resuming from step" in output, output

    one, two = folder_of(whole), folder_of(killed)
    records = [json.loads((place / "metrics.json").read_text()) for place in (one, two)]
    assert records[0]["metrics"] == records[1]["metrics"]
    assert records[0]["time"]["resumed_from"] is None and records[1]["time"]["resumed_from"] >= 8
    curves = [[{**line, "elapsed_s": 0} for line in read_history(place)] for place in (one, two)]
    assert curves[0] == curves[1]
    for part in ("predictions", "adapter"):
        hashes = [
            {
                name: text.split()[0]
                for name, text in tree(place / part).items()
                if "README" not in name
            }
            for place in (one, two)
        ]
        assert hashes[0] == hashes[1]


@pytest.mark.slow
def test_the_command_line_trains_skips_and_refuses(tmp_path):
    """python train.py with no arguments but a folder; then the same again, bad input, and an
    unknown option."""
    arguments = [*TOY, f"output={tmp_path}"]
    process = train(*arguments)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0 and "best accuracy" in output, output
    before = tree(tmp_path)
    for extra, status, words in (
        ([], 0, ["done before"]),
        (["method.n=9999"], 1, ["9999", "4096"]),
        (["method.n=x", "modle=mlp"], 1, ["method.n=x", "modle", "did you mean"]),
        (["model=minilm"], 1, ["points"]),
    ):
        process = train(*arguments, *extra)
        output, _ = process.communicate(timeout=300)
        assert process.returncode == status, output
        assert "Traceback" not in output
        assert all(word in output for word in words), output
        kept = {name: text for name, text in tree(tmp_path).items() if "n=9999" not in name}
        assert kept == before


@pytest.mark.slow
def test_a_failed_cell_does_not_stop_the_sweep_and_the_status_tells(tmp_path):
    process = train("method.n=9999,64", *TOY, f"output={tmp_path}", "-m")
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 1 and "Traceback" not in output, output
    assert [path.parent.parent.name for path in tmp_path.rglob("metrics.json")] == [
        "n=64,epochs=60"
    ]
    assert [path.parent.parent.name for path in tmp_path.rglob("failure.json")] == [
        "n=9999,epochs=60"
    ]
    assert "run 1 of 2: method.n=9999\n" in output and "2 runs: 1 failed, 1 done\n" in output
    failure = next(tmp_path.rglob("failure.json"))
    before = failure.stat().st_mtime_ns
    again, _ = train("method.n=9999,64", *TOY, f"output={tmp_path}", "-m").communicate(timeout=300)
    assert "failed before" in again and "retry_failed=true" in again, again
    assert "2 runs: 1 failed, 1 done before\n" in again, again
    assert failure.stat().st_mtime_ns == before
    words = "method.n=9999,64", *TOY, f"output={tmp_path}", "retry_failed=true", "-m"
    output, _ = train(*words).communicate(timeout=300)
    assert "failed before" not in output and failure.stat().st_mtime_ns > before, output


def test_a_worker_has_nothing_to_do_in_a_run_that_only_counts(compose, tmp_path):
    """It would wait for ever for data that the first rank does not prepare."""
    from experiments.run.main import run_worker
    from experiments.run.session import Session

    config = compose(["mode=count", f"output={tmp_path}"])
    assert run_worker(Session(config=config, run_dir=tmp_path)) is None
