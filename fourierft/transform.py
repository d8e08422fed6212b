"""From coefficients to the update of a weight. The formula stands here and nowhere else."""

from collections.abc import Sequence

import torch
from torch import Tensor

BASES = ("fourier",)


def delta_weight(
    coefficients: Tensor,
    entries: Tensor,
    shape: Sequence[int],
    alpha: float,
    basis: str = "fourier",
) -> Tensor:
    """Update of one weight from its coefficients (Eq. 2-4).

    ``F = ToDense(c, E)``, ``S = ifft2(F)``, ``DeltaW = alpha * Re(S)``; so

    ``DeltaW[p, q] = alpha / (d1 d2) * sum_l c_l cos(2 pi (p u_l / d1 + q v_l / d2))``.

    The factor ``1 / (d1 d2)`` is in the authors' code though not in Eq. 3; their values of alpha
    rely on it. An entry and its conjugate may both be chosen: they make the same cosine and add
    up.

    Args:
        coefficients: ``c``, floating point (n,).
        entries: ``E``, rows and columns, int64 (2, n), pairwise different, on the same device.
        shape: ``(d1, d2)``, the (out, in) features of the weight.
        alpha: Scaling.
        basis: What the coefficients are coefficients of; only "fourier" for now.

    Returns:
        ``DeltaW``, (d1, d2) in the orientation of ``torch.nn.Linear``: ``h = F.linear(x, DeltaW)``.
        float64 for float64 coefficients, else float32: neither the transform nor its gradient
        ever runs in half precision. Differentiable with respect to ``coefficients``.

    Raises:
        ValueError: Unknown basis, or entries that do not fit the coefficients.
    """
    check_basis(basis)
    if entries.shape != (2, *coefficients.shape):
        raise ValueError(
            f"entries: got shape {tuple(entries.shape)} for coefficients of shape "
            f"{tuple(coefficients.shape)}, allowed (2, n) for (n,)"
        )
    dtype = torch.float64 if coefficients.dtype == torch.float64 else torch.float32
    scaled = coefficients.to(dtype) * alpha  # n products here instead of d1 * d2 at the end
    spectrum = torch.zeros(tuple(shape), dtype=dtype, device=coefficients.device)
    spectrum = spectrum.index_put((entries[0], entries[1]), scaled)
    return torch.fft.ifft2(spectrum).real.contiguous()


def check_basis(basis: str) -> None:
    """Raise ValueError, naming what is allowed, unless ``basis`` is known."""
    if basis not in BASES:
        raise ValueError(f"basis: got {basis!r}, allowed {', '.join(map(repr, BASES))}")
