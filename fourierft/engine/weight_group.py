"""Effective weights of many layers of one shape, built and differentiated together.

A build takes the same few operations for twenty layers as for one, and so does the gradient: where
launching an operation takes longer than the operation, as it does on accelerators, one layer then
costs its products and one addition.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..bases.transform import Transform, scaled
from ..tensors import get_version, without_autocast
from .weight_cache import AdapterTerm, WeightLayout


class Ingredients(NamedTuple):
    """What the effective weight of one layer is made of."""

    weight: Tensor
    """W0, an ordinary matrix."""
    terms: Sequence[AdapterTerm]
    """Adapters, their transforms in the layout of ``weight``."""

    def kind(self) -> tuple[Any, ...]:
        """Return what the layers of one group have in common."""
        common = [self.weight.dtype, self.weight.device]
        for transform, alpha, c in self.terms:
            common += transform, alpha, c.dtype, c.device
        return tuple(common)

    def state(self) -> tuple[Any, ...]:
        """Return what tells that an ingredient was replaced or written to."""
        parts: list[Any] = [id(self.weight), get_version(self.weight), self.weight.data_ptr()]
        for transform, alpha, c in self.terms:
            parts += id(transform), alpha, id(c), get_version(c), c.data_ptr()
        return tuple(parts)


class PreparedWeight(NamedTuple):
    """The effective weight of one layer, for one forward pass."""

    effective: Tensor
    plane: Tensor | None
    """Stand-in for it in the graph: dL/dW flows to it, in full precision. None: nothing learns.
    It holds one number."""


def build_weights(members: Sequence[Ingredients], layout: WeightLayout) -> list[Tensor]:
    """Build the effective weights of layers of one kind.

    Args:
        members: The layers' ingredients, all of one kind.
        layout: Layout of the results, not interleaved.

    Returns:
        One a layer, each in memory of its own, so that each is freed by itself.
    """
    first = members[0]
    device = first.weight.device.type
    with torch.inference_mode(False), torch.no_grad(), without_autocast(device):
        updates: Any = None
        for position, (transform, alpha, _) in enumerate(first.terms):
            stacked = torch.stack([member.terms[position].coefficients for member in members])
            update = transform.update(scaled(stacked, alpha))
            updates = update if updates is None else updates.add_(update)
        effective = []
        for member, update in zip(members, updates, strict=True):
            out = torch.empty(update.shape, dtype=layout.dtype, device=update.device)
            effective.append(torch.add(member.weight, update, out=out))
    return effective


def make_planes(members: Sequence[Ingredients], layout: WeightLayout) -> list[Tensor | None]:
    """Return a plane for every layer that learns (see `PreparedWeight`)."""
    planes: list[Tensor | None] = [None] * len(members)
    learning = [index for index, member in enumerate(members) if _learns(member)]
    if learning:
        coefficients = [term.coefficients for index in learning for term in members[index].terms]
        made = _Planes.apply(Planes(members[0].terms, layout.dtype), *coefficients)
        for index, plane in zip(learning, made, strict=True):
            planes[index] = plane
    return planes


def _learns(member: Ingredients) -> bool:
    return any(term.coefficients.requires_grad for term in member.terms)


class Planes:
    """Adapters of the layers of one group, in their order."""

    def __init__(self, terms: Sequence[AdapterTerm], dtype: torch.dtype) -> None:
        self.transforms: list[Transform] = [term.transform for term in terms]
        self.alphas = [term.alpha for term in terms]
        self.dtype = torch.float64 if dtype == torch.float64 else torch.float32


class _Planes(torch.autograd.Function):
    """Effective weights as a function of all coefficients of a group, for the backward pass alone.

    A plane has the shape of a weight but holds one number: products are made with the weights
    themselves, which may be in half precision; a gradient of that type would lose digits.
    """

    @staticmethod
    def forward(ctx, group, *coefficients):
        ctx.group, ctx.dtype = group, coefficients[0].dtype
        ctx.set_materialize_grads(False)
        shape = group.transforms[0].shape
        make = {"dtype": group.dtype, "device": coefficients[0].device}
        layers = len(coefficients) // len(group.transforms)
        return tuple(torch.empty_strided(shape, (0, 0), **make) for _ in range(layers))

    @staticmethod
    def backward(ctx, *gradients):
        group, adapters = ctx.group, len(ctx.group.transforms)
        found: list[Tensor | None] = [None] * (len(gradients) * adapters)
        called = [index for index, gradient in enumerate(gradients) if gradient is not None]
        if not called:
            return None, *found
        with without_autocast(gradients[called[0]].device.type):
            stacked = torch.stack([gradients[index] for index in called])
            for position, transform in enumerate(group.transforms):
                places = [index * adapters + position for index in called]
                if not any(ctx.needs_input_grad[1 + place] for place in places):
                    continue
                rows = (group.alphas[position] * transform.gradient(stacked)).to(ctx.dtype)
                for place, row in zip(places, rows.unbind(), strict=True):
                    found[place] = row
        return None, *found
