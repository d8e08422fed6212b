"""Settings of a layer's computation, and what they come to on a device."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor
from torch.utils._python_dispatch import _get_current_dispatch_mode

from ..bases.transform import Transform

MEMORY = ("auto", "cache", "save", "recompute")
GRADIENT = ("auto", "dense", "sampled")
PRECISION = ("rounded", "exact")


class Engine(NamedTuple):
    """Settings of a layer's computation; the result does not depend on them (up to rounding)."""

    memory: str = "auto"
    """Use of memory: cache keeps W0 + DeltaW until it changes, save until the backward pass,
    recompute computes it in both passes. auto: recompute for quantised weights, else cache on CPUs
    and save on accelerators, where comparing values waits for the queue (not measured)."""
    gradient: str = "auto"
    """Computation of the coefficients' gradient: dense by way of dL/dW, sampled without it; auto
    takes the cheaper."""
    precision: str = "rounded"
    """Rounding for half-precision weights: rounded adds DeltaW to W0 and rounds to the weight's
    type, which loses small updates; exact rounds after the product only."""


DEFAULT = Engine()


def engine_problems(engine: Engine) -> list[str]:
    """Return a message for every value that is not allowed."""
    allowed = {"memory": MEMORY, "gradient": GRADIENT, "precision": PRECISION}
    return [
        f"{name}: got {value!r}, allowed {', '.join(map(repr, allowed[name]))}"
        for name, value in engine._asdict().items()
        if value not in allowed[name]
    ]


def choose_memory(engine: Engine, device: str, weight: Tensor | None) -> str:
    """Return the use of memory that the settings come to on this device."""
    memory = engine.memory
    if memory == "auto":
        # The update alone is for quantised weights, where a full-size copy would undo their point.
        memory = "recompute" if weight is None else "cache" if device == "cpu" else "save"
    if memory == "cache" and _get_current_dispatch_mode() is not None:
        return "recompute"  # selective checkpointing replays operations: the same ones again
    return memory


def samples_gradient(engine: Engine, device: str, transform: Transform, tokens: int) -> bool:
    """Return True if the gradient for this many tokens is sampled."""
    if engine.gradient != "auto" or not tokens:
        return engine.gradient == "sampled" and tokens > 0
    # On accelerators matrix products are cheap and single samples are not (not measured).
    return device == "cpu" and transform.prefers_sampling(tokens)
