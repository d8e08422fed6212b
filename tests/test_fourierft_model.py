"""The tuner in PEFT's hands."""

import copy
import pickle
import time
import warnings

import peft
import pytest
import torch
import torch.nn.functional as F
from peft import PeftModel, get_peft_model
from peft.utils.error import NoMatchingPeftModuleError
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM
from transformers.pytorch_utils import Conv1D

from fourierft import Engine, FourierFTConfig, FourierFTLinear, configure, sample_entries
from fourierft.bases.reference import reference_update


class Net(nn.Module):
    """Square, non-square and (in, out) layers, and a head."""

    def __init__(self):
        super().__init__()
        self.square = nn.Linear(16, 16)
        self.wide = nn.Linear(16, 24, bias=False)
        self.conv = Conv1D(20, 24)
        self.norm = nn.LayerNorm(20)
        self.head = nn.Linear(20, 3)

    def forward(self, x):
        x = torch.tanh(self.square(x))
        return self.head(self.norm(self.conv(torch.tanh(self.wide(x)))))


TARGETS = ["square", "wide", "conv"]


def config(**values):
    return FourierFTConfig(**{"n_frequency": 30, "target_modules": list(TARGETS), **values})


def build(seed=0, dtype=torch.float32):
    torch.manual_seed(seed)
    return Net().to(dtype)


def adapted(seed=0, dtype=torch.float32, **values):
    return get_peft_model(build(seed, dtype), config(**values)).eval()


def layers(model):
    return {
        name.rpartition(".")[2]: module
        for name, module in model.named_modules()
        if isinstance(module, FourierFTLinear)
    }


def base_weights(model):
    return {name: layer.get_base_layer().weight.clone() for name, layer in layers(model).items()}


@pytest.fixture
def x():
    return torch.randn(5, 16, generator=torch.Generator().manual_seed(7))


# What is trained


def test_only_coefficients_train_and_the_update_starts_at_norm():
    model = adapted(n_frequency=100)
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trained == {f"base_model.model.{t}.fourierft_spectrum.default" for t in TARGETS}
    for layer in layers(model).values():
        c = layer.fourierft_spectrum["default"]
        assert c.shape == (100,) and c.dtype == torch.float32
        assert 0.5 < c.std() < 1.5 and layer.get_delta_weight("default").norm() > 0


def test_start_differs_from_the_base_model_unless_init_weights(x):
    expected = build()(x)
    assert not torch.allclose(adapted()(x), expected, atol=1e-3)
    model = adapted(init_weights=True)
    assert torch.equal(model(x), expected)
    model(x).sum().backward()
    assert all(p.grad.abs().sum() > 0 for p in model.parameters() if p.requires_grad)


def test_forward_is_the_formula(x):
    model = adapted(scaling=20.0, random_loc_seed=2024)
    for name, layer in layers(model).items():
        inputs = torch.randn(4, layer.in_features)
        update = layer.get_delta_weight("default")
        assert update.shape == (layer.out_features, layer.in_features)
        entries = sample_entries(update.shape, 30, 2024)
        assert layer.entries("default") is entries
        coefficients = layer.fourierft_spectrum["default"].detach()
        formula = reference_update(coefficients, entries, update.shape, 20.0)
        expected = layer.base_layer(inputs) + inputs @ formula.T
        torch.testing.assert_close(layer(inputs), expected, rtol=1e-5, atol=1e-5, msg=name)


@pytest.mark.parametrize("basis", ["fourier", "orthogonal"])
def test_norm_gives_every_layer_updates_of_one_size(basis):
    model = adapted(
        n_frequency=1, scaling=0.25, scaling_mode="norm", basis=basis, random_loc_seed=3
    )
    for layer in layers(model).values():
        layer.fourierft_spectrum["default"].data.fill_(1.0)
        assert layer.get_delta_weight("default").norm().item() == pytest.approx(0.25, rel=1e-5)
    alphas = {round(layer.fourierft_scaling["default"], 6) for layer in layers(model).values()}
    assert len(alphas) == 3  # one a shape


def test_frequency_bias_reaches_the_layers():
    model = adapted(frequency_bias_center=3.0, frequency_bias_bandwidth=1.5, random_loc_seed=5)
    for layer in layers(model).values():
        shape = (layer.out_features, layer.in_features)
        assert layer.entries("default") is sample_entries(shape, 30, 5, 3.0, 1.5)


def test_n_frequency_pattern():
    pattern = {"wid.": 12, "square": 7}  # a regular expression, and the exact name
    with pytest.warns(UserWarning, match="n_frequency_pattern: \\['wid.'\\] match no"):
        model = adapted(n_frequency_pattern=pattern)
    found = {
        name: layer.fourierft_spectrum["default"].numel() for name, layer in layers(model).items()
    }
    # PEFT's rule: expressions match behind a dot only; the exact name always does.
    assert found == {"square": 7, "wide": 30, "conv": 30}
    nested = nn.ModuleDict({"block": Net()})
    found = {
        name: layer.fourierft_spectrum["default"].numel()
        for name, layer in layers(
            get_peft_model(nested, config(n_frequency_pattern=pattern))
        ).items()
    }
    assert found == {"square": 7, "wide": 12, "conv": 30}


def test_training_lowers_the_loss_and_leaves_the_base_alone(x):
    model = adapted(scaling=30.0)
    before = base_weights(model)
    target = torch.randn(5, 3)
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=0.1)
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        loss = F.mse_loss(model(x), target)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.3 * losses[0]
    after = base_weights(model)
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_model(dtype, x):
    model = adapted(dtype=dtype)
    output = model(x.to(dtype))
    assert output.dtype == dtype
    output.float().pow(2).sum().backward()
    for layer in layers(model).values():
        c = layer.fourierft_spectrum["default"]
        assert c.dtype == torch.float32 and torch.isfinite(c.grad).all() and c.grad.any()
        inputs = torch.randn(9, layer.in_features).to(dtype)
        update = layer.get_delta_weight("default").double()
        exact = layer.base_layer(inputs).double() + inputs.double() @ update.T
        assert (layer(inputs) - exact).norm() <= torch.finfo(dtype).eps * exact.norm()


def test_autocast_gives_what_the_base_layer_gives(x):
    model = adapted()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for layer in layers(model).values():
            inputs = torch.randn(3, layer.in_features)
            assert layer(inputs).dtype == layer.base_layer(inputs).dtype == torch.bfloat16


# Merging


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("safe", [False, True])
def test_merge_and_bitwise_unmerge(dtype, safe, x):
    model, x = adapted(dtype=dtype), x.to(dtype)
    before, expected = base_weights(model), model(x)
    model.merge_adapter(safe_merge=safe)
    for name, layer in layers(model).items():
        update = layer.get_delta_weight("default")
        update = update.T if name == "conv" else update
        merged = layer.get_base_layer().weight
        assert torch.equal(merged, (before[name].float() + update).to(dtype)) and merged.any()
        assert not torch.equal(merged, before[name])
    torch.testing.assert_close(model(x), expected, rtol=0, atol=20 * torch.finfo(dtype).eps)
    model.unmerge_adapter()
    after = base_weights(model)
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert torch.equal(model(x), expected)


def test_unmerge_after_the_model_was_cast_while_merged():
    model = adapted()
    before = base_weights(model)
    model.merge_adapter()
    model.to(torch.bfloat16)
    model.unmerge_adapter()
    after = base_weights(model)
    assert all(torch.equal(before[name].bfloat16(), after[name]) for name in before)


def test_merge_and_unload(x):
    model = adapted()
    expected = model(x)
    plain = model.merge_and_unload(safe_merge=True)
    assert type(plain) is Net and type(plain.square) is nn.Linear and type(plain.conv) is Conv1D
    assert plain.state_dict().keys() == Net().state_dict().keys()
    torch.testing.assert_close(plain(x), expected, rtol=1e-5, atol=1e-5)


def test_unload_gives_the_base_model_back(x):
    assert torch.equal(adapted().unload()(x), build()(x))


def test_safe_merge_refuses_and_changes_nothing():
    model = adapted()
    layer = layers(model)["square"]
    before = layer.get_base_layer().weight.clone()
    layer.fourierft_spectrum["default"].data[0] = float("nan")
    with pytest.raises(ValueError, match="not be finite with adapters \\['default'\\]"):
        layer.merge(safe_merge=True)
    assert torch.equal(layer.get_base_layer().weight, before) and not layer.merged


def test_quantised_weight_refuses_to_merge():
    layer = layers(adapted())["square"]
    layer.get_base_layer().weight = nn.Parameter(
        torch.zeros(16, 16, dtype=torch.uint8), requires_grad=False
    )
    with pytest.raises(ValueError, match="not a plain matrix \\(Parameter, torch.uint8\\)"):
        layer.merge()


# Several adapters


def two_adapters():
    model = adapted()
    model.add_adapter("other", config(n_frequency=11, scaling=60.0, random_loc_seed=3))
    return model.eval()


def test_adapters_switch_disable_and_delete(x):
    model = two_adapters()
    first = model(x)
    assert [n for n, p in model.named_parameters() if p.requires_grad and "other" in n] == []
    model.set_adapter("other")
    second = model(x)
    trained = {n.rpartition(".")[2] for n, p in model.named_parameters() if p.requires_grad}
    assert trained == {"other"} and not torch.allclose(first, second)
    with model.disable_adapter():
        assert torch.equal(model(x), build()(x))
    assert torch.equal(model(x), second)
    model.delete_adapter("other")
    assert torch.equal(model(x), first)
    for layer in layers(model).values():
        names = [*layer.adapter_layer_names, *layer.other_param_names]
        assert all(set(getattr(layer, name)) == {"default"} for name in names)
    assert not any("other" in key for key in model.state_dict())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_two_adapters_at_once(dtype, x):
    model, x = two_adapters().to(dtype), x.to(dtype)
    before = base_weights(model)
    model.base_model.set_adapter(["default", "other"])
    both = model(x)
    for layer in layers(model).values():
        inputs = torch.randn(4, layer.in_features).to(dtype)
        update = layer.get_delta_weight("default") + layer.get_delta_weight("other")
        expected = layer.base_layer(inputs) + F.linear(inputs.float(), update)
        torch.testing.assert_close(
            layer(inputs).float(), expected, rtol=2e-2 if dtype != torch.float32 else 1e-5, atol=0.1
        )
    model.merge_adapter(["default"])
    with pytest.warns(UserWarning, match="additionally merging other"):
        model.merge_adapter(["other"])
    stepwise = base_weights(model)
    torch.testing.assert_close(model(x), both, rtol=0, atol=20 * torch.finfo(dtype).eps)
    model.unmerge_adapter()
    model.merge_adapter(["default", "other"])
    at_once = base_weights(model)
    assert all(torch.equal(stepwise[name], at_once[name]) for name in before)
    model.unmerge_adapter()
    after = base_weights(model)
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_disabled_while_merged_is_the_base_model(x):
    model = adapted()
    expected = model(x)
    model.merge_adapter()
    with model.disable_adapter():
        assert torch.equal(model(x), build()(x))
    assert torch.equal(model(x), expected)


# Copies, files, devices


def test_deepcopy_and_pickle(x):
    model = adapted(frequency_bias_center=2.0)
    expected = model(x)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(other(x), expected)
        for name, layer in layers(other).items():  # shared, not carried along
            assert layer.entries("default") is layers(model)[name].entries("default")
        layers(other)["square"].fourierft_spectrum["default"].data.zero_()
        assert torch.equal(model(x), expected)


def test_deepcopy_while_merged_unmerges_on_its_own():
    model = adapted()
    before = base_weights(model)
    model.merge_adapter()
    other = copy.deepcopy(model)
    other.unmerge_adapter()
    assert all(torch.equal(before[name], w) for name, w in base_weights(other).items())
    assert all(not torch.equal(before[name], w) for name, w in base_weights(model).items())


EXTENDED = {"frequency_bias_center": 4.0, "frequency_bias_bandwidth": 2.0}


@pytest.mark.parametrize("low_memory", [False, True])
@pytest.mark.parametrize(
    "bias",
    [
        {},
        EXTENDED,
        {"scaling_mode": "norm", "scaling": 0.1},
        {"orientation": "algorithm1"},
        {"entry_rows": 4},
    ],
)
def test_save_and_load(tmp_path, bias, low_memory, x):
    model = adapted(modules_to_save=["head"], **bias)
    with torch.no_grad():
        model.base_model.model.head.modules_to_save["default"].weight.mul_(2)
    model.save_pretrained(tmp_path)
    saved = load_file(tmp_path / "adapter_model.safetensors")
    assert {key.removeprefix("base_model.model.") for key in saved} == {
        *(f"{t}.fourierft_spectrum" for t in TARGETS),
        "head.weight",
        "head.bias",
    }
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        loaded = PeftModel.from_pretrained(build(), tmp_path, low_cpu_mem_usage=low_memory)
        loaded.load_adapter(tmp_path, "again", low_cpu_mem_usage=low_memory)
    assert torch.equal(loaded(x), model(x))
    assert not any(p.requires_grad for p in loaded.parameters())
    loaded.set_adapter("again")
    assert torch.equal(loaded(x), model(x))
    settings = loaded.peft_config["again"]
    assert isinstance(settings, FourierFTConfig)
    assert settings.frequency_bias_center == bias.get("frequency_bias_center")


def test_config_round_trips():
    sides = {"orientation": "algorithm1"}, {"orientation": "eq4"}
    plain = {}, {"basis": "fourier", "scaling": 3.0}
    for values in (*plain, EXTENDED, {"scaling_mode": "norm"}, {"entry_rows": 2}, *sides):
        first = config(**values)
        assert peft.get_peft_config(first.to_dict()) == first
        assert ("orientation" in first.to_dict()) == (first.orientation == "algorithm1")
        assert ("entry_rows" in first.to_dict()) == (first.entry_rows is not None)


@pytest.mark.parametrize("low_memory", [False, True])
def test_llama_13b_on_the_meta_device_is_free(low_memory):
    settings = LlamaConfig(
        hidden_size=5120,
        intermediate_size=13824,
        num_hidden_layers=40,
        num_attention_heads=40,
        num_key_value_heads=40,
    )
    with torch.device("meta"):
        model = LlamaForCausalLM(settings)
    start = time.perf_counter()
    # n that no other test uses: nothing is cached
    wrapped = get_peft_model(
        model,
        config(n_frequency=1003, target_modules=["q_proj", "v_proj"]),
        low_cpu_mem_usage=low_memory,
    )
    assert time.perf_counter() - start < 5  # 80 permutations of 2.6e7 would take 30 s
    coefficients = [p for p in wrapped.parameters() if p.requires_grad]
    assert sum(c.numel() for c in coefficients) == 80 * 1003
    assert all(c.device.type == "meta" for c in coefficients)
    layer = wrapped.base_model.model.model.layers[0].self_attn.q_proj
    assert layer(torch.empty(2, 5120, device="meta")).shape == (2, 5120)


def test_first_forward_in_inference_mode_then_training(x):
    model = adapted(n_frequency=29)
    with torch.inference_mode():
        model(x)
    model(x).sum().backward()
    assert layers(model)["conv"].fourierft_spectrum["default"].grad.any()


def test_compiled_model_draws_no_entries(x, monkeypatch):
    model = adapted()
    expected = model(x)
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    monkeypatch.setattr("fourierft.spectrum._entries", None)  # any draw would fail now
    torch.testing.assert_close(compiled(x), expected)
    compiled(x).sum().backward()
    assert layers(model)["conv"].fourierft_spectrum["default"].grad.any()


def test_entries_follow_the_coefficients_to_another_device():
    layer = layers(adapted())["square"]
    on_cpu = layer.entries("default")
    assert layer.entries("default") is on_cpu
    layer.to("meta")
    assert layer.entries("default").device.type == "meta"
    layer.to_empty(device="cpu")
    assert layer.entries("default") is on_cpu


def test_gpt2_conv1d_is_adapted_without_warnings():
    settings = GPT2Config(n_embd=32, n_layer=2, n_head=4, vocab_size=50, n_positions=16)
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        model = get_peft_model(
            GPT2LMHeadModel(settings).eval(), config(target_modules=["c_attn"])
        ).eval()
    ids = torch.arange(10)[None]
    expected = model(ids).logits
    merged = copy.deepcopy(model).merge_and_unload()
    torch.testing.assert_close(merged(ids).logits, expected, rtol=1e-4, atol=1e-4)


# What is refused


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"n_frequency": 0}, "n_frequency: got 0, allowed whole numbers from 1"),
        ({"n_frequency_pattern": {"a": -1}}, "n_frequency_pattern\\['a'\\]: got -1"),
        ({"n_frequency": 1.5}, "n_frequency: got 1.5, allowed whole"),
        ({"n_frequency": True}, "n_frequency: got True"),
        ({"n_frequency": "100"}, "n_frequency: got '100'"),
        ({"n_frequency_pattern": {"a": "b"}}, "n_frequency_pattern\\['a'\\]: got 'b'"),
        ({"scaling": "150"}, "scaling \\(alpha\\): got '150'"),
        ({"scaling": float("inf")}, "scaling"),
        ({"random_loc_seed": 1.5}, "random_loc_seed: got 1.5, allowed an integer"),
        ({"random_loc_seed": "a"}, "random_loc_seed: got 'a'"),
        ({"frequency_bias_center": "a"}, "frequency_bias_center: got 'a'"),
        ({"scaling": 0.0}, "scaling \\(alpha\\): got 0.0, allowed above 0"),
        ({"scaling": float("nan")}, "scaling"),
        ({"random_loc_seed": None}, "random_loc_seed: got None"),
        ({"frequency_bias_center": -2}, "frequency_bias_center: got -2, allowed 0 or above"),
        ({"frequency_bias_bandwidth": 0}, "frequency_bias_bandwidth: got 0, allowed above 0"),
        ({"scaling_mode": "unit"}, "scaling_mode: got 'unit', allowed plain, norm"),
        ({"orientation": "eq3"}, "orientation: got 'eq3', allowed eq4, algorithm1"),
        ({"basis": "cosine"}, "basis: got 'cosine', allowed 'fourier', 'random'"),
        ({"entry_rows": 0}, "entry_rows: got 0, allowed whole numbers from 1"),
        ({"entry_rows": 2, "basis": "dct"}, "entry_rows: got 2, allowed without freq.* 'fourier'"),
        ({"entry_rows": 2, "frequency_bias_center": 1.0}, "entry_rows: got 2, allowed without"),
        ({"n_frequency": 0, "scaling": -1}, "n_frequency: .*; scaling"),
    ],
)
def test_values_out_of_range(values, named):
    with pytest.raises(ValueError, match=named):
        config(**values)


def test_pefts_own_config_is_checked_too():
    stock = peft.FourierFTConfig(n_frequency=5, scaling=-1.0, target_modules=["square"])
    with pytest.raises(ValueError, match="scaling \\(alpha\\): got -1.0"):
        get_peft_model(build(), stock)


@pytest.mark.parametrize(
    ("values", "error", "named"),
    [
        (
            {"target_modules": ["square", "norm"]},
            TypeError,
            "norm \\(torch.nn.modules.normalization.LayerNorm\\), allowed .*Linear.*Conv1D",
        ),
        (
            {"n_frequency": 300},
            ValueError,
            "got 300 for square, allowed 1 to 16 \\* 16 = 256",
        ),
        (
            {"target_modules": ["query"]},
            NoMatchingPeftModuleError,
            "query.*Linear modules of this model: conv, head, square, wide",
        ),
    ],
)
def test_refused_before_the_model_is_changed(values, error, named):
    model = build()
    with pytest.raises(error, match=named):
        get_peft_model(model, config(**values))
    assert not any(isinstance(module, FourierFTLinear) for module in model.modules())
    assert all(p.requires_grad for p in model.parameters())


def test_refused_second_adapter_leaves_the_first(x):
    model = adapted()
    expected = model(x)
    with pytest.raises(ValueError, match="got 300 for square"):
        model.add_adapter("other", config(n_frequency=300))
    assert list(model.peft_config) == ["default"] and torch.equal(model(x), expected)


def damage_length(tensors):
    key = "base_model.model.wide.fourierft_spectrum"
    tensors[key] = tensors[key][:-1].clone()
    return "wide.fourierft_spectrum.default: found shape \\(29,\\), expected \\(30,\\)"


def damage_missing(tensors):
    del tensors["base_model.model.conv.fourierft_spectrum"]
    return "2 coefficient tensors found, 3 expected; .*conv.fourierft_spectrum.default: missing"


def damage_unknown(tensors):
    tensors["base_model.model.deep.fourierft_spectrum"] = torch.ones(30)
    return "deep.fourierft_spectrum: belongs to no adapted layer"


def damage_value(tensors):
    tensors["base_model.model.conv.fourierft_spectrum"][3] = float("nan")
    return "base_model.model.conv.fourierft_spectrum.default: not finite"


def damage_head(tensors):
    tensors["base_model.model.head.bias"][0] = float("inf")
    return "head.*bias: not finite"


@pytest.mark.parametrize(
    "damage", [damage_length, damage_missing, damage_unknown, damage_value, damage_head]
)
def test_adapter_file_that_does_not_fit(tmp_path, damage):
    adapted(modules_to_save=["head"]).save_pretrained(tmp_path)
    path = tmp_path / "adapter_model.safetensors"
    tensors = load_file(path)
    message = damage(tensors)
    save_file(tensors, path)
    with pytest.raises(ValueError, match=f"adapter_model.safetensors: .*{message}"):
        PeftModel.from_pretrained(build(), tmp_path)


@pytest.mark.parametrize("kept", [0, 5, 100, -1])
def test_truncated_adapter_file(tmp_path, kept):
    adapted().save_pretrained(tmp_path)
    path = tmp_path / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ValueError, match="adapter_model.safetensors: not a complete safetensors"):
        PeftModel.from_pretrained(build(), tmp_path)


# Base layers that do more than W0 x


@pytest.mark.parametrize(
    "register",
    [
        lambda layer, seen: layer.register_forward_hook(lambda *_: seen.append(1)),
        lambda layer, seen: layer.register_forward_pre_hook(lambda *_: seen.append(1)),
        lambda layer, seen: layer.register_full_backward_hook(lambda *_: seen.append(1)),
        lambda layer, seen: layer.register_full_backward_pre_hook(lambda *_: seen.append(1)),
    ],
)
def test_hooks_of_the_base_layer_run(register, x):
    model, seen = adapted(), []
    expected = model(x)
    register(layers(model)["wide"].base_layer, seen)
    y = model(x.requires_grad_())
    torch.testing.assert_close(y, expected)
    y.sum().backward()
    assert seen


def test_forward_that_was_replaced_is_called(x):
    """As accelerate does to bring weights from elsewhere."""
    model = adapted()
    expected = model(x)
    base, called = layers(model)["wide"].base_layer, []
    original = base.forward
    base.forward = lambda x: called.append(1) or original(x)
    torch.testing.assert_close(model(x), expected)
    assert called


class Packed(torch.Tensor):
    """A weight that knows how to multiply and nothing else, as some quantisations have it."""

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        if function is F.linear:
            plain = [a.as_subclass(torch.Tensor) if isinstance(a, Packed) else a for a in args]
            return F.linear(*plain, **(kwargs or {}))
        if function is torch.Tensor.add or function is torch.add:
            raise NotImplementedError(str(function))
        return super().__torch_function__(function, types, args, kwargs)


def test_weights_that_only_multiply(x):
    model = adapted()
    expected = model(x)
    base = layers(model)["wide"].base_layer
    base.weight = nn.Parameter(base.weight.detach().as_subclass(Packed), requires_grad=False)
    torch.testing.assert_close(model(x), expected)
    model(x).sum().backward()
    with pytest.raises(ValueError, match="not a plain matrix \\(P"):
        model.merge_adapter()


def test_merged_in_inference_mode_and_trained_afterwards(x):
    model = adapted()
    with torch.inference_mode():
        model.merge_adapter()
    model(x.requires_grad_()).sum().backward()
    assert x.grad is not None
    model.unmerge_adapter()
    model(x).sum().backward()


class Head(nn.Module):
    """Of several layers: no `weight` of its own."""

    def __init__(self):
        super().__init__()
        self.dense, self.out = nn.Linear(20, 20), nn.Linear(20, 3)

    def forward(self, x):
        return self.out(torch.tanh(self.dense(x)))


@pytest.mark.parametrize("merge", [True, False])
def test_unloading_with_a_head_of_several_layers(merge, x):
    net = build()
    net.head = Head()
    before = net(x)
    model = get_peft_model(net, config(modules_to_save=["head"])).eval()
    expected = model(x) if merge else before
    plain = model.merge_and_unload() if merge else model.unload()
    assert type(plain.head) is Head and type(plain.wide) is nn.Linear
    torch.testing.assert_close(plain(x), expected, rtol=1e-4, atol=1e-5)


def test_loaded_onto_meta_first(x, tmp_path):
    model = adapted().eval()
    model.save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(build(), tmp_path, low_cpu_mem_usage=True).eval()
    assert torch.equal(loaded(x), model(x))


def test_configure_names_every_mistake():
    model = adapted()
    with pytest.raises(ValueError, match="memory: got 'x', allowed 'auto'.*; gradient: got 'y'"):
        configure(model, memory="x", gradient="y")
    configure(model, precision="exact")
    configure(model, memory="recompute")
    assert {layer.engine for layer in layers(model).values()} == {
        Engine("recompute", "auto", "exact")
    }
    with pytest.raises(ValueError, match="precision: got 'z', allowed 'rounded', 'exact'"):
        config(precision="z")


def test_models_without_our_layers_are_told():
    with pytest.raises(ValueError, match="no FourierFT layers of this package .import fourierft"):
        configure(build(), memory="cache")


def test_input_of_another_dtype_is_refused_as_by_the_base_layer(x):
    model = adapted()
    for wrong in (x.half(), x.double()):
        with pytest.raises(RuntimeError, match="expected an input of the weight's dtype"):
            model(wrong)


def test_how_to_compute_is_not_saved(tmp_path):
    adapted(memory="recompute", gradient="dense", precision="exact").save_pretrained(tmp_path)
    saved = (tmp_path / "adapter_config.json").read_text()
    assert not any(f'"{name}"' in saved for name in Engine._fields)


# What PEFT would pass over


def test_names_that_match_nothing_are_named():
    with pytest.warns(UserWarning, match=r"\['squares', 'wid'\] match no adapted.*conv, head, sq"):
        model = adapted(target_modules=["square", "squares", "wid"])
    assert list(layers(model)) == ["square"]
    with pytest.warns(UserWarning, match=r"\['deep'\] match no"):
        model.add_adapter("other", config(target_modules=["deep", "conv"]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        adapted(), adapted(target_modules="all-linear"), adapted(target_modules=".*(square|wid.*)")


def weight_norm(layer):
    nn.utils.weight_norm(layer)


def spectral_norm(layer):
    nn.utils.spectral_norm(layer)


def pruning(layer):
    prune.l1_unstructured(layer, "weight", 0.3)


PLAIN_AGAIN = {
    weight_norm: nn.utils.remove_weight_norm,
    spectral_norm: nn.utils.remove_spectral_norm,
    pruning: lambda layer: prune.remove(layer, "weight"),
    parametrizations.weight_norm: lambda layer: parametrize.remove_parametrizations(
        layer, "weight"
    ),
    parametrizations.orthogonal: lambda layer: parametrize.remove_parametrizations(layer, "weight"),
}


@pytest.mark.parametrize("recompute", PLAIN_AGAIN)
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_weights_that_every_call_recomputes_do_not_lose_a_merge(recompute, x):
    net = build().eval()
    recompute(net.square)
    frozen = net(x).detach()
    model = get_peft_model(net, config(target_modules=["square", "wide"])).eval()
    expected = model(x).detach()
    assert not torch.allclose(expected, frozen, atol=1e-3)
    layer, wide = (layers(model)[name] for name in ("square", "wide"))
    before = wide.get_base_layer().weight.clone()
    for merge in (model.merge_adapter, model.merge_and_unload):
        with pytest.raises(ValueError, match="merge: .*square: the weight is recomputed .*remove_"):
            merge()
    with pytest.raises(ValueError, match="merge: the weight is recomputed"):
        layer.merge()
    assert torch.equal(wide.get_base_layer().weight, before)  # no layer before it was merged
    assert torch.equal(model(x), expected)
    PLAIN_AGAIN[recompute](layer.base_layer)
    torch.testing.assert_close(model(x), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(model.merge_and_unload()(x), expected, rtol=1e-4, atol=1e-5)


class Router(nn.Linear):
    """As in LLaMA 4: a linear layer that returns more than W x."""

    def forward(self, x):
        y = super().forward(x)
        return y.sigmoid(), y


class Grouped(nn.Linear):
    """As in DeepSeek V4: a block-diagonal product."""

    def forward(self, x):
        return super().forward(x.unflatten(-1, (-1, self.in_features))).flatten(-2)


@pytest.mark.parametrize("kind", [Router, Grouped])
def test_linear_layers_that_are_not_w_x(kind, x):
    net = nn.Sequential(kind(16 if kind is Router else 8, 24))
    with pytest.raises(TypeError, match=f"output of {kind.__name__} .a Linear.*exclude_modules"):
        get_peft_model(net, config(target_modules=["0"]))(x)
