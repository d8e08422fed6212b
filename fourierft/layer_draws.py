"""Draws of the entries of each layer, as a configuration names them."""

from __future__ import annotations

import re

from .config import FourierFTConfig, StockConfig, entry_region
from .spectrum import Draw


def layer_draws(config: StockConfig, name: str) -> tuple[Draw, ...]:
    """Return the draws of a layer's entries.

    Args:
        config: The adapter's.
        name: Path of the layer.
    """
    further = getattr(config, "further_draws", None) or ()
    sources = [config, *(FourierFTConfig(**fields) for fields in further)]
    return tuple(
        Draw(layer_n(source, name)[1], source.random_loc_seed, entry_region(source))
        for source in sources
    )


def layer_n(config: StockConfig, name: str) -> tuple[str | None, int]:
    """Return the key of ``n_frequency_pattern`` that a layer matches, as PEFT does, and its n."""
    pattern = config.n_frequency_pattern or {}
    for key, n in pattern.items():
        if re.match(rf".*\.{key}$", name):
            return key, n
    return (name, pattern[name]) if name in pattern else (None, config.n_frequency)
