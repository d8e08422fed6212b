"""The formula of the paper, as printed: the reference for every faster computation."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def reference_update(
    coefficients: Tensor, entries: Tensor, shape: Sequence[int], alpha: float = 1.0
) -> Tensor:
    """Return ``alpha * Re(ifft2(ToDense(c, E)))``, Eq. 2-4, differentiable.

    A dense complex spectrum, one full inverse transform: simple and slow.

    Args:
        coefficients: ``c``, floating point (n,).
        entries: ``E``, rows and columns of the spectrum, int64 (2, n), pairwise different.
        shape: ``(d1, d2)``, the (out, in) features of the weight.
        alpha: Scaling.

    Returns:
        The update of the weight, (d1, d2), in the dtype of the coefficients.
    """
    spectrum = coefficients.new_zeros(tuple(shape)).index_put(tuple(entries), coefficients)
    return alpha * torch.fft.ifft2(spectrum).real
