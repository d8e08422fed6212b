"""Ways of an adapter into other servers: what can be tested without them (docs/serving.md)."""

import json
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from peft import get_peft_model
from safetensors.torch import load_file

from fourierft import FourierFTConfig, export_lora
from tests.test_serve import make_net

PAGE = Path(__file__).resolve().parent.parent / "docs" / "serving.md"
RANKS = {8, 16, 32, 64, 128, 256, 320, 512}  # vLLM's --max-lora-rank


def adapted(net, targets, **changes):
    torch.manual_seed(1)
    settings = {"n_frequency": 20, "scaling": 300.0, "entry_rows": 4}
    return get_peft_model(net, FourierFTConfig(target_modules=targets, **settings | changes)).eval()


@pytest.mark.filterwarnings("ignore:.*rank")
@pytest.mark.parametrize(("rows", "rank"), [(4, None), (None, 8)], ids=["exact", "truncated"])
def test_folder_is_of_the_form_that_vllm_and_sglang_read(tmp_path, rows, rank):
    """Both read PEFT's folders of LoRA, without head, bias and DoRA."""
    net = adapted(make_net("llama"), ["q_proj", "v_proj"], entry_rows=rows)
    export_lora(net, tmp_path, rank=rank)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert config["peft_type"] == "LORA" and config["r"] in RANKS
    assert config["lora_alpha"] == config["r"]
    assert sorted(config["target_modules"]) == ["q_proj", "v_proj"] and config["bias"] == "none"
    refused = ("modules_to_save", "use_dora", "use_rslora", "rank_pattern", "alpha_pattern")
    assert not any(config[field] for field in refused)
    tensors = load_file(tmp_path / "adapter_model.safetensors")
    name = r"base_model\.model\.model\.layers\.\d+\.self_attn\.[qv]_proj\.lora_[AB]\.weight"
    assert len(tensors) == 8 and all(re.fullmatch(name, found) for found in tensors)
    for found, tensor in tensors.items():
        assert tensor.shape["lora_B" in found] == config["r"]


@torch.no_grad()
def test_diffusers_and_comfyui(tmp_path, monkeypatch):
    """The lines of the page, on a tiny UNet."""
    diffusers = pytest.importorskip("diffusers")
    (block,) = re.findall(r"```python\n(from diffusers.*?)```", PAGE.read_text(), re.S)

    def make_unet():
        torch.manual_seed(0)
        return diffusers.UNet2DConditionModel(
            block_out_channels=(8, 16),
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            **{"sample_size": 8, "layers_per_block": 1, "norm_num_groups": 4},
            **{"cross_attention_dim": 8, "attention_head_dim": 4},
        ).eval()

    unet, pipe = adapted(make_unet(), ["to_q", "to_v"]), SimpleNamespace(unet=make_unet())
    x, text = torch.randn(1, 4, 8, 8), torch.randn(1, 3, 8)
    before = pipe.unet(x, 1, text).sample
    monkeypatch.chdir(tmp_path)
    exec(block, {"unet": unet, "pipe": pipe})
    expected, found = unet(x, 1, text).sample, pipe.unet(x, 1, text).sample
    assert (found - expected).abs().max() < 1e-5 < (before - expected).abs().max()

    file = load_file(tmp_path / "alice.safetensors")
    layers = {name.partition(".")[0] for name in file}
    for name, layer in unet.named_modules():
        if hasattr(layer, "fourierft_spectrum"):
            path = name.removeprefix("base_model.model.").replace(".", "_")
            layers.remove(key := f"lora_unet_{path}")  # as ComfyUI finds a layer
            up, down = (file[f"{key}.lora_{which}.weight"] for which in ("up", "down"))
            scale = float(file[f"{key}.alpha"]) / len(down)
            assert (scale * up @ down - layer.get_delta_weight("default")).abs().max() < 1e-5
    assert not layers
