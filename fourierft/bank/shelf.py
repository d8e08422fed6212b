"""Coefficients of many adapters with the same layers and entries."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import torch
from torch import Tensor

from ..bases.transform import Transform, get_transform
from ..config import FourierFTConfig, alpha, applied_from_right, basis, frequency_bias
from .stored_adapter import AdaptedLayer, StoredAdapter

_BLOCK = 64
"""Adapters for which memory is taken at once."""


class Shelf:
    """Coefficients of adapters that differ in nothing else, but for alpha.

    They are stored multiplied by alpha, float32, in blocks of rows: growing copies nothing.

    Args:
        layers: Adapted layers.
        config: Configuration of one of the adapters.
    """

    def __init__(self, layers: Sequence[AdaptedLayer], config: FourierFTConfig) -> None:
        self.layers = tuple(layers)
        self.columns: dict[str, slice] = {}
        """Place of each layer's coefficients in a row."""
        self.width = 0
        for layer in layers:
            self.columns[layer.name] = slice(self.width, self.width + layer.n)
            self.width += layer.n
        self._shapes = {layer.name: layer for layer in layers}
        self._draw = config.random_loc_seed, frequency_bias(config), basis(config)
        self._from_right = applied_from_right(config)
        self._blocks: list[Tensor] = []
        self._free: list[int] = []

    @property
    def nbytes(self) -> int:
        """Memory of the blocks."""
        return sum(block.nbytes for block in self._blocks)

    def put(self, adapter: StoredAdapter) -> int:
        """Store an adapter's coefficients and return their place."""
        if not self._free:
            start = len(self._blocks) * _BLOCK
            self._blocks.append(torch.empty(_BLOCK, self.width))
            self._free.extend(reversed(range(start, start + _BLOCK)))
        slot = self._free.pop()
        row = self._row(slot)
        row.copy_(adapter.coefficients)
        for layer in self.layers:
            row[self.columns[layer.name]].mul_(alpha(adapter.config, layer.shape))
        return slot

    def free(self, slot: int) -> None:
        """Give a place back; its block stays for later adapters."""
        self._free.append(slot)

    def gather(self, slots: Sequence[int]) -> Tensor:
        """Return a copy of the coefficients at these places, (len(slots), width)."""
        return torch.stack([self._row(slot) for slot in slots])

    def transform(self, name: str, device: torch.device) -> Transform:
        """Return the transform of a layer, as (out, in)."""
        layer, right = self._shapes[name], self._from_right
        shape = layer.shape[::-1] if right else layer.shape
        seed, bias, kind = self._draw
        return get_transform(shape, layer.n, seed, bias, kind, device, right)

    def _row(self, slot: int) -> Tensor:
        return self._blocks[slot // _BLOCK][slot % _BLOCK]


def get_key(adapter: StoredAdapter) -> Hashable:
    """Return what adapters of one shelf have in common."""
    config = adapter.config
    draw = config.random_loc_seed, frequency_bias(config), basis(config)
    return adapter.layers, draw, applied_from_right(config)
