"""Many adapters in one batch: every row gets the update of its own adapter."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ..bases.fourier import Fourier
from ..bases.transform import Transform
from ..tensors import without_autocast
from .linear import adapted_linear
from .spectral import spectral_product
from .weight_cache import AdapterTerm

BASE = "__base__"
"""PEFT's name for a row without an adapter."""

# Nanoseconds on one AVX2 core, as in `fourier`. Only their ratios decide.
_ROUND_TRIP = 4.0  # one number of a token to its spectrum, laid out and back
_TERM = 2.0  # one coefficient of one token
_BUILD = 4.0  # one number of W0 + DeltaW
_SEPARATE = 0.45  # one number of a further weight that a batch is multiplied with
_PRODUCT = 2 / 95  # one multiplication and addition of a matrix product


class _SpectralProduct(torch.autograd.Function):
    """`SpectralProduct` for (B, T, in), differentiable once."""

    @staticmethod
    def forward(ctx, product, x, coefficients, which):
        """Multiply.

        ``coefficients``: (A, n) and each row's index among them, which get a gradient; or
        (n, B) and None.
        """
        by_row = coefficients if which is None else coefficients.index_select(0, which).t()
        ctx.product = product
        ctx.save_for_backward(x, coefficients, which, by_row)
        return product(x.flatten(0, 1), by_row).view(*x.shape[:-1], -1)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, dy):
        x, coefficients, which, by_row = ctx.saved_tensors
        product, transform = ctx.product, ctx.product.transform
        dx = gradient = None
        with without_autocast(dy.device.type):
            if ctx.needs_input_grad[1]:
                dx = product.transposed(dy.flatten(0, 1), by_row).view(x.shape)
            if ctx.needs_input_grad[2]:
                gradient = torch.zeros_like(coefficients)
                for adapter in which.unique().tolist():
                    rows = (which == adapter).nonzero()[:, 0]
                    gradient[adapter] = transform.sampled(
                        transform.analyse_rows(dy.index_select(0, rows).flatten(0, 1)),
                        transform.analyse_columns(x.index_select(0, rows).flatten(0, 1)),
                    )
        return None, dx, gradient, None


def mixed_update(x: Tensor, terms: Sequence[AdapterTerm], rows: Sequence[int]) -> Tensor:
    """Return ``DeltaW_a(b) x_b`` for every row, differentiable.

    Args:
        x: (B, T, in): rows of T tokens.
        terms: The adapters, their transforms as (out, in).
        rows: Per row the index of its adapter among ``terms``; -1 for none.

    Returns:
        (B, T, out), float32, or float64 where ``x`` is.
    """
    with without_autocast(x.device.type):
        x = x.to(torch.float64 if x.dtype == torch.float64 else torch.float32)
        if not x.numel():
            return x.new_zeros(*x.shape[:-1], terms[0].transform.shape[0])
        out = None
        for transform in {id(term.transform): term.transform for term in terms}.values():
            group = [index for index, term in enumerate(terms) if term.transform is transform]
            place = {index: place for place, index in enumerate(group)}
            chosen = [row for row, index in enumerate(rows) if index in place]
            own = torch.tensor([place[rows[row]] for row in chosen], device=x.device)
            members = [terms[index] for index in group]
            if len(chosen) == len(rows):
                return _group_update(x, members, own)
            at = torch.tensor(chosen, device=x.device)
            update = _group_update(x.index_select(0, at), members, own)
            if out is None:
                out = update.new_zeros(*x.shape[:-1], update.shape[-1])
            out = out.index_add(0, at, update)
        return out


def update_cost(tokens: int, transform: Transform) -> float:
    """Return the expected nanoseconds of adding the updates of all tokens."""
    if not isinstance(transform, Fourier):
        return math.inf
    return _spectral_cost(tokens, transform.n, transform.shape)


def build_cost(adapters: int, shape: tuple[int, int]) -> float:
    """Return the expected nanoseconds of building W0 + DeltaW of some adapters."""
    return adapters * _BUILD * math.prod(shape)


def separate_cost(groups: Sequence[int], shape: tuple[int, int]) -> float:
    """Return the expected nanoseconds that one product per group takes longer than one of all."""
    return (len(groups) - 1) * _SEPARATE * math.prod(shape)


def _spectral_cost(tokens: int, n: int, shape: tuple[int, int]) -> float:
    return tokens * (_ROUND_TRIP * sum(shape) + _TERM * n)


def prefers_groups(
    tokens: int, adapters: int, n: int, shape: tuple[int, int], replaces_base: bool
) -> bool:
    """Return True if one product per adapter is expected to be faster than the spectral one.

    Args:
        tokens: Tokens of the whole batch.
        adapters: Number of different adapters among them.
        n: Coefficients of an adapter.
        shape: Shape of the weight.
        replaces_base: The product per adapter is with W0 + DeltaW, so that W0's own is saved.
    """
    grouped = build_cost(adapters, shape)
    if not replaces_base:
        grouped += tokens * math.prod(shape) * _PRODUCT
    return grouped < _spectral_cost(tokens, n, shape)


def _group_update(x: Tensor, terms: Sequence[AdapterTerm], which: Tensor) -> Tensor:
    """Compute `mixed_update` for adapters that share their transform, and rows that all have one.

    Args:
        x: (B, T, in): rows of T tokens.
        terms: The adapters, their transforms as (out, in).
        which: Index of each row's adapter, int64 (B,).
    """
    transform = terms[0].transform
    if _is_spectral(x, transform, len(terms)):
        coefficients = torch.stack([term.coefficients for term in terms]).to(x.dtype)
        alphas = [term.alpha for term in terms]
        coefficients = coefficients * coefficients.new_tensor(alphas)[:, None]
        return _SpectralProduct.apply(spectral_product(transform), x, coefficients, which)
    return _update_by_adapter(x, terms, which)


def banked_update(
    x: Tensor, transform: Transform, coefficients: Tensor, which: Tensor, by_row: Tensor
) -> Tensor:
    """Return ``DeltaW_a(b) x_b`` for coefficients that lie in one tensor.

    Args:
        x: (B, T, in): rows of T tokens.
        transform: Transform of all adapters, as (out, in).
        coefficients: (A, n), multiplied by alpha; no gradient reaches them.
        which: Index of each row's adapter, int64 (B,).
        by_row: (n, B), each row's coefficients, which outlast a call where the rows stay the same.

    Returns:
        (B, T, out), float32, or float64 where ``x`` is.
    """
    with without_autocast(x.device.type):
        x = x.to(torch.float64 if x.dtype == torch.float64 else torch.float32)
        if not x.numel():
            return x.new_zeros(*x.shape[:-1], transform.shape[0])
        if _is_spectral(x, transform, len(coefficients)):
            return _SpectralProduct.apply(spectral_product(transform), x, by_row.to(x.dtype), None)
        terms = [AdapterTerm(transform, 1.0, one) for one in coefficients]
        return _update_by_adapter(x, terms, which)


def _update_by_adapter(x: Tensor, terms: Sequence[AdapterTerm], which: Tensor) -> Tensor:
    out = x.new_zeros(*x.shape[:-1], terms[0].transform.shape[0])
    for index, term in enumerate(terms):
        at = (which == index).nonzero()[:, 0]
        update = adapted_linear(x.index_select(0, at), None, None, [term])
        out = out.index_add(0, at, update.to(x.dtype))
    return out


def _is_spectral(x: Tensor, transform: Transform, adapters: int) -> bool:
    if not isinstance(transform, Fourier) or torch.compiler.is_compiling():
        return False
    if torch._C._are_functorch_transforms_active() or x.is_meta:
        return False
    tokens = x.shape[0] * x.shape[1]
    return not prefers_groups(tokens, adapters, transform.n, transform.shape, False)


def group_rows(adapter_names: Sequence[str]) -> dict[str, list[int]]:
    """Return the rows of every adapter."""
    found: dict[str, list[int]] = {}
    for row, name in enumerate(adapter_names):
        found.setdefault(name, []).append(row)
    return found
