"""Finished runs as plain models of transformers: the same outputs, without this project."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow
import pytest
import torch
from peft import PeftModel
from pyarrow import parquet
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    GPT2Config,
    GPT2LMHeadModel,
)

from experiments.commands import export, trained_run
from experiments.config.restore import restore_config
from experiments.errors import RecordError
from experiments.models.gpt2_attention import SplitAttention, fuse_attention, split_attention
from experiments.results import predictions
from experiments.results.record import Record, read_record
from experiments.run.build import build_base
from experiments.run.main import run

ROOT = Path(__file__).parent.parent
QUICK = ["profile=smoke", "train.device=cpu"]
TEXT = "name : Zizzi | Type : pub</s> Zizzi"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FOURIERFT_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def meanings(tmp_path):
    """Data of E2E's form."""
    place = tmp_path / "data"
    place.mkdir()
    given = [f"name[Zizzi], food[kind {row}]" for row in range(20)]
    wanted = [f"Zizzi has food of kind {row}." for row in range(20)]
    rows = pyarrow.table({"meaning_representation": given, "human_reference": wanted})
    for split in ("train", "validation", "test"):
        parquet.write_table(rows, place / f"{split}.parquet")
    return place


@pytest.fixture
def sentences(tmp_path):
    """Data of RTE's form."""
    place = tmp_path / "data"
    place.mkdir()
    rows = {
        "sentence1": [f"A sentence, number {row}." for row in range(20)],
        "sentence2": ["Another one."] * 20,
        "label": [row % 2 for row in range(20)],
    }
    for split in ("train", "validation"):
        parquet.write_table(pyarrow.table(rows), place / f"{split}.parquet")
    return place


def finished(compose, tmp_path, *overrides):
    run(compose([*QUICK, f"output={tmp_path}/runs", f"task.path={tmp_path}/data", *overrides]))
    return next((tmp_path / "runs").rglob("metrics.json")).parent


def test_fusing_undoes_splitting():
    torch.manual_seed(0)
    net = GPT2LMHeadModel(GPT2Config(vocab_size=60, n_positions=20, n_embd=32, n_layer=2, n_head=4))
    before = {name: torch.nn.init.normal_(value) for name, value in net.named_parameters()}
    before = {name: value.detach().clone() for name, value in before.items()}
    assert any(isinstance(part, SplitAttention) for part in split_attention(net).modules())
    after = dict(fuse_attention(net).named_parameters())
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], value) for name, value in before.items())


@pytest.mark.slow
@pytest.mark.parametrize("method", ["fourierft", "lora", "full", "bitfit"])
def test_a_language_model(method, meanings, compose, tmp_path):
    """Exported, it gives the evaluation's stored numbers and the adapted network's logits."""
    rates = ["train.learning_rate=0.1"] + ["train.epochs=1", "train.select=last"]
    choice = ["model=gpt2_tiny", "task=e2e", f"method={method}", "task.metrics=[cross_entropy]"]
    place = finished(compose, tmp_path, *choice, *rates)
    out = tmp_path / "plain"
    assert export.main([str(place), str(out)]) == 0
    net, tokenizer = AutoModelForCausalLM.from_pretrained(out), AutoTokenizer.from_pretrained(out)
    assert type(net) is GPT2LMHeadModel
    assert not any(isinstance(part, SplitAttention) for part in net.modules())

    stored = predictions.load(place, "validation")[-1]
    ids = [
        tokenizer(f"name : Zizzi | food : kind {row}</s> Zizzi has food of kind {row}.</s>")
        for row in range(16)
    ]
    ids = [torch.tensor([row["input_ids"]]) for row in ids]
    with torch.no_grad():
        logits = [net(row).logits[0, :-1].log_softmax(-1) for row in ids]
    for row, scores, total, count in zip(
        ids, logits, stored.predictions, stored.references, strict=True
    ):
        wanted = row[0, 1:]
        losses = -scores[torch.arange(len(wanted)), wanted]
        assert float(losses[-int(count) :].sum()) == pytest.approx(float(total), rel=1e-5)

    if method in ("fourierft", "lora"):
        settings = restore_config(read_record(place).config, [])
        adapted = PeftModel.from_pretrained(build_base(settings, None), place / "adapter").eval()
        given = tokenizer(TEXT, return_tensors="pt")
        with torch.no_grad():
            difference = (adapted(**given).logits - net(**given).logits).abs().max()
        assert float(difference) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("method", ["fourierft", "full"])
def test_a_classifier(method, sentences, compose, tmp_path, capsys):
    choice = ["model=minilm", "model.pretrained=false", "task=rte", f"method={method}"]
    rows = ["method.entry_rows=20"] * (method == "fourierft")
    place = finished(compose, tmp_path, *choice, *rows, "train.select=last")
    out = tmp_path / "plain"
    assert export.main([str(place), str(out)]) == 0
    plain = (out / "config.json").stat().st_mode
    weights = [*out.glob("*.safetensors"), *place.glob("adapter/*.safetensors")]
    assert [path.stat().st_mode for path in weights] == [plain, plain], "others may read them"
    net = AutoModelForSequenceClassification.from_pretrained(out)
    tokenizer = AutoTokenizer.from_pretrained(out)
    data = parquet.read_table(sentences / "validation.parquet").to_pydict()
    given = tokenizer(
        data["sentence1"][:16], data["sentence2"][:16], padding=True, return_tensors="pt"
    )
    with torch.no_grad():
        logits = net(**given).logits.numpy()
    stored = predictions.load(place, "validation")[-1]
    np.testing.assert_allclose(logits, stored.predictions, atol=1e-5)
    if not rows:
        return
    assert export.main([str(place), str(tmp_path / "lora"), "--lora"]) == 0
    settings = restore_config(read_record(place).config, [])
    adapted = PeftModel.from_pretrained(build_base(settings, None), tmp_path / "lora").eval()
    assert adapted.peft_config["default"].peft_type == "LORA"
    with torch.no_grad():
        found = adapted(**given).logits.numpy()
    np.testing.assert_allclose(found, stored.predictions, atol=1e-5)
    capsys.readouterr()
    rank = tmp_path / "rank"
    assert export.main([str(place), str(rank), "--lora", "--rank", "8"]) == 0
    table = capsys.readouterr().out.splitlines()
    assert table[1].split() == ["r=8", "r=16", "r=32", "r=64"] and table[-2].startswith("median")
    adapted = PeftModel.from_pretrained(build_base(settings, None), rank)
    assert adapted.peft_config["default"].r == 8


@pytest.fixture
def toy(compose, tmp_path):
    run(compose(["train.epochs=2", f"output={tmp_path}/runs"]))
    return next((tmp_path / "runs").rglob("metrics.json")).parent


def refused(capsys, *arguments):
    assert export.main([str(argument) for argument in arguments]) == 1
    return capsys.readouterr().err


def test_what_cannot_be_exported(toy, tmp_path, capsys):
    out = tmp_path / "plain"
    assert "not a model of transformers" in refused(capsys, toy, out)
    assert "not a finished run" in refused(capsys, tmp_path, out)
    assert "already exists" in refused(capsys, toy, tmp_path)
    assert "not exactly a LoRA adapter (method=fourierft" in refused(capsys, toy, out, "--lora")
    assert "--rank 8: belongs to --lora" in refused(capsys, toy, out, "--rank", "8")
    text = refused(capsys, toy, out, "method.n=3", "train.epochs=1")
    assert "method.n=3 (allowed: model.path, model.tokenizer, offline)" in text
    assert "train.epochs=1" in text
    shutil.rmtree(toy / "adapter")
    assert "no adapter (mode=train)" in refused(capsys, toy, out)
    assert not out.exists()


@pytest.mark.parametrize(
    ("key", "value"), [("model.width", 10**7), ("method.n", 64**2), ("parameters.base", 7)]
)
def test_sizes_that_are_not_what_the_record_counts(toy, tmp_path, capsys, key, value):
    """Nothing is built that would take all memory there is."""
    record = json.loads((toy / "metrics.json").read_text())
    part, name = key.split(".")
    (record if part == "parameters" else record["config"])[part][name] = value
    (toy / "metrics.json").write_text(json.dumps(record))
    text = refused(capsys, toy, tmp_path / "plain")
    assert "do not give the recorded parameter counts" in text and "recorded: " in text


@pytest.mark.parametrize(
    ("model", "size"), [("roberta_base", "num_hidden_layers"), ("gpt2_medium", "n_layer")]
)
def test_a_depth_that_is_none(compose, model, size):
    """It is refused before as many layers are made."""
    task = "e2e" if model.startswith("gpt2") else "rte"
    config = compose([f"model={model}", f"task={task}", "method=lora", "model.pretrained=false"])
    config.model.sizes[size] = 10**9
    record = Record(
        run={}, config={}, parameters={"base": 10**8}, time={}, memory={}, environment={}
    )
    with pytest.raises(RecordError, match="1000000000 layers"):
        trained_run._check_counts(config, record)


def test_a_record_of_another_version(toy, tmp_path, capsys):
    record = json.loads((toy / "metrics.json").read_text())
    record["config"]["method"]["unheard"] = 1
    (toy / "metrics.json").write_text(json.dumps(record))
    text = refused(capsys, toy, tmp_path / "plain")
    assert "does not fit this version" in text and "unheard" in text


def test_other_weights_than_the_runs(toy, tmp_path, capsys):
    record = json.loads((toy / "metrics.json").read_text())
    record["environment"]["inputs"] = {"weights": {"fingerprint": "f" * 64}}
    (toy / "metrics.json").write_text(json.dumps(record))
    assert "the base model is not the one that the run began with" in refused(
        capsys, toy, tmp_path / "plain"
    )


@pytest.mark.slow
def test_the_command_and_its_help(tmp_path):
    command = [sys.executable, "-m", "experiments.commands.export"]
    shown = subprocess.run([*command, "--help"], cwd=ROOT, capture_output=True, text=True)
    assert shown.returncode == 0 and "model.path" in shown.stdout
    done = subprocess.run([*command, "x", "y"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1 and "Traceback" not in done.stderr
