"""The adapters of a layer: from which side the update is applied."""

import re
from pathlib import Path

import pytest
import torch
from peft import get_peft_model
from torch import nn
from transformers.pytorch_utils import Conv1D

from fourierft import FourierFTConfig, sample_entries
from fourierft.bases.reference import reference_update

N, ALPHA = 40, 300.0


class Net(nn.Module):
    def __init__(self, kind, out, inputs):
        super().__init__()
        self.linear = nn.Linear(inputs, out) if kind is nn.Linear else Conv1D(out, inputs)

    def forward(self, x):
        return self.linear(x)


def adapted(kind=nn.Linear, shape=(16, 16), dtype=torch.float32, **values):
    """A model of one layer, and that layer."""
    torch.manual_seed(0)
    config = FourierFTConfig(
        **{"n_frequency": N, "scaling": ALPHA, "random_loc_seed": 2024, **values},
        target_modules=["linear"],
    )
    model = get_peft_model(Net(kind, *shape).to(dtype), config).to(dtype)
    return model, model.base_model.model.linear


def algorithm1(x, coefficients, d1, d2):
    """The authors' formula, d1 the features of x; the column decoded for weights that are not
    square, too, which they do not adapt."""
    flat = torch.randperm(d1 * d2, generator=torch.Generator().manual_seed(2024))[:N]
    spectrum = torch.zeros(d1, d2, dtype=coefficients.dtype)
    spectrum[flat // d2, flat % d2] = coefficients
    return torch.einsum("ijk,kl->ijl", x, torch.fft.ifft2(spectrum).real * ALPHA)


@pytest.mark.parametrize("kind", [nn.Linear, Conv1D])
@pytest.mark.parametrize("shape", [(16, 16), (24, 10), (7, 18)])
def test_algorithm1_is_the_authors_formula(kind, shape):
    model, layer = adapted(kind, shape, torch.float64, orientation="algorithm1")
    c = layer.coefficients("default")
    x = torch.randn(2, 3, shape[1], dtype=torch.float64, requires_grad=True)
    ours = model(x) - layer.get_base_layer()(x)
    theirs = algorithm1(x, c, *shape[::-1])
    torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-12)
    upstream = torch.randn_like(ours)
    for found, expected in zip(
        torch.autograd.grad(ours, [x, c], upstream, retain_graph=True),
        torch.autograd.grad(theirs, [x, c], upstream),
        strict=True,
    ):
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-11)
    expected = layer.get_base_layer()(x) + theirs
    torch.testing.assert_close(model.merge_and_unload()(x), expected, rtol=1e-10, atol=1e-10)


def test_algorithm_of_the_docs():
    text = (Path(__file__).parents[1] / "docs/methods.md").read_text(encoding="utf-8")
    code = re.search(r"```python\n(def algorithm1.*?)```", text, re.S)[1]
    names = {"torch": torch}
    exec(code, names)
    model, layer = adapted(shape=(24, 10), orientation="algorithm1")
    x, c = torch.randn(5, 10), layer.coefficients("default")
    expected = names["algorithm1"](x, layer.get_base_layer(), c, 10, 24, N, ALPHA, 2024)
    torch.testing.assert_close(model(x), expected, rtol=1e-5, atol=1e-4)


def test_the_reference_has_the_authors_bits():
    """DeltaW of a weight of RoBERTa-base in float32, with the authors' entry seed."""
    entries = sample_entries((768, 768), 1000, 2024)
    assert (entries[0] * 768 + entries[1])[:5].tolist() == [466568, 254852, 455206, 248204, 53127]
    coefficients = torch.randn(1000, generator=torch.Generator().manual_seed(0))
    spectrum = torch.zeros(768, 768)
    spectrum[entries[0], entries[1]] = coefficients
    theirs = torch.fft.ifft2(spectrum).real * 49.0
    assert torch.equal(reference_update(coefficients, entries, (768, 768), 49.0), theirs)


@pytest.mark.parametrize("kind", [nn.Linear, Conv1D])
@pytest.mark.parametrize("basis", ["fourier", "orthogonal"])
def test_square_weights_get_the_transpose(kind, basis):
    (_, plain), (_, turned) = (
        adapted(kind, basis=basis, orientation=one) for one in ("eq4", "algorithm1")
    )
    assert torch.equal(plain.coefficients("default"), turned.coefficients("default"))
    assert torch.equal(plain.entries("default").flip(0), turned.entries("default"))
    delta, other = plain.get_delta_weight("default"), turned.get_delta_weight("default")
    torch.testing.assert_close(other, delta.t(), rtol=1e-5, atol=1e-6)
    assert not torch.allclose(other, delta, atol=0.1)


def test_entries_are_those_of_the_update():
    _, layer = adapted(shape=(24, 10), orientation="algorithm1")
    entries, c = layer.entries("default"), layer.coefficients("default")
    expected = reference_update(c, entries, (24, 10), ALPHA)
    torch.testing.assert_close(layer.get_delta_weight("default"), expected, rtol=1e-5, atol=1e-5)
    drawn = sample_entries((10, 24), N, 2024)
    assert torch.equal(entries, drawn.flip(0))


def test_adapters_of_both_orientations_in_one_batch():
    model, layer = adapted(shape=(24, 10), orientation="algorithm1")
    other = FourierFTConfig(n_frequency=N, scaling=ALPHA, target_modules=["linear"])
    model.add_adapter("other", other)
    model.eval()
    x = torch.randn(2, 1, 10)
    with torch.no_grad():
        mixed = model(x, adapter_names=["default", "other"])
        for row, name in enumerate(("default", "other")):
            model.set_adapter(name)
            torch.testing.assert_close(mixed[row], model(x)[row], rtol=1e-4, atol=1e-4)


class Pair(nn.Module):
    """Two layers of one shape, which `batched` builds together, behind one of the other."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(10, 24), nn.Linear(10, 24)
        self.last = nn.Linear(24, 10)

    def forward(self, x):
        return self.last(torch.tanh(self.first(x) + self.second(x)))


@pytest.mark.parametrize("memory", ["cache", "save", "batched"])
def test_every_way_to_compute_knows_the_side(memory):
    found = {}
    for engine in (memory, "recompute"):
        torch.manual_seed(0)
        values = {"n_frequency": N, "scaling": ALPHA, "memory": engine}
        targets = ["first", "second", "last"]
        config = FourierFTConfig(**values, orientation="algorithm1", target_modules=targets)
        model = get_peft_model(Pair().double(), config).double()
        output = model(torch.ones(3, 10, dtype=torch.float64))
        output.square().sum().backward()
        gradients = [p.grad for p in model.parameters() if p.requires_grad]
        assert len(gradients) == 3
        found[engine] = [output, *gradients]
    for one, expected in zip(*found.values(), strict=True):
        torch.testing.assert_close(one, expected, rtol=1e-9, atol=1e-9)
