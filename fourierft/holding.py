"""Forward passes that neither build nor compare anything: generation, sampling, evaluation."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from .config import first_few
from .engine.kept_weights import raise_if_stale
from .engine.settings import choose_memory
from .frozen_weight import is_quantised
from .layer import FourierFTLayer, adapted_layers


@contextmanager
def hold_weights(model: nn.Module, quantised: bool = True) -> Iterator[None]:
    """Build W0 + DeltaW once per layer and use it for every forward pass without gradients inside.

    Values are not compared there, which would wait for an accelerator twice per layer and call. A
    change that PyTorch counts (`load_state_dict`, most optimizers, another adapter) is heeded at
    the next forward pass. Others (writes through ``.data``, fused optimizers) raise when the block
    ends. Forward passes with gradients are computed as always.

    A layer holds a full-size weight of the type that it computes in until the block ends, beside an
    8-bit one DeltaW; with ``memory=recompute`` it holds nothing.

    Args:
        model: Any module; without FourierFT layers nothing is done.
        quantised: False to leave layers out whose W0 is quantised: what they hold is several times
            its size.

    Raises:
        RuntimeError: Coefficients or weights were changed unseen: what was computed inside the
            block is that of the old values.
    """
    layers = {
        name: layer
        for name, layer in adapted_layers(model).items()
        if layer.engine.memory != "recompute"
        and (quantised or not is_quantised(layer.get_base_layer().weight))
    }
    raise_if_stale()
    stale: list[str] = []
    for layer in layers.values():
        layer._cache.holders += 1
    try:
        yield
        stale = [name for name, layer in layers.items() if not layer._cache.holds_truth()]
    finally:
        for layer in layers.values():
            layer._cache.release(keep=_caches(layer))
    if stale:
        raise RuntimeError(
            f"hold_weights: values of {first_few(stale)} were changed where PyTorch does not count "
            "it (through .data, or by a fused optimizer); outputs since then are of the old values"
        )


def _caches(layer: FourierFTLayer) -> bool:
    """Return True if the layer keeps its weight outside of the block too."""
    weight = layer.get_base_layer().weight
    kept = None if is_quantised(weight) else weight
    return choose_memory(layer.engine, weight.device.type, kept) == "cache"
