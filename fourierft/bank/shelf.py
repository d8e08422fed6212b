"""Coefficients of many adapters with the same layers and entries."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Sequence

import torch
from torch import Tensor

from ..bases.transform import Transform, get_transform
from ..config import FourierFTConfig, alpha, applied_from_right, basis
from ..layer_draws import layer_draws
from .base_model import AdaptedLayer
from .stored_adapter import StoredAdapter

Slot = tuple[int, int]
"""Block and row."""

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
        self._draws = {layer.name: layer_draws(config, layer.name) for layer in layers}
        self._from_right = applied_from_right(config)
        self.config = config
        self._blocks: list[Tensor] = []
        self._free: list[Slot] = []
        self._unread: dict[Slot, str] = {}

    @property
    def nbytes(self) -> int:
        """Memory of the blocks, those that lie on disk included."""
        return sum(block.nbytes for block in self._blocks)

    def put(self, adapter: StoredAdapter) -> Slot:
        """Store an adapter's coefficients and return their place."""
        if not self._free:
            self._free.extend(reversed(self._append(torch.empty(_BLOCK, self.width))))
        slot = self._free.pop()
        alphas = [alpha(adapter.config, layer.shape) for layer in self.layers]
        factors: float | Tensor = alphas[0]
        if len(set(alphas)) > 1:
            counts = torch.tensor([layer.n for layer in self.layers])
            factors = torch.tensor(alphas).repeat_interleave(counts)
        torch.mul(adapter.coefficients, factors, out=self._row(slot))
        return slot

    def attach(self, block: Tensor, checksums: Sequence[str]) -> list[Slot]:
        """Take over coefficients of a file that is mapped into memory.

        Args:
            block: (adapters, width), multiplied by alpha.
            checksums: Checksum of each row, compared when the row is first used.
        """
        slots = self._append(block)
        self._unread.update(zip(slots, checksums, strict=True))
        return slots

    def free(self, slot: Slot) -> None:
        """Give a place back; its block stays for later adapters."""
        self._unread.pop(slot, None)
        self._free.append(slot)

    def gather(self, slots: Sequence[Slot]) -> Tensor:
        """Return a copy of the coefficients at these places, (len(slots), width).

        Raises:
            ValueError: The file that holds them is damaged there.
        """
        found = torch.stack([self._row(slot) for slot in slots])
        for slot, row in zip(slots, found, strict=True):
            expected = self._unread.get(slot)
            if expected is not None and hash_row(row) != expected:
                raise ValueError("the bank's file is damaged: coefficients without their checksum")
            self._unread.pop(slot, None)
        return found

    def transform(self, name: str, device: torch.device) -> Transform:
        """Return the transform of a layer, as (out, in)."""
        layer, right = self._shapes[name], self._from_right
        shape = layer.shape[::-1] if right else layer.shape
        return get_transform(shape, self._draws[name], basis(self.config), device, right)

    def _append(self, block: Tensor) -> list[Slot]:
        self._blocks.append(block)
        return [(len(self._blocks) - 1, row) for row in range(len(block))]

    def _row(self, slot: Slot) -> Tensor:
        block, row = slot
        return self._blocks[block][row]


def hash_row(row: Tensor) -> str:
    """Return the checksum of stored coefficients, 16 digits of SHA-256."""
    return hashlib.sha256(row.numpy().tobytes()).hexdigest()[:16]


def get_key(layers: Sequence[AdaptedLayer], config: FourierFTConfig) -> Hashable:
    """Return what adapters of one shelf have in common."""
    draws = tuple(layer_draws(config, layer.name) for layer in layers)
    return tuple(layers), draws, basis(config), applied_from_right(config)
