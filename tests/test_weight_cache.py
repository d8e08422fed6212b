"""A stale weight would train one thing and use another: the cached layer must equal the uncached
one whatever is done to its parameters."""

import copy
import io
import pickle
import warnings

import bitsandbytes
import pytest
import torch
from peft import get_peft_model
from torch import nn
from torch.func import functional_call
from transformers.pytorch_utils import Conv1D

from fourierft import FourierFTConfig, FourierFTLayer, configure
from fourierft.bases.transform import make_transform
from fourierft.engine.weight_cache import AdapterTerm, WeightCache, WeightLayout

STEPS = 20


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(24, 32)
        self.conv = Conv1D(24, 32)
        self.head = nn.Linear(24, 4)

    def forward(self, x):
        return self.head(torch.tanh(self.conv(torch.tanh(self.first(x)))))


def build(memory, **values):
    torch.manual_seed(0)
    values = {"n_frequency": 40, "target_modules": ["first", "conv"], "scaling": 40.0, **values}
    model = get_peft_model(Net(), FourierFTConfig(modules_to_save=["head"], **values))
    configure(model, memory=memory)
    return model


def twins(**values):
    return build("cache", **values), build("recompute", **values)


def batch(step):
    return torch.randn(8, 24, generator=torch.Generator().manual_seed(step))


def layers(model):
    return [module for module in model.modules() if isinstance(module, FourierFTLayer)]


def trained(model):
    return [p for p in model.parameters() if p.requires_grad]


def backward(model, step):
    loss = model(batch(step)).pow(2).mean()
    loss.backward()
    return loss.detach()


def assert_same(pair, step=99):
    """Outputs with and without a graph, in training and evaluation, and all gradients."""
    for model in pair:
        model.zero_grad()
    losses = [backward(model, step) for model in pair]
    assert torch.equal(*losses)
    for one, other in zip(*map(trained, pair), strict=True):
        assert torch.equal(one.grad, other.grad)
    with torch.no_grad():
        assert torch.equal(*(model(batch(step)) for model in pair))
    with torch.inference_mode():
        assert torch.equal(*(model(batch(step)) for model in pair))


def outputs_differ(model, before):
    return not torch.equal(model(batch(99)), before)


OPTIMIZERS = {
    "plain": lambda p: torch.optim.AdamW(p, lr=0.05, foreach=False),
    "foreach": lambda p: torch.optim.AdamW(p, lr=0.05, foreach=True),
    "fused": lambda p: torch.optim.AdamW(p, lr=0.05, fused=True),
    "sgd": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9),
    "8bit": lambda p: bitsandbytes.optim.AdamW8bit(p, lr=0.05, min_8bit_size=16),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("accumulation", [1, 3])
def test_training(name, accumulation):
    losses = []
    for model in twins():
        optimizer = OPTIMIZERS[name](trained(model))
        found = []
        for step in range(STEPS):
            for micro in range(accumulation):
                found.append(backward(model, step * accumulation + micro))
            optimizer.step()
            optimizer.zero_grad()
            with torch.no_grad():
                found.append(model(batch(1000)).sum())
        losses.append(torch.stack(found))
    assert torch.equal(*losses) and losses[0][-1] != losses[0][1]


def write_data(model):
    for p in trained(model):
        p.data.copy_(p.data * 1.5 + 0.1)


def write_in_place(model):
    with torch.no_grad():
        for p in trained(model):
            p.add_(0.25)


def write_one_number_through_data(model):
    layers(model)[0].fourierft_spectrum["default"].data[7] += 3.0


def write_as_numpy(model):
    for layer in layers(model):
        layer.fourierft_spectrum["default"].detach().numpy()[:] *= -1


def replace_data(model):
    for p in trained(model):
        p.data = p.data.flip(0)


def vector(model):
    flat = torch.nn.utils.parameters_to_vector(trained(model)) * 0.5
    torch.nn.utils.vector_to_parameters(flat, trained(model))


def other_state(model):
    return {name: value * 0.7 + 0.01 for name, value in model.state_dict().items()}


def load(model):
    model.load_state_dict(other_state(model))


def load_assigning(model):
    model.load_state_dict(other_state(model), assign=True)
    for p in model.parameters():
        p.requires_grad_(False)
    for layer in layers(model):
        layer.fourierft_spectrum.requires_grad_(True)


def average(model):
    averaged = torch.optim.swa_utils.AveragedModel(model)
    write_data(model)
    averaged.update_parameters(model)
    for p, q in zip(model.parameters(), averaged.module.parameters(), strict=True):
        p.data.copy_(q.data)


def base_weight_through_data(model):
    for layer in layers(model):
        layer.base_layer.weight.data.mul_(1.1)


def base_row_through_data(model):
    layers(model)[0].base_layer.weight.data[5] += 1.0


def base_column_through_data(model):
    layers(model)[1].base_layer.weight.data[:, 3] += 1.0


def base_weight_in_place(model):
    with torch.no_grad():
        layers(model)[1].base_layer.weight[2, 3] += 1.0


def base_weight_replaced(model):
    layers(model)[0].base_layer.weight.data = torch.ones(32, 24)


def base_parameter_replaced(model):
    weight = layers(model)[0].base_layer.weight
    layers(model)[0].base_layer.weight = nn.Parameter(weight.detach() * 2, requires_grad=False)


def other_alpha(model):
    for layer in layers(model):
        layer.fourierft_scaling["default"] *= 2


def another_adapter(model):
    torch.manual_seed(3)
    values = {"n_frequency": 25, "target_modules": ["first", "conv"], "random_loc_seed": 1}
    model.add_adapter("other", FourierFTConfig(scaling=60.0, **values))
    model.set_adapter("other")


def both_adapters(model):
    another_adapter(model)
    model.base_model.set_adapter(["default", "other"])


def adapter_again(model):
    """Under the same name, with other entries."""
    another_adapter(model)
    model.set_adapter("default")
    model.delete_adapter("other")
    torch.manual_seed(4)
    values = {"n_frequency": 25, "target_modules": ["first", "conv"], "random_loc_seed": 2}
    model.add_adapter("other", FourierFTConfig(**values))
    model.set_adapter("other")


def merge_and_unmerge(model):
    model.merge_adapter()
    write_data(model)
    model.unmerge_adapter()


def to_double_and_back(model):
    model.double()
    model(batch(0).double())
    write_data(model)
    model.float()


CHANGES = [
    write_data,
    write_in_place,
    write_one_number_through_data,
    write_as_numpy,
    replace_data,
    vector,
    load,
    load_assigning,
    average,
    base_weight_through_data,
    base_row_through_data,
    base_column_through_data,
    base_weight_in_place,
    base_weight_replaced,
    base_parameter_replaced,
    other_alpha,
    another_adapter,
    both_adapters,
    adapter_again,
    merge_and_unmerge,
    to_double_and_back,
]


@pytest.mark.parametrize("change", CHANGES)
def test_changes_are_seen(change):
    pair = twins()
    before = pair[0](batch(99))
    for model in pair:
        change(model)
    assert outputs_differ(pair[0], before)
    assert_same(pair)
    for model in pair:
        change(model) if change not in (another_adapter, both_adapters, adapter_again) else None
    assert_same(pair)


@pytest.mark.parametrize("change", [write_data, write_in_place, "fused step"])
@pytest.mark.parametrize("memory", ["cache", "save", "recompute"])
def test_between_forward_and_backward(memory, change):
    """The gradient is that of the forward pass, whatever happened since."""
    model = build(memory)
    x = batch(0).requires_grad_()
    first = model.get_base_model().first  # nothing else in between
    loss = first(x).pow(2).sum()
    c = first.fourierft_spectrum["default"]
    expected = torch.autograd.grad(loss, [x, c], retain_graph=True)
    if change == "fused step":
        c.grad = torch.ones_like(c)
        torch.optim.AdamW([c], lr=0.5, fused=True).step()
    else:
        change(model)
    model(batch(1))  # builds the weight anew
    found = torch.autograd.grad(loss, [x, c], retain_graph=True)
    assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True))
    if change is write_in_place:
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            torch.autograd.grad(loss, [x, c], create_graph=True)


def test_functional_call():
    pair = twins()
    for factor in (1.0, 2.0, 0.5):
        found = []
        for model in pair:
            state = {name: p.detach() * factor for name, p in model.named_parameters()}
            found.append(functional_call(model, state, (batch(0),)))
        assert torch.equal(*found)
    assert_same(pair)


def pickled(model):
    return pickle.loads(pickle.dumps(model))


def saved(model):
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@pytest.mark.parametrize("duplicate", [copy.deepcopy, pickled, saved])
def test_copies_go_their_own_way(duplicate):
    pair = twins()
    assert_same(pair)
    copies = [duplicate(model) for model in pair]
    assert all(layer._cache.nbytes == 0 for layer in layers(copies[0]))
    assert_same((pair[0], copies[1]))
    for model in copies:
        write_data(model)
    assert_same(copies)
    assert_same(pair)
    assert not torch.equal(pair[0](batch(0)), copies[0](batch(0)))


def test_first_used_in_inference_mode():
    pair = twins()
    with torch.inference_mode():
        assert torch.equal(*(model(batch(0)) for model in pair))
    assert_same(pair)


def test_made_in_inference_mode():
    with torch.inference_mode():
        pair = twins()
        assert torch.equal(*(model(batch(0)) for model in pair))
        for model in pair:
            write_in_place(model)  # inference tensors have no version at all
        assert torch.equal(*(model(batch(0)) for model in pair))


def test_disabled_and_enabled_again():
    pair = twins()
    with torch.no_grad():
        expected = pair[1].get_base_model().first.base_layer(batch(0))
        for model in pair:
            with model.disable_adapter():
                assert torch.equal(model.get_base_model().first(batch(0)), expected)
                write_data(model)
    assert_same(pair)


@pytest.mark.parametrize("backend", ["aot_eager", "eager"])
@pytest.mark.slow
def test_compiled(backend):
    cached, uncached = twins()
    compiled = torch.compile(cached, backend=backend, fullgraph=True)
    optimizers = [OPTIMIZERS["fused"](trained(model)) for model in (cached, uncached)]
    for step in range(5):
        for model, optimizer in zip((compiled, uncached), optimizers, strict=True):
            backward(model, step)
            optimizer.step()
            optimizer.zero_grad()
        torch.testing.assert_close(compiled(batch(99)), uncached(batch(99)), rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(cached(batch(99)), uncached(batch(99)), rtol=1e-5, atol=1e-6)


def test_nothing_is_built_twice(monkeypatch):
    """Evaluation, generation and accumulation pay nothing while the coefficients stay."""
    model = build("cache")
    built = []
    original = torch.fft.irfft
    monkeypatch.setattr(torch.fft, "irfft", lambda *a, **k: built.append(1) or original(*a, **k))
    for step in range(4):
        backward(model, step)
        with torch.no_grad():
            model(batch(step))
    assert len(built) == len(layers(model))
    write_data(model)
    backward(model, 0)
    assert len(built) == 2 * len(layers(model))


def test_memory_is_given_back():
    model = build("cache")
    model(batch(0))
    assert [layer._cache.nbytes for layer in layers(model)] == [4 * 24 * 32] * 2
    assert "_cache" not in str(model.state_dict().keys())
    model.to(torch.float64)
    assert not any(layer._cache.nbytes for layer in layers(model))
    uncached = build("recompute")
    uncached(batch(0))
    assert not any(layer._cache.nbytes for layer in layers(uncached))


def test_what_was_handed_out_is_never_written_to():
    transform = make_transform((8, 6), torch.tensor([[1, 2], [3, 4]]))
    c, weight, cache = torch.randn(2), torch.randn(8, 6), WeightCache()
    first = cache.get(weight, [AdapterTerm(transform, 2.0, c)], WeightLayout(torch.float32))
    kept = first.clone()
    assert cache.get(weight, [AdapterTerm(transform, 2.0, c)], WeightLayout(torch.float32)) is first
    c.data.mul_(2)
    second = cache.get(weight, [AdapterTerm(transform, 2.0, c)], WeightLayout(torch.float32))
    assert torch.equal(first, kept) and not torch.equal(second, first)


@pytest.mark.parametrize("shape", [(768, 768), (768, 3072), (5000, 1), (1, 5000), (100, 64)])
def test_any_write_to_all_of_a_weight_is_seen(shape):
    transform = make_transform(shape, torch.tensor([[0, 0], [0, 0]])[:, :1])
    c, weight, cache = torch.randn(1), torch.randn(shape), WeightCache()
    terms, layout = [AdapterTerm(transform, 1.0, c)], WeightLayout(torch.float32)
    for stored in (weight, weight.t().contiguous().t()):
        first = cache.get(stored, terms, layout)
        probed = cache._entry.probed
        assert probed.numel() >= min(64, *shape) and probed.data_ptr() >= stored.data_ptr()
        stored.data.mul_(1.0001)
        assert not torch.equal(cache.get(stored, terms, layout), first)
    if min(shape) > 64:
        positions = torch.arange(weight.numel()).view(shape)
        step = cache.get(weight, terms, layout) is not None and cache._entry.probed.stride(0)
        found = positions.view(-1)[::step]
        assert len(set((found % shape[1]).tolist())) > 50  # many columns
        assert len(set((found // shape[1]).tolist())) > 50  # and rows


@pytest.mark.slow
def test_threads_share_a_layer():
    from concurrent.futures import ThreadPoolExecutor

    model = build("cache")
    with torch.no_grad():
        expected = model(batch(0))
        half = torch.autocast("cpu", torch.bfloat16)

        def call(i):
            layers(model)[i % 2]._cache.clear()
            with torch.no_grad(), half if i % 3 == 0 else torch.no_grad():
                return (model(batch(0)).float() - expected).abs().max().item()

        with ThreadPoolExecutor(8) as pool:
            assert max(pool.map(call, range(800))) < 0.05


def test_memory_is_given_back_when_told():
    model = build("cache")
    model(batch(0))
    configure(model, memory="recompute")
    assert not any(layer._cache.nbytes for layer in layers(model))
    configure(model, memory="cache")
    another_adapter(model)
    model(batch(0))
    model.delete_adapter("other")
    assert not any(layer._cache.nbytes for layer in layers(model))


def test_coefficients_that_are_not_numbers():
    pair = twins()
    for model in pair:
        layers(model)[0].fourierft_spectrum["default"].data[0] = float("nan")
        assert model(batch(0)).isnan().any()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for model in pair:
            layers(model)[0].fourierft_spectrum["default"].data[0] = 1.0
    assert_same(pair)
