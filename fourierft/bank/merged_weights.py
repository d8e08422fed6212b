"""Products with W0 + DeltaW in place of the base layer's, where a batch has few adapters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from ..bases.transform import Transform
from ..engine.mixed_batch import build_cost, separate_cost, update_cost
from ..frozen_weight import SUPPORTED, is_ordinary
from ..tensors import get_version

LARGEST = 2**28
"""Bytes of the weights that are kept for the rows of a batch."""


class MergedLayer(NamedTuple):
    """``W0 + DeltaW`` of a layer for every adapter of a batch."""

    weights: list[Tensor]
    base: tuple[int, int]
    """Address and version of the W0 that they were built of."""


class MergedWeights:
    """``W0 + DeltaW`` of every adapter of a batch, layer by layer.

    Built for one product where that is expected to be faster than adding updates. Kept for the next
    batches with the same rows once updates have cost as much as building: nobody waits more than
    twice as long as by the better of both, however many batches there are.

    Args:
        adapters: Number of adapters.
        which: Per row the index of its adapter; -1 for none.
    """

    def __init__(self, adapters: int, which: Sequence[int]) -> None:
        self._adapters = adapters
        self._groups = sorted(set(which))
        self._sizes = [which.count(group) for group in self._groups]
        self._order = torch.tensor(which).argsort(stable=True)
        self._places = self._order.argsort()
        self._spent: dict[str, float] = {}
        self._kept: dict[str, MergedLayer] = {}
        self._room = LARGEST

    def multiply(
        self, name: str, layer: nn.Module, transform: Transform, coefficients: Tensor, x: Tensor
    ) -> Tensor | None:
        """Return the products of all rows; None where adding updates is expected to be faster.

        Args:
            name: Path of the layer.
            layer: The base layer.
            transform: Transform of the adapters, as (out, in).
            coefficients: (A, n), multiplied by alpha.
            x: (rows, tokens, in).
        """
        if not _can_merge(layer, x):
            return None
        size = self._adapters * layer.weight.nbytes
        base = layer.weight.data_ptr(), get_version(layer.weight)
        kept = self._kept.get(name)
        if kept is not None and kept.base != base:  # W0 was written to
            del self._kept[name]
            self._room += size
            kept = None
        if kept is None:
            tokens, shape = x.shape[0] * x.shape[1], transform.shape
            update = update_cost(tokens, transform)
            build, separate = build_cost(self._adapters, shape), separate_cost(self._groups, shape)
            spent = self._spent[name] = self._spent.get(name, 0.0) + update
            keep = separate < update and spent > build and size <= self._room
            if not keep and build + separate >= update:
                return None
            if not keep:  # one at a time: all of them may be larger than LARGEST
                return self._product(layer, lambda a: _build(layer, transform, coefficients[a]), x)
            kept = MergedLayer([_build(layer, transform, one) for one in coefficients], base)
            self._kept[name] = kept
            self._room -= size
        return self._product(layer, kept.weights.__getitem__, x)

    def _product(self, layer: nn.Module, weight: Callable[[int], Tensor], x: Tensor) -> Tensor:
        bias = layer.bias
        if len(self._groups) == 1:
            return F.linear(x, weight(self._groups[0]), bias)
        parts = x.index_select(0, self._order).split(self._sizes)
        products = [
            F.linear(own, _weight(layer) if group < 0 else weight(group), bias)
            for own, group in zip(parts, self._groups, strict=True)
        ]
        return torch.cat(products).index_select(0, self._places)


def _can_merge(layer: nn.Module, x: Tensor) -> bool:
    """Return True if the rule is for this case: measured on CPUs, exact in float32."""
    weight = layer.weight
    if type(layer) not in SUPPORTED or not is_ordinary(weight) or weight.requires_grad:
        return False
    if torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active():
        return False
    if torch.is_autocast_enabled("cpu"):  # would round W0 + DeltaW
        return False
    plain = x.device.type == weight.device.type == "cpu" and x.numel() > 0
    return plain and x.dtype == weight.dtype == torch.float32


def _weight(layer: nn.Module) -> Tensor:
    """Return the weight of a layer as (out, in)."""
    return layer.weight.t() if isinstance(layer, Conv1D) else layer.weight


@torch.no_grad()
def _build(layer: nn.Module, transform: Transform, coefficients: Tensor) -> Tensor:
    weight = _weight(layer)
    return transform.add_update(weight, coefficients.contiguous(), weight.dtype)
