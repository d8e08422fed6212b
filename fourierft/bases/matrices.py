"""Bases that are matrices: random, orthogonal, cosine and Hartley (Table 6, and two more)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

from .fourier import FLOP, SAMPLE
from .sampled_product import SampledProduct

MATRIX_BASES = ("random", "orthogonal", "dct", "hartley")


class MatrixBasis:
    """``S = B1^T F B2`` with ``F = ToDense(c, E)`` and fixed matrices: the ablation of Table 6.

    ``S[p, q] = scale * sum_l c_l B1[u_l, p] B2[v_l, q]``. Row k of a basis is the k-th function:

    - ``random``: standard normal numbers. ``orthogonal``: the Q of such a matrix, signs fixed.
    - ``dct``: orthonormal DCT-II. ``hartley``: ``cas(2 pi k p / d) / sqrt(d)``, separable.

    The paper states neither how its matrices are normalised nor how the orthogonal ones are made,
    nor their seed, nor whether alpha was tuned again. Here ``scale`` gives every basis the size of
    the Fourier basis: one coefficient of value 1 makes an update of Frobenius norm
    ``1 / sqrt(2 d1 d2)`` (for ``random``: in expectation), so the same alpha means the same.

    Args:
        shape: ``(d1, d2)``.
        entries: Rows ``u`` and columns ``v``, int64 (2, n), pairwise different.
        basis: One of ``random``, ``orthogonal``, ``dct``, ``hartley``.
        seed: Seed of the random matrices, which all layers of one shape share.
    """

    def __init__(
        self, shape: Sequence[int], entries: Tensor, basis: str, seed: int, swapped: bool = False
    ) -> None:
        d1, d2 = shape
        self.shape = d1, d2
        self.entries, self.n, self.device = entries, entries.shape[1], entries.device
        # The transpose has the same two factors, swapped.
        self.row_kind, self.column_kind = (
            (basis, seed, int(swapped)),
            (basis, seed, int(not swapped)),
        )
        self._left = basis_matrix(*self.row_kind, d1, entries.device)
        self._right = basis_matrix(*self.column_kind, d2, entries.device)
        norm = math.sqrt(d1 * d2) if basis == "random" else 1.0
        self.scale = 1 / (norm * math.sqrt(2 * d1 * d2))
        self._sampling: SampledProduct | None = None

    @property
    def transposed(self) -> MatrixBasis:
        """Transform whose S is the transpose of this one's."""
        basis, seed, side = self.row_kind
        return MatrixBasis(self.shape[::-1], self.entries.flip(0), basis, seed, not side)

    def update(self, coefficients: Tensor) -> Tensor:
        """See `Fourier.update`."""
        u, v = self.entries
        left, right = (m.to(coefficients.dtype) for m in (self._left, self._right))
        scaled = (coefficients * self.scale)[..., None]
        if self.n < self.shape[1]:
            return (scaled * left[u]).mT @ right[v]
        mixed = left.new_zeros(*scaled.shape[:-2], *self.shape[::-1])
        mixed.index_add_(-2, v, scaled * left[u])  # F^T B1
        return mixed.mT @ right

    def update_rows(self, coefficients: Tensor, rows: Tensor) -> Tensor:
        """Return rows of S, (m, d2), for their places (m,)."""
        u, v = self.entries
        left, right = (m.to(coefficients.dtype) for m in (self._left, self._right))
        return (left[u][:, rows].T * (coefficients * self.scale)) @ right[v]

    def add_update(self, weight: Tensor, coefficients: Tensor, dtype: torch.dtype) -> Tensor:
        """See `Fourier.add_update`."""
        return (weight + self.update(coefficients)).to(dtype)

    def gradient(self, update_gradient: Tensor) -> Tensor:
        """See `Fourier.gradient`."""
        u, v = self.entries
        left, right = (m.to(update_gradient.dtype) for m in (self._left, self._right))
        mixed = right @ update_gradient.mT  # (d2, d1)
        return (left[u] * mixed[..., v, :]).sum(-1) * self.scale

    def analyse_rows(self, signal: Tensor) -> Tensor:
        """See `Fourier.analyse_rows`."""
        return self._left.to(signal.dtype) @ signal.t()

    def analyse_columns(self, signal: Tensor) -> Tensor:
        """See `Fourier.analyse_columns`."""
        return self._right.to(signal.dtype) @ signal.t()

    def sampled(self, rows: Tensor, columns: Tensor) -> Tensor:
        """See `Fourier.sampled`."""
        if self._sampling is None:
            u, v = self.entries
            self._sampling = SampledProduct(u, v, self.shape)
        return self._sampling(rows, columns) * self.scale

    def prefers_sampling(self, tokens: int) -> bool:
        """See `Fourier.prefers_sampling`."""
        d1, d2 = self.shape
        sampled = tokens * (2 * (d1 * d1 + d2 * d2) * FLOP + SAMPLE * self.n)
        return sampled < 2 * d1 * d2 * (tokens + d2) * FLOP


@lru_cache(maxsize=32)
def basis_matrix(basis: str, seed: int, side: int, size: int, device: torch.device) -> Tensor:
    """Return a basis of functions on ``size`` points, one a row: float32 (size, size).

    Args:
        basis: One of `MATRIX_BASES`.
        seed: Seed of ``random`` and ``orthogonal``; drawn on the CPU in float64.
        size: Number of points.
        device: Device of the result.
        side: 0 for the factor of the rows, 1 for that of the columns: these two differ.
    """
    with torch.inference_mode(False):
        at = torch.arange(size, dtype=torch.float64, device="cpu")
        if basis == "dct":
            matrix = torch.cos(math.pi / size * (at + 0.5) * at[:, None]) * math.sqrt(2 / size)
            matrix[0] /= math.sqrt(2)
        elif basis == "hartley":
            # Reduced modulo size first: the angle of large products would lose digits.
            angle = 2 * math.pi / size * (at * at[:, None] % size)
            matrix = (torch.cos(angle) + torch.sin(angle)) / math.sqrt(size)
        else:
            generator = torch.Generator("cpu").manual_seed(2 * seed + side)
            matrix = torch.randn(size, size, dtype=torch.float64, generator=generator, device="cpu")
            if basis == "orthogonal":
                # With the signs of R's diagonal Q is uniform among the orthogonal matrices.
                q, r = torch.linalg.qr(matrix)
                matrix = q * torch.sign(torch.diagonal(r))
        return matrix.float().to(device)
