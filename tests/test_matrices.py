"""Bases other than Fourier's (Table 6)."""

import math

import pytest
import torch

from fourierft import atom_norm, delta_weight, sample_entries
from fourierft.bases.matrices import MATRIX_BASES, MatrixBasis, basis_matrix
from fourierft.bases.transform import BASES, make_transform

CPU = torch.device("cpu")
SHAPES = [(12, 12), (9, 14), (20, 7)]


@pytest.mark.parametrize("basis", ["orthogonal", "dct", "hartley"])
@pytest.mark.parametrize("size", [1, 2, 9, 64])
def test_rows_are_orthonormal(basis, size):
    matrix = basis_matrix(basis, 5, 0, size, CPU)
    torch.testing.assert_close(matrix @ matrix.T, torch.eye(size), rtol=0, atol=2e-6)


def test_dct_and_hartley_are_the_textbook_ones():
    size, at = 10, range(10)
    dct, hartley = (basis_matrix(basis, 0, 0, size, CPU) for basis in ("dct", "hartley"))
    for k in at:
        for p in at:
            factor = math.sqrt((1 if k == 0 else 2) / size)
            cosine = factor * math.cos(math.pi * k * (2 * p + 1) / (2 * size))
            angle = 2 * math.pi * k * p / size
            assert dct[k, p] == pytest.approx(cosine, abs=1e-6)
            cas = (math.cos(angle) + math.sin(angle)) / math.sqrt(size)
            assert hartley[k, p] == pytest.approx(cas, abs=1e-6)


def test_random_matrices_follow_seed_and_side():
    one = basis_matrix("random", 5, 0, 64, CPU)
    assert abs(one.std() - 1) < 0.05 and one is basis_matrix("random", 5, 0, 64, CPU)
    for seed, side in [(5, 1), (6, 0), (6, 1)]:
        other = basis_matrix("random", seed, side, 64, CPU)
        assert abs((one * other).mean()) < 0.1


@pytest.mark.parametrize("basis", MATRIX_BASES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("n", [5, 60])  # both ways to multiply
def test_is_the_sum_of_products(basis, shape, n):
    entries = sample_entries(shape, n, 3)
    transform = MatrixBasis(shape, entries, basis, 3)
    c = torch.randn(n, dtype=torch.float64)
    left = basis_matrix(basis, 3, 0, shape[0], CPU).double()
    right = basis_matrix(basis, 3, 1, shape[1], CPU).double()
    expected = torch.zeros(shape, dtype=torch.float64)
    for value, u, v in zip(c, *entries, strict=True):
        expected += transform.scale * value * torch.outer(left[u], right[v])
    torch.testing.assert_close(transform.update(c), expected)
    torch.testing.assert_close(transform.transposed.update(c), expected.T)
    x, dy = torch.randn(4, shape[1]).double(), torch.randn(4, shape[0]).double()
    gradient = transform.gradient(dy.T @ x)
    inner = (transform.update(c) * (dy.T @ x)).sum()
    torch.testing.assert_close((gradient * c).sum(), inner)
    spectra = transform.analyse_rows(dy), transform.analyse_columns(x)
    torch.testing.assert_close(transform.sampled(*spectra), gradient)


@pytest.mark.parametrize("basis", BASES)
def test_every_basis_has_the_size_of_fouriers(basis):
    """One coefficient makes an update of one norm: alpha means the same in all of them."""
    shape, alpha = (48, 64), 30.0
    entries = sample_entries(shape, 200, 7)
    norms = [
        delta_weight(torch.ones(1), entries[:, i : i + 1], shape, alpha, basis).norm()
        for i in range(200)
    ]
    mean_square = torch.stack(norms).pow(2).mean().sqrt()
    tolerance = 0.1 if basis == "random" else 0.02  # some Fourier entries are their own conjugate
    assert mean_square == pytest.approx(atom_norm(shape, alpha), rel=tolerance)


def test_cost_rule_samples_for_few_tokens():
    transform = make_transform((96, 96), sample_entries((96, 96), 50), "dct")
    assert transform.prefers_sampling(8) and not transform.prefers_sampling(4096)
