"""Learning rates that move every adapted matrix by the same share of its weight."""

from __future__ import annotations

import math
from typing import Any

from torch import nn

from .frozen_weight import frozen_weight
from .layer import FourierFTLayer, adapted_layers
from .spectrum import atom_norm


def step_sizes(model: nn.Module) -> dict[str, float]:
    """Return the share of |W| by which one AdamW step at a learning rate of 1 moves DeltaW.

    AdamW moves each of n coefficients by about the learning rate, and one coefficient's update has
    the Frobenius norm of `atom_norm`, so that all of them move DeltaW by about
    ``rate * atom_norm * sqrt(n)``.

    Args:
        model: A model with FourierFT layers.

    Returns:
        Shares by the names of the coefficients among the model's parameters; infinite where the
        weight is zero.
    """
    return {
        f"{path}.fourierft_spectrum.{adapter}" if path else f"fourierft_spectrum.{adapter}": (
            update_norm(layer, adapter) / size if (size := weight_norm(layer)) else math.inf
        )
        for path, layer in adapted_layers(model).items()
        for adapter in layer.fourierft_spectrum
    }


def rate_groups(model: nn.Module, step: float) -> list[dict[str, Any]]:
    """Return parameter groups in which one AdamW step moves each DeltaW by a share of its |W|.

    With one learning rate for all, matrices of small weights (the values of grouped-query
    attention, say) move by a larger share of themselves than others. With these groups and without
    weight decay the adapter's scaling has no influence on training that starts at zero. Decay is
    ``lr * weight_decay`` per step, so that small scalings, whose rates are large, decay more;
    torch's AdamW decays by default.

    Args:
        model: A model with FourierFT layers.
        step: Share of |W|, Frobenius norm, per step at full learning rate; 0.01 to 0.03 are good
            first choices.

    Returns:
        ``{"params": [...], "lr": ...}`` for the trained coefficients, for an optimizer of torch;
        a head or other trained parameters need groups of their own.

    Raises:
        ValueError: An adapted weight is zero and so has no share.
    """
    parameters = dict(model.named_parameters())
    groups = []
    for name, size in step_sizes(model).items():
        if not parameters[name].requires_grad:
            continue
        if not math.isfinite(size):
            raise ValueError(f"{name}: the weight is zero, no step is a share of it")
        groups.append({"params": [parameters[name]], "lr": step / size})
    return groups


def weight_norm(layer: FourierFTLayer) -> float:
    """Return the Frobenius norm of a layer's frozen weight, without what is merged into it."""
    base = layer.get_base_layer()
    frozen = layer._frozen or frozen_weight(base)
    return float(frozen.values(base).detach().float().norm())


def update_norm(layer: FourierFTLayer, adapter: str) -> float:
    """Return the Frobenius norm of what coefficients of size 1 add to a layer's weight."""
    shape = (layer.out_features, layer.in_features)
    n = layer.fourierft_spectrum[adapter].numel()
    return atom_norm(shape, layer.fourierft_scaling[adapter]) * math.sqrt(n)
