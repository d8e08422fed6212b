"""Modules that read the weight of an adapted layer compute with the adapted one."""

import copy
import functools

import pytest
import torch
import torch.nn.functional as F
from peft import get_peft_model
from torch import nn
from transformers import WavLMConfig, WavLMModel
from transformers.models.mamba.modeling_mamba import MambaMixer
from transformers.models.t5.modeling_t5 import T5DenseActDense, T5DenseGatedActDense
from transformers.models.wavlm.modeling_wavlm import WavLMAttention

from fourierft import FourierFTConfig, FourierFTLayer
from fourierft.bypass import weights_read_by


class Reader(nn.Module):
    """Reads some weights, and of others only what they are."""

    def __init__(self):
        super().__init__()
        self.read, self.nested, self.kept, self.called, self.written = (
            nn.Linear(8, 8) for _ in range(5)
        )
        self.kept.weight.normal_ = None
        nn.init.ones_(self.called.weight)

    def forward(self, x):
        if isinstance(self.called.weight, nn.Parameter) and hasattr(self.called.weight, "data"):
            x = x.to(self.called.weight.dtype).to(self.called.weight.device)
        self.written.weight.mul_(1)
        self.kept.weight.data[0] = 1
        later = lambda: F.linear(x, self.nested.weight)  # noqa: E731
        return self.called(F.linear(x, self.read.weight.t()) + later())

    def reset(self):
        nn.init.zeros_(self.called.weight)


def test_what_counts_as_reading():
    assert weights_read_by(Reader) == {"read", "nested"}
    wrapped = functools.wraps(Reader.forward)(lambda *args: None)
    derived = type("Derived", (Reader,), {"forward": wrapped})
    assert weights_read_by(derived) == {"read", "nested"}
    assert weights_read_by(nn.MultiheadAttention) == {"out_proj"}
    assert {"linear1", "linear2"} <= weights_read_by(nn.TransformerEncoderLayer)
    assert not weights_read_by(nn.TransformerDecoderLayer)
    assert {"q_proj", "k_proj", "v_proj", "out_proj"} == weights_read_by(WavLMAttention)
    assert {"x_proj", "dt_proj", "out_proj"} <= weights_read_by(MambaMixer)
    for kind in (T5DenseActDense, T5DenseGatedActDense, nn.Sequential, nn.Module, nn.Linear):
        assert not weights_read_by(kind)


def encoder(**options):
    layer = nn.TransformerEncoderLayer(32, 4, 64, dropout=0.0, batch_first=True, **options)
    return nn.TransformerEncoder(layer, 2, enable_nested_tensor=not options)


def decoder():
    layer = nn.TransformerDecoderLayer(32, 4, 64, dropout=0.0, batch_first=True)

    class Decoder(nn.TransformerDecoder):
        def forward(self, x):
            return super().forward(x, x)

    return Decoder(layer, 2)


def wavlm():
    settings = WavLMConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=48,
        conv_dim=(16,),
        conv_stride=(8,),
        conv_kernel=(8,),
        num_feat_extract_layers=1,
        num_conv_pos_embeddings=8,
        num_conv_pos_embedding_groups=2,
        **{name: 0.0 for name in ("hidden_dropout", "attention_dropout", "layerdrop")},
        **{name: 0.0 for name in ("activation_dropout", "feat_proj_dropout", "mask_time_prob")},
    )

    class Hidden(WavLMModel):
        def forward(self, x):
            return super().forward(x.flatten(1))[0]

    return Hidden(settings)


MODELS = {
    "encoder": (encoder, ["linear1", "linear2", "out_proj"]),
    "encoder, norm first": (lambda: encoder(norm_first=True), ["out_proj", "linear2"]),
    "decoder": (decoder, ["linear1", "out_proj"]),
    "wavlm": (wavlm, ["q_proj", "k_proj", "v_proj", "out_proj"]),
}


@pytest.fixture(params=MODELS.values(), ids=MODELS)
def pair(request):
    """A base model and the adapted one around a copy of it."""
    build, targets = request.param
    torch.manual_seed(0)
    base = build().eval()
    config = FourierFTConfig(n_frequency=50, scaling=30.0, target_modules=targets)
    return base, get_peft_model(copy.deepcopy(base), config).eval()


def folded(base, model):
    """The base model with every update added to its weights by hand."""
    twin = copy.deepcopy(base)
    layers = model.get_base_model().named_modules()
    for name, layer in layers:
        if isinstance(layer, FourierFTLayer):
            weight = twin.get_submodule(name).weight
            weight.data += layer.get_delta_weight("default").detach()
    return twin


@pytest.fixture
def x():
    return torch.randn(2, 12, 32, generator=torch.Generator().manual_seed(3))


def close(one, other):
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_output_is_that_of_the_updated_weights(pair, x):
    base, model = pair
    expected = folded(base, model)(x)
    assert not torch.allclose(expected, base(x), atol=1e-2)
    for context in (torch.enable_grad, torch.no_grad, torch.inference_mode):
        with context():
            close(model(x).clone(), expected)
    close(model.train()(x), expected)
    with model.disable_adapter():
        close(model.eval()(x), base(x))
    model.merge_adapter()
    close(model(x), expected)
    with model.disable_adapter():
        close(model(x), base(x))
    close(model.merge_and_unload()(x), expected)


def test_every_coefficient_has_the_right_gradient(pair, x):
    base, model = pair
    twin = folded(base, model)
    for each in (model, twin):
        each(x).square().mul(torch.linspace(0, 1, 32)).sum().backward()
    for name, layer in model.get_base_model().named_modules():
        if isinstance(layer, FourierFTLayer):
            weight_gradient = twin.get_submodule(name).weight.grad
            c = layer.fourierft_spectrum["default"]
            update = layer.get_delta_weight("default")
            expected = torch.autograd.grad(update, c, weight_gradient)[0]
            assert c.grad is not None and expected.abs().max() > 0
            torch.testing.assert_close(c.grad, expected, rtol=1e-3, atol=1e-4)


def test_changed_coefficients_are_seen(x):
    torch.manual_seed(0)
    base = encoder().eval()
    config = FourierFTConfig(n_frequency=50, scaling=30.0, target_modules=["out_proj", "linear1"])
    model = get_peft_model(copy.deepcopy(base), config).eval()
    with torch.no_grad():
        first = model(x)
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data.mul_(2)
        second = model(x)
        assert not torch.allclose(first, second, atol=1e-3)
        close(second, folded(base, model)(x))


def test_padded_batches_take_the_same_way():
    """The stack hands its layers nested tensors there."""
    torch.manual_seed(0)
    base = encoder().eval()
    config = FourierFTConfig(n_frequency=50, scaling=30.0, target_modules=["out_proj", "linear1"])
    model = get_peft_model(copy.deepcopy(base), config).eval()
    padding = torch.arange(5) >= torch.tensor([[5], [3]])
    x = torch.randn(2, 5, 32)
    with torch.no_grad():
        found = model(x, src_key_padding_mask=padding)
        close(found, folded(base, model)(x, src_key_padding_mask=padding))


def test_a_layer_that_is_called_shows_its_frozen_weight():
    torch.manual_seed(0)
    model = get_peft_model(Reader(), FourierFTConfig(n_frequency=5, target_modules=["called"]))
    layer = model.get_base_model().called
    assert layer.weight is layer.base_layer.weight and not layer.weight_is_read
