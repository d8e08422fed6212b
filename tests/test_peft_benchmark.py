"""docs/peft_benchmark: what PEFT's benchmark reads gives the adapter that the page promises."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest
import torch
from peft import PeftConfig, get_peft_model
from peft.tuners.fourierft.layer import FourierFTLinear as StockLinear
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from fourierft import FourierFTConfig

HERE = Path(__file__).parent.parent / "docs" / "peft_benchmark"
PREFIX = "llama-3.2-3B-n_frequency-5000-"
FOLDERS = {
    path.name.removeprefix(PREFIX).split("-lr")[0]: path
    for path in HERE.glob("experiments/fourierft/*")
}
LLAMA = dict(  # meta-llama/Llama-3.2-3B
    hidden_size=3072,
    intermediate_size=8192,
    num_hidden_layers=28,
    num_attention_heads=24,
    num_key_value_heads=8,
    head_dim=128,
    vocab_size=128256,
    tie_word_embeddings=True,
)


@pytest.mark.parametrize("name", FOLDERS)
def test_parameters_on_the_model_of_the_benchmark(name):
    with torch.device("meta"):
        net = LlamaForCausalLM(LlamaConfig(**LLAMA))
    config = PeftConfig.from_pretrained(FOLDERS[name])
    net = get_peft_model(net, config)
    assert net.get_nb_trainable_parameters()[0] == 280_000 < 300_000
    block = net.base_model.model.model.layers[0].self_attn
    assert block.q_proj.base_layer.weight.shape == (3072, 3072)
    assert block.v_proj.base_layer.weight.shape == (1024, 3072)


@pytest.mark.parametrize(
    ("name", "shape", "norm"),
    [("norm-25", (3072, 3072), 25), ("norm-25", (1024, 3072), 25)]
    + [("scaling-108612", (3072, 3072), 25), ("scaling-108612", (1024, 3072), 43.301)],
)
def test_norm_of_one_coefficient(name, shape, norm):
    """By PEFT's own layer where it can read the file."""
    config = PeftConfig.from_pretrained(FOLDERS[name])
    assert isinstance(config, FourierFTConfig)
    config.n_frequency = 2
    base = nn.Linear(*shape[::-1], bias=False)
    if config.to_dict()["peft_type"] == "FOURIERFT":
        layer = StockLinear(base, "default", config)
    else:
        config.target_modules = ["0"]
        layer = get_peft_model(nn.Sequential(base), config).base_model.model[0]
    (c,) = layer.fourierft_spectrum.values()
    assert not c.any(), "starts at zero"
    with torch.no_grad():
        c[0] = 1
        assert layer.get_delta_weight("default").double().norm().item() == pytest.approx(
            norm, rel=1e-4
        )


def test_the_command_runs_each_in_the_benchmark(tmp_path, monkeypatch, capsys):
    spec = importlib.util.spec_from_file_location("run", HERE / "run.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    assert script.main([str(tmp_path)]) == 2 and "not found" in capsys.readouterr().err
    place = tmp_path / "method_comparison" / "MetaMathQA"
    place.mkdir(parents=True)
    (place / "run.py").write_text(
        "import json, os, sys\n"
        "path = sys.argv[2]\n"  # as the benchmark wants it: experiments/<method>/<experiment>
        "assert sys.argv[1] == '-v' and len(path.split(os.sep)) == 3\n"
        "files = [json.load(open(os.path.join(path, name))) for name in os.listdir(path)]\n"
        "print(path, 'fourierft' in sys.modules, len(files), file=open('ran', 'a'))\n"
    )
    package = tmp_path / "fourierft.py"
    package.write_text("")  # in place of ours, which takes seconds to import
    monkeypatch.setattr(script, "HERE", tmp_path / "docs" / "peft_benchmark")
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "peft_benchmark").symlink_to(HERE)
    assert script.main([str(tmp_path)]) == 0
    ran = (place / "ran").read_text().split("\n")[:-1]
    assert [line.split(" ", 1)[1] for line in ran] == ["True 2", "False 2"]
    assert [Path(line.split()[0]).name for line in ran] == [
        path.name for path in sorted(FOLDERS.values())
    ]


def test_the_page_says_what_the_files_say():
    text = (HERE / "README.md").read_text()
    for name, folder in FOLDERS.items():
        settings = json.loads((folder / "adapter_config.json").read_text())
        rate = json.loads((folder / "training_params.json").read_text())["optimizer_kwargs"]["lr"]
        assert f"`{folder.name.removeprefix(PREFIX)}`" in text and f"lr_{rate}" in folder.name
        assert f"{settings['scaling']:.2f}".removesuffix(".00") in text, name
    assert sys.executable and "Not measured" in text
