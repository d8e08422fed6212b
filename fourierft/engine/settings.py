"""Settings of a layer's computation, and what they come to on a device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import _get_current_dispatch_mode

from ..bases.fourier import Fourier
from ..bases.transform import Transform
from ..tensors import HALF
from .weight_cache import AdapterTerm

MEMORY = ("auto", "batched", "cache", "kept", "save", "recompute", "spectral")
GROUPED = ("batched", "kept")  # built for many layers at once
GRADIENT = ("auto", "dense", "sampled")
PRECISION = ("rounded", "exact")

# Operations beyond three products and an addition, counted (docs/performance.md).
_ALONE = 15  # for one layer: build, and transform of the gradient
_TOGETHER = 18  # for a group
# Of an accelerator like an H200: estimated, not measured.
_OPERATION = 1.5e-6  # seconds at least
_BANDWIDTH = 4.2e12  # bytes a second
_BYTES_TOGETHER = 16  # per number of a weight: updates laid out and gradients stacked, in float32
_GROUP_BYTES = 2**28  # of a group's updates, and of its gradients, in float32


class Engine(NamedTuple):
    """Settings of a layer's computation; the result does not depend on them (up to rounding)."""

    memory: str = "auto"
    """Use of memory: cache keeps W0 + DeltaW until it changes, save until the backward pass,
    recompute computes it in both passes; batched is save for many layers at once (`ForwardPass`),
    kept the same from one optimizer step to the next (`KeptWeights`).
    spectral multiplies with W0 and, by way of spectra, with DeltaW (recompute where it cannot).
    auto: recompute for quantised weights; on CPUs spectral for few tokens that are trained with,
    else cache; batched or save on accelerators (see `prefers_group`), where comparing values waits
    for the queue, and kept instead of batched once a step was seen to have several passes
    (estimated, not measured)."""
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
    memory = "recompute" if engine.memory == "spectral" else engine.memory
    if memory == "auto":
        # The update alone is for quantised weights, where a full-size copy would undo their point.
        if weight is None:
            return "recompute"
        if device != "cpu":
            shape = tuple(weight.shape)
            return "batched" if prefers_group(shape, group_size(shape)) else "save"
        memory = "cache"
    if memory == "cache" and _get_current_dispatch_mode() is not None:
        return "recompute"  # selective checkpointing replays operations: the same ones again
    return memory


def uses_spectra(
    engine: Engine, x: Tensor, weight: Tensor | None, terms: Sequence[AdapterTerm], tokens: int
) -> bool:
    """Return True if an input is multiplied with W0 and, by its spectrum, with DeltaW."""
    if engine.memory not in ("auto", "spectral") or engine.gradient == "dense":
        return False
    transform, _, c = terms[0]
    plain = weight is not None and weight.dtype == x.dtype and x.dtype not in HALF
    if not (plain and tokens and len(terms) == 1 and isinstance(transform, Fourier)):
        return False
    if not (x.is_cuda or torch.backends.mkl.is_available()) or _get_current_dispatch_mode():
        return False
    if engine.memory == "spectral":
        return True
    learns = torch.is_grad_enabled() and c.requires_grad  # else one build is good for many inputs
    return learns and x.device.type == "cpu" and transform.prefers_spectra(tokens)


def samples_gradient(engine: Engine, device: str, transform: Transform, tokens: int) -> bool:
    """Return True if the gradient for this many tokens is sampled."""
    if engine.gradient != "auto" or not tokens:
        return engine.gradient == "sampled" and tokens > 0
    # On accelerators matrix products are cheap and single samples are not (not measured).
    return device == "cpu" and transform.prefers_sampling(tokens)


def group_size(shape: tuple[int, int]) -> int:
    """Return how many layers of a shape are built together at most, at least one."""
    return max(_GROUP_BYTES // (4 * shape[0] * shape[1]), 1)


def prefers_group(shape: tuple[int, int], layers: int) -> bool:
    """Return True if building so many layers together should be faster on an accelerator.

    The number of tokens does not matter: products are the same. Nor does the type of the weights:
    what is moved beyond one build after another is in float32.
    """
    saved = _ALONE - _TOGETHER / layers
    moved = _BYTES_TOGETHER * shape[0] * shape[1]
    return saved * _OPERATION > moved / _BANDWIDTH
