"""From coefficients to the update of a weight, and back, for autograd.

A transform knows one shape, one set of entries and one basis; it is shared by all layers that have
them in common (`get_transform`). It carries no alpha: that multiplies coefficients and gradients.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import unset_fake_temporarily

from ..spectrum import Draw, draw_entries
from ..tensors import without_autocast
from .few_rows import FewRows
from .fourier import Fourier
from .matrices import MATRIX_BASES, MatrixBasis

BASES = ("fourier", *MATRIX_BASES)

Transform = Fourier | MatrixBasis


def make_transform(
    shape: Sequence[int], entries: Tensor, basis: str = "fourier", seed: int = 2024
) -> Transform:
    """Build the transform of a basis.

    Raises:
        ValueError: Unknown basis, or entries of the wrong form.
    """
    check_basis(basis)
    if entries.ndim != 2 or entries.shape[0] != 2:
        raise ValueError(f"entries: got shape {tuple(entries.shape)}, allowed (2, n)")
    if basis == "fourier":
        return Fourier(shape, entries)
    return MatrixBasis(shape, entries, basis, seed)


# Dynamo would trace the draw into every compiled call.
@torch.compiler.disable
def get_transform(
    shape: Sequence[int],
    draws: tuple[Draw, ...],
    basis: str,
    device: torch.device,
    transposed: bool = False,
) -> Transform:
    """Return the one transform that all layers with these properties share.

    Args:
        shape: ``(d1, d2)`` of the spectrum: the (out, in) features of the weight, or (in, out)
            for an update that is applied from the right.
        draws: Draws of the entries; the seed of the first is that of random matrices.
        basis: One of `BASES`.
        device: Device of the entries.
        transposed: Return the transform to (d2, d1), as the transposed weight is stored.
    """
    return _cached_transform(tuple(shape), draws, basis, torch.device(device), transposed)


@lru_cache(maxsize=128)
def _cached_transform(shape, draws, basis, device, transposed):
    # The result outlives the caller, and may be trained with.
    with torch.inference_mode(False), unset_fake_temporarily():
        if transposed:
            return _cached_transform(shape, draws, basis, device, False).transposed
        entries = draw_entries(shape, draws, device)
        if len(draws) == 1 and draws[0].region.rows is not None and not entries.is_meta:
            return FewRows(shape, entries)
        return make_transform(shape, entries, basis, draws[0].seed)


def scaled(coefficients: Tensor, alpha: float) -> Tensor:
    """Return ``alpha * c`` in the dtype of the transform: float64 for float64, else float32."""
    dtype = torch.float64 if coefficients.dtype == torch.float64 else torch.float32
    return coefficients.to(dtype) * alpha  # n products here instead of d1 * d2 at the end


def apply_transform(transform: Transform, coefficients: Tensor, alpha: float) -> Tensor:
    """Return ``alpha * S``, (d1, d2), differentiable any number of times, in any mode."""
    with without_autocast(coefficients.device.type):
        return transform.update(scaled(coefficients, alpha))


def delta_weight(
    coefficients: Tensor,
    entries: Tensor,
    shape: Sequence[int],
    alpha: float,
    basis: str = "fourier",
    seed: int = 2024,
) -> Tensor:
    """Return the update of one weight: ``DeltaW = alpha * S`` (see `Fourier`).

    Args:
        coefficients: ``c``, floating point (n,).
        entries: ``E``, rows and columns, int64 (2, n), pairwise different, on the same device.
        shape: ``(d1, d2)``, the (out, in) features of the weight.
        alpha: Scaling.
        basis: Basis of the coefficients: one of `BASES` (see `MatrixBasis`).
        seed: Seed of the matrices of ``random`` and ``orthogonal``.

    Returns:
        ``DeltaW``, (d1, d2) in the orientation of ``torch.nn.Linear``: ``h = F.linear(x, DeltaW)``.
        float64 for float64 coefficients, else float32: neither the transform nor its gradient
        ever runs in half precision. Differentiable with respect to ``coefficients``.

    Raises:
        ValueError: Unknown basis, or entries that do not fit the coefficients.
    """
    transform = make_transform(shape, entries, basis, seed)
    if coefficients.shape != (transform.n,):
        raise ValueError(
            f"entries: got shape {tuple(entries.shape)} for coefficients of shape "
            f"{tuple(coefficients.shape)}, allowed (2, n) for (n,)"
        )
    return apply_transform(transform, coefficients, alpha)


def check_basis(basis: str) -> None:
    """Raise ValueError, naming what is allowed, unless ``basis`` is known."""
    if basis not in BASES:
        raise ValueError(f"basis: got {basis!r}, allowed {', '.join(map(repr, BASES))}")
