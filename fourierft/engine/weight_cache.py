"""Cache of the weight that an adapted layer multiplies with, valid until an ingredient changes."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..bases.transform import Transform, apply_transform, scaled
from ..frozen_weight import dequantised_4bit, is_4bit
from ..tensors import get_version, without_autocast


class AdapterTerm(NamedTuple):
    """One adapter's share in a weight: ``alpha * S(c)``."""

    transform: Transform
    """Transform in the layout of the weight."""
    alpha: float
    coefficients: Tensor


class WeightLayout(NamedTuple):
    """Layout of the effective weight."""

    dtype: torch.dtype
    interleaved: bool = False
    """True for (d1, 2, d2): W0 and DeltaW row by row, so that one product sums both before it
    rounds."""


def summed_update(terms: Sequence[AdapterTerm]) -> Tensor:
    """Return ``sum of alpha * S(c)``, differentiable."""
    updates = [apply_transform(term.transform, term.coefficients, term.alpha) for term in terms]
    return sum(updates[1:], updates[0])


def effective_weight(
    weight: Tensor | None, terms: Sequence[AdapterTerm], layout: WeightLayout
) -> Tensor:
    """Return ``W0 + sum of alpha * S(c)``, rounded once, no gradient; DeltaW without a weight.

    A 4-bit weight is dequantised to float32 first.
    """
    # Not an inference tensor even if the caller is in inference mode: it may be trained with later.
    device = terms[0].coefficients.device.type
    with torch.inference_mode(False), torch.no_grad(), without_autocast(device):
        if is_4bit(weight):
            weight = dequantised_4bit(weight)
        if weight is not None and len(terms) == 1 and not layout.interleaved:
            transform, alpha, c = terms[0]
            return transform.add_update(weight, scaled(c, alpha), layout.dtype)
        update = summed_update(terms)
        if weight is None:
            return update.to(layout.dtype)
        if layout.interleaved:
            return torch.stack([weight.to(layout.dtype), update.to(layout.dtype)], 1)
        return (weight + update).to(layout.dtype)


class _Origin(NamedTuple):
    """A tensor, and its state that the host knows."""

    tensor: Any  # weak reference
    address: int
    version: int

    @classmethod
    def of(cls, tensor: Tensor) -> _Origin:
        """Return the present state of a tensor."""
        return cls(weakref.ref(tensor), tensor.data_ptr(), get_version(tensor))

    def fits(self, tensor: Tensor) -> bool:
        """Return True if it is this tensor, and was not seen to change."""
        same = self.tensor() is tensor and self.address == tensor.data_ptr()
        return same and self.version == get_version(tensor)

    def is_intact(self) -> bool:
        """Return True if the tensor still exists, and was not seen to change."""
        tensor = self.tensor()
        return tensor is not None and self.fits(tensor)


class _Entry(NamedTuple):
    """An effective weight and its ingredients."""

    effective: Tensor
    made_of: list[Any]
    origins: list[_Origin]
    coefficients: list[Tensor]  # their values
    weight: _Origin | None
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
        # Attributes that are replaced as a whole: threads may share a layer.
        self._entry: _Entry | None = None
        self._held: _Entry | None = None
        self.holders = 0
        """Number of blocks of `hold_weights` that this layer is in."""
        self.kept: Any = None
        """`KeptWeights` of this layer's group."""
        self.last_step = -1
        """Number of optimizer steps before the last build of the group that begins here."""
        self.accumulates = False
        """True once that group was built twice without a step in between."""

    def clear(self) -> None:
        """Drop the cached weight."""
        self._entry = self._held = self.kept = None

    @property
    def nbytes(self) -> int:
        """Size of the cached weight in bytes."""
        entry = self._entry
        return 0 if entry is None else entry.effective.nbytes

    def get(
        self, weight: Tensor | None, terms: Sequence[AdapterTerm], layout: WeightLayout
    ) -> Tensor:
        """Return the `effective_weight`, cached; do not write to it."""
        made_of = _ingredients(weight, terms, layout)
        entry = self._entry
        if entry is not None and entry.made_of == made_of and _is_current(entry, weight, terms):
            return entry.effective
        self._entry = entry = None  # frees the old weight before the new one is made
        effective = effective_weight(weight, terms, layout)
        origin = probed = probe = None
        with torch.inference_mode(False), torch.no_grad():
            origins = [_Origin.of(term.coefficients) for term in terms]
            coefficients = [term.coefficients.detach().clone() for term in terms]
            if weight is not None:
                origin, probed = _Origin.of(weight), probe_weight(weight)
                probe = probed.clone()
        self._entry = _Entry(effective, made_of, origins, coefficients, origin, probed, probe)
        return effective

    def get_held(
        self, weight: Tensor | None, terms: Sequence[AdapterTerm], layout: WeightLayout
    ) -> Tensor:
        """Return the effective weight by what the host knows of its tensors, not their values."""
        held = self._held
        if held is not None and held.made_of == _ingredients(weight, terms, layout):
            found = [weight, *(term.coefficients for term in terms)]
            if all(map(_fits, [held.weight, *held.origins], found)):
                return held.effective
        self._held = held = None
        effective = self.get(weight, terms, layout)
        self._held = self._entry
        return effective

    def holds_truth(self) -> bool:
        """Return False if values under the held weight were changed and nothing shows it."""
        held = self._held
        if held is None:
            return True
        # Only of intact tensors: FSDP even frees the memory of others.
        if held.weight is not None and held.weight.is_intact():
            if not _are_equal(held.probe, held.probed):
                return False
        return all(
            _are_equal(origin.tensor(), kept)
            for origin, kept in zip(held.origins, held.coefficients, strict=True)
            if origin.is_intact()
        )

    def release(self, keep: bool) -> None:
        """End one block of `hold_weights`; ``keep`` the weight where it is cached anyway."""
        self.holders -= 1
        if not self.holders:
            self._held = None
            if not keep:
                self.clear()

    def __deepcopy__(self, memo: dict) -> WeightCache:
        return WeightCache()

    def __reduce__(self) -> tuple[type, tuple]:
        return WeightCache, ()


def _fits(origin: _Origin | None, tensor: Tensor | None) -> bool:
    return tensor is None if origin is None else origin.fits(tensor)


def _ingredients(
    weight: Tensor | None, terms: Sequence[AdapterTerm], layout: WeightLayout
) -> list[Any]:
    """Return all that an effective weight depends on and the host knows."""
    found: list[Any] = [layout]
    for transform, alpha, c in terms:
        found += transform, alpha, c.dtype, c.device, c.shape
    if weight is not None:
        found += weight.data_ptr(), get_version(weight), weight.dtype
        found += weight.shape, weight.stride()
    return found


def _is_current(entry: _Entry, weight: Tensor | None, terms: Sequence[AdapterTerm]) -> bool:
    if weight is not None:
        origin = entry.weight
        if origin is None or origin.tensor() is not weight:
            return False
        if not _are_equal(entry.probe, entry.probed):
            return False
    for kept, term in zip(entry.coefficients, terms, strict=True):
        if not _are_equal(kept, term.coefficients):
            return False
    return True


def _are_equal(one: Tensor | None, other: Tensor | None) -> bool:
    """Compare values; NaN equals NaN, as a diverged training has changed nothing either."""
    if one is None or other is None or one.shape != other.shape:
        return one is other
    if torch.equal(one, other):
        return True
    return bool(((one == other) | (one.isnan() & other.isnan())).all())


def probe_weight(weight: Tensor) -> Tensor:
    """Return a view of at least 64 elements over rows and columns; all of a small weight."""
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
