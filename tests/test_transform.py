"""From coefficients to the update of a weight."""

import math

import pytest
import torch

from fourierft import delta_weight, sample_entries
from fourierft.bases.transform import BASES, get_transform
from fourierft.spectrum import Draw

SHAPES = [(8, 8), (7, 9), (6, 5), (5, 12), (1, 4)]


def with_special_entries(shape):
    """Random entries, and all that are special: zero, axes, Nyquist, and every conjugate."""
    d1, d2 = shape
    chosen = set(map(tuple, sample_entries(shape, min(6, d1 * d2), 1).T.tolist()))
    chosen |= {(0, 0), (0, d2 - 1), (d1 - 1, 0), (d1 // 2, d2 // 2), (0, d2 // 2), (d1 // 2, 0)}
    chosen |= {(-u % d1, -v % d2) for u, v in chosen}
    return torch.tensor(sorted(chosen)).T


def cosine_sum(coefficients, entries, shape, alpha):
    p = torch.arange(shape[0], dtype=torch.float64)[:, None]
    q = torch.arange(shape[1], dtype=torch.float64)[None, :]
    total = torch.zeros(shape, dtype=torch.float64)
    for c, u, v in zip(coefficients.double(), *entries.tolist(), strict=True):
        total += c * torch.cos(2 * math.pi * (p * u / shape[0] + q * v / shape[1]))
    return alpha / (shape[0] * shape[1]) * total


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_is_the_sum_of_cosines(shape, dtype):
    entries = with_special_entries(shape)
    coefficients = torch.randn(entries.shape[1], dtype=dtype)
    update = delta_weight(coefficients, entries, shape, 150.0)
    expected = cosine_sum(coefficients, entries, shape, 150.0)
    assert update.shape == shape and update.dtype == dtype and update.is_contiguous()
    tolerance = 1e-12 if dtype == torch.float64 else 1e-6
    assert (update - expected).norm() <= tolerance * expected.norm()


@pytest.mark.parametrize("shape", SHAPES)
def test_gradient(shape):
    entries = with_special_entries(shape)
    coefficients = torch.randn(entries.shape[1], dtype=torch.float64, requires_grad=True)

    def update(c):
        return delta_weight(c, entries, shape, 30.0)

    assert torch.autograd.gradcheck(update, (coefficients,))
    assert torch.autograd.gradgradcheck(update, (coefficients,))


def test_gradient_is_the_same_transform_of_the_gradient():
    """dL/dc_l = alpha / (d1 d2) * sum_pq G_pq cos(...): the adjoint, written out."""
    shape, alpha = (12, 9), 40.0
    entries = with_special_entries(shape)
    gradient = torch.randn(shape, dtype=torch.float64)
    coefficients = torch.randn(entries.shape[1], dtype=torch.float64, requires_grad=True)
    delta_weight(coefficients, entries, shape, alpha).backward(gradient)
    spectrum = torch.fft.fft2(gradient).real[entries[0], entries[1]] * alpha / (12 * 9)
    torch.testing.assert_close(coefficients.grad, spectrum, rtol=1e-12, atol=1e-12)


def test_conjugate_entries_add_up():
    entries = torch.tensor([[2, 6], [3, 5]])  # (-2, -3) modulo (8, 8)
    both = delta_weight(torch.tensor([1.0, 2.0]), entries, (8, 8), 1.0)
    one = delta_weight(torch.tensor([3.0]), entries[:, :1], (8, 8), 1.0)
    torch.testing.assert_close(both, one)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype):
    shape = (48, 33)
    entries = sample_entries(shape, 40)
    # Above the float16 range once alpha is multiplied in.
    coefficients = (1000 * torch.randn(40)).to(dtype).requires_grad_()
    update = delta_weight(coefficients, entries, shape, 300.0)
    expected = cosine_sum(coefficients.detach(), entries, shape, 300.0)
    assert update.dtype == torch.float32
    assert (update - expected).norm() <= 1e-6 * expected.norm()
    update.sum().backward()
    assert coefficients.grad.dtype == dtype and torch.isfinite(coefficients.grad).all()


@pytest.mark.parametrize("basis", BASES)
def test_computed_in_float32_under_autocast(basis):
    entries = sample_entries((16, 16), 10)
    coefficients = torch.randn(10)
    expected = delta_weight(coefficients, entries, (16, 16), 9.0, basis)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(delta_weight(coefficients, entries, (16, 16), 9.0, basis), expected)


def test_zero_coefficients_make_no_update_and_still_have_a_gradient():
    entries = sample_entries((10, 10), 5)
    coefficients = torch.zeros(5, requires_grad=True)
    update = delta_weight(coefficients, entries, (10, 10), 100.0)
    assert not update.any()
    (update * torch.randn(10, 10)).sum().backward()
    assert coefficients.grad.abs().min() > 0


def test_errors():
    entries = sample_entries((6, 6), 4)
    with pytest.raises(ValueError, match="basis: got 'wavelet', allowed 'fourier'"):
        delta_weight(torch.ones(4), entries, (6, 6), 1.0, basis="wavelet")
    with pytest.raises(ValueError, match="entries"):
        delta_weight(torch.ones(1), entries, (6, 6), 1.0)  # would broadcast


def test_tables_made_under_a_fake_mode_hold_numbers():
    """They outlive the mode: a real model of the same shape takes them."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    known = (11, 13), (Draw(17, 5),), "fourier", torch.device("cpu")
    with FakeTensorMode():
        transform = get_transform(*known)
    assert get_transform(*known) is transform
    assert transform.update(torch.ones(17)).isfinite().all()


def test_layers_share_one_transform():
    known = (11, 13), (Draw(17, 6),), "dct", torch.device("cpu")
    one, other = get_transform(*known), get_transform(*known, transposed=True)
    assert get_transform(*known) is one and get_transform(*known, transposed=True) is other
    c = torch.randn(17)
    torch.testing.assert_close(one.update(c), other.update(c).T)
