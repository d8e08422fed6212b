"""Scales of adapters at run time."""

import pytest
import torch
from diffusers.utils.peft_utils import scale_lora_layers, unscale_lora_layers
from peft import get_peft_model
from torch import nn

from fourierft import FourierFTConfig, rescale_adapter_scale


def adapted():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 6))
    model = get_peft_model(net, FourierFTConfig(n_frequency=9, target_modules=["0", "1"]))
    model.add_adapter("other", FourierFTConfig(n_frequency=9, scaling=3.0, target_modules=["0"]))
    return model.double().eval()


@pytest.fixture
def x():
    return torch.randn(4, 8, dtype=torch.float64)


def output(model, x, scales):
    """Output with multiples of the updates, by weights in float64."""
    for layer in model.get_base_model():
        weight = layer.get_base_layer().weight
        for name, scale in scales.items():
            if name in layer.fourierft_spectrum:
                weight = weight + scale * layer.get_delta_weight(name)
        x = nn.functional.linear(x, weight, layer.get_base_layer().bias)
    return x


def test_scales_multiply_the_update(x):
    model = adapted()
    before = output(model, x, {"default": 1.0})
    doubled = output(model, x, {"default": 2.0})
    for layer in model.get_base_model():
        layer.set_scale("default", 2.0)
        layer.set_scale("unknown", 2.0)
    torch.testing.assert_close(model(x), doubled)
    for layer in model.get_base_model():
        layer.scale_layer(0.25)
    for layer in model.get_base_model():
        layer.unscale_layer(0.5)
    torch.testing.assert_close(model(x), before)
    for layer in model.get_base_model():
        layer.set_scale("default", 0.0)
    torch.testing.assert_close(model(x), output(model, x, {}))
    for layer in model.get_base_model():
        layer.unscale_layer()
    torch.testing.assert_close(model(x), before)


def test_a_block_scales_every_adapter(x):
    model = adapted()
    half = output(model, x, {"default": 0.5})
    other = output(model, x, {"other": 0.5 / 3.0 * 3.0})
    before = model(x)
    with rescale_adapter_scale(model, 0.5):
        torch.testing.assert_close(model(x), half)
        model.set_adapter("other")
        torch.testing.assert_close(model(x), other)
        model.set_adapter("default")
        model.merge_adapter()
        torch.testing.assert_close(model(x), half)
        model.unmerge_adapter()
    assert torch.equal(model(x), before)


def test_diffusers_scales_them(x):
    """Pipelines do, with `cross_attention_kwargs={"scale": ...}`."""
    model = adapted()
    before, half = model(x), output(model, x, {"default": 0.5})
    scale_lora_layers(model, 0.5)
    torch.testing.assert_close(model(x), half)
    unscale_lora_layers(model, 0.5)
    torch.testing.assert_close(model(x), before)


def test_merged_adapters_are_not_scaled(x):
    model = adapted()
    model.merge_adapter()
    for change in (
        lambda: model.get_base_model()[0].set_scale("default", 0.5),
        lambda: model.get_base_model()[0].scale_layer(0.5),
        lambda: rescale_adapter_scale(model, 0.5).__enter__(),
    ):
        with pytest.raises(ValueError, match="merged.*unmerge_adapter"):
            change()
    with pytest.raises(TypeError, match="multiplier: got 'half'"):
        rescale_adapter_scale(model, "half").__enter__()
    with pytest.raises(ValueError, match="no FourierFT layers"):
        rescale_adapter_scale(nn.Linear(2, 2), 0.5).__enter__()
