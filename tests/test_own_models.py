"""docs/own_models.md: DeBERTa-v3, ModernBERT and Qwen as one's own base models, tiny and random."""

import re
import shlex
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM
from transformers import AutoModelForSequenceClassification as Classifier

from experiments.config import compose
from experiments.config.compose import compose_config, register
from experiments.config.load import load_config
from experiments.models.byte_tokenizers import make_byte_tokenizer
from experiments.run.build import build_network
from experiments.run.main import run
from fourierft.layer import adapted_layers

TEXT = (Path(__file__).parent.parent / "docs" / "own_models.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^\.venv/bin/python (train\.py .*)$", TEXT, re.M)
SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
SIZES |= {"intermediate_size": 48, "vocab_size": 264}
SPECIAL = {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}
ARCHITECTURES = {  # by the folder that the commands name
    "deberta_v3_base": (
        "deberta-v2",
        {"relative_attention": True, "position_buckets": 16, "norm_rel_ebd": "layer_norm"}
        | {"share_att_key": True, "pos_att_type": ["p2c", "c2p"], "position_biased_input": False},
    ),
    "modernbert_base": ("modernbert", {"cls_token_id": 0, "sep_token_id": 2}),
    "qwen3": ("qwen3", {"num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 128}),
}
ADAPTED = {  # (outputs, inputs) of the matrices of a block
    "deberta_v3_base": {"query_proj": (32, 32), "value_proj": (32, 32)},
    "modernbert_base": {"Wqkv": (96, 32)},
    "qwen3": {"q_proj": (32, 32), "v_proj": (16, 32)},
}
HEADS = {
    "deberta_v3_base": {"pooler", "classifier"},
    "modernbert_base": {"head", "classifier"},
    "qwen3": {"score"},
}


def configure(name, **changes):
    kind, own = ARCHITECTURES[name]
    return AutoConfig.for_model(kind, **SIZES | SPECIAL | own | changes)


def shapes(net):
    """Sides of the adapted matrices by the last part of their names, and how many there are."""
    layers = adapted_layers(net)
    found = {
        name.rpartition(".")[2]: (layer.out_features, layer.in_features)
        for name, layer in layers.items()
    }
    return found, len(layers)


@pytest.fixture
def folders(own_data):
    """A current folder with the user's data, and a folder of each pretrained model."""
    register()
    for name in ARCHITECTURES:
        torch.manual_seed(0)
        auto = AutoModelForCausalLM if name == "qwen3" else AutoModel
        auto.from_config(configure(name)).save_pretrained(own_data / name)
        make_byte_tokenizer(128, causal=name == "qwen3").save_pretrained(own_data / name)
    return own_data


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_script_adapts_them(name, tmp_path):
    from peft import PeftModel

    (block,) = re.findall(r"```python\n(.*?)```", TEXT, re.S)
    torch.manual_seed(0)
    model = Classifier.from_config(configure(name)).eval()
    names = {"model": model}
    exec(block.replace("n_frequency=1000", "n_frequency=20"), names)
    net = names["net"]
    assert shapes(net) == (ADAPTED[name], 2 * len(ADAPTED[name]))
    batch = {"input_ids": torch.randint(5, 90, (2, 8)), "labels": torch.tensor([0, 1])}
    optimizer = torch.optim.AdamW(
        [value for value in net.parameters() if value.requires_grad], lr=1e-2
    )
    losses = []
    for _ in range(3):
        loss = net(**batch).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    net.save_pretrained(tmp_path)
    torch.manual_seed(0)
    fresh = Classifier.from_config(configure(name)).eval()
    loaded = PeftModel.from_pretrained(fresh, tmp_path)
    torch.testing.assert_close(loaded(**batch).logits, net(**batch).logits)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_trains_them(command, folders):
    words = shlex.split(command)[1:]
    small = ["method.n=20", "train.max_steps=1", "task.max_length=32", "train.select=last"]
    config = load_config(compose_config([*words, *small]))
    assert config.recipe == "ours"
    (name,) = (word.partition("=")[2] for word in words if word.startswith("model.path="))
    net = build_network(config, config.model.locate())
    assert shapes(net) == (ADAPTED[name], 2 * len(ADAPTED[name]))
    heads = {
        key.partition(".modules_to_save.")[0].rpartition(".")[2]
        for key, value in net.named_parameters()
        if value.requires_grad and ".modules_to_save." in key
    }
    assert heads == (HEADS[name] if "task=text" in words else set())
    record = run(config)
    assert record.metrics["primary"]["value"] is not None and record.preflight["layers"]


def test_a_model_with_a_name_needs_two_files(tmp_path, monkeypatch):
    register()
    for text in re.findall(r"```yaml\n(.*?)```", TEXT, re.S):
        path = tmp_path / re.search(r"^# (conf/\S+)$", text, re.M)[1]
        path.parent.mkdir(parents=True)
        path.write_text(text)
    monkeypatch.setattr(compose, "FOLDERS", [tmp_path / "conf"])  # searched as --config-dir is
    config = load_config(compose_config(["model=modernbert_base", "task=none", "mode=count"]))
    net = config.method.apply(config.model.build(config.task.head, None, meta=True), [])
    assert shapes(net) == ({"Wqkv": (3 * 768, 768)}, 22)
    assert config.recipe == "ours" and config.method.n == 1000
