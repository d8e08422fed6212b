"""Weights that are held: built once, never compared inside, right or loud about it."""

import bitsandbytes as bnb
import pytest
import torch
from peft import get_peft_model
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.pytorch_utils import Conv1D

from experiments.tasks.generation import generate_continuations
from fourierft import FourierFTConfig, configure, hold_weights
from fourierft.layer import adapted_layers
from fourierft.module import FourierFTLinear

VALUES = {"n_frequency": 40, "scaling": 80.0, "target_modules": ["first", "second"]}


class Net(nn.Module):
    def __init__(self, quantised=None):
        super().__init__()
        torch.manual_seed(0)
        first = nn.Linear(64, 64)
        if quantised == "nf4":
            first = bnb.nn.Linear4bit(64, 64, compute_dtype=torch.float32, quant_type="nf4")
        if quantised == "int8":
            first = bnb.nn.Linear8bitLt(64, 64, has_fp16_weights=False)
        self.first = first.to("cpu")
        self.second = Conv1D(64, 64)

    def forward(self, x):
        return self.second(torch.tanh(self.first(x)))


@pytest.fixture(params=["auto", "cache", "save"])
def model(request):
    net = get_peft_model(Net(), FourierFTConfig(**VALUES, memory=request.param))
    net.add_adapter("other", FourierFTConfig(**VALUES))
    return net


@pytest.fixture
def x():
    return torch.randn(3, 64, generator=torch.Generator().manual_seed(1))


def layers(model):
    return list(adapted_layers(model).values())


class Forbidding(TorchDispatchMode):
    """Lets nothing through that waits for a device, nor a transform."""

    def __init__(self):
        super().__init__()
        self.found = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        assert name not in ("equal", "_local_scalar_dense", "is_nonzero", "nonzero", "item"), name
        assert "fft" not in name and "index_add" not in name, name
        self.found.add(name)
        return func(*args, **(kwargs or {}))


def truth(model, x):
    """Outputs of plain recomputing."""
    kept = [layer.engine for layer in layers(model)]
    with torch.enable_grad():  # what is held is for passes without gradients
        configure(model, memory="recompute")
        y = model(x).detach()
    for layer, engine in zip(layers(model), kept, strict=True):
        layer.engine = engine
    return y


def test_nothing_is_built_or_compared_twice(model, x):
    expected = truth(model, x)
    with torch.no_grad(), hold_weights(model):
        first = model(x)
        with Forbidding() as mode:
            again = model(x)
    assert torch.equal(first, again) and "addmm" in mode.found
    torch.testing.assert_close(first, expected, rtol=0, atol=0)
    with torch.no_grad(), pytest.raises(AssertionError), Forbidding():
        model(x)  # outside it is


@pytest.mark.parametrize("quantised", [None, "nf4", "int8"])
def test_what_is_held_and_when_it_is_let_go(quantised, x):
    """W0 + DeltaW, for an 8-bit weight DeltaW; outside as much as before."""
    model = get_peft_model(Net(quantised), FourierFTConfig(**VALUES))
    own = [layer.base_layer.weight.dtype.is_floating_point for layer in layers(model)]
    with torch.no_grad():
        expected = model(x)
        before = [layer._cache.nbytes for layer in layers(model)]
        assert [size > 0 for size in before] == own  # on a CPU
        with hold_weights(model), hold_weights(model):
            found = model(x)
            assert all(layer._cache.nbytes == 64 * 64 * 4 for layer in layers(model))
            if quantised != "int8":  # whose own product looks for outliers
                with Forbidding():
                    again = model(x)
                assert torch.equal(again, found)
        assert [layer._cache.nbytes for layer in layers(model)] == before
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    configure(model, memory="save")
    with torch.no_grad(), hold_weights(model, quantised=False):
        model(x)
        assert [layer._cache.nbytes > 0 for layer in layers(model)] == own
    configure(model, memory="recompute")
    with torch.no_grad(), hold_weights(model):
        torch.testing.assert_close(model(x), expected, rtol=1e-5, atol=1e-5)
        assert not any(layer._cache.nbytes for layer in layers(model))


CHANGES = {
    "step": lambda model: torch.optim.SGD(model.parameters(), lr=0.1).step(),
    "in place": lambda model: [c.mul_(3) for c in coefficients(model)],
    "data of its own": lambda model: [setattr(c, "data", 3 * c.data) for c in coefficients(model)],
    "state": lambda model: model.load_state_dict({k: 2 * v for k, v in model.state_dict().items()}),
    "adapter": lambda model: model.set_adapter("other"),
    "moved": lambda model: model.double().float(),
    "merged": lambda model: model.merge_adapter(),
    "frozen weight": lambda model: [layer.base_layer.weight.mul_(2) for layer in layers(model)],
}


def coefficients(model):
    return [layer.fourierft_spectrum["default"] for layer in layers(model)]


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_that_shows_is_heeded_at_once(change, model, x):
    for c in coefficients(model):
        c.grad = torch.ones_like(c)
    with torch.no_grad(), hold_weights(model):
        before = model(x)
        CHANGES[change](model)
        after = model(x)
        assert torch.equal(model(x), after)
    if change not in ("merged", "moved"):
        assert not torch.equal(before, after)
    torch.testing.assert_close(after, truth(model, x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("part", ["coefficients", "weight"])
def test_a_change_that_does_not_show_is_loud(part, model, x):
    layer = layers(model)[1]
    changed = layer.fourierft_spectrum["default"] if part == "coefficients" else layer.weight
    with pytest.raises(RuntimeError, match="values of base_model.model.second were changed"):
        with torch.no_grad(), hold_weights(model):
            model(x)
            changed.data.mul_(2)
            model(x)
    assert all(layer._cache.holders == 0 for layer in layers(model))
    with torch.no_grad():
        assert torch.equal(model(x), truth(model, x))


def test_a_diverged_adapter_is_not_a_changed_one(model, x):
    """NaN differs from itself."""
    layer = layers(model)[1]
    with torch.no_grad():
        layer.fourierft_spectrum["default"][0] = float("nan")
        with hold_weights(model):
            assert model(x).isnan().any()


def test_memory_that_was_freed_is_not_read(model, x):
    """As FSDP frees weights between their uses."""
    storage = layers(model)[0].base_layer.weight.untyped_storage()
    size = storage.nbytes()
    with torch.no_grad(), hold_weights(model):
        model(x)
        storage.resize_(0)
        assert all(layer._cache.holds_truth() for layer in layers(model))
    storage.resize_(size)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_held_call_is_captured_as_a_graph(model, x):
    model, x = model.cuda(), x.cuda()
    with torch.no_grad(), hold_weights(model):
        expected = model(x)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            found = model(x)
        graph.replay()
        torch.testing.assert_close(found, expected)


def test_errors_inside_leave_the_layers_as_they_were(model, x):
    engines = [layer.engine for layer in layers(model)]
    with pytest.raises(KeyboardInterrupt), torch.no_grad(), hold_weights(model):
        model(x)
        coefficients(model)[0].data.mul_(2)
        raise KeyboardInterrupt
    assert [layer.engine for layer in layers(model)] == engines
    assert all(layer._cache.holders == 0 for layer in layers(model))
    with torch.no_grad():
        assert torch.equal(model(x), truth(model, x))


def test_training_inside_is_as_always(model, x):
    optimizer = torch.optim.AdamW(coefficients(model), lr=0.1, fused=True)
    losses = []
    with hold_weights(model):
        for _ in range(3):
            loss = model(x).square().sum()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    assert len(set(losses)) == 3


def test_models_without_layers_are_let_be():
    with hold_weights(nn.Linear(2, 2)):
        pass


@pytest.fixture(scope="module")
def story(data_folder):
    folder = data_folder / "models/stories260K"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.pad_token = tokenizer.eos_token
    net = AutoModelForCausalLM.from_pretrained(folder)
    settings = FourierFTConfig(n_frequency=50, target_modules=["q_proj", "v_proj"])
    return get_peft_model(net, settings), tokenizer


def test_generated_tokens_wait_for_no_layer(story, monkeypatch):
    """Nor do they read more than the newest token: keys and values are cached."""
    net, tokenizer = story
    forward, calls, widths = FourierFTLinear.forward, {}, []

    def watched(layer, x, *args, **kwargs):
        widths.append(x.shape[1])
        calls[layer] = calls.get(layer, 0) + 1
        if calls[layer] == 1:
            return forward(layer, x, *args, **kwargs)
        with Forbidding():
            return forward(layer, x, *args, **kwargs)

    monkeypatch.setattr(FourierFTLinear, "forward", watched)
    prompts = [tokenizer(text)["input_ids"] for text in ("Once upon a time", "Tom had")]
    given = {"batch_size": 2, "max_new_tokens": 6, "num_beams": 2}
    [batch] = generate_continuations(net, tokenizer, prompts, **given)
    assert len(batch) == 2
    assert len(calls) == 10 and set(calls.values()) == {7}
    assert widths[:10] == [max(map(len, prompts)) - 1] * 10 and set(widths[10:]) == {1}
