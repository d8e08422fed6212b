"""Entries in few rows: the same update as any entries', of low rank."""

import pytest
import torch

from fourierft.bases.few_rows import FewRows
from fourierft.bases.fourier import Fourier
from fourierft.bases.reference import reference_update
from fourierft.spectrum import sample_entries

SHAPES = [(64, 48), (63, 65), (31, 48), (1, 7), (6, 1), (2, 2)]


def few_rows(shape, n=40):
    """Entries in three rows, the first row and, of an even size, the middle one among them."""
    d1, d2 = shape
    rows = torch.tensor(sorted({0, d1 // 3, d1 // 2}))
    cells = torch.randperm(len(rows) * d2, generator=torch.Generator().manual_seed(3))[:n]
    return torch.stack([rows[cells // d2], cells % d2])


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("turned", [False, True])
def test_everything_against_float64(shape, turned):
    torch.manual_seed(0)
    transform, entries = FewRows(shape, few_rows(shape)), few_rows(shape)
    if turned:
        transform, entries, shape = transform.transposed, entries.flip(0), shape[::-1]
    c = torch.randn(2, transform.n, dtype=torch.float64, requires_grad=True)
    expected = torch.stack([reference_update(one, entries, shape) for one in c])
    ahead = torch.randn(2, *shape, dtype=torch.float64)
    (gradient,) = torch.autograd.grad((expected * ahead).sum(), c)
    tight = dict(rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(transform.update(c), expected, **tight)
    torch.testing.assert_close(transform.gradient(ahead), gradient, **tight)
    x, dy = torch.randn(9, shape[1], dtype=c.dtype), torch.randn(9, shape[0], dtype=c.dtype)
    sampled = transform.sampled(transform.analyse_rows(dy), transform.analyse_columns(x))
    torch.testing.assert_close(sampled, transform.gradient(dy.T @ x), **tight)
    assert torch.autograd.gradgradcheck(transform.update, c[0].detach().requires_grad_())
    small, found = c.detach().float(), expected.detach().float()
    loose = dict(rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(transform.transposed.update(small), found.mT, **loose)
    weight = torch.randn(shape)
    added = transform.add_update(weight, small[0], torch.float32)
    torch.testing.assert_close(added, weight + found[0], **loose)
    half = weight.bfloat16()
    added = transform.add_update(half, small[0], torch.bfloat16)
    torch.testing.assert_close(added, (half.float() + found[0]).bfloat16())


def test_cost_rule_builds_sooner_than_for_entries_anywhere():
    transform = FewRows((768, 768), sample_entries((768, 768), 1000, rows=8))
    anywhere = Fourier((768, 768), sample_entries((768, 768), 1000))
    assert anywhere.prefers_spectra(80) and not transform.prefers_spectra(80)
    assert transform.prefers_spectra(20) and transform.prefers_sampling(2048)
    wide = FewRows((64, 64), sample_entries((64, 64), 1000, rows=20))
    assert not wide.prefers_sampling(2048), "of rank 40"


def test_rank_is_twice_the_rows_and_the_factors_are_balanced():
    transform = FewRows((96, 64), sample_entries((96, 64), 100, rows=4))
    c = torch.randn(100, dtype=torch.float64)
    left, right = transform.factors(c)
    assert left.shape == (96, 8) and right.shape == (8, 64) and transform.rank == 8
    assert torch.linalg.matrix_rank(transform.update(c)) == 8
    torch.testing.assert_close(left.T @ left, torch.eye(8, dtype=torch.float64))
