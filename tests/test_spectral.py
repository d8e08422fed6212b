"""Products by way of spectra: `tests/test_linear.py` holds them against float64."""

import pytest
import torch
from peft import get_peft_model
from torch import nn

from fourierft import FourierFTConfig, configure
from fourierft.bases.transform import make_transform
from fourierft.engine import linear
from fourierft.engine.settings import DEFAULT, Engine, uses_spectra
from fourierft.engine.weight_cache import AdapterTerm
from fourierft.spectrum import sample_entries
from tests.test_weight_cache import CHANGES, assert_same, build, layers


def term(shape=(64, 64), n=50, basis="fourier"):
    transform = make_transform(shape, sample_entries(shape, n, 0), basis)
    return AdapterTerm(transform, 2.0, torch.randn(n).requires_grad_())


def chosen(engine=DEFAULT, tokens=1, terms=None, dtype=torch.float32, weight=True):
    terms = terms or [term()]
    x = torch.randn(tokens, 64, dtype=dtype)
    weight = torch.randn(64, 64, dtype=torch.float32) if weight else None
    return uses_spectra(engine, x, weight, terms, tokens)


def test_few_tokens_that_are_trained_with_take_spectra():
    assert chosen() and chosen(tokens=4) and not chosen(tokens=32)
    assert chosen(Engine("spectral"), tokens=32)
    with torch.no_grad():
        assert not chosen() and chosen(Engine("spectral"))
    frozen = term()
    frozen.coefficients.requires_grad_(False)
    assert not chosen(terms=[frozen])


@pytest.mark.parametrize(
    "options",
    [
        {"engine": Engine("spectral", "dense")},
        {"engine": Engine("cache")},
        {"engine": Engine("spectral"), "dtype": torch.bfloat16},
        {"engine": Engine("spectral"), "weight": False},
        {"engine": Engine("spectral"), "terms": [term(), term()]},
        {"engine": Engine("spectral"), "terms": [term(basis="hartley")]},
        {"engine": Engine("spectral"), "tokens": 0},
    ],
)
def test_what_spectra_cannot_do_is_recomputed(options):
    assert not chosen(**options)


def test_entries_that_are_their_own_conjugates():
    """Zero, Nyquist, edges, conjugate pairs: all entries of an even and of an odd shape."""
    for shape in ((6, 8), (5, 7), (6, 7), (1, 8), (8, 1)):
        entries = torch.cartesian_prod(*map(torch.arange, shape)).t()
        transform = make_transform(shape, entries)
        c = torch.randn(entries.shape[1]).requires_grad_()
        x, weight = torch.randn(5, shape[1]).requires_grad_(), torch.randn(shape)
        terms = [AdapterTerm(transform, 3.0, c)]
        found = linear.adapted_linear(x, weight, None, terms, engine=Engine("spectral"))
        dy = torch.randn_like(found)
        gradients = torch.autograd.grad(found, [x, c], dy)
        wide = c.detach().double().requires_grad_()
        z = x.detach().double().requires_grad_()
        expected = z @ (weight.double() + 3.0 * transform.update(wide)).t()
        others = torch.autograd.grad(expected, [z, wide], dy.double())
        for one, other in zip((found, *gradients), (expected, *others), strict=True):
            assert (one - other).norm() <= 5e-7 * other.norm()


@pytest.mark.parametrize("change", CHANGES)
def test_changes_are_seen(change):
    """Nothing is kept, so nothing can go stale: as close to recomputing as rounding lets it."""
    pair = build("spectral"), build("recompute")
    for model in pair:
        for layer in layers(model):
            layer.fourierft_spectrum["default"].data.mul_(0.3)
        change(model)
    x = torch.randn(8, 24, generator=torch.Generator().manual_seed(1))
    found = [model(x) for model in pair]
    torch.testing.assert_close(*found, rtol=2e-5, atol=2e-5)
    gradients = [
        torch.autograd.grad(y.sum(), [p for p in m.parameters() if p.requires_grad])
        for y, m in zip(found, pair, strict=True)
    ]
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


def test_a_step_before_the_backward_pass():
    model = get_peft_model(
        nn.Sequential(nn.Linear(24, 32)), FourierFTConfig(n_frequency=40, target_modules=["0"])
    )
    configure(model, memory="spectral")
    x = torch.randn(8, 24).requires_grad_()
    (c,) = (p for p in model.parameters() if p.requires_grad)
    loss = model(x).pow(2).sum()
    expected = torch.autograd.grad(loss, [x, c], retain_graph=True)
    c.grad = torch.ones_like(c)
    torch.optim.AdamW([c], lr=0.5, fused=True).step()
    found = torch.autograd.grad(loss, [x, c], retain_graph=True)
    assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True))
    with torch.no_grad():
        c.add_(1.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        torch.autograd.grad(loss, [x, c], create_graph=True)


def test_training_alike():
    pair = build("spectral"), build("recompute")
    losses = []
    for model in pair:
        optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1e-3)
        found = []
        for step in range(6):
            x = torch.randn(8, 24, generator=torch.Generator().manual_seed(step))
            loss = model(x).pow(2).mean()
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            found.append(loss.detach())
        losses.append(torch.stack(found))
    torch.testing.assert_close(*losses, rtol=1e-4, atol=1e-5)
    configure(pair[0], memory="recompute")
    configure(pair[1], memory="recompute")
    pair[0].load_state_dict(pair[1].state_dict())
    assert_same(pair)
