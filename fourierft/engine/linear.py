"""The adapted linear map: frozen weight and updates in one product, for autograd."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..bases.transform import Transform
from ..frozen_weight import dequantised_4bit, is_4bit
from ..tensors import HALF, check_versions, get_version, without_autocast
from .gradient import Signal, Spectra, coefficient_gradients, share_spectra, weight_gradient
from .settings import DEFAULT, GROUPED, Engine, choose_memory, samples_gradient, uses_spectra
from .spectral import spectral_linear
from .weight_cache import AdapterTerm, WeightCache, WeightLayout, effective_weight, summed_update
from .weight_group import PreparedWeight

_ORDINARY = (Tensor, nn.Parameter)


class Operands(NamedTuple):
    """Arguments of one call besides its tensors."""

    transforms: tuple[Transform, ...]
    alphas: tuple[float, ...]
    coefficients: tuple[Tensor, ...]
    transposed: bool  # the weight is (in, out)
    layout: WeightLayout
    cache: WeightCache | None
    spectra: Spectra | None  # of the input
    sampled: Sequence[bool]
    saves: bool  # the effective weight, for the backward pass
    whole: bool  # dL/dW is asked for: a plane stands in the coefficients' place
    packed: Tensor | None  # W0 in four bits, whose scales autograd would not save

    def terms(self, coefficients: Sequence[Tensor]) -> list[AdapterTerm]:
        """Return the adapters with these values of their coefficients."""
        return list(map(AdapterTerm, self.transforms, self.alphas, coefficients))

    def effective(self, weight: Tensor | None, coefficients: Sequence[Tensor]) -> Tensor:
        """Return the effective weight for these values of the coefficients."""
        weight = weight if self.packed is None else self.packed
        return _effective(self.cache, weight, self.terms(coefficients), self.layout)


def adapted_linear(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    terms: Sequence[AdapterTerm],
    transposed: bool = False,
    engine: Engine = DEFAULT,
    cache: WeightCache | None = None,
    prepare: Callable[[Sequence[AdapterTerm], WeightLayout], PreparedWeight | None] | None = None,
) -> Tensor:
    """Return ``x (W0 + sum of alpha S(c))^T + b`` at the cost of ``x W0^T + b``.

    Args:
        x: (..., in).
        weight: W0, (out, in), or (in, out) if ``transposed``; bitsandbytes' ``Params4bit`` is
            dequantised for as long as it is used; None for the update alone.
        bias: (out,) or None.
        terms: The adapters, their transforms in the layout of ``weight``.
        transposed: True if ``weight`` is (in, out).
        engine: Settings of the computation.
        cache: Cache of this layer's effective weight, if it has one.
        prepare: Source of effective weights that are built with those of other layers.

    Returns:
        (..., out) in the dtype of ``x``, under autocast in its dtype. Differentiable with respect
        to x, bias and coefficients, and to weight if it requires a gradient.
    """
    entered = x
    device = x.device.type
    packed = is_4bit(weight)
    base = None if packed else weight
    dtype = x.dtype if base is None else base.dtype
    exact = engine.precision == "exact" and weight is not None and dtype in HALF
    if not x.is_meta and torch.is_autocast_enabled(device) and x.dtype != torch.float64:
        dtype = torch.get_autocast_dtype(device)
        x, bias = x.to(dtype), None if bias is None else bias.to(dtype)
    elif x.dtype != dtype:  # as the base layer would say
        raise RuntimeError(f"expected an input of the weight's dtype {dtype}, got {x.dtype}")
    if _needs_plain_operations(x, base, terms):
        with without_autocast(device):
            return _plain(x, weight, bias, terms, transposed, dtype, exact)
    layout = (
        WeightLayout(torch.float32) if exact and device == "cpu" else WeightLayout(dtype, exact)
    )
    if not torch.is_grad_enabled() and cache is not None and cache.holders:
        effective = cache.get_held(weight, terms, layout)
        return (_to_columns if transposed else _to_rows)(x, effective, bias)
    tokens = x.numel() // max(x.shape[-1], 1)
    if uses_spectra(engine, x, base, terms, tokens):
        return spectral_linear(x, weight, bias, terms[0], transposed)
    chosen = choose_memory(engine, device, base)
    if chosen != "cache":
        cache = None
    prepared = prepare(terms, layout) if prepare is not None and chosen in GROUPED else None
    if prepared is None:
        effective, plane = _effective(cache, weight, terms, layout), None
    else:
        effective, plane = prepared
    if not torch.is_grad_enabled():
        return (_to_columns if transposed else _to_rows)(x, effective, bias)
    sampled = [samples_gradient(engine, device, term.transform, tokens) for term in terms]
    transforms, alphas, coefficients = zip(*terms, strict=True)
    sources = coefficients if plane is None or any(sampled) else (plane,)
    shares = any(sampled) and any(c.requires_grad for c in coefficients)
    operands = Operands(
        transforms,
        alphas,
        coefficients,
        transposed,
        layout,
        cache,
        share_spectra(entered) if shares else None,
        sampled,
        saves=chosen != "recompute",
        whole=sources is not coefficients,
        packed=weight if packed else None,
    )
    return _AdaptedLinear.apply(operands, effective, x, base, bias, *sources)


def adapted_weight(
    weight: Tensor,
    terms: Sequence[AdapterTerm],
    engine: Engine = DEFAULT,
    cache: WeightCache | None = None,
) -> Tensor:
    """Return ``W0 + sum of alpha S(c)`` in the dtype of W0, differentiable; do not write to it."""
    if torch.is_grad_enabled() or _needs_plain_operations(weight, weight, terms):
        return _differentiable_sum(weight, terms).to(weight.dtype)
    if cache is not None and cache.holders:
        return cache.get_held(weight, terms, WeightLayout(weight.dtype))
    if choose_memory(engine, weight.device.type, weight) != "cache":
        cache = None
    return _effective(cache, weight, terms, WeightLayout(weight.dtype))


class _AdaptedLinear(torch.autograd.Function):
    """The adapted linear map as a function of autograd.

    It saves the input and, unless that is recomputed, the effective weight; no gradient is d x d
    unless the dense one was chosen.
    """

    @staticmethod
    def forward(ctx, operands, effective, x, weight, bias, *sources):
        _, _, needs_x, _, _, *needs = ctx.needs_input_grad
        ctx.operands = operands
        # Coefficients may be stepped on before the backward pass, unseen (fused optimizers): it
        # works with the values of the forward pass. The tensors are for second derivatives.
        coefficients = operands.coefficients
        ctx.versions = [get_version(c) for c in coefficients]
        recomputes = needs_x and not operands.saves
        ctx.values = [c.detach().clone() for c in coefficients] if recomputes else None
        kept = effective if needs_x and operands.saves else None
        ctx.save_for_backward(x if any(needs) else None, weight, kept)
        multiply = _to_columns if operands.transposed else _to_rows
        # With a bias the product is a view, into which autograd lets nobody write (ReLU in place).
        return multiply(x, effective, bias).data

    @staticmethod
    def backward(ctx, dy):
        operands = ctx.operands
        x, weight, effective = ctx.saved_tensors
        _, _, needs_x, _, needs_bias, *needs = ctx.needs_input_grad
        batched = torch._C._functorch.is_legacy_batchedtensor(dy)
        differentiable = x is not None and (torch.is_grad_enabled() or batched)
        multiply_back = _to_rows if operands.transposed else _to_columns
        dx = dbias = None
        gradients: list[Tensor | None] = [None] * len(needs)
        with without_autocast(dy.device.type):
            if needs_x:
                if differentiable:
                    effective = _differentiable_weight(ctx, weight)
                elif effective is None:
                    effective = operands.effective(weight, ctx.values)
                dx = multiply_back(dy, effective)
            if needs_bias:
                dbias = dy.reshape(-1, dy.shape[-1]).sum(0)
            if x is not None:
                flat = x.reshape(-1, x.shape[-1]), dy.reshape(-1, dy.shape[-1])
                rows, columns = flat if operands.transposed else flat[::-1]
                if operands.whole:
                    gradients = [weight_gradient(rows, columns)]
                else:
                    gradients = _coefficient_gradients(operands, *flat, needs, differentiable)
        return None, None, dx, None, dbias, *gradients


def _coefficient_gradients(
    operands: Operands, x: Tensor, dy: Tensor, needs: Sequence[bool], differentiable: bool
) -> list[Tensor | None]:
    """Return the gradients of the coefficients for inputs (T, in) and output gradients (T, out)."""
    input = Signal(x, operands.spectra or Spectra())
    grad_output = Signal(dy, Spectra(len(needs)))
    found = coefficient_gradients(
        *((input, grad_output) if operands.transposed else (grad_output, input)),
        [t if need else None for t, need in zip(operands.transforms, needs, strict=True)],
        # The dense way is made of operations that autograd and vmap know.
        [False] * len(needs) if differentiable else operands.sampled,
    )
    input.spectra.finish_layer()
    each = zip(operands.alphas, found, operands.coefficients, strict=True)
    return [None if g is None else (alpha * g).to(c.dtype) for alpha, g, c in each]


def _differentiable_weight(ctx: Any, weight: Tensor | None) -> Tensor:
    """Return the effective weight as a function of the coefficients, for second derivatives."""
    operands = ctx.operands
    check_versions(operands.coefficients, ctx.versions)
    exact = operands.layout.interleaved or operands.layout.dtype == torch.float32
    weight = weight if operands.packed is None else operands.packed
    total = _differentiable_sum(weight, operands.terms(operands.coefficients))
    return total if exact else total.to(operands.layout.dtype)


def _to_rows(x: Tensor, effective: Tensor, bias: Tensor | None = None) -> Tensor:
    """Map (..., d2) to (..., d1) by an effective weight (d1, d2) or (d1, 2, d2)."""
    if effective.dim() == 3:
        x, effective = torch.cat([x, x], -1), effective.flatten(1)
    return _linear(x, effective, bias)


def _to_columns(x: Tensor, effective: Tensor, bias: Tensor | None = None) -> Tensor:
    """Map (..., d1) to (..., d2) by an effective weight (d1, d2) or (d1, 2, d2)."""
    if effective.dim() == 3:
        x, effective = x.repeat_interleave(2, -1), effective.flatten(0, 1)
    return _linear(x, effective.t(), bias)


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    with without_autocast(x.device.type):  # it would round a float32 weight, and round again
        if x.dtype in HALF and weight.dtype == torch.float32:  # precision=exact
            bias = None if bias is None else bias.float()
            return F.linear(x.float(), weight, bias).to(x.dtype)
        return F.linear(x, weight, bias)


def _effective(
    cache: WeightCache | None,
    weight: Tensor | None,
    terms: Sequence[AdapterTerm],
    layout: WeightLayout,
) -> Tensor:
    return (effective_weight if cache is None else cache.get)(weight, terms, layout)


def _needs_plain_operations(x: Tensor, weight: Tensor | None, terms: Sequence[AdapterTerm]) -> bool:
    """Return True if tracing or tensor subclasses rule out the custom autograd function."""
    if torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active():
        return True
    if torch.jit.is_tracing():  # it would take a kept weight for a constant
        return True
    if torch.autograd.forward_ad._current_level >= 0 or x.is_meta or type(x) not in _ORDINARY:
        return True
    if weight is not None and (
        type(weight) not in _ORDINARY or (weight.requires_grad and torch.is_grad_enabled())
    ):
        return True
    return any(type(term.coefficients) not in _ORDINARY for term in terms)


def _plain(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    terms: Sequence[AdapterTerm],
    transposed: bool,
    dtype: torch.dtype,
    exact: bool,
) -> Tensor:
    """Compute the adapted map in operations that autograd, functorch and compilers know."""
    total = _differentiable_sum(weight, terms)
    if not exact:
        total = total.to(dtype)
    return (_to_columns if transposed else _to_rows)(x, total, bias)


def _differentiable_sum(weight: Tensor | None, terms: Sequence[AdapterTerm]) -> Tensor:
    update = summed_update(terms)
    if is_4bit(weight):
        weight = dequantised_4bit(weight)
    return update if weight is None else weight + update
