"""Single entries of a matrix product."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

_ROWS_AT_ONCE = 256  # bounds the copies that the fallback makes


class SampledProduct:
    """Entries ``(row_l, column_l)`` of ``R C^T`` without the product itself.

    Args:
        rows: Row of R for each product, int64 (m,); pairs may repeat.
        columns: Row of C for each product, int64 (m,).
        shape: Rows of R and of C.
    """

    def __init__(self, rows: Tensor, columns: Tensor, shape: tuple[int, int]) -> None:
        cells, self._place = torch.unique(rows * shape[1] + columns, return_inverse=True)
        self._rows, self._columns = cells // shape[1], cells % shape[1]
        self._shape = shape
        self._patterns: dict[torch.dtype, Tensor] = {}

    def __call__(self, rows: Tensor, columns: Tensor) -> Tensor:
        """Return the m products of R (rows, T) and C (columns, T), both contiguous."""
        if rows.is_cuda or torch.backends.mkl.is_available():
            pattern = self._pattern(rows.dtype)
            # Fed this way it copies nothing: internally it wants the second factor's transpose.
            found = torch.sparse.sampled_addmm(pattern, rows, columns.t(), beta=0.0).values()
        else:
            found = torch.cat(
                [
                    (rows[r] * columns[c]).sum(1)
                    for r, c in zip(
                        self._rows.split(_ROWS_AT_ONCE),
                        self._columns.split(_ROWS_AT_ONCE),
                        strict=True,
                    )
                ]
            )
        return found.index_select(0, self._place)

    def _pattern(self, dtype: torch.dtype) -> Tensor:
        if dtype not in self._patterns:
            starts, columns = compress_rows(self._rows, self._columns, self._shape[0])
            zeros = torch.zeros(len(self._rows), dtype=dtype, device=self._rows.device)
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "Sparse", UserWarning)  # beta; unchecked
                self._patterns[dtype] = torch.sparse_csr_tensor(
                    starts, columns, zeros, size=self._shape, check_invariants=False
                )
        return self._patterns[dtype]


def compress_rows(rows: Tensor, columns: Tensor, number: int) -> tuple[Tensor, Tensor]:
    """Return where each row starts and the columns, of cells sorted by row, for sparse products.

    In int32: MKL would copy others in every call.
    """
    counts = torch.bincount(rows, minlength=number)
    starts = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    return starts.int(), columns.int()
