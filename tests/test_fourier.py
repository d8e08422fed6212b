"""The Fourier transform of coefficients: exact in every shape, with every kind of entry."""

import math

import pytest
import torch

from fourierft.bases.fourier import Fourier
from fourierft.bases.reference import reference_update
from fourierft.spectrum import sample_entries

SHAPES = [(64, 64), (63, 65), (64, 33), (31, 48), (96, 64), (1, 7), (6, 1), (2, 2), (769, 1023)]
TOKENS = 40


def special_entries(shape, n=60):
    """Random entries, zero, axes, Nyquist rows and columns, and the conjugate of every one."""
    d1, d2 = shape
    chosen = set(map(tuple, sample_entries(shape, min(n, d1 * d2), 1).T.tolist()))
    chosen |= {(0, 0), (0, d2 - 1), (d1 - 1, 0), (0, d2 // 2), (d1 // 2, 0), (d1 // 2, d2 // 2)}
    chosen |= {(d1 // 2, d2 - 1), (d1 - 1, d2 // 2)}
    chosen |= {(-u % d1, -v % d2) for u, v in chosen}
    return torch.tensor(sorted(chosen)).T


def in_float64(shape, entries, coefficients, x, dy):
    """Update, output, input gradient and coefficient gradient by the definition (Eq. 2-4)."""
    c = coefficients.double().requires_grad_()
    x = x.double().requires_grad_()
    update = reference_update(c, entries, shape)
    y = x @ update.T
    y.backward(dy.double())
    return update.detach(), y.detach(), x.grad, c.grad


def error(found, expected):
    return ((found.double() - expected).norm() / expected.norm()).item()


@pytest.mark.parametrize("shape", SHAPES)
def test_everything_against_float64(shape):
    torch.manual_seed(0)
    entries = special_entries(shape)
    transform = Fourier(shape, entries)
    c = torch.randn(transform.n)
    x, dy = torch.randn(TOKENS, shape[1]), torch.randn(TOKENS, shape[0])
    update, y, dx, dc = in_float64(shape, entries, c, x, dy)
    found = transform.update(c)
    assert found.shape == shape and found.dtype == torch.float32
    sampled = transform.sampled(transform.analyse_rows(dy), transform.analyse_columns(x))
    assert error(found, update) < 5e-7
    assert error(x @ found.T, y) < 5e-7
    assert error(dy @ found, dx) < 5e-7
    assert error(transform.gradient(dy.T @ x), dc) < 5e-7
    assert error(sampled, dc) < 5e-7


@pytest.mark.parametrize("shape", SHAPES)
def test_adding_to_a_weight_and_the_transposed_layout(shape):
    transform = Fourier(shape, special_entries(shape))
    c, weight = torch.randn(transform.n), torch.randn(shape)
    update = transform.update(c)
    assert torch.equal(transform.add_update(weight, c, torch.float32), weight + update)
    torch.testing.assert_close(transform.transposed.update(c), update.T, rtol=1e-5, atol=1e-7)
    for dtype in (torch.bfloat16, torch.float16):
        half = weight.to(dtype)
        expected = (half.float() + update).to(dtype)  # rounded once
        assert torch.equal(transform.add_update(half, c, dtype), expected)


@pytest.mark.parametrize("shape", [(8, 8), (7, 9), (6, 5)])
def test_gradient_is_the_adjoint(shape):
    transform = Fourier(shape, special_entries(shape, 5))
    c = torch.randn(transform.n, dtype=torch.float64)
    gradient = torch.randn(shape, dtype=torch.float64)
    inner = (transform.update(c) * gradient).sum()
    torch.testing.assert_close((transform.gradient(gradient) * c).sum(), inner)


def test_same_bits_every_time():
    transform = Fourier((64, 48), special_entries((64, 48)))
    c = torch.randn(transform.n)
    assert torch.equal(transform.update(c), transform.update(c.clone()))


def test_sampling_is_for_few_coefficients_of_large_weights():
    def prefers(d, n, tokens):
        return Fourier((d, d), torch.zeros(2, n, dtype=torch.int64)).prefers_sampling(tokens)

    assert all(prefers(768, 1000, tokens) for tokens in (1, 32, 512, 4096))
    assert prefers(4096, 1000, 512) and prefers(768, 10_000, 4096)
    assert not prefers(768, 60_000, 4096)  # beyond about d^2 / 20
    assert not prefers(64, 128, 240)  # the toy: a small product is cheaper than its spectra


def test_reference_is_the_sum_of_cosines():
    """Eq. 3 entry by entry, in numbers that no transform had a part in."""
    shape, entries = (4, 6), torch.tensor([[0, 1, 3, 2], [0, 5, 2, 3]])
    c = torch.tensor([1.0, -2.0, 0.5, 3.0], dtype=torch.float64)
    expected = torch.zeros(shape, dtype=torch.float64)
    for p in range(4):
        for q in range(6):
            for value, u, v in zip(c.tolist(), *entries.tolist(), strict=True):
                angle = 2 * math.pi * (p * u / 4 + q * v / 6)
                expected[p, q] += 7.0 * value * math.cos(angle) / 24
    torch.testing.assert_close(reference_update(c, entries, shape, 7.0), expected)
