"""Smoke tests: commands, data, and one whole run."""

import itertools
import json
import subprocess

import pytest
from processes import run

from experiments.config import overrides, sweep
from experiments.config.compose import register
from experiments.smoke import __main__ as smoke
from experiments.smoke import synthetic_data
from experiments.tasks.dreambooth_data import read_subject

register()
SEARCHED = [name for name in sweep.list_experiments() if name.startswith("figure4")]


def asked(tmp_path, *words):
    return smoke._parse(["--outputs", str(tmp_path), *words])


def test_an_experiment_runs_with_one_seed_and_small(tmp_path):
    job = smoke.plan_job("figure5_unbiased", asked(tmp_path))
    assert job.command[:2] == ["train.py", "experiment=figure5_unbiased"]
    assert {"profile=smoke", "seed=0", "offline=true", f"output={tmp_path}"} <= set(job.command)
    assert [task.name for task in job.tasks] == ["rte", "mrpc", "stsb", "cola"]


def test_searches_stay_searches(tmp_path):
    job = smoke.plan_job("figure4_lora", asked(tmp_path, "--trials", "3"))
    assert job.command[:3] == ["-m", "experiments.search", "search=figure4"]
    assert job.command[-1] == "--trials=3" and len(SEARCHED) == 3


@pytest.mark.parametrize("name", ["table1", "figure7"])
def test_what_takes_seconds_is_not_made_small(name, tmp_path):
    command = smoke.plan_job(name, asked(tmp_path)).command
    assert "profile=smoke" not in command


def test_unknown_names_are_refused(tmp_path, capsys):
    assert smoke.main(["--outputs", str(tmp_path), "figure99"]) == 1
    assert "figure99: not an experiment (allowed: figure1" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("name", sweep.list_experiments())
def test_every_command_fits(name, tmp_path, monkeypatch):
    """With the rows of its first task; of the others test_reference composes every cell."""
    samples = smoke._list_samples
    monkeypatch.setattr(smoke, "_list_samples", lambda *given: itertools.islice(samples(*given), 1))
    words = smoke.plan_job(name, asked(tmp_path)).command
    given = [word for word in words[1:] if "=" in word and not word.startswith("--")]
    if name not in SEARCHED:
        assert overrides.find_problems(given) == []
    assert f"experiment={name}" in given


def test_real_data_are_linked_and_others_made_up(tmp_path, compose):
    task = compose(["model=roberta_base", "task=cola", "method=fourierft"]).task
    real = tmp_path / "real/glue/cola"
    real.mkdir(parents=True)
    for given, link in ((None, False), (tmp_path / "real", False)):
        synthetic_data.make_data(task, tmp_path / "data/cola", given)  # what is made up stays
        assert (tmp_path / "data/cola").is_symlink() is link
    synthetic_data.make_data(task, tmp_path / "more/cola", tmp_path / "real")
    assert (tmp_path / "more/cola").resolve() == real.resolve()
    synthetic_data.make_data(task, tmp_path / "more/cola", None)
    assert (tmp_path / "more/cola/train.parquet").is_file()
    assert not list(real.iterdir()), "made-up rows went into the real data"


def test_subjects_that_real_data_lack_are_made_up_beside_them(tmp_path, data_folder, compose):
    task = compose(["model=sd_tiny", "task=dreambooth", "method=fourierft"]).task
    folder = tmp_path / "data/dreambooth"
    for _ in range(2):
        synthetic_data.make_data(task, folder, data_folder)
    assert (folder / "dog").resolve() == (data_folder / "dreambooth/dog").resolve()
    assert not (folder / "bear_plushie").is_symlink() and list((folder / "bear_plushie").iterdir())
    assert not (data_folder / "dreambooth/bear_plushie").exists()
    assert read_subject(folder, "bear_plushie", None, None).class_name == "stuffed animal"


@pytest.mark.parametrize("model", ["roberta_large", "gpt2_large", "llama2_13b", "vit_large"])
def test_profile_smoke_is_small(model, compose):
    task = {"roberta_large": "cola", "gpt2_large": "e2e", "llama2_13b": "alpaca"}.get(model, "dtd")
    found = compose([f"model={model}", f"task={task}", "method=fourierft", "profile=smoke"])
    assert not found.model.pretrained and found.variant == "profile=smoke"
    built = found.model.build(found.task.head, None, meta=True)
    assert sum(value.numel() for value in built.parameters()) < 10**6


@pytest.mark.slow
def test_rehearsal_runs_to_the_report(tmp_path, data_folder, capsys, monkeypatch):
    """A search, real rows, made-up images and questions."""
    monkeypatch.setattr(subprocess, "run", run)
    names = ["figure6_lora", "figure1_dtd_full", "figure1_llama_fourierft", "figure7"]
    given = ["--outputs", str(tmp_path), "--data", str(data_folder), "--jobs", "1", *names]
    assert smoke.main(given) == 0, capsys.readouterr().out
    found = [json.loads(path.read_text()) for path in tmp_path.glob("*/*/*/*/*/metrics.json")]
    assert len(found) == 5 and {one["run"]["profile"] for one in found} == {"smoke"}
    assert len(list(tmp_path.glob("mlp/toy/*/seed=0/metrics.json"))) == 2
    assert (tmp_path / ".data/mrpc").resolve() == (data_folder / "glue/mrpc").resolve()
    page = (tmp_path / "report/figure6.html").read_text()
    assert "profile smoke" in page and (tmp_path / "report/index.html").is_file()
    answers = list(tmp_path.glob("llama2_7b/alpaca/fourierft/*/*/generations/mt_bench.jsonl"))
    assert len(answers) == 2
    grades = list(tmp_path.glob("llama2_7b/alpaca/fourierft/*/*/judgements/*/stand-in.json"))
    assert len(grades) == 4, "two runs, two benchmarks"
