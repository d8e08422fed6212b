"""The Fourier basis: the paper's."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import torch
from torch import Tensor

from .sampled_product import SampledProduct

# Nanoseconds on one AVX2 core (docs/performance.md). Only their ratios decide.
FLOP = 1 / 95  # one operation of a float32 matrix product
SAMPLE = 0.25  # one token of one coefficient
_PLANE = 2.6  # one number of a two-dimensional transform
_FFT = 2.3  # one number transformed and laid out for sampling
# By way of spectra, forward and backward:
_PRODUCTS = 2.4  # one number of a token
_TERMS = 0.3  # one coefficient of a token


class Fourier:
    """The Fourier basis: ``S = Re(ifft2(ToDense(c, E)))``, Eq. 2-4 without alpha.

    ``S[p, q] = 1 / (d1 d2) * sum_l c_l cos(2 pi (p u_l / d1 + q v_l / d2))``.

    The factor ``1 / (d1 d2)`` is in the authors' code though not in Eq. 3; their values of alpha
    rely on it. An entry and its conjugate may both be chosen: they make the same cosine and add up.

    The spectrum is real, so ``S[-p, -q] = S[p, q]``: half the spectrum and half the rows are
    transformed, a quarter of the work of a complex transform, and the other rows are copied.

    Args:
        shape: ``(d1, d2)``.
        entries: Rows ``u`` and columns ``v``, int64 (2, n), pairwise different.
    """

    # Bases of equal kinds analyse a signal of one size alike and share the result.
    row_kind: tuple[Hashable, ...] = ("fourier",)
    column_kind: tuple[Hashable, ...] = ("fourier",)
    build_cost = 2.5  # one number of W0 + S

    def __init__(self, shape: Sequence[int], entries: Tensor) -> None:
        d1, d2 = shape
        self.shape = d1, d2
        self.entries = entries
        self.device = entries.device
        self.n = entries.shape[1]
        self.scale = 1 / (d1 * d2)
        u, v = entries
        conjugate = v > d2 // 2  # (u, v) and (-u, -v) are the same cosine
        u, v = torch.where(conjugate, -u % d1, u), torch.where(conjugate, d2 - v, v)
        # The inverse transform doubles all columns but the first and, for even sizes, the last.
        # Those get half of their coefficient at u and half at -u: their transform is then real.
        at_edge = (v == 0) | (2 * v == d2)
        # On the meta device there are shapes only.
        edge = u[:0] if u.is_meta else at_edge.nonzero()[:, 0]
        self._half_source = torch.cat([torch.arange(self.n, device=u.device), edge])
        self._half_cells = torch.cat([v * d1 + -u % d1, v[edge] * d1 + u[edge]])
        self._folded = u, v
        self._sampling: SampledProduct | None = None

    @property
    def transposed(self) -> Fourier:
        """Transform whose S is the transpose of this one's."""
        return Fourier(self.shape[::-1], self.entries.flip(0))

    def update(self, coefficients: Tensor) -> Tensor:
        """Return S, (..., d1, d2), for coefficients (..., n), float32 or float64."""
        top = self._top(coefficients)
        half = top.shape[-2]
        out = top.new_empty(*top.shape[:-2], *self.shape)
        out[..., :half, :] = top
        out[..., half:, :1], out[..., half:, 1:] = self._bottom(top)
        return out

    def add_update(self, weight: Tensor, coefficients: Tensor, dtype: torch.dtype) -> Tensor:
        """Return ``weight + S``, (d1, d2), summed in the coefficients' dtype and rounded once."""
        # Not by way of `update`: one pass over the weight less. No gradient.
        top = self._top(coefficients)
        half = len(top)
        out = torch.empty(self.shape, dtype=dtype, device=weight.device)
        torch.add(weight[:half], top, out=out[:half])
        first, others = self._bottom(top)
        torch.add(weight[half:, :1], first, out=out[half:, :1])
        torch.add(weight[half:, 1:], others, out=out[half:, 1:])
        return out

    def gradient(self, update_gradient: Tensor) -> Tensor:
        """Return dL/dc (..., n) from dL/dS (..., d1, d2): the adjoint of `update`."""
        # Picked from the spectrum as it lies: cuFFT's has strides that flattening would copy.
        return torch.fft.rfft2(update_gradient)[(..., *self._folded)].real * self.scale

    def analyse_rows(self, signal: Tensor) -> Tensor:
        """Return the spectrum of a signal (T, d1) along its features, laid out for `sampled`."""
        return _real_spectrum(signal)

    def analyse_columns(self, signal: Tensor) -> Tensor:
        """Return the spectrum of a signal (T, d2) along its features, laid out for `sampled`."""
        return _real_spectrum(signal)

    def sampled(self, rows: Tensor, columns: Tensor) -> Tensor:
        """Return the `gradient` of ``rows^T columns`` (n,), from the spectra of both.

        ``sum_t Re(Y_t[u] X_t[v])`` at the n entries alone: nothing of size d1 x d2 is made.
        """
        if self._sampling is None:
            d1, d2 = self.shape
            u, v = self._folded
            negative = 2 * u > d1  # Y[u] is the conjugate of Y[d1 - u]
            u = torch.where(negative, d1 - u, u)
            # Re(a b) = Re a Re b - Im a Im b, and the factor 1 / (d1 d2).
            factors = torch.stack([torch.ones_like(u), torch.where(negative, 1, -1)])
            self._factors = {
                dtype: factors.to(dtype) * self.scale for dtype in (torch.float32, torch.float64)
            }
            cells = torch.cat([2 * u, 2 * u + 1]), torch.cat([2 * v, 2 * v + 1])
            self._sampling = SampledProduct(*cells, (2 * (d1 // 2 + 1), 2 * (d2 // 2 + 1)))
        products = self._sampling(rows, columns).view(2, -1)
        return (products * self._factors[products.dtype]).sum(0)

    def prefers_sampling(self, tokens: int) -> bool:
        """Return True if `sampled` should be faster than `gradient` of the matrix product."""
        d1, d2 = self.shape
        sampled = tokens * (_FFT * (d1 + d2) + SAMPLE * self.n)
        return sampled < d1 * d2 * (2 * tokens * FLOP + _PLANE)

    def prefers_spectra(self, tokens: int) -> bool:
        """Return True if products by way of spectra should be faster than building S for them.

        A build is taken to serve four micro-batches of this size.
        """
        d1, d2 = self.shape
        products = tokens * (_PRODUCTS * (d1 + d2) + _TERMS * self.n)
        return 4 * products < self.build_cost * d1 * d2

    def _top(self, coefficients: Tensor) -> Tensor:
        """Return S[p] for p = 0 ... d1 // 2."""
        d1, d2 = self.shape
        values = (coefficients * (self.scale / 2)).index_select(-1, self._half_source)
        # Conjugates meet in one cell, so this adds; two terms at most, in any order the same sum.
        half = values.new_zeros(*values.shape[:-1], (d2 // 2 + 1) * d1)
        half.index_add_(-1, self._half_cells, values)
        columns = torch.fft.rfft(half.unflatten(-1, (-1, d1)))
        return torch.fft.irfft(columns, n=d2, dim=-2, norm="forward").mT

    def _bottom(self, top: Tensor) -> tuple[Tensor, Tensor]:
        """Return the other rows: first column, and all others; ``S[-p, -q] = S[p, q]``."""
        d1 = self.shape[0]
        mirrored = top[..., 1 : d1 - d1 // 2, :]
        return mirrored[..., :1].flip(-2), mirrored[..., 1:].flip(-2, -1)


def _real_spectrum(signal: Tensor) -> Tensor:
    """Return real and imaginary parts of the rfft, interleaved: (T, d) -> (2 (d // 2 + 1), T)."""
    spectrum = torch.view_as_real(torch.fft.rfft(signal))
    return spectrum.view(len(signal), -1).t().contiguous()
