"""Single rows of an update."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .matrices import MatrixBasis
from .transform import Transform

_ROWS_AT_ONCE = 1024


def update_rows(transform: Transform, coefficients: Tensor, rows: Tensor) -> Tensor:
    """Return rows of ``S``, (len(rows), d2), at a cost that does not depend on d1; differentiable.

    ``S[p] = 1 / d1 Re(ifft(Z_p))`` with ``Z_p[v] = sum of c_l exp(2 pi i p u_l / d1)`` over the
    entries with ``v_l = v``.

    Args:
        transform: Shape, entries and basis.
        coefficients: (n,), multiplied by alpha, float32 or float64.
        rows: int64 (m,).
    """
    if isinstance(transform, MatrixBasis):
        return transform.update_rows(coefficients, rows)
    if len(rows) > _ROWS_AT_ONCE:
        chunks = rows.split(_ROWS_AT_ONCE)
        return torch.cat([update_rows(transform, coefficients, chunk) for chunk in chunks])
    d1, d2 = transform.shape
    u, v = transform.entries
    # Reduced modulo d1 first: the angle of large products would lose digits.
    angles = (rows[:, None] * u % d1).to(coefficients.dtype) * (2 * math.pi / d1)
    terms = torch.stack([angles.cos(), angles.sin()], -1) * coefficients[:, None]
    spectra = terms.new_zeros(len(rows), d2, 2).index_add(1, v, terms)
    return torch.fft.ifft(torch.view_as_complex(spectra)).real / d1
