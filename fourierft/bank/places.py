"""Adapters in a bank."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor, nn

from .shelf import Shelf, Slot


@dataclass(frozen=True)
class BankedAdapter:
    """An adapter in a bank."""

    name: str
    """Name in the bank."""
    version: int
    """1 for the first adapter of this name, one more after each replacement."""
    checksum: str
    """Of coefficients and head, see `StoredAdapter.checksum`."""
    source: str
    """Folder or file that it was read from."""
    parameters: int
    """Number of coefficients."""
    nbytes: int
    """Memory of coefficients and head."""


class AdapterPlace(NamedTuple):
    """An adapter and where its parameters lie."""

    about: BankedAdapter
    shelf: Shelf
    slot: Slot
    heads: dict[str, nn.Module]

    @property
    def head(self) -> dict[str, Tensor]:
        """Parameters of the head by their names in the base model."""
        return {
            f"{path}.{name}": parameter
            for path, module in self.heads.items()
            for name, parameter in module.named_parameters()
        }

    @property
    def modules_to_save(self) -> list[str]:
        """Paths of the head's modules, as a configuration may hold them."""
        return sorted(self.heads)


class PinnedAdapter(NamedTuple):
    """An adapter's values at one moment, for batches that outlast its replacement."""

    about: BankedAdapter
    shelf: Shelf
    coefficients: Tensor
    """(width of the shelf,), multiplied by alpha."""
    heads: dict[str, nn.Module]
