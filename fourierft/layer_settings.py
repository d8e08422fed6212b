"""Settings of the computation of all layers of a model."""

from __future__ import annotations

from torch import nn

from .engine.settings import Engine, engine_problems
from .layer import adapted_layers

NO_LAYERS = (
    "the model has no FourierFT layers of this package (import fourierft before the model is "
    "wrapped: PEFT's own are slower)"
)


def configure(
    model: nn.Module,
    *,
    memory: str | None = None,
    gradient: str | None = None,
    precision: str | None = None,
) -> None:
    """Set how the FourierFT layers of a model compute, at any time (see `Engine`).

    Cached weights are dropped, so ``configure(model)`` alone makes the layers read weights anew.

    Args:
        model: Any module that holds such layers.
        memory: ``auto``, ``batched``, ``cache``, ``kept``, ``save``, ``recompute`` or
            ``spectral``; None leaves it as it is, as below.
        gradient: ``auto``, ``dense`` or ``sampled``.
        precision: ``rounded`` or ``exact``.

    Raises:
        ValueError: A value is not allowed (every such value is named), or there is no such layer.
    """
    given = {"memory": memory, "gradient": gradient, "precision": precision}
    changes = {name: value for name, value in given.items() if value is not None}
    problems = engine_problems(Engine(**changes))
    if problems:
        raise ValueError("FourierFT engine: " + "; ".join(problems))
    layers = adapted_layers(model)
    if not layers:
        raise ValueError(f"FourierFT engine: {NO_LAYERS}")
    for layer in layers.values():
        layer.engine = layer.engine._replace(**changes)
        layer._cache.clear()
