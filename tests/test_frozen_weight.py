"""Quantised base models: trained through, merged into with the loss told, restored bit for bit."""

import copy
import warnings

import bitsandbytes as bnb
import pytest
import torch
from accelerate.hooks import AlignDevicesHook, add_hook_to_module
from bitsandbytes import functional
from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from experiments.models.language import leave_unpacked
from fourierft import FourierFTConfig, FourierFTLayer, configure, frozen_weight

CHECKPOINT = "models/stories260K"
TARGETS = ["q_proj", "v_proj"]


# Inputs are whole blocks of 64: bitsandbytes 0.50 multiplies by others wrongly on CPUs with AVX512.
def linear(kind, in_=128, out=192, dtype=torch.float32):
    torch.manual_seed(0)
    source = nn.Linear(in_, out, dtype=dtype)
    if kind == "int8":
        layer = bnb.nn.Linear8bitLt(in_, out, has_fp16_weights=False)
        layer.weight = bnb.nn.Int8Params(source.weight.data.clone(), requires_grad=False)
    else:
        layer = bnb.nn.Linear4bit(
            in_,
            out,
            quant_type=kind.removesuffix("-double").removesuffix("-bf16"),
            compress_statistics=kind.endswith("-double"),
            compute_dtype=torch.float32,
            quant_storage=torch.bfloat16 if kind.endswith("-bf16") else torch.uint8,
        )
        layer.weight = bnb.nn.Params4bit(
            source.weight.data.clone(),
            requires_grad=False,
            quant_type=layer.weight.quant_type,
            compress_statistics=layer.weight.compress_statistics,
            quant_storage=layer.weight.quant_storage,
            module=layer,
        )
    layer.bias = nn.Parameter(source.bias.data, requires_grad=False)
    return layer.to("cpu")


def dequantised(layer):
    weight = layer.weight
    if hasattr(weight, "SCB"):
        scales = weight.SCB if layer.state.SCB is None else layer.state.SCB
        return functional.int8_vectorwise_dequant(weight.data, scales)
    return functional.dequantize_4bit(weight.data, weight.quant_state).float()


def bits(tensor):
    return tensor.contiguous().flatten().view(torch.uint8)


class Net(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.layer = linear(kind)
        self.second = linear(kind, 192, 64)

    def forward(self, x):
        return self.second(torch.tanh(self.layer(x)))


def build(kind, scaling=300.0, **values):
    net = Net(kind)
    torch.manual_seed(1)
    values = {"n_frequency": 300, "target_modules": ["layer", "second"], **values}
    return get_peft_model(net, FourierFTConfig(scaling=scaling, **values))


def layers(model):
    return [module for module in model.modules() if isinstance(module, FourierFTLayer)]


KINDS = ["nf4", "nf4-double", "fp4", "fp4-double", "nf4-bf16", "int8"]


@pytest.fixture
def x():
    return torch.randn(5, 128, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("memory", ["auto", "cache", "save"])
def test_forward_and_gradients_are_the_dequantised_ones(kind, memory, x):
    layer = layers(build(kind, memory=memory))[0]
    W0, c = dequantised(layer.base_layer), layer.fourierft_spectrum["default"]
    x.requires_grad_()
    y = layer(x)
    update = layer.get_delta_weight("default")
    expected = x @ (W0 + update).T + layer.base_layer.bias
    tolerance = 2e-2 if kind == "int8" else 1e-6  # LLM.int8() rounds the input too
    assert (y - expected).norm() <= tolerance * expected.norm()
    dy = torch.randn_like(y)
    found = torch.autograd.grad(y, [x, c], dy)
    exact = torch.autograd.grad(expected, [x, c], dy)
    for one, other in zip(found, exact, strict=True):
        assert (one - other).norm() <= 2 * tolerance * other.norm()
    # "auto" keeps nothing of full size beside a quantised weight.
    assert layer._cache.nbytes == (W0.nbytes if memory == "cache" else 0)


class Products(TorchDispatchMode):
    """Counts matrix products; one that bitsandbytes makes counts once."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket._qualified_op_name
        if name in ("aten::mm", "aten::addmm", "bitsandbytes::gemm_4bit"):
            self.found.append(name)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("placed", [False, True])
@pytest.mark.parametrize("kind", ["nf4-double", "fp4"])
def test_four_bits_take_the_products_of_a_floating_layer(kind, placed, x):
    """W0 + DeltaW forward and backward, and dL/dW; also where `device_map` has placed the layer."""
    layer = layers(build(kind, gradient="dense"))[0]
    if placed:
        add_hook_to_module(layer.base_layer, AlignDevicesHook(execution_device="cpu"))
    with Products() as products:
        layer(x.requires_grad_()).sum().backward()
    assert products.found == ["aten::addmm", "aten::mm", "aten::mm"]
    with torch.no_grad(), Products() as products:
        layer(x)
    assert products.found == ["aten::addmm"]


@pytest.mark.parametrize("entered", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("precision", ["rounded", "exact"])
def test_products_are_in_the_type_that_the_layer_computes_in(entered, precision, x):
    """As close to float64 as the layer without an adapter; inputs and outputs keep their type."""
    layer = layers(build("nf4", precision=precision))[0]
    base = layer.base_layer
    base.compute_dtype = torch.bfloat16
    x = x.to(entered).requires_grad_()
    W0, update = dequantised(base).double(), layer.get_delta_weight("default").double()
    y = layer(x)
    assert y.dtype == entered
    wide = x.detach().double().requires_grad_()
    exact = wide @ (W0 + update).T + base.bias
    frozen = wide @ W0.T + base.bias
    error = (y - exact).norm() / exact.norm()
    assert error < 1.2 * (base(x) - frozen).norm() / frozen.norm() < 5e-3
    dy = torch.randn_like(y)
    found = torch.autograd.grad(y, [x, layer.fourierft_spectrum["default"]], dy)
    c = layer.fourierft_spectrum["default"].detach().double().requires_grad_()
    total = W0 + layer.transform("default").update(300 * c)
    truth = torch.autograd.grad(wide @ total.T, [wide, c], dy.double())
    assert [g.dtype for g in found] == [entered, torch.float32]
    for one, other in zip(found, truth, strict=True):
        assert (one - other).norm() < 5e-3 * other.norm()


def test_small_updates_survive_the_rounding_of_their_sum_with_four_bits(x):
    """Scales are float32, so that DeltaW is not added to multiples of a coarser step."""
    layer = layers(build("nf4", scaling=0.1))[0]
    layer.base_layer.compute_dtype = torch.bfloat16
    layer.base_layer.weight.quant_state.dtype = torch.bfloat16  # that of the weight once quantised
    W0, update = dequantised(layer.base_layer), layer.get_delta_weight("default").detach()
    assert 1e-4 < update.norm() / W0.norm() < 2e-3  # below bfloat16's step
    x = torch.randn(2000, 128, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        gained, wanted = layer(x) - layer.base_layer(x), x @ update.T
    share = (gained * wanted).sum() / wanted.square().sum()
    assert 0.8 < share < 1.2


def test_four_bits_with_everything_that_a_layer_may_do(x):
    model = build("nf4")
    torch.manual_seed(5)
    values = {"n_frequency": 50, "target_modules": ["layer", "second"], "random_loc_seed": 3}
    model.add_adapter("other", FourierFTConfig(scaling=100.0, **values))
    layer = layers(model)[0]
    base = layer.base_layer
    W0 = dequantised(base)
    one, other = (layer.get_delta_weight(name).detach() for name in ("default", "other"))

    def check(expected, found=None):
        found = layer(x) if found is None else found
        torch.testing.assert_close(found, x @ expected.T + base.bias, rtol=1e-5, atol=1e-5)

    layer.set_adapter(["default", "other"])
    check(W0 + one + other)
    layer.enable_adapters(False)
    assert torch.equal(layer(x), base(x))
    layer.enable_adapters(True)
    check(W0 + one + other)
    layer.set_adapter("other")
    check(W0 + other)
    seen = []
    hook = base.register_forward_hook(lambda *args: seen.append(args))
    check(W0 + other)
    assert seen  # what is hung onto the layer runs
    hook.remove()
    check(W0 + other, torch.func.vmap(layer)(x))
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(x)
    assert y.dtype == x.dtype and (y - x @ (W0 + other).T - base.bias).norm() < 1e-2 * y.norm()
    layer.merge()
    assert torch.equal(layer(x), base(x))
    layer.unmerge()
    check(W0 + other)
    assert layer(x[:0]).shape == (0, 192)


def test_four_bits_with_a_trained_bias_and_second_derivatives(x):
    layer = layers(build("nf4-double"))[0]
    base, c = layer.base_layer, layer.fourierft_spectrum["default"]
    base.bias.requires_grad_()
    x.requires_grad_()
    W0 = dequantised(base)

    def penalty(y):
        [first] = torch.autograd.grad(y.square().sum(), x, create_graph=True)
        return torch.autograd.grad(first.square().sum(), [c, base.bias])

    expected = x @ (W0 + layer.get_delta_weight("default")).T + base.bias
    for found, exact in zip(penalty(layer(x)), penalty(expected), strict=True):
        torch.testing.assert_close(found, exact, rtol=1e-4, atol=1e-3 * exact.abs().max().item())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("used", [False, True])
def test_merge_and_unmerge(kind, used, x):
    model = build(kind)
    if used:
        model(x)  # 8-bit scales move elsewhere
    before = [copy.deepcopy(layer.base_layer.state_dict()) for layer in layers(model)]
    unmerged = model(x)
    with pytest.warns(
        UserWarning, match=r"merge: rounding left an error of \d+\.\d% of .DeltaW. \(median of 2"
    ):
        model.merge_adapter()
    for layer in layers(model):
        assert layer.base_layer.weight.dtype in (torch.uint8, torch.int8, torch.bfloat16)
        update = layer.get_delta_weight("default").detach()
        stored = dequantised(layer.base_layer)
        frozen = layer._frozen.values(layer.base_layer)
        told = ((stored - (frozen + update)).norm() / update.norm()).item()
        assert layer.merge_error == pytest.approx(told, rel=1e-4)
        assert 0 < told < (0.05 if kind == "int8" else 0.6)
    merged = model(x)
    assert (merged - unmerged).norm() < (0.05 if kind == "int8" else 0.3) * unmerged.norm()
    assert not torch.equal(merged, unmerged)
    model.unmerge_adapter()
    for layer, state in zip(layers(model), before, strict=True):
        restored = layer.base_layer.state_dict()
        assert all(torch.equal(bits(restored[name]), bits(state[name])) for name in state)
    assert torch.equal(model(x), unmerged)


@pytest.mark.parametrize("kind", ["nf4", "nf4-double", "fp4"])
@pytest.mark.parametrize("in_", [96, 100])
def test_blocks_may_end_within_a_row(kind, in_):
    """Decoded by the table of 16 values, each times the scale of its block of 64."""
    layer = linear(kind, in_, 64)
    state, packed = layer.weight.quant_state, layer.weight.data.view(torch.uint8).flatten()
    scales = state.absmax
    if state.nested:
        scales = functional.dequantize_blockwise(scales, state.state2) + state.offset
    values = state.code[torch.stack([packed >> 4, packed & 15], dim=1).flatten().long()]
    expected = (values * scales.repeat_interleave(64)).reshape(64, in_)
    torch.testing.assert_close(frozen_weight.frozen_weight(layer).values(layer), expected)


@pytest.mark.parametrize("kind", ["nf4-double", "int8"])
def test_merge_and_unload(kind, x):
    model = build(kind)
    expected = model(x)
    with pytest.warns(UserWarning, match="rounding left"):
        net = model.merge_and_unload()
    assert type(net.layer) is type(linear(kind))
    assert (net(x) - expected).norm() < 0.3 * expected.norm()


def test_second_adapter_is_merged_onto_the_frozen_weight(x):
    """Not onto the first one's rounding."""
    model = build("nf4")
    torch.manual_seed(5)
    values = {"n_frequency": 50, "target_modules": ["layer", "second"], "random_loc_seed": 3}
    model.add_adapter("other", FourierFTConfig(scaling=100.0, **values))
    layer = layers(model)[0]
    frozen = dequantised(layer.base_layer)
    layer.merge(adapter_names=["default"])
    layer.merge(adapter_names=["other"])
    total = sum(layer.get_delta_weight(name) for name in ("default", "other"))
    quantised, state = functional.quantize_4bit(frozen + total, quant_type="nf4", blocksize=64)
    expected = functional.dequantize_4bit(quantised, state)
    torch.testing.assert_close(dequantised(layer.base_layer), expected, rtol=1e-5, atol=1e-5)
    layer.unmerge()
    assert torch.equal(dequantised(layer.base_layer), frozen)


@pytest.mark.parametrize("kind", ["nf4", "int8"])
def test_merge_that_is_not_finite(kind, x):
    model = build(kind)
    expected = model(x)
    layers(model)[0].fourierft_spectrum["default"].data[0] = float("inf")
    with pytest.raises(ValueError, match="would not be finite"):
        model.merge_adapter(safe_merge=True)
    assert not layers(model)[0].merged
    layers(model)[0].fourierft_spectrum["default"].data[0] = 0.0
    assert model(x).isfinite().all() and expected.isfinite().all()


def test_weight_that_was_packed_for_the_processor():
    """On some CPUs bitsandbytes rearranges 4-bit weights, and their state, in evaluation."""
    layer = linear("nf4-double", 128, 96)
    expected = dequantised(layer)
    data, state = functional._convert_weight_packed_for_cpu(
        layer.weight.data, layer.weight.quant_state
    )
    layer.weight.data, layer.weight.quant_state = data, state
    absmax = state.absmax.clone()
    frozen = frozen_weight.frozen_weight(layer)
    values = frozen.values(layer)
    # The packing itself keeps the scales in bfloat16.
    assert (values - expected).norm() < 1e-2 * expected.norm()
    assert state.packing_format_for_cpu and torch.equal(state.absmax, absmax)
    stored = frozen.store(layer, values * 2)
    assert (stored - 2 * values).norm() < 0.1 * (2 * values).norm()
    frozen.restore(layer)
    assert layer.weight.data is not None and torch.equal(frozen.values(layer), values)


def test_other_quantisations_are_refused():
    layer = nn.Linear(4, 4)
    layer.weight = nn.Parameter(torch.zeros(4, 4, dtype=torch.int8), requires_grad=False)
    with pytest.raises(ValueError, match="Parameter, torch.int8.*Linear4bit and Linear8bitLt"):
        frozen_weight.frozen_weight(layer)


def test_nothing_to_merge_is_nothing_lost():
    net = nn.ModuleDict({"layer": nn.Linear(64, 64)}).to(torch.bfloat16)
    config = FourierFTConfig(n_frequency=50, target_modules=["layer"], init_weights=True)
    model = get_peft_model(net, config)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.merge_adapter()
    assert layers(model)[0].merge_error is None


def test_half_precision_merge_tells_what_it_swallows():
    torch.manual_seed(0)
    net = nn.ModuleDict({"layer": nn.Linear(64, 64)}).to(torch.bfloat16)
    model = get_peft_model(net, FourierFTConfig(n_frequency=50, target_modules=["layer"]))
    layer = layers(model)[0]
    with torch.no_grad():
        layer.fourierft_spectrum["default"].mul_(1e-4)
    with pytest.warns(UserWarning, match="rounding left .*float32"):
        model.merge_adapter()
    assert layer.merge_error > 0.5
    model.unmerge_adapter()
    assert layer.merge_error is None
    model.float()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.merge_adapter()
    assert layer.merge_error is None


@pytest.fixture(scope="module")
def load(data_folder):
    def load(kind):
        values = {
            "nf4": {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"},
            "nf4-double": {
                "load_in_4bit": True,
                "bnb_4bit_quant_type": "nf4",
                "bnb_4bit_use_double_quant": True,
            },
            "fp4": {"load_in_4bit": True, "bnb_4bit_quant_type": "fp4"},
            "int8": {"load_in_8bit": True},
        }[kind]
        net = AutoModelForCausalLM.from_pretrained(
            data_folder / CHECKPOINT,
            quantization_config=BitsAndBytesConfig(**values),
            device_map={"": "cpu"},
            dtype=torch.bfloat16,
        )
        return leave_unpacked(net)

    return load


IDS = torch.randint(3, 500, (2, 24), generator=torch.Generator().manual_seed(0))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["nf4", "nf4-double", "fp4", "int8"])
@pytest.mark.parametrize("reentrant", [None, True, False])
def test_a_real_quantised_checkpoint_trains(load, kind, reentrant):
    """As LoRA does there: checkpointing of both kinds, then generation, merging, restoring."""
    losses = {}
    for name, config in {
        "fourierft": FourierFTConfig(n_frequency=100, scaling=20.0, target_modules=TARGETS),
        "lora": LoraConfig(target_modules=TARGETS),
    }.items():
        torch.manual_seed(0)
        model = prepare_model_for_kbit_training(
            load(kind),
            use_gradient_checkpointing=reentrant is not None,
            gradient_checkpointing_kwargs={"use_reentrant": bool(reentrant)},
        )
        model = get_peft_model(model, config)
        rate = 3e-2 if name == "fourierft" else 1e-2
        optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=rate)
        found = []
        for _ in range(12):
            loss = model(input_ids=IDS, labels=IDS).loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            found.append(loss.item())
        losses[name] = found
        assert found[-1] < found[0] - 0.05, (name, found)
        if name == "fourierft":
            model.eval()
            model.config.use_cache = True
            first = model.generate(input_ids=IDS[:1], max_new_tokens=4, do_sample=False)
            with torch.no_grad():
                before = model(input_ids=IDS).logits
            with pytest.warns(UserWarning, match="rounding left"):
                model.merge_adapter()
            with torch.no_grad():
                merged = model(input_ids=IDS).logits
            assert not torch.equal(merged, before) and merged.isfinite().all()
            model.unmerge_adapter()
            with torch.no_grad():
                assert torch.equal(model(input_ids=IDS).logits, before)
            again = model.generate(input_ids=IDS[:1], max_new_tokens=4, do_sample=False)
            assert torch.equal(first, again)


@pytest.mark.slow
def test_checkpointing_changes_nothing(load):
    found = []
    for use, reentrant in [(False, False), (True, False), (True, True)]:
        torch.manual_seed(0)
        model = prepare_model_for_kbit_training(
            load("nf4"),
            use_gradient_checkpointing=use,
            gradient_checkpointing_kwargs={"use_reentrant": reentrant},
        )
        model = get_peft_model(model, FourierFTConfig(n_frequency=100, target_modules=TARGETS))
        configure(model, memory="recompute" if use else "cache")
        model.train()
        model(input_ids=IDS, labels=IDS).loss.backward()
        found.append([p.grad for p in model.parameters() if p.requires_grad])
    for other in found[1:]:
        for a, b in zip(found[0], other, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)
