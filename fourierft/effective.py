"""The weight that an adapted layer multiplies with, kept until something it is made of changes."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .transform import Transform, scaled, without_autocast


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


def effective_weight(weight: Tensor | None, parts: Sequence[Part], form: Form) -> Tensor:
    """``W0 + sum of alpha * S(c)``, rounded once; DeltaW alone without a weight. No gradient."""
    # Not an inference tensor even if the caller is in inference mode: it may be trained with later.
    device = parts[0].coefficients.device.type
    with torch.inference_mode(False), torch.no_grad(), without_autocast(device):
        values = [scaled(part.coefficients, part.alpha) for part in parts]
        if weight is not None and len(parts) == 1 and not form.interleaved:
            return parts[0].transform.add_update(weight, values[0], form.dtype)
        updates = [part.transform.update(c) for part, c in zip(parts, values, strict=True)]
        update = sum(updates[1:], updates[0])
        if weight is None:
            return update.to(form.dtype)
        if form.interleaved:
            return torch.stack([weight.to(form.dtype), update.to(form.dtype)], 1)
        return (weight + update).to(form.dtype)


class WeightCache:
    """The effective weight of one layer and what it was made of.

    Optimizers and ``.data`` change parameters without leaving a trace in their version, so
    **values are compared**: all coefficients, and of the frozen weight its identity, address,
    version and some numbers all over it (one would do: whoever writes to a frozen weight behind
    its version writes all of it). What was handed out is never written to: a graph may need it.
    """

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Forget the weight."""
        self._effective: Tensor | None = None
        self._made_of: list[Any] = []
        self._coefficients: list[Tensor] = []
        self._weight: Any = None
        self._probe: Tensor | None = None
        self._probed: Tensor | None = None  # a view of the weight

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return 0 if self._effective is None else self._effective.nbytes

    def get(self, weight: Tensor | None, parts: Sequence[Part], form: Form) -> Tensor:
        """See `effective_weight`; not to be written to."""
        made_of: list[Any] = [form]
        for transform, alpha, c in parts:
            made_of += transform, alpha, c.dtype, c.device, c.shape
        if weight is not None:
            version = -1 if weight.is_inference() else weight._version
            made_of += weight.data_ptr(), version, weight.dtype, weight.shape
        if made_of == self._made_of and self._has_seen(weight, parts):
            return self._effective
        self.clear()  # frees the old weight before the new one is made
        effective = effective_weight(weight, parts, form)
        with torch.inference_mode(False), torch.no_grad():
            self._coefficients = [part.coefficients.detach().clone() for part in parts]
            if weight is not None:
                self._weight = weakref.ref(weight)
                self._probed = _probed(weight)
                self._probe = self._probed.clone()
        self._made_of, self._effective = made_of, effective
        return effective

    def _has_seen(self, weight: Tensor | None, parts: Sequence[Part]) -> bool:
        if weight is not None and not (
            self._weight() is weight and torch.equal(self._probe, self._probed)
        ):
            return False
        for kept, part in zip(self._coefficients, parts, strict=True):
            if not torch.equal(kept, part.coefficients):
                return False
        return True

    def __deepcopy__(self, memo: dict) -> WeightCache:
        return WeightCache()

    def __reduce__(self) -> tuple[type, tuple]:
        return WeightCache, ()


def _probed(weight: Tensor) -> Tensor:
    """View of about 64 numbers, spread over rows and columns."""
    rows, columns = weight.shape
    return weight.detach().flatten()[:: max(1, rows // 64) * columns + columns // 64 + 1]
