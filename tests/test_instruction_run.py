"""Whole instruction-tuning runs of a real small LLaMA: recorded, killed, resumed, quantised."""

import json
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from processes import train
from transformers import AutoModelForCausalLM

from experiments.commands import compare_answers, export
from experiments.results import generations, predictions
from experiments.run.build import build_base
from experiments.run.main import run

SMALL = [
    *("task=alpaca", "task.train_rows=24", "task.validation_rows=24", "task.eval_rows=4"),
    *("task.max_new_tokens=8", "task.max_length=256", "train.batch_size=8", "source=none"),
    *("train.epochs=1", "train.learning_rate=0.1", "train.select=last", "train.eval_every=1"),
    *("train.group_by_length=true", "method=fourierft", "method.n=100", "method.alpha=4"),
]


@pytest.fixture
def small(data_folder, tmp_path, monkeypatch):
    """Overrides of a run of seconds below tmp_path."""
    monkeypatch.setenv("FOURIERFT_CACHE", str(tmp_path / "cache"))
    return [
        "model=stories260k",
        f"model.path={data_folder}/models/stories260K",
        f"task.path={data_folder}/alpaca",
        *SMALL,
    ]


def folder_of(root: Path) -> Path:
    return next(root.rglob("metrics.json")).parent


def turns(place: Path, benchmark: str) -> list:
    lines = generations.read(generations.get_path(place, benchmark))
    return [(line["question_id"], line["choices"][0]["turns"]) for line in lines]


@pytest.mark.slow
def test_a_run_records_scores_answers_rows_and_memory(small, compose, data_folder, tmp_path):
    record = run(compose([*small, f"task.questions={data_folder}", f"output={tmp_path}/out"]))
    place = folder_of(tmp_path / "out")
    primary = record.metrics["primary"]
    assert (primary["name"], primary["split"]) == ("cross_entropy", "validation")
    assert record.metrics["best"] is None and record.metrics["heldout"] is None
    assert {name: len(turns(place, name)) for name in ("mt_bench", "vicuna")} == {
        "mt_bench": 4,
        "vicuna": 4,
    }
    assert all(len(text) == 2 for _, text in turns(place, "mt_bench"))
    rows = record.environment["rows"]
    assert (rows["asked mt_bench"], rows["scored validation"]) == (4, 4) and rows["train"] <= 24
    expected = record.preflight["memory"]
    assert expected["total"] > expected["step"] > 0
    assert record.memory["peak_rss"] > 2**27, "torch alone takes more"
    page = tmp_path / "page.html"
    assert (
        compare_answers.main([str(place), "--out", str(page)]) == 0
        and "fourierft" in page.read_text()
    )


def test_a_run_may_end_with_neither_score_nor_answers(small, compose, tmp_path, capsys):
    changes = ["task.validation_rows=0", "method.n=50", f"output={tmp_path}/out"]
    record = run(compose([*small, *changes]))
    assert record.metrics["primary"] is None
    assert record.metrics["last"]["scores"] == {}
    told = capsys.readouterr().out
    assert "500 adapter parameters" in told and "task.questions=null" in told
    assert (folder_of(tmp_path / "out") / "adapter/adapter_config.json").exists()


@pytest.mark.slow
@pytest.mark.parametrize("changes", [[], ["model.quantization=nf4"], ["model.quantization=int8"]])
def test_checkpointing_changes_no_number(small, compose, tmp_path, changes):
    losses = []
    for value in ("false", "true"):
        output = tmp_path / value
        given = [*small, *changes, f"train.gradient_checkpointing={value}", f"output={output}"]
        run(compose(given))
        (entry,) = predictions.load(folder_of(output), "validation")
        losses.append(entry.predictions)
    assert losses[0].tolist() == losses[1].tolist()


@pytest.mark.slow
@pytest.mark.parametrize("quantization", ["nf4", "int8"])
def test_a_quantised_run_is_exported_as_what_was_trained(small, compose, tmp_path, quantization):
    """With the weights that the quantised ones stand for: merging costs nothing."""
    config = compose([*small, f"model.quantization={quantization}", f"output={tmp_path}/out"])
    run(config)
    place = folder_of(tmp_path / "out")
    assert export.main([str(place), str(tmp_path / "plain")]) == 0
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "plain")
    assert plain.config.use_cache is True
    assert getattr(plain.config, "quantization_config", None) is None
    trained = PeftModel.from_pretrained(
        build_base(config, config.model.path), place / "adapter"
    ).train()
    tokens = torch.randint(3, 500, (2, 40))
    with torch.no_grad():
        assert torch.allclose(plain(tokens).logits, trained(tokens).logits, atol=1e-3)


@pytest.mark.slow
def test_training_lowers_the_cross_entropy_of_quantised_models(small, compose, tmp_path):
    """Held-out rows, evaluated four times within one epoch."""
    changes = ["task.train_rows=64", "train.eval_every=0.25", "task.eval_rows=8"]
    for name in ("nf4", "int8"):
        output = tmp_path / name
        run(compose([*small, *changes, f"model.quantization={name}", f"output={output}"]))
        place, part = folder_of(output), compose(small).task
        entries = predictions.load(place, "validation")
        scores = [part.score(one.predictions, one.references) for one in entries]
        values = [score["cross_entropy"] for score in scores]
        assert len(values) == 4 and values[-1] < values[0] - 0.1, (name, values)


@pytest.mark.slow
def test_a_kill_while_answering_costs_no_answer(small, compose, data_folder, tmp_path):
    """Training is not repeated, nothing is generated twice, the texts are an undisturbed run's."""
    given = [
        *small,
        f"task.questions={data_folder}",
        "task.eval_rows=6",
        "task.generation_batch_size=2",
        "task.max_new_tokens=40",
    ]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    run(compose([*given, f"output={whole}"]))

    def lines():
        paths = killed.rglob("generations/mt_bench.jsonl")
        return [line for path in paths for line in generations.read(path)]

    # All first turns and two second ones, of six each.
    train(*given, f"output={killed}").kill_when(lambda: len(lines()) >= 8)
    before = lines()
    assert len(before) < 12 and not list(killed.rglob("metrics.json"))
    run(compose([*given, f"output={killed}"]))

    one, two = folder_of(whole), folder_of(killed)
    for benchmark in ("mt_bench", "vicuna"):
        assert turns(one, benchmark) == turns(two, benchmark)
    after = {
        line["question_id"]: line
        for line in generations.read(generations.get_path(two, "mt_bench"))
    }
    done = [line for line in before if len(line["choices"][0]["turns"]) == 2]
    assert done and all(after[line["question_id"]] == line for line in done), "made again"
    records = [json.loads((place / "metrics.json").read_text()) for place in (one, two)]
    assert records[0]["metrics"] == records[1]["metrics"]
    assert records[1]["time"]["resumed_from"] == records[1]["time"]["steps"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes", [[], ["method=full", "train.precision=bf16"], ["model.quantization=nf4"]]
)
def test_a_finished_run_answers_later_without_training(
    small, compose, data_folder, tmp_path, capsys, changes
):
    """The texts are those of a run that was asked at once."""
    given = [one for one in small if "method=full" not in changes or not one.startswith("method")]
    given = [*given, *changes]
    asked = f"task.questions={data_folder}"
    at_once, later = f"output={tmp_path}/at_once", f"output={tmp_path}/later"
    run(compose([*given, asked, at_once]))
    run(compose([*given, later]))
    place = folder_of(tmp_path / "later")
    before = json.loads((place / "metrics.json").read_text())
    adapter = {path.name: path.read_bytes() for path in (place / "adapter").iterdir()}
    record = run(compose([*given, asked, later]))
    one = folder_of(tmp_path / "at_once")
    for benchmark in ("mt_bench", "vicuna"):
        assert turns(one, benchmark) == turns(place, benchmark)
    rows = record.environment["rows"]
    assert rows == json.loads((one / "metrics.json").read_text())["environment"]["rows"]
    after = json.loads((place / "metrics.json").read_text())
    assert after["metrics"] == before["metrics"] and after["time"]["train_s"]
    assert after["time"]["finished"] == before["time"]["finished"], "not trained again"
    assert {path.name: path.read_bytes() for path in (place / "adapter").iterdir()} == adapter
    assert "to be answered: mt_bench, vicuna" in capsys.readouterr().out
    run(compose([*given, asked, later]))
    assert "to be answered" not in capsys.readouterr().out, "nothing is owed any more"


@pytest.mark.slow
def test_a_kill_within_an_epoch_changes_no_number(small, compose, tmp_path):
    given = [*small, "task.train_rows=80", "train.eval_every=0.2", "method=lora"]
    given = [one for one in given if not one.startswith(("method=f", "method.n"))]
    given += ["method.r=4", "method.dropout=0.1"]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    run(compose([*given, f"output={whole}"]))
    evaluated = "predictions/*.npz"
    train(*given, f"output={killed}").kill_when(lambda: len(list(killed.rglob(evaluated))) >= 3)
    run(compose([*given, f"output={killed}"]))
    records = [
        json.loads((folder_of(place) / "metrics.json").read_text()) for place in (whole, killed)
    ]
    assert records[0]["metrics"] == records[1]["metrics"]
    assert 0 < records[1]["time"]["resumed_from"] < records[1]["time"]["steps"]
    curves = [
        [entry.predictions.tolist() for entry in predictions.load(folder_of(place), "validation")]
        for place in (whole, killed)
    ]
    assert curves[0] == curves[1] and len(curves[0]) == 5
