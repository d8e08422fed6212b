"""`add_weighted_adapter`: weighted sums of adapters."""

import warnings

import pytest
import torch
from peft import PeftModel, get_peft_model
from torch import nn
from transformers.pytorch_utils import Conv1D

from fourierft import AdapterBank, FourierFTConfig, export_compact, import_compact
from fourierft.bases.reference import reference_update
from fourierft.layer import adapted_layers


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.square = nn.Linear(12, 12)
        self.wide = nn.Linear(12, 18)
        self.conv = Conv1D(10, 18)
        self.head = nn.Linear(10, 3)

    def forward(self, x):
        return self.head(self.conv(torch.tanh(self.wide(torch.tanh(self.square(x))))))


def config(**values):
    return FourierFTConfig(
        **{"n_frequency": 20, "target_modules": ["square", "wide", "conv"], **values}
    )


def build():
    torch.manual_seed(0)
    return Net()


def adapted(**adapters):
    """A float64 model with adapters of these configurations."""
    model = None
    for name, values in adapters.items():
        if model is None:
            model = get_peft_model(build(), config(**values), name)
        else:
            model.add_adapter(name, config(**values))
    return model.double().eval()


def updates(model, adapter):
    """DeltaW of each layer by the paper's formula, draw by draw; zero where there is none."""
    found = {}
    for name, layer in adapted_layers(model.get_base_model()).items():
        shape = layer.out_features, layer.in_features
        found[name] = torch.zeros(shape, dtype=torch.float64)
        if adapter not in layer.fourierft_spectrum:
            continue
        parts = [draw.n for draw in layer.fourierft_draws[adapter]]
        coefficients = layer.coefficients(adapter).detach().split(parts)
        entries = layer.entries(adapter).split(parts, 1)
        alpha = layer.fourierft_scaling[adapter]
        for c, cells in zip(coefficients, entries, strict=True):
            found[name] += reference_update(c, cells, shape, alpha)
    return found


CASES = {
    "same entries": ({}, {}),
    "other alpha": ({}, {"scaling": 40.0}),
    "norm": ({}, {"scaling": 0.3, "scaling_mode": "norm"}),
    "more of the same": ({}, {"n_frequency": 50}),
    "other seed": ({}, {"random_loc_seed": 5, "scaling": 11.0}),
    "biased": ({"frequency_bias_center": 2.0}, {"frequency_bias_center": 4.0}),
    "more entries than another's layer": (
        {"target_modules": ["wide"], "n_frequency": 200},
        {"target_modules": ["square"], "random_loc_seed": 4},
    ),
    "other layers": ({"target_modules": ["square"]}, {"target_modules": ".*(wide|conv)"}),
    "patterns": (
        {"n_frequency_pattern": {"wide": 9}},
        {"n_frequency_pattern": {"square": 33}, "random_loc_seed": 3},
    ),
    "patterns of one seed": (
        {"n_frequency_pattern": {"wide": 9}},
        {"n_frequency_pattern": {"wide": 31, "conv": 5}},
    ),
    "few rows": ({"entry_rows": 2}, {"entry_rows": 2, "n_frequency": 22}),
    "rows and cells": ({"entry_rows": 2}, {"random_loc_seed": 8}),
    "dct": ({"basis": "dct"}, {"basis": "dct", "random_loc_seed": 4}),
    "algorithm1": (
        {"orientation": "algorithm1"},
        {"orientation": "algorithm1", "random_loc_seed": 9},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_the_sum_is_exact_and_survives_files(case, tmp_path):
    first, second = CASES[case]
    model = adapted(a=first, b=second)
    model.add_weighted_adapter(["a", "b", "b"], [2.0, -0.5, 0.25], "sum")
    if first.get("basis") is None:
        one, other, found = (updates(model, name) for name in ("a", "b", "sum"))
        expected = {name: 2.0 * one[name] - 0.25 * other[name] for name in one}
        for name, update in expected.items():
            torch.testing.assert_close(found[name], update, rtol=1e-11, atol=1e-13, msg=name)
    else:
        for layer in adapted_layers(model.get_base_model()).values():
            one, other = layer.get_delta_weight("a"), layer.get_delta_weight("b")
            torch.testing.assert_close(layer.get_delta_weight("sum"), 2.0 * one - 0.25 * other)
    x = torch.randn(4, 12, dtype=torch.float64)
    model.set_adapter("sum")
    expected = model(x)

    model.save_pretrained(tmp_path, selected_adapters=["sum"])
    read = PeftModel.from_pretrained(build().double(), tmp_path / "sum")
    torch.testing.assert_close(read(x), expected, rtol=1e-10, atol=1e-11)
    export_compact(model, tmp_path / "sum.safetensors", "sum")
    read = import_compact(build(), tmp_path / "sum.safetensors").double()
    torch.testing.assert_close(read(x), expected, rtol=1e-4, atol=1e-5)
    net = build().double()
    bank = AdapterBank(net)
    bank.add("sum", tmp_path / "sum")
    with bank.rows(["sum"] * 4):
        torch.testing.assert_close(net(x), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(model.merge_and_unload()(x), expected)


def test_entries_of_one_seed_are_not_doubled():
    model = adapted(a={}, b={"n_frequency": 50}, c={"random_loc_seed": 5})
    model.add_weighted_adapter(["a", "b"], [1.0, 1.0], "nested")
    model.add_weighted_adapter(["nested", "c", "a"], [1.0, 1.0, 1.0], "all")
    layer = model.get_base_model().square
    assert len(layer.coefficients("nested")) == 50 and len(layer.coefficients("all")) == 70
    assert model.peft_config["nested"].further_draws is None
    assert model.active_adapters == ["a"]
    assert not layer.coefficients("all").requires_grad and layer.coefficients("a").requires_grad


def test_a_sum_can_be_trained_further():
    model = adapted(a={}, b={"random_loc_seed": 5})
    model.add_weighted_adapter(["a", "b"], [1.0, 1.0], "sum")
    model.set_adapter("sum")
    x = torch.randn(4, 12, dtype=torch.float64)
    model(x).pow(2).sum().backward()
    layer = model.get_base_model().wide
    gradient, c = layer.coefficients("sum").grad, layer.coefficients("sum")
    step = 1e-6
    for place in (3, 33):  # of either draw
        before = c[place].item()
        values = []
        for sign in (1, -1):
            c.data[place] = before + sign * step
            values.append(model(x).pow(2).sum().item())
        c.data[place] = before
        assert gradient[place].item() == pytest.approx((values[0] - values[1]) / 2 / step, rel=1e-5)


def test_pruning_types_are_pefts_on_coefficients():
    model = adapted(a={}, b={})
    model.add_weighted_adapter(["a", "b"], [1.0, 1.0], "pruned", "magnitude_prune", density=0.5)
    layer = model.get_base_model().square
    expected = sum(
        torch.where(c.abs() >= c.abs().sort().values[10], c, 0.0)
        for c in (layer.coefficients("a"), layer.coefficients("b"))
    )
    torch.testing.assert_close(layer.coefficients("pruned").detach(), expected.detach())
    for kind in ("ties", "dare_linear", "dare_ties"):
        model.add_weighted_adapter(["a", "b"], [1.0, 1.0], kind, kind, density=0.5)
        kept = (layer.coefficients(kind) != 0).sum()
        assert 0 < kept < 20, kind


def test_the_one_trained_head_is_copied():
    model = adapted(a={"modules_to_save": ["head"]}, b={})
    head = model.get_base_model().head
    with torch.no_grad():
        head.modules_to_save["a"].weight.normal_()
    model.add_weighted_adapter(["a", "b"], [0.5, 0.5], "sum")
    assert torch.equal(head.modules_to_save["sum"].weight, head.modules_to_save["a"].weight)
    assert not head.modules_to_save["sum"].weight.requires_grad


def test_refusals_name_everything_and_change_nothing():
    model = adapted(a={}, b={"orientation": "algorithm1"}, c={"basis": "dct"})
    model.add_adapter("d", config(modules_to_save=["head"]))
    model.add_adapter("x", config(modules_to_save=["head"], bias="fourier_only"))
    before = set(model.state_dict())
    for adapters, weights, name, more, found in (
        ("a", [1.0], "new", {}, "allowed a list of a, b, c"),
        (["a", "z"], [1, 1], "new", {}, "got z, allowed a, b, c, d, x"),
        (["a"], [1, 2], "a", {}, "allowed 1 finite ones.*got 'a', which the model has"),
        (["a"], [float("nan")], "new", {}, r"weights: got \[nan\]"),
        (["a"], [1.0], "new", {"combination_type": "svd"}, "allowed linear, ties.*has no rank"),
        (["a"], [1.0], "new", {"combination_type": "ties"}, "density: got None, allowed 0 to 1"),
        (["a", "b"], [1, 1], "new", {}, r"orientation: got eq4 \(a\), algorithm1 \(b\)"),
        (["a", "c"], [1, 1], "new", {}, r"basis: got fourier \(a\), dct \(c\)"),
        (["d", "x"], [1, 1], "new", {}, "bias: x trained .*modules_to_save: more than one"),
    ):
        with pytest.raises(ValueError, match=found):
            model.add_weighted_adapter(adapters, weights, name, **more)
    other = adapted(a={"basis": "random"}, b={"basis": "random", "random_loc_seed": 1})
    with pytest.raises(ValueError, match=r"random_loc_seed: got \[1, 777\], allowed one"):
        other.add_weighted_adapter(["a", "b"], [1, 1], "new")
    other = adapted(a={"basis": "random"}, b={"basis": "random", "frequency_bias_center": 3.0})
    with pytest.raises(ValueError, match=r"bias_center: got None \(a\), 3.0 \(b\), allowed one"):
        other.add_weighted_adapter(["a", "b"], [1, 1], "new")
    full = adapted(a={"n_frequency": 100}, b={"n_frequency": 100, "random_loc_seed": 1})
    with pytest.raises(ValueError, match="got 200 for square, allowed 1 to 12"):
        full.add_weighted_adapter(["a", "b"], [1, 1], "new")
    assert set(model.state_dict()) == before and "new" not in model.peft_config
    assert "new" not in full.peft_config


def test_stock_peft_refuses_further_draws():
    values = config(further_draws=[{"n_frequency": 5, "random_loc_seed": 1}]).to_dict()
    assert values["peft_type"] == "FOURIERFT_EXTENDED"
    assert "further_draws" not in config(orientation="algorithm1").to_dict()
    with warnings.catch_warnings(), pytest.raises(ValueError, match=r"further_draws\[0\]: got"):
        config(further_draws=[{"n": 5}])
    with pytest.raises(ValueError, match="n_frequency: got 0"):
        config(further_draws=[{"n_frequency": 0, "random_loc_seed": 1}])
    with pytest.raises(ValueError, match="has one seed"):
        config(basis="random", further_draws=[{"n_frequency": 5, "random_loc_seed": 1}])
