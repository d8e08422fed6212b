"""The weight that an adapted layer multiplies with, kept until something it is made of changes."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..bases.transform import Transform, apply_transform, scaled
from ..tensors import version_of, without_autocast


class Part(NamedTuple):
    """One adapter's share in a weight: ``alpha * S(c)``."""

    transform: Transform
    """In the layout of the weight."""
    alpha: float
    coefficients: Tensor


class Form(NamedTuple):
    """How the effective weight is laid out."""

    dtype: torch.dtype
    interleaved: bool = False
    """(d1, 2, d2): W0 and DeltaW row by row, so that one product sums both before it rounds."""


def summed_update(parts: Sequence[Part]) -> Tensor:
    """``sum of alpha * S(c)``, differentiable."""
    updates = [apply_transform(part.transform, part.coefficients, part.alpha) for part in parts]
    return sum(updates[1:], updates[0])


def effective_weight(weight: Tensor | None, parts: Sequence[Part], form: Form) -> Tensor:
    """``W0 + sum of alpha * S(c)``, rounded once; DeltaW alone without a weight. No gradient."""
    # Not an inference tensor even if the caller is in inference mode: it may be trained with later.
    device = parts[0].coefficients.device.type
    with torch.inference_mode(False), torch.no_grad(), without_autocast(device):
        if weight is not None and len(parts) == 1 and not form.interleaved:
            transform, alpha, c = parts[0]
            return transform.add_update(weight, scaled(c, alpha), form.dtype)
        update = summed_update(parts)
        if weight is None:
            return update.to(form.dtype)
        if form.interleaved:
            return torch.stack([weight.to(form.dtype), update.to(form.dtype)], 1)
        return (weight + update).to(form.dtype)


class _Entry(NamedTuple):
    """An effective weight and what it was made of."""

    effective: Tensor
    made_of: list[Any]
    coefficients: list[Tensor]  # their values
    weight: Any  # weak reference
    probed: Tensor | None  # a view of the weight
    probe: Tensor | None  # its values


class WeightCache:
    """The effective weight of one layer.

    Optimizers and ``.data`` change parameters without leaving a trace in their version, so
    **values are compared**: all coefficients, and of the frozen weight its identity, address,
    version and some numbers all over it (small weights: all). What was handed out is never written
    to: a graph may need it.
    """

    def __init__(self) -> None:
        # One attribute, replaced as a whole: threads may share a layer.
        self._entry: _Entry | None = None

    def clear(self) -> None:
        """Forget the weight."""
        self._entry = None

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        entry = self._entry
        return 0 if entry is None else entry.effective.nbytes

    def get(self, weight: Tensor | None, parts: Sequence[Part], form: Form) -> Tensor:
        """See `effective_weight`; not to be written to."""
        made_of: list[Any] = [form]
        for transform, alpha, c in parts:
            made_of += transform, alpha, c.dtype, c.device, c.shape
        if weight is not None:
            made_of += weight.data_ptr(), version_of(weight), weight.dtype
            made_of += weight.shape, weight.stride()
        entry = self._entry
        if entry is not None and entry.made_of == made_of and _is_current(entry, weight, parts):
            return entry.effective
        self._entry = entry = None  # frees the old weight before the new one is made
        effective = effective_weight(weight, parts, form)
        reference = probed = probe = None
        with torch.inference_mode(False), torch.no_grad():
            coefficients = [part.coefficients.detach().clone() for part in parts]
            if weight is not None:
                reference, probed = weakref.ref(weight), _probed(weight)
                probe = probed.clone()
        self._entry = _Entry(effective, made_of, coefficients, reference, probed, probe)
        return effective

    def __deepcopy__(self, memo: dict) -> WeightCache:
        return WeightCache()

    def __reduce__(self) -> tuple[type, tuple]:
        return WeightCache, ()


def _is_current(entry: _Entry, weight: Tensor | None, parts: Sequence[Part]) -> bool:
    if weight is not None and not (
        entry.weight() is weight and torch.equal(entry.probe, entry.probed)
    ):
        return False
    for kept, part in zip(entry.coefficients, parts, strict=True):
        if not torch.equal(kept, part.coefficients):
            return False
    return True


def _probed(weight: Tensor) -> Tensor:
    """View of at least 64 numbers, spread over rows and columns; of all in a small weight."""
    weight = weight.detach()
    if not weight.is_contiguous():
        return weight.diagonal()  # a view whatever the strides
    step = 1
    if weight.numel() > 4096:
        columns = weight.shape[1]
        step = weight.numel() // 64
        if step > columns:  # whole rows, and a part of one that comes to all columns in turn
            step = (step // columns - 1) * columns + int(0.618 * columns) + 1
    return weight.view(-1)[::step]
