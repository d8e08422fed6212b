"""Adapted convolutions."""

import pytest
import torch
import torch.nn.functional as F
from peft import PeftModel, get_peft_model
from torch import nn

from fourierft import FourierFTConfig, delta_weight
from fourierft.convolution import FourierFTConv

KINDS = {
    "1d": (lambda: nn.Conv1d(4, 6, 3, padding=1), (5, 4, 9)),
    "grouped": (lambda: nn.Conv2d(4, 6, (3, 2), groups=2, stride=2), (5, 4, 7, 8)),
    "circular": (lambda: nn.Conv2d(4, 6, 3, padding=1, padding_mode="circular"), (5, 4, 7, 8)),
    "3d": (lambda: nn.Conv3d(2, 3, 2, dilation=2, bias=False), (5, 2, 5, 6, 4)),
}


def adapted(kind, **values):
    torch.manual_seed(0)
    make, shape = KINDS[kind]
    net = nn.Sequential(make())
    config = FourierFTConfig(**{"n_frequency": 11, "target_modules": ["0"], **values})
    return get_peft_model(net, config).double().eval(), torch.randn(shape, dtype=torch.float64)


def convolve(layer, x, kernel):
    """The base layer's convolution with another kernel."""
    return layer._conv_forward(x, kernel, layer.bias)


@pytest.mark.parametrize("orientation", ["eq4", "algorithm1"])
@pytest.mark.parametrize("kind", KINDS)
def test_output_and_gradients_are_those_of_the_summed_kernel(kind, orientation):
    model, x = adapted(kind, orientation=orientation)
    layer = model.get_base_model()[0]
    assert type(layer) is FourierFTConv
    weight = layer.get_base_layer().weight
    c = layer.coefficients("default")
    matrix = (weight.shape[0], weight[0].numel())
    update = delta_weight(c, layer.entries("default"), matrix, 150.0).view(weight.shape)
    torch.testing.assert_close(layer.get_delta_weight("default"), update)
    x.requires_grad_()
    found, expected = model(x), convolve(layer.get_base_layer(), x, weight + update)
    torch.testing.assert_close(found, expected)
    upstream = torch.randn_like(found)
    for one, other in zip(
        torch.autograd.grad(found, [x, c], upstream),
        torch.autograd.grad(expected, [x, c], upstream),
        strict=True,
    ):
        torch.testing.assert_close(one, other)
    with torch.no_grad():
        torch.testing.assert_close(model(x), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_merging_files_and_rows(kind, tmp_path):
    model, x = adapted(kind)
    model.add_adapter("other", FourierFTConfig(n_frequency=7, target_modules=["0"]))
    model.double()
    each = {}
    for name in ("default", "other"):
        model.set_adapter(name)
        each[name] = model(x).detach()
    with model.disable_adapter():
        each["__base__"] = model(x)
    names = ["other", "__base__", "default", "other", "default"]
    found = model(x, adapter_names=names)
    expected = torch.stack([each[name][row] for row, name in enumerate(names)])
    torch.testing.assert_close(found, expected)

    weight = model.get_base_model()[0].get_base_layer().weight.clone()
    model.set_adapter("default")
    model.merge_adapter()
    torch.testing.assert_close(model(x), each["default"])
    model.unmerge_adapter()
    assert torch.equal(model.get_base_model()[0].get_base_layer().weight, weight)
    model.save_pretrained(tmp_path)
    torch.manual_seed(0)
    read = PeftModel.from_pretrained(nn.Sequential(KINDS[kind][0]()).double(), tmp_path)
    torch.testing.assert_close(read(x), each["default"])
    torch.testing.assert_close(read.merge_and_unload()(x), each["default"])


def test_hooks_and_half_precision():
    model, x = adapted("1d")
    layer = model.get_base_model()[0]
    plain = model(x)
    seen = []
    layer.get_base_layer().register_forward_hook(lambda *parts: seen.append(parts))
    torch.testing.assert_close(model(x), plain)
    assert seen
    model.to(torch.bfloat16)
    assert model(x.bfloat16()).dtype == torch.bfloat16
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert model.float()(x.float()).dtype == torch.bfloat16


def test_two_adapters_at_once():
    model, x = adapted("grouped")
    model.add_adapter("other", FourierFTConfig(n_frequency=7, target_modules=["0"]))
    model.double()
    model.base_model.set_adapter(["default", "other"])
    layer = model.get_base_model()[0]
    base = layer.get_base_layer()
    kernel = base.weight + layer.get_delta_weight("default") + layer.get_delta_weight("other")
    expected = F.conv2d(x, kernel, base.bias, stride=2, groups=2)
    torch.testing.assert_close(model(x), expected)
