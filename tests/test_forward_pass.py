"""Layers whose weights are built together in a forward pass: against float64, whatever happens
to them, and alone wherever building together would not hold."""

import copy
import pickle
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from peft import get_peft_model
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers.pytorch_utils import Conv1D

from fourierft import FourierFTConfig, FourierFTLayer, configure, forward_pass
from fourierft.engine import weight_group
from tests.test_weight_cache import CHANGES, OPTIMIZERS, write_data, write_in_place


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.conv = nn.Linear(24, 32), Conv1D(24, 32)

    def forward(self, x):
        return torch.tanh(self.conv(torch.tanh(self.first(x))))


class Net(nn.Module):
    """Two shapes, three layers of each; the second block is called twice, the third at will."""

    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList(Block() for _ in range(3))
        self.head = nn.Linear(24, 4)
        self.checkpoints: bool | None = None
        self.skips = False

    def forward(self, x):
        first, second, third = self.blocks
        for block in (first, second, second) if self.skips else (first, second, second, third):
            if self.checkpoints is None:
                x = block(x)
            else:
                x = checkpoint(block, x, use_reentrant=self.checkpoints)
        return self.head(x)


def build(memory="batched", **values):
    torch.manual_seed(0)
    values = {"n_frequency": 40, "target_modules": ["first", "conv"], "scaling": 40.0, **values}
    model = get_peft_model(Net(), FourierFTConfig(modules_to_save=["head"], **values))
    for name, p in model.named_parameters():
        if "spectrum" in name:
            p.data.mul_(0.3)
    configure(model, memory=memory)
    return model


def batch(seed=0, dtype=torch.float32):
    return torch.randn(8, 24, generator=torch.Generator().manual_seed(seed)).to(dtype)


def layers(model):
    return [module for module in model.modules() if isinstance(module, FourierFTLayer)]


def results(model, x):
    """Output and gradients of input and parameters; None where there is none."""
    x = x.requires_grad_()
    y = model(x)
    trained = [p for p in model.parameters() if p.requires_grad]
    return [y.detach(), *torch.autograd.grad(y.pow(2).sum(), [x, *trained], allow_unused=True)]


def relative_errors(found, expected):
    pairs = zip(found, expected, strict=True)
    errors = [(one - other).norm() / other.norm() for one, other in pairs if other is not None]
    return torch.stack([error.double() for error in errors])


def assert_true(model):
    """Outputs and gradients are as close to float64 as those of layers on their own are."""
    alone = copy.deepcopy(model)
    configure(alone, memory="recompute", gradient="dense")
    truth = copy.deepcopy(alone).double()
    expected = results(truth, batch().double())
    found = results(model, batch())
    assert [one is None for one in found] == [other is None for other in expected]
    # Eight layers one after the other, with saturated tanh, make more of a rounding error.
    allowed = 5e-7 + 4 * relative_errors(results(alone, batch()), expected)
    assert (relative_errors(found, expected) <= allowed).all()
    with torch.no_grad():
        assert relative_errors([model(batch())], expected[:1]) <= allowed[0]


@pytest.fixture
def groups(monkeypatch):
    """Sizes of the groups that are built."""
    seen = []
    original = forward_pass.build_weights

    def build(members, *args):
        seen.append(len(members))
        return original(members, *args)

    monkeypatch.setattr(forward_pass, "build_weights", build)
    return seen


@pytest.fixture
def transformed(monkeypatch):
    """Shapes of what is transformed for gradients."""
    seen = []
    original = torch.fft.rfft2
    monkeypatch.setattr(torch.fft, "rfft2", lambda g: seen.append(tuple(g.shape)) or original(g))
    return seen


@pytest.mark.parametrize("gradient", ["dense", "sampled"])
@pytest.mark.parametrize("basis", ["fourier", "hartley"])
def test_one_build_and_one_gradient_a_shape(groups, transformed, gradient, basis):
    model = build(gradient=gradient, basis=basis)
    results(model, batch())
    assert groups == [3, 3]
    fourier = gradient == "dense" and basis == "fourier"
    assert transformed == ([(3, 32, 24)] * 2 if fourier else [])
    assert_true(model)


def test_groups_are_of_one_kind_and_bounded(groups, monkeypatch):
    patterns = {"blocks.1.first": 30}
    model = build(n_frequency_pattern=patterns)
    model(batch())
    assert groups == [2, 3]
    assert_true(model)
    groups.clear()
    monkeypatch.setattr(forward_pass, "group_size", lambda shape: 2)
    model(batch())
    assert groups == [2, 2]  # what is left of a shape is alone
    assert_true(model)


@pytest.mark.parametrize("change", CHANGES)
def test_changes_are_seen(change, groups):
    model = build()
    results(model, batch())
    groups.clear()
    for _ in range(2):
        change(model)
        assert_true(model)
        if change.__name__ in ("another_adapter", "both_adapters", "adapter_again"):
            break
    assert groups or change.__name__ == "base_weight_replaced"


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_training(name, groups):
    losses = []
    for memory in ("batched", "recompute"):
        model = build(memory)
        optimizer = OPTIMIZERS[name]([p for p in model.parameters() if p.requires_grad])
        found = []
        for step in range(6):
            for micro in range(2):
                loss = model(batch(2 * step + micro)).pow(2).mean()
                loss.backward()
                found.append(loss.detach())
            optimizer.step()
            optimizer.zero_grad()
        losses.append(torch.stack(found))
    assert len(groups) == 24 and losses[0][-1] != losses[0][0]
    torch.testing.assert_close(*losses, rtol=2e-5, atol=1e-6)


def test_layers_that_are_not_called_get_no_gradient():
    model = build()
    model.get_base_model().skips = True
    results(model, batch())
    assert_true(model)
    model(batch()).sum().backward()
    third = model.get_base_model().blocks[2]
    assert third.first.fourierft_spectrum["default"].grad is None


def test_layers_called_outside_their_models_pass(groups):
    model = build()
    block = model.get_base_model().blocks[0]
    before = block(batch())
    assert not groups
    model(batch())
    write_data(model)
    with torch.no_grad():
        torch.testing.assert_close(block(batch()), copy.deepcopy(block)(batch()))
        assert not torch.allclose(block(batch()), before)


def test_two_passes_before_a_backward_pass():
    model = build()
    trained = [p for p in model.parameters() if p.requires_grad]
    expected = [torch.autograd.grad(model(batch(i)).pow(2).sum(), trained) for i in (0, 1)]
    both = [model(batch(i)).pow(2).sum() for i in (0, 1)]
    found = torch.autograd.grad(both[0] + both[1], trained, retain_graph=True)
    for one, *two in zip(found, *expected, strict=True):
        torch.testing.assert_close(one, sum(two), rtol=1e-4, atol=1e-4)
    again = torch.autograd.grad(both[0] + both[1], trained)
    assert all(torch.equal(a, b) for a, b in zip(found, again, strict=True))


def test_changes_between_forward_and_backward():
    model = build()
    trained = [p for p in model.parameters() if p.requires_grad and p.dim() == 1 and len(p) == 40]
    loss = model(batch()).pow(2).sum()
    expected = torch.autograd.grad(loss, trained, retain_graph=True)
    for layer in layers(model):
        layer.fourierft_spectrum["default"].data.mul_(2)
    found = torch.autograd.grad(loss, trained, retain_graph=True)
    assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True))
    write_in_place(model)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        torch.autograd.grad(loss, trained, create_graph=True)


def test_a_change_within_a_pass_is_seen():
    model = build()

    def change(module, args):
        with torch.no_grad():
            model.get_base_model().blocks[2].conv.fourierft_spectrum["default"].add_(1.0)

    handle = model.get_base_model().blocks[2].register_forward_pre_hook(change)
    found = model(batch())
    handle.remove()
    configure(model, memory="recompute")
    torch.testing.assert_close(found, model(batch()))


@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpointing(reentrant, groups):
    model = build()
    expected = results(model, batch())
    assert groups == [3, 3]
    groups.clear()
    model.get_base_model().checkpoints = reentrant
    found = build()
    found.get_base_model().checkpoints = reentrant
    x = batch().requires_grad_()
    found(x).pow(2).sum().backward()
    trained = [p for p in found.parameters() if p.requires_grad]
    for one, other in zip([x.grad, *(p.grad for p in trained)], expected[1:], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
    assert groups == ([3, 3] if reentrant else [])  # the reentrant one runs without a graph first


def test_second_derivatives_and_many_gradients_at_once():
    model = build().double()
    coefficients = [layer.fourierft_spectrum["default"] for layer in layers(model)]
    loss = model(batch(dtype=torch.float64)).pow(2).sum()
    first = torch.autograd.grad(loss, coefficients, create_graph=True)
    second = torch.autograd.grad(sum(g.pow(2).sum() for g in first), coefficients)
    configure(model, memory="recompute", gradient="dense")
    loss = model(batch(dtype=torch.float64)).pow(2).sum()
    expected = torch.autograd.grad(loss, coefficients, create_graph=True)
    again = torch.autograd.grad(sum(g.pow(2).sum() for g in expected), coefficients)
    for pair in (*zip(first, expected, strict=True), *zip(second, again, strict=True)):
        torch.testing.assert_close(*pair)
    configure(model, memory="batched")
    y = model(batch(dtype=torch.float64))
    many = torch.randn(3, *y.shape, dtype=torch.float64)
    options = {"is_grads_batched": True, "retain_graph": True}
    found = torch.autograd.grad(y, coefficients, many, **options)
    for place, dy in enumerate(many):
        single = torch.autograd.grad(y, coefficients, dy, retain_graph=True)
        for one, other in zip(found, single, strict=True):
            torch.testing.assert_close(one[place], other)


class Parallel(nn.Module):
    def __init__(self):
        super().__init__()
        self.query, self.value = nn.Linear(24, 32), nn.Linear(24, 32)

    def forward(self, x):
        return torch.stack([self.query(x), self.value(x)])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, "autocast"])
def test_against_float64(dtype, groups):
    """dL/dW reaches the coefficients in float32, whatever the weights' type."""
    torch.manual_seed(0)
    rounded = torch.bfloat16 if dtype == "autocast" else dtype
    values = {"n_frequency": 40, "target_modules": ["query", "value"], "scaling": 40.0}
    config = FourierFTConfig(memory="batched", gradient="dense", **values)
    model = get_peft_model(Parallel(), config)
    model.to(torch.float32 if dtype == "autocast" else dtype)
    for layer in layers(model):
        c = layer.fourierft_spectrum["default"]
        c.data = c.data.float()
    x = batch().to(rounded).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == "autocast"):
        y = model(x if dtype != "autocast" else x.float())
    dy = torch.randn(y.shape).to(y.dtype)
    coefficients = [layer.fourierft_spectrum["default"] for layer in layers(model)]
    found = torch.autograd.grad(y, [x, *coefficients], dy)
    assert groups == [2] and y.dtype == rounded
    truth = copy.deepcopy(model).double()
    configure(truth, memory="recompute")
    z = truth(x.detach().double().requires_grad_())
    others = [layer.fourierft_spectrum["default"] for layer in layers(truth)]
    expected = torch.autograd.grad(z, others, dy.double())
    assert (relative_errors(found[1:], expected) < 5e-7).all()
    limit = 5e-7 if dtype == torch.float32 else 2 * torch.finfo(rounded).eps
    assert (relative_errors([y], [z]) < limit).all()


def test_only_what_learns_gets_a_gradient(groups, transformed):
    model = build(gradient="dense")
    spectrum = [layer.fourierft_spectrum for layer in layers(model)]
    for part in spectrum[2:]:
        part.requires_grad_(False)
    results(model, batch())
    assert groups == [3, 3] and transformed == [(1, 32, 24)] * 2
    assert_true(model)
    for part in spectrum[:2]:
        part.requires_grad_(False)
    assert_true(model)
    for part in spectrum:
        part.requires_grad_(True)
    assert_true(model)


def test_merged_disabled_and_hooked_layers_are_alone(groups):
    model = build()
    first = model.get_base_model().blocks[0].first
    first.merge()
    model(batch())
    assert groups == [3, 2]
    first.unmerge()
    groups.clear()
    with model.disable_adapter():
        model(batch())
    assert not groups
    first.base_layer.register_forward_hook(lambda *_: None)
    model(batch())
    assert groups == [3, 2]
    assert_true(model)


def test_copies_and_pickles(groups):
    model = build()
    results(model, batch())
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        groups.clear()
        write_data(other)
        assert_true(other)
        assert [3, 3] == groups[:2]
    assert_true(model)


def test_interrupted_pass_leaves_nothing(groups):
    model = build()
    last = model.get_base_model().head

    def stop(*_):
        raise KeyboardInterrupt

    handle = last.register_forward_hook(stop)
    with pytest.raises(KeyboardInterrupt):
        model(batch())
    handle.remove()
    block = model.get_base_model().blocks[0]
    trained = [p for p in model.parameters() if p.requires_grad]
    for p in trained:
        p.grad = torch.ones_like(p)
    before = block(batch()).detach()
    torch.optim.AdamW(trained, lr=0.5, fused=True).step()
    assert not forward_pass._passes.running
    assert not torch.allclose(block(batch()), before)
    with pytest.raises(RuntimeError):
        model(torch.zeros(8, 3))
    assert not forward_pass._passes.running
    assert_true(model)


def test_unloading_leaves_the_model_as_it_was():
    for unload in ("unload", "merge_and_unload"):
        net = getattr(build(), unload)()
        assert not (net._forward_pre_hooks or net._forward_hooks)
        assert not net._forward_hooks_always_called


def test_outputs_without_a_graph_hold_one_weight_at_a_time(monkeypatch):
    model, held = build(), []
    original = weight_group.PreparedWeight
    running = forward_pass._passes

    def count(module, args):
        found = running.running[-1]._prepared.values()
        held.append(sum(prepared is not None for prepared in found))

    for block in model.get_base_model().blocks:
        block.register_forward_hook(lambda module, args, output: count(module, args))
    with torch.no_grad():
        model(batch())
    assert held == [4, 2, 2, 0] and original is weight_group.PreparedWeight


@pytest.mark.slow
def test_threads_share_a_model():
    model = build()
    with torch.no_grad():
        expected = model(batch())

        def call(_):
            with torch.no_grad():
                return (model(batch()) - expected).abs().max().item()

        with ThreadPoolExecutor(4) as pool:
            assert max(pool.map(call, range(100))) < 1e-5


@pytest.mark.slow
def test_compiled_models_have_no_graph_breaks():
    model = build()
    expected = results(model, batch())
    found = results(torch.compile(model, backend="aot_eager", fullgraph=True), batch())
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
