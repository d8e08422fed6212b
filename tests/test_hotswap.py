"""Replacing an adapter's values in place."""

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from torch import nn

from fourierft import FourierFTConfig, configure, hotswap_adapter, prepare_swap


def build():
    torch.manual_seed(0)
    net = nn.Sequential()
    for name, layer in {
        "a": nn.Linear(8, 8),
        "b": nn.Linear(8, 6),
        "head": nn.Linear(6, 3),
    }.items():
        net.add_module(name, layer)
    return net.double()


def adapted(seed=1, **values):
    net = build()
    torch.manual_seed(seed)
    values = {"n_frequency": 9, "target_modules": ["a", "b"], "modules_to_save": ["head"], **values}
    model = get_peft_model(net, FourierFTConfig(**values)).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.normal_()
    return model


def saved(folder, **values):
    adapted(**values).save_pretrained(folder)
    return folder


@pytest.fixture
def x():
    return torch.randn(4, 8, dtype=torch.float64)


@pytest.mark.parametrize(
    "values",
    [{}, {"scaling": 31.0}, {"scaling": 0.4, "scaling_mode": "norm"}, {"target_modules": ["b"]}],
    ids=["same", "alpha", "norm", "fewer layers"],
)
def test_the_swapped_model_is_the_other(values, tmp_path, x):
    expected = PeftModel.from_pretrained(build(), saved(tmp_path, seed=2, **values))(x)
    model = adapted()
    before = model(x)
    parameters = {name: id(parameter) for name, parameter in model.named_parameters()}
    back = prepare_swap(model, saved(tmp_path / "first"), "default")
    hotswap_adapter(model, tmp_path, "default")
    torch.testing.assert_close(model(x), expected, rtol=1e-12, atol=1e-12)
    assert not torch.allclose(model(x), before)
    assert parameters == {name: id(parameter) for name, parameter in model.named_parameters()}
    back.swap()
    assert torch.equal(model(x), before)
    model.get_base_model().a.unscale_layer()
    configure(model)
    assert torch.equal(model(x), before)


def test_a_compiled_model_is_not_compiled_again(tmp_path, x):
    expected = PeftModel.from_pretrained(build(), saved(tmp_path, seed=2, scaling=31.0))(x)
    model, compilations = adapted(), []

    def backend(graph, inputs):
        compilations.append(graph)
        return graph.forward

    compiled = torch.compile(model, backend=backend)
    with torch.no_grad():
        before = compiled(x)
        once = len(compilations)
        hotswap_adapter(compiled, tmp_path, "default")
        torch.testing.assert_close(compiled(x), expected)
        assert len(compilations) == once > 0 and not torch.allclose(before, expected)


def test_what_cannot_be_swapped_is_named_and_changes_nothing(tmp_path, x):
    model = adapted()
    before = model(x)
    for place, (values, named) in enumerate(
        (
            ({"random_loc_seed": 5}, r"a: entries found .*seed=5.* expected .*seed=777.*load_ad"),
            ({"n_frequency": 8}, r"a: entries found \(Draw\(n=8"),
            ({"basis": "dct"}, "a: basis found dct, expected fourier"),
            ({"orientation": "algorithm1"}, "a: orientation found algorithm1, expected eq4"),
            ({"modules_to_save": None}, "head.weight: missing"),
            ({"bias": "all"}, "bias: got 'all', allowed 'none'"),
        )
    ):
        folder = saved(tmp_path / str(place), **values)
        with pytest.raises(ValueError, match=f"{folder}: .*{named}"):
            hotswap_adapter(model, folder, "default")
    fewer = adapted(target_modules=["b"])
    with pytest.raises(ValueError, match="a.fourierft_spectrum: not of adapter 'default'"):
        hotswap_adapter(fewer, saved(tmp_path / "both"), "default")
    file = tmp_path / "both/adapter_model.safetensors"
    tensors = load_file(file)
    key = "base_model.model.a.fourierft_spectrum"
    for change, named in ((tensors[key] * torch.nan, "not finite"), (None, "a: missing")):
        save_file(
            {**tensors, key: change}
            if change is not None
            else {k: v for k, v in tensors.items() if k != key},
            file,
        )
        with pytest.raises(ValueError, match=named):
            hotswap_adapter(model, tmp_path / "both", "default")
    assert torch.equal(model(x), before)
    model.merge_adapter()
    with pytest.raises(ValueError, match="'default' is merged; call unmerge_adapter"):
        hotswap_adapter(model, saved(tmp_path / "last"), "default")
    with pytest.raises(ValueError, match="got adapter 'x', allowed default"):
        hotswap_adapter(model, tmp_path / "last", "x")
    get_peft_model(build(), LoraConfig(target_modules=["a"])).save_pretrained(tmp_path / "lora")
    with pytest.raises(ValueError, match="lora: an adapter of the type .*LORA, not of FourierFT"):
        hotswap_adapter(model, tmp_path / "lora", "default")


def test_what_a_swap_would_leave_of_the_models_own_adapter_is_refused(tmp_path):
    folder = saved(tmp_path)
    with pytest.raises(ValueError, match="bias: got 'all' for adapter 'default' of the model"):
        hotswap_adapter(adapted(bias="all"), folder, "default")
    model = adapted()
    model.peft_config["default"].trainable_token_indices = [1, 2]
    with pytest.raises(ValueError, match=r"trainable_token_indices: got \[1, 2\] for adapter"):
        hotswap_adapter(model, folder, "default")


def test_a_prepared_swap_follows_casts_and_heeds_merges(tmp_path, x):
    expected = PeftModel.from_pretrained(build(), saved(tmp_path, seed=2)).float()(x.float())
    model = adapted()
    prepared = prepare_swap(model, tmp_path, "default")
    model.float().merge_adapter()
    merged = model(x.float())
    with pytest.raises(ValueError, match="'default' is merged; call unmerge_adapter"):
        prepared.swap()
    assert torch.equal(model(x.float()), merged)
    model.unmerge_adapter()
    prepared.swap()
    torch.testing.assert_close(model(x.float()), expected)
