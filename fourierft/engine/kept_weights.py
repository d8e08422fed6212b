"""Effective weights of a group that serve from one optimizer step to the next.

Nothing waits for the device. The host tells whether they are still good: by identity, address and
version of all ingredients, and by the steps that PyTorch's optimizers report. What the host cannot
see (a write through ``.data``) is compared on the device at every use; the result is read when it
has arrived, one step later at the latest, and raises.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterable, Sequence
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_post_hook

from .weight_cache import WeightLayout, probe_weight
from .weight_group import Ingredients

_BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}

_steps = 0  # of all optimizers
_optimizers: WeakSet[Optimizer] = WeakSet()  # that have reported a step
_alive: WeakSet[KeptWeights] = WeakSet()
_sets = threading.Lock()  # of both: no thread may add to a set that another one goes through
_compared: set[ValueComparison] = set()  # that were not read for the last time


class ValueComparison:
    """Result of comparing a group's values; it holds none of them, so that a model can go.

    Args:
        description: Number and shape of the layers.
    """

    def __init__(self, description: str) -> None:
        self.description = description
        self.step = _steps
        self._differs: Tensor | None = None
        self._copy: tuple[Tensor, torch.cuda.Event] | None = None  # of the result, for the host

    def add(self, found: list[Tensor]) -> None:
        """Add differences that the device found."""
        if self._differs is not None:
            found = [self._differs, *found]
        self._differs = differs = functools.reduce(torch.logical_or, found)
        if differs.is_cuda:
            host, event = self._copy or (
                torch.empty((), dtype=torch.bool, pin_memory=True),
                torch.cuda.Event(),
            )
            host.copy_(differs, non_blocking=True)
            event.record(torch.cuda.current_stream(differs.device))
            self._copy = host, event
        _compared.add(self)

    def has_arrived(self) -> bool:
        """Return True if the result of the last comparison can be read without waiting."""
        if self._copy is not None:
            return self._copy[1].query()
        return self._differs is None or self._differs.is_cpu

    def is_stale(self) -> bool:
        """Return True if weights were used after a change; wait for the last comparison."""
        if self._copy is None:
            return bool(self._differs)
        host, event = self._copy
        event.synchronize()
        return bool(host)


class KeptWeights:
    """Effective weights of the layers of one group, until an optimizer steps.

    Args:
        members: The layers' ingredients. They are held, so that no other tensor gets their
            identities and addresses.
        layout: Layout of the weights.
        effective: The weights, one a member.
    """

    def __init__(
        self, members: Sequence[Ingredients], layout: WeightLayout, effective: list[Tensor]
    ) -> None:
        self.effective = effective
        shape = " x ".join(map(str, members[0].weight.shape))
        self._comparison = ValueComparison(f"{len(members)} layers of {shape}")
        self._members = members
        self._origin = _origin(members, layout)
        with torch.inference_mode(False), torch.no_grad():
            self._probes: dict[torch.dtype, list[Tensor]] = {}
            for weight, terms in members:
                for part in (probe_weight(weight), *(term.coefficients.detach() for term in terms)):
                    self._probes.setdefault(part.dtype, []).append(part)
            self._values = [torch.cat(parts) for parts in self._probes.values()]
        with _sets:
            _alive.add(self)

    def fits(self, members: Sequence[Ingredients], layout: WeightLayout) -> bool:
        """Return True if the host knows of no change."""
        return self._comparison.step == _steps and self._origin == _origin(members, layout)

    def compare(self) -> None:
        """Let the device compare the values that they were made of, as they are used again."""
        found = []
        with torch.inference_mode(False), torch.no_grad():
            for parts, kept in zip(self._probes.values(), self._values, strict=True):
                bits = _BITS[kept.itemsize]  # NaN is no change where NaN was
                found.append((torch.cat(parts).view(bits) != kept.view(bits)).any())
            self._comparison.add(found)


def may_keep(members: Sequence[Ingredients]) -> bool:
    """Return True if the coefficients are known to be trained by optimizers that report steps.

    Those of others (not derived from PyTorch's) would only be found too late.
    """
    learning = [c for _, terms in members for _, _, c in terms if c.requires_grad]
    return bool(learning) and _are_stepped(learning) and not is_capturing()


def count_steps() -> int:
    """Return the number of steps that optimizers have reported so far."""
    return _steps


def raise_if_stale(wait: bool = True) -> None:
    """Read what was compared, and raise if weights were used after a change that nothing showed.

    Args:
        wait: False to wait only for comparisons of the step before the last, and of earlier ones.

    Raises:
        RuntimeError: Outputs and gradients were computed with old values.
    """
    if not _compared or is_capturing():
        return
    stale = []
    for comparison in list(_compared):
        if not (wait or comparison.step < _steps - 1 or comparison.has_arrived()):
            continue
        if comparison.is_stale():
            stale.append(comparison.description)
            comparison.step = -1  # good for nothing any more
        if comparison.step < _steps:
            _compared.discard(comparison)
    if stale:
        raise RuntimeError(
            f"memory=kept: values of {', '.join(sorted(stale))} were changed between two forward "
            "passes where PyTorch does not count it (through .data, or by an optimizer that is not "
            "torch.optim's); the outputs and gradients of the latter are of the old values. Use "
            "memory=batched, or call fourierft.configure(model) after such a change"
        )


def is_capturing() -> bool:
    """Return True while a CUDA graph is captured: its replays would not see a later weight."""
    return torch.cuda.is_available() and torch.cuda.is_current_stream_capturing()


def _origin(members: Sequence[Ingredients], layout: WeightLayout) -> list[Any]:
    return [layout, *(member.state() for member in members)]


def _are_stepped(coefficients: Iterable[Tensor]) -> bool:
    with _sets:
        optimizers = list(_optimizers)
    groups = [group for optimizer in optimizers for group in optimizer.param_groups]
    stepped = {id(parameter) for group in groups for parameter in group["params"]}
    return all(id(c) in stepped for c in coefficients)


def _end_step(optimizer: Optimizer, *_: Any) -> None:
    global _steps
    with _sets:
        _steps += 1
        _optimizers.add(optimizer)
        alive = list(_alive)
    for kept in alive:
        kept.effective = []
    raise_if_stale(wait=False)


register_optimizer_step_post_hook(_end_step)
