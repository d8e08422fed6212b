"""The Fourier basis with entries in few rows: updates of low rank."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from .fourier import FLOP, Fourier


class FewRows(Fourier):
    """`Fourier` for entries in k rows of the spectrum: S has rank 2k at most.

    With ``z_u[q] = sum over entries of row u of c_l e^(2 pi i q v_l / d2)``

    ``S[p, q] = 1 / (d1 d2) * sum_u cos(2 pi p u / d1) Re z_u[q] - sin(2 pi p u / d1) Im z_u[q]``:

    a product of the waves, (d1, 2k) and fixed, with (2k, d2), which k short transforms make.

    Args:
        shape: ``(d1, d2)``.
        entries: Rows ``u`` and columns ``v``, int64 (2, n), pairwise different.
        transposed: True if few columns hold them.
    """

    def __init__(self, shape: Sequence[int], entries: Tensor, transposed: bool = False) -> None:
        super().__init__(shape, entries)
        self._is_transposed = transposed
        (size, self._length), (u, v) = (
            (shape[::-1], entries.flip(0)) if transposed else (shape, entries)
        )
        rows, place = torch.unique(u, return_inverse=True)
        self.rank = 2 * len(rows)
        self._cells = place * self._length + v
        points = torch.arange(size, device=u.device)[:, None]
        # Reduced modulo size first: the angle of large products would lose digits.
        angle = 2 * math.pi / size * (points * rows % size).double()
        norm = math.sqrt(2 / size)
        waves = torch.cat([angle.cos(), -angle.sin()], 1) * norm
        self._waves = {dtype: waves.to(dtype) for dtype in (torch.float32, torch.float64)}
        self._gain = self.scale / norm
        self.build_cost = 0.7 + 1.5 * self.rank * FLOP
        kinds = ("waves", size, tuple(rows.tolist())), ("signal",)
        self.row_kind, self.column_kind = kinds[::-1] if transposed else kinds

    @property
    def transposed(self) -> FewRows:
        """Transform whose S is the transpose of this one's."""
        return FewRows(self.shape[::-1], self.entries.flip(0), not self._is_transposed)

    def factors(self, coefficients: Tensor) -> tuple[Tensor, Tensor]:
        """Return (..., d1, 2k) and (..., 2k, d2) whose product is S.

        The waves, without the leading dimensions of the coefficients, are orthonormal but for rows
        0 and d1 / 2.
        """
        values = coefficients * self._gain
        grid = values.new_zeros(*values.shape[:-1], self.rank // 2 * self._length)
        grid = grid.index_copy(-1, self._cells, values).unflatten(-1, (-1, self._length))
        mixed = torch.fft.ifft(grid, norm="forward")
        mixed, waves = torch.cat([mixed.real, mixed.imag], -2), self._waves[values.dtype]
        return (mixed.mT, waves.T) if self._is_transposed else (waves, mixed)

    def update(self, coefficients: Tensor) -> Tensor:
        """See `Fourier.update`."""
        left, right = self.factors(coefficients)
        return left @ right

    def add_update(self, weight: Tensor, coefficients: Tensor, dtype: torch.dtype) -> Tensor:
        """See `Fourier.add_update`."""
        left, right = self.factors(coefficients)
        if weight.dtype == left.dtype:
            return torch.addmm(weight, left, right).to(dtype)
        return (weight + left @ right).to(dtype)

    def gradient(self, update_gradient: Tensor) -> Tensor:
        """See `Fourier.gradient`."""
        dense = update_gradient.mT if self._is_transposed else update_gradient
        return self._pick(self._waves[dense.dtype].T @ dense)

    def analyse_rows(self, signal: Tensor) -> Tensor:
        """Return a signal (T, d1), mixed by the waves if they are on its side; for `sampled`."""
        return signal if self._is_transposed else self._waves[signal.dtype].T @ signal.T

    def analyse_columns(self, signal: Tensor) -> Tensor:
        """Return a signal (T, d2), mixed by the waves if they are on its side; for `sampled`."""
        return self._waves[signal.dtype].T @ signal.T if self._is_transposed else signal

    def sampled(self, rows: Tensor, columns: Tensor) -> Tensor:
        """Return the `gradient` of ``rows^T columns`` (n,): two products as small as LoRA's."""
        return self._pick(columns @ rows if self._is_transposed else rows @ columns)

    def prefers_sampling(self, tokens: int) -> bool:
        """See `Fourier.prefers_sampling`."""
        d1, d2 = self.shape
        return self.rank * (d1 + d2) < d1 * d2

    def _pick(self, mixed: Tensor) -> Tensor:
        """Return the gradient of the coefficients from that of the varying factor (..., 2k, d)."""
        spectrum = torch.fft.fft(torch.complex(*mixed.chunk(2, -2))).real
        return spectrum.flatten(-2).index_select(-1, self._cells) * self._gain
