"""The adapters of the rows of one batch, as they were when it began."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..engine.mixed_batch import banked_update
from .merged_weights import MergedWeights
from .places import BankedAdapter, PinnedAdapter
from .shelf import Shelf


class PlacedRows(NamedTuple):
    """Tensors of `ShelfRows` on one device."""

    rows: Tensor
    which: Tensor
    coefficients: Tensor
    """(A, width)."""
    by_row: Tensor
    """(width, rows): each row's coefficients."""


class ShelfRows:
    """Rows of a batch whose adapters lie on one shelf.

    Args:
        shelf: The shelf.
        coefficients: (A, width), the adapters', each once.
        rows: Rows that have one of them, in order.
        which: Per such row the index of its adapter among them.
        every: True if these are all rows of the batch.
    """

    def __init__(
        self,
        shelf: Shelf,
        coefficients: Tensor,
        rows: Sequence[int],
        which: Sequence[int],
        every: bool,
    ) -> None:
        self.shelf = shelf
        self.every = every
        self._rows, self._which = torch.tensor(rows), torch.tensor(which)
        self._coefficients = coefficients
        self.on = cache(self._on)

    def merge(self, count: int) -> MergedWeights:
        """Return the merged weights for a batch of ``count`` rows."""
        which = [-1] * count
        for row, index in zip(self._rows.tolist(), self._which.tolist(), strict=True):
            which[row] = index
        return MergedWeights(len(self._coefficients), which)

    def _on(self, device: torch.device) -> PlacedRows:
        rows, which = self._rows.to(device), self._which.to(device)
        coefficients = self._coefficients.to(device)
        by_row = coefficients.index_select(0, which).t().contiguous()
        return PlacedRows(rows, which, coefficients, by_row)


class HeadRows(NamedTuple):
    """Rows of a batch that have one head."""

    modules: dict[str, nn.Module]
    """Its modules by their paths in the base model."""
    rows: list[int]


class BankedRows:
    """The adapters of the rows of one batch.

    Args:
        count: Number of rows.
        parts: Rows by shelf.
        heads: Rows by head.
    """

    def __init__(self, count: int, parts: list[ShelfRows], heads: list[HeadRows]) -> None:
        self.count = count
        self.parts = parts
        self.heads = heads
        self._merged = parts[0].merge(count) if len(parts) == 1 else None

    def multiply(self, name: str, layer: nn.Module, x: Tensor) -> Tensor | None:
        """Return the output of a layer with every row's update; see `MergedWeights.multiply`."""
        if self._merged is None or name not in self.parts[0].shelf.columns:
            return None
        self._factor(x)
        (part,) = self.parts
        out = self._merged.multiply(
            name,
            layer,
            part.shelf.transform(name, x.device),
            part.on(x.device).coefficients[:, part.shelf.columns[name]],
            x.reshape(self.count, -1, x.shape[-1]),
        )
        return None if out is None else out.view(*x.shape[:-1], -1)

    def add_update(self, name: str, x: Tensor, output: Tensor) -> Tensor:
        """Return the output of a layer with every row's update added.

        Args:
            name: Path of the layer.
            x: Its input, (rows, ..., in).
            output: Its output, (rows, ..., out).
        """
        for part in self.parts:
            columns = part.shelf.columns.get(name)
            if columns is None:
                continue
            self._factor(x)  # raises where the rows do not fit
            placed = part.on(x.device)
            tokens = x.reshape(self.count, -1, x.shape[-1])
            update = banked_update(
                tokens if part.every else tokens.index_select(0, placed.rows),
                part.shelf.transform(name, x.device),
                placed.coefficients[:, columns],
                placed.which,
                placed.by_row[columns],
            ).to(output.dtype)
            if part.every:
                output = output + update.view(output.shape)
            else:
                rows = output.reshape(self.count, -1, output.shape[-1])
                output = rows.index_add(0, placed.rows, update).view(output.shape)
        return output

    def apply_heads(self, name: str, args: tuple, kwargs: dict[str, Any], output: Tensor) -> Tensor:
        """Return the output of a head with the rows that have one of their own computed anew.

        Args:
            name: Path of the module.
            args: Its arguments; tensors with one entry per row are cut to the rows.
            kwargs: Its keyword arguments, likewise.
            output: Its output, (rows, ...).
        """
        for head in self.heads:
            if name not in head.modules:
                continue
            factor = self._factor(output)
            rows = torch.tensor(head.rows, device=output.device)
            offsets = torch.arange(factor, device=output.device)
            rows = (rows[:, None] * factor + offsets).flatten()
            cut = partial(_cut, rows=rows, count=len(output))
            given = {key: cut(value) for key, value in kwargs.items()}
            found = head.modules[name](*map(cut, args), **given)
            output = output.index_copy(0, rows, found.to(output.dtype))
        return output

    def _factor(self, x: Tensor) -> int:
        """Return the number of rows that each row became: beams, or tokens that were flattened."""
        factor, rest = divmod(len(x), self.count)
        if rest or not factor:
            raise ValueError(f"rows: got {self.count} names, for a batch of {len(x)} rows")
        return factor


def gather_rows(adapters: Sequence[PinnedAdapter | None]) -> BankedRows:
    """Arrange the adapters of the rows of a batch.

    Args:
        adapters: One a row; None for none.
    """
    different: dict[tuple[Shelf, BankedAdapter], PinnedAdapter] = {}
    rows_of: dict[tuple[Shelf, BankedAdapter], list[int]] = {}
    for row, adapter in enumerate(adapters):
        if adapter is not None:
            key = adapter.shelf, adapter.about  # one adapter may have been pinned several times
            different[key] = adapter
            rows_of.setdefault(key, []).append(row)
    by_shelf: dict[Shelf, list[tuple[Shelf, BankedAdapter]]] = {}
    for key, adapter in different.items():
        by_shelf.setdefault(adapter.shelf, []).append(key)
    parts = []
    for shelf, keys in by_shelf.items():
        pairs = sorted((row, index) for index, key in enumerate(keys) for row in rows_of[key])
        rows, which = zip(*pairs, strict=True)
        coefficients = torch.stack([different[key].coefficients for key in keys])
        parts.append(ShelfRows(shelf, coefficients, rows, which, len(rows) == len(adapters)))
    heads = [HeadRows(different[key].heads, rows) for key, rows in rows_of.items()]
    return BankedRows(len(adapters), parts, [head for head in heads if head.modules])


def _cut(value: Any, rows: Tensor, count: int) -> Any:
    """Return the rows of a tensor that has one entry for each of ``count``; others as they are."""
    of_rows = isinstance(value, Tensor) and value.dim() > 0 and len(value) == count
    return value.index_select(0, rows) if of_rows else value
