"""Records against what is stored beside them: recomputed, and exported."""

import dataclasses
import json
import re

import numpy as np
import pytest
import records

from experiments.commands import peft_results
from experiments.commands.results import main
from experiments.config.restore import restore_task
from experiments.errors import ConfigError
from experiments.metrics.selection import Evaluation, Select
from experiments.results import kept_adapter, predictions
from experiments.results.identity import to_plain
from experiments.results.record import Record, read_record, replace_nonfinite, write_record
from experiments.training import scoring


@pytest.fixture(scope="module")
def stored(tmp_path_factory, compose):
    """A run folder whose record is what its predictions give."""
    root = tmp_path_factory.mktemp("outputs")
    asked = compose(["model=roberta_base", "task=cola", "method=lora"])
    place = root / "roberta_base/cola/lora/seed=0"
    place.mkdir(parents=True)
    draw = np.random.default_rng(0)
    labels = draw.integers(0, 2, 60)
    history = []
    for step in (10, 20):
        scores = draw.normal(size=(60, 2)) + step / 10 * np.eye(2)[labels]
        entry = Evaluation(step=step, epoch=step / 10, predictions=scores, references=labels)
        predictions.save(place, "validation", entry)
        found = asked.task.score(scores, labels).items()
        values = {f"validation/{name}": value for name, value in found}
        history.append({"step": step, "epoch": step / 10, "elapsed_s": step / 4, **values})
    metrics = scoring.score(place, asked.task, Select.best)
    config = to_plain(asked)
    record = Record(
        run={"model": "roberta_base", "task": "cola", "method": "lora", "seed": 0},
        config=config,
        parameters={"adapter": 294912, "head": 592130, "base": 124647170, "stored_bytes": 1179648},
        metrics=metrics,
        time={"started": "2026-11-24T10:00:00+0000", "train_s": 5.0, "evaluation_s": 1.0},
        memory={"peak_rss": 2**30, "peak_gpu": None},
        environment={"weights": None, "versions": {"torch": "2.13.0"}, "rows": {"train": 100}},
    )
    write_record(place, record)
    lines = "".join(json.dumps(line) + "\n" for line in history)
    (place / "history.jsonl").write_text(lines)
    return place


@pytest.fixture
def folder(stored, tmp_path):
    """A copy of it."""
    import shutil

    place = tmp_path / "outputs/roberta_base/cola/lora/seed=0"
    shutil.copytree(stored, place)
    return place


def outputs(folder):
    return str(folder.parents[3])


def change(folder, **metrics):
    path = folder / "metrics.json"
    record = json.loads(path.read_text())
    for key, value in metrics.items():
        rule, _, name = key.partition("__")
        record["metrics"][rule][name] = value
    path.write_text(json.dumps(record))


def test_a_sound_record_matches(folder, capsys):
    assert main(["verify", outputs(folder)]) == 0
    told = capsys.readouterr().out
    assert "1 of 1 trained records match" in told
    assert "1 of 1 verdicts on cells and claims" in told


def test_an_edited_number_is_named(folder, capsys):
    change(folder, best__value=0.99)
    assert main(["verify", outputs(folder)]) == 1
    captured = capsys.readouterr()
    assert (
        f"{folder}: does not match\n  - metrics.best.value: stored 0.99, computed" in captured.err
    )
    assert "0 of 1 trained records match" in captured.out


def test_a_diverged_run_of_an_earlier_version_matches(folder, capsys):
    """It called its first evaluation best, though no score was finite."""
    none = {"epoch": 1.0, "step": 1, "value": None, "interval": [None, None]}
    for path in (folder / "predictions").glob("*.npz"):
        with np.load(path) as arrays:
            broken = dict(arrays)
        broken["predictions"] = np.full_like(broken["predictions"], np.nan)
        np.savez(path, **broken)
    history = folder / "history.jsonl"
    history.write_text(re.sub(r'("validation/\w+"): [-\d.e]+', r"\1: NaN", history.read_text()))
    path = folder / "metrics.json"
    record = json.loads(path.read_text())
    task = restore_task(record["config"]["task"])
    again = replace_nonfinite(scoring.score(folder, task, Select.best))
    assert again["best"] is None
    for best in (none, again["best"]):
        record["metrics"] = again | {"best": best, "heldout": none}
        path.write_text(json.dumps(record))
        assert main(["verify", outputs(folder)]) == 0, capsys.readouterr().err
    record["metrics"]["best"] = none | {"value": 0.5}
    path.write_text(json.dumps(record))
    assert main(["verify", outputs(folder)]) == 1


def test_verdicts_and_claims_are_those_of_the_predictions(tmp_path, compose, capsys):
    """Edited records say 63.8, their predictions 100: the cell's verdict is another."""
    plain = to_plain(compose(["model=roberta_base", "task=cola", "method=fourierft"]))
    labels = np.arange(40) % 2
    for seed in records.SEEDS:
        place = records.scored(tmp_path, plain, seed, 0.638)
        entry = Evaluation(step=30, epoch=3.0, predictions=np.eye(2)[labels], references=labels)
        predictions.save(place, "validation", entry)
    assert main(["verify", str(tmp_path)]) == 1
    captured = capsys.readouterr()
    cell = "table2, RoBERTa-base, FourierFT, n=1000, CoLA"
    assert f"{cell}: reproduced by the records, not reproduced by the predictions" in captured.err
    assert (
        "verdicts on cells and claims that were run are what the predictions give" in captured.out
    )
    assert "0 of 5 trained records match" in captured.out


def test_rounding_is_no_difference(folder, capsys):
    value = json.loads((folder / "metrics.json").read_text())["metrics"]["last"]["value"]
    change(folder, last__value=value * (1 + 1e-12))
    assert main(["verify", outputs(folder)]) == 0
    change(folder, last__value=value * (1 + 1e-6))
    assert main(["verify", outputs(folder)]) == 1


def test_missing_and_damaged_predictions_are_named(folder, capsys):
    path = next((folder / "predictions").glob("*.npz"))
    path.write_bytes(b"no archive")
    assert main(["verify", outputs(folder)]) == 1
    assert f"{path}: damaged predictions" in capsys.readouterr().err
    for path in (folder / "predictions").glob("*.npz"):
        path.unlink()
    assert main(["verify", outputs(folder)]) == 1
    assert "no predictions of" in capsys.readouterr().err


def test_records_that_are_none_are_named(folder, capsys):
    (folder / "metrics.json").write_text("{")
    assert main(["verify", outputs(folder)]) == 1
    assert "damaged, not JSON" in capsys.readouterr().err
    assert main(["verify", str(folder / "nowhere")]) == 1


def test_every_kind_of_lost_or_altered_predictions_is_named(folder, capsys):
    """Of evaluations, too, that no rule chose: the record alone would match."""
    first, second = sorted((folder / "predictions").glob("*.npz"))
    kept, other = first.read_bytes(), second.read_bytes()

    def verified() -> str:
        assert main(["verify", outputs(folder)]) == 1
        return capsys.readouterr().err

    for path, content in ((first, kept), (second, other)):
        path.unlink()
        assert f"predictions/{path.name}: missing, though history.jsonl has its score" in verified()
        path.write_bytes(content)
    extra = first.with_name("validation-0000015.npz")
    extra.write_bytes(kept)
    assert f"predictions/{extra.name}: without an evaluation in history.jsonl" in verified()
    extra.unlink()
    entry = predictions.load(folder, "validation")[0]
    flipped = np.array(entry.predictions)
    flipped[:5] = flipped[:5, ::-1]
    predictions.save(folder, "validation", dataclasses.replace(entry, predictions=flipped))
    assert f"predictions/{first.name}: matthews is" in verified()
    first.write_bytes(kept)
    path = folder / "history.jsonl"
    lines = path.read_text()
    path.write_text(lines + lines.splitlines()[-1] + "\n")
    assert "validation-0000020.npz: evaluated 2 times in history.jsonl" in verified()
    path.unlink()
    assert "without an evaluation in history.jsonl" in verified()
    path.write_text(lines)
    assert main(["verify", outputs(folder)]) == 0


def test_a_missing_or_altered_adapter_is_named(folder, capsys):
    (folder / "adapter").mkdir()
    path = folder / "adapter/adapter_model.safetensors"
    path.write_bytes(b"weights")
    record = read_record(folder)
    assert main(["verify", outputs(folder)]) == 0, "an old record says nothing of its adapter"
    write_record(
        folder, dataclasses.replace(record, adapter=kept_adapter.compute_hashes(folder / "adapter"))
    )
    assert main(["verify", outputs(folder)]) == 0
    path.write_bytes(b"weighty")
    assert main(["verify", outputs(folder)]) == 1
    assert "adapter/adapter_model.safetensors: altered since" in capsys.readouterr().err
    path.rename(path.with_name("other.safetensors"))
    assert main(["verify", outputs(folder)]) == 1
    told = capsys.readouterr().err
    assert "other.safetensors: not of this run" in told
    assert "adapter_model.safetensors: missing" in told


def test_tasks_of_records(compose):
    for name in ("cola", "stsb", "toy"):
        model = "mlp" if name == "toy" else "roberta_base"
        task = compose([f"model={model}", f"task={name}", "method=fourierft"]).task
        task.eval_rows = 7
        assert restore_task(to_plain(task)) == task
    with pytest.raises(ConfigError, match="task=nothing: unknown to this version"):
        restore_task({"name": "nothing"})
    with pytest.raises(ConfigError, match="task=cola"):
        restore_task({"name": "cola", "train_rows": "all"})


def test_export_has_what_pefts_loader_reads(folder, capsys):
    """The fields and types that method_comparison/processing.py takes from every file."""
    to = folder.parents[4] / "exported"
    (folder / "adapter").mkdir()
    (folder / "adapter/adapter_config.json").write_text('{"peft_type": "LORA", "r": 8}')
    assert main(["export", outputs(folder), "--to", str(to)]) == 0
    found = json.loads((to / "roberta_base--cola--lora--seed=0.json").read_text())
    run, train, meta = (found[part] for part in ("run_info", "train_info", "meta_info"))
    assert run["peft_config"] == {"peft_type": "LORA", "r": 8}
    assert run["experiment_name"] == "roberta_base/cola/lora/seed=0"
    assert run["train_config"]["model_id"] == "FacebookAI/roberta-base"
    assert run["total_time"] == 6.0 and train["train_time"] == 5.0
    assert run["created_at"] == "2026-11-24T10:00:00+0000" and "peft_branch" in run
    assert train["status"] == "success" and train["file_size"] == 1179648
    for key in ("reserved_avg", "max", "reserved_99th"):
        assert isinstance(train[f"accelerator_memory_{key}"], int)
    last = train["metrics"][-1]
    history = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
    record = read_record(folder)
    assert last["test accuracy"] == record.metrics["primary"]["value"]
    assert {type(last[key]) for key in ("train samples", "train total tokens")} == {int}
    assert (
        "train loss" in last
        and train["metrics"][0]["valid accuracy"] == history[0]["validation/matthews"]
    )
    for package in ("transformers", "peft", "datasets", "bitsandbytes", "torch"):
        assert f"{package}-version" in meta["package_info"]
    assert "system_info" in meta
    (folder / "adapter/adapter_config.json").unlink()
    assert peft_results.convert_record(record, folder, "x")["run_info"]["peft_config"] is None


def test_commands_that_do_not_exist():
    with pytest.raises(SystemExit, match="2"):
        main(["improve"])
