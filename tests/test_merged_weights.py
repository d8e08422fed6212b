"""Few adapters in a batch: a product with W0 + DeltaW instead of an update, the same result."""

import weakref

import pytest
import torch
from peft import get_peft_model
from torch import nn
from transformers.pytorch_utils import Conv1D

from fourierft import AdapterBank, FourierFTConfig
from fourierft.bank import merged_weights

SIDE = 48


def make_net(kind, dtype=torch.float32):
    torch.manual_seed(0)
    layer = Conv1D(SIDE - 8, SIDE) if kind == "conv1d" else nn.Linear(SIDE, SIDE - 8)
    return nn.Sequential(layer).to(dtype).requires_grad_(False)


@pytest.fixture
def make_bank(tmp_path):
    """Function: kind of layer -> a bank with three adapters."""

    def make(kind="linear", basis="fourier", dtype=torch.float32):
        settings = {"n_frequency": 30, "scaling": 300.0, "basis": basis}
        config = FourierFTConfig(target_modules=["0"], **settings)
        model = get_peft_model(make_net(kind), config, adapter_name="a")
        for name in "bc":
            model.add_adapter(name, config)
        model.save_pretrained(tmp_path)
        bank = AdapterBank(make_net(kind, dtype))
        bank.add_folder(tmp_path)
        return bank

    return make


@pytest.fixture
def built(monkeypatch):
    """Weak references to the weights that were built, in order."""
    found, build = [], merged_weights._build

    def follow(*args):
        weight = build(*args)
        found.append(weakref.ref(weight))
        return weight

    monkeypatch.setattr(merged_weights, "_build", follow)
    return found


def one_by_one(bank, names, x):
    rows = []
    for name, row in zip(names, x, strict=True):
        with bank.rows([name]):
            rows.append(bank.net(row[None]))
    return torch.cat(rows)


@pytest.mark.parametrize("kind", ["linear", "conv1d"])
@pytest.mark.parametrize("names", [["a"] * 3, ["a", "__base__", "b"]])
def test_kept_once_updates_have_cost_as_much(make_bank, built, kind, names):
    bank, x = make_bank(kind), torch.randn(3, 2, SIDE)
    expected = one_by_one(bank, names, x)
    assert not built
    rows = bank.gather(names)
    for _ in range(20):
        with bank.rows(rows):
            assert (bank.net(x) - expected).abs().max() < 1e-5
    assert len(built) == len(set(names) - {"__base__"})
    bank.replace("a", bank.describe("c").source)
    with bank.rows(rows):  # of the values that it began with
        assert (bank.net(x) - expected).abs().max() < 1e-5


def test_built_for_a_long_prompt_alone(make_bank, built):
    bank, x = make_bank(), torch.randn(2, 100, SIDE)
    with bank.rows(["a", "a"]):
        found = bank.net(x)
    assert len(built) == 1
    assert (found - one_by_one(bank, ["a", "a"], x)).abs().max() < 1e-5


def test_many_adapters_take_updates(make_bank, built, monkeypatch):
    monkeypatch.setattr("fourierft.engine.mixed_batch._SEPARATE", 100.0)
    bank, x = make_bank(), torch.randn(3, 2, SIDE)
    rows = bank.gather(["a", "b", "c"])
    for _ in range(50):
        with bank.rows(rows):
            bank.net(x)
    assert not built


def test_without_room_nothing_is_kept(make_bank, built, monkeypatch):
    monkeypatch.setattr(merged_weights, "LARGEST", 0)
    bank, x = make_bank(), torch.randn(1, 2, SIDE)
    rows = bank.gather(["a"])
    for _ in range(50):
        with bank.rows(rows):
            bank.net(x)
    assert not built


def test_another_basis_is_merged_at_once(make_bank, built):
    bank, x = make_bank(basis="orthogonal"), torch.randn(2, 3, SIDE)
    rows = bank.gather(["a", "b"])
    for _ in range(3):
        with bank.rows(rows):
            found = bank.net(x)
    assert len(built) == 2
    assert (found - one_by_one(bank, ["a", "b"], x)).abs().max() < 1e-5


def test_half_precision_takes_updates(make_bank, built):
    """A rounded W0 + DeltaW would lose some of it."""
    bank, x = make_bank(dtype=torch.bfloat16), torch.randn(1, 100, SIDE)
    with bank.rows(["a"]):
        bank.net(x.bfloat16())
    bank = make_bank()
    with bank.rows(["a"]), torch.autocast("cpu", torch.bfloat16):
        bank.net(x)
    assert not built


def test_gradients_of_inputs(make_bank, built):
    bank, x = make_bank(), torch.randn(2, 100, SIDE, requires_grad=True)
    with bank.rows(["a", "b"]):
        bank.net(x)[0].sum().backward()
    assert built and x.grad[0].abs().sum() > 0 and x.grad[1].abs().sum() == 0


@pytest.mark.parametrize("keep", [True, False])
def test_what_is_not_kept_is_built_one_at_a_time(make_bank, built, monkeypatch, keep):
    if not keep:
        monkeypatch.setattr(merged_weights, "LARGEST", 0)
    bank, x, alive = make_bank(), torch.randn(3, 100, SIDE), []
    multiply = merged_weights.F.linear

    def count(*args):
        alive.append(sum(weight() is not None for weight in built))
        return multiply(*args)

    monkeypatch.setattr(merged_weights.F, "linear", count)
    rows = bank.gather(["a", "b", "c"])
    for _ in range(20):
        with bank.rows(rows):
            found = bank.net(x)
    assert alive[-3:] == ([3] * 3 if keep else [1] * 3)
    assert (found - one_by_one(bank, ["a", "b", "c"], x)).abs().max() < 1e-5


@pytest.mark.parametrize("change", ["in place", "another tensor"])
def test_kept_weights_follow_the_base_weight(make_bank, built, change):
    bank, x = make_bank(), torch.randn(1, 2, SIDE)
    (layer,), rows = bank.net, bank.gather(["a"])
    for turn in range(2):
        for _ in range(20):
            with bank.rows(rows):
                found = bank.net(x)
        assert len(built) == turn + 1
        assert (found - one_by_one(bank, ["a"], x)).abs().max() < 1e-5
        if change == "in place":
            layer.load_state_dict({name: 2 * t for name, t in layer.state_dict().items()})
        else:
            layer.weight.data = 2 * layer.weight.data


def test_an_adapter_that_was_pinned_twice_is_built_once(make_bank, built):
    bank, x = make_bank(), torch.randn(3, 100, SIDE)
    with bank.rows([bank.pin("a"), bank.pin("a"), bank.pin("a")]):
        found = bank.net(x)
    assert len(built) == 1
    assert (found - one_by_one(bank, ["a"] * 3, x)).abs().max() < 1e-5
