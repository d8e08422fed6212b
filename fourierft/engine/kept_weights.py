"""Effective weights of a group that serve from one optimizer step to the next.

Nothing waits for the device. The host tells whether they are still good: by identity, address and
version of all ingredients, and by the steps that PyTorch's optimizers report. What the host cannot
see (a write through ``.data``) is compared on the device at every use; the result is read when it
has arrived, one step later at the latest, and raises.
"""

from __future__ import annotations

import functools
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
_compared: list[KeptWeights] = []  # whose comparisons were not read for the last time


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
        self.step = _steps
        self._members = members
        self._origin = _origin(members, layout)
        with torch.inference_mode(False), torch.no_grad():
            self._probes: dict[torch.dtype, list[Tensor]] = {}
            for weight, terms in members:
                for part in (probe_weight(weight), *(term.coefficients.detach() for term in terms)):
                    self._probes.setdefault(part.dtype, []).append(part)
            self._values = [torch.cat(parts) for parts in self._probes.values()]
        self._differs: Tensor | None = None
        self._copy: tuple[Tensor, torch.cuda.Event] | None = None  # of the result, for the host
        _alive.add(self)

    def fits(self, members: Sequence[Ingredients], layout: WeightLayout) -> bool:
        """Return True if the host knows of no change."""
        return self.step == _steps and self._origin == _origin(members, layout)

    def use_again(self) -> list[Tensor]:
        """Return the weights; the device compares the values that they were made of."""
        with torch.inference_mode(False), torch.no_grad():
            found = [] if self._differs is None else [self._differs]
            for parts, kept in zip(self._probes.values(), self._values, strict=True):
                bits = _BITS[kept.itemsize]  # NaN is no change where NaN was
                found.append((torch.cat(parts).view(bits) != kept.view(bits)).any())
            self._differs = differs = functools.reduce(torch.logical_or, found)
            if differs.is_cuda:
                host, event = self._copy or (
                    torch.empty((), dtype=torch.bool, pin_memory=True),
                    torch.cuda.Event(),
                )
                host.copy_(differs, non_blocking=True)
                event.record(torch.cuda.current_stream(differs.device))
                self._copy = host, event
        if self not in _compared:
            _compared.append(self)
        return self.effective

    def has_arrived(self) -> bool:
        """Return True if the result of the last comparison can be read without waiting."""
        if self._copy is not None:
            return self._copy[1].query()
        return self._differs is None or self._differs.is_cpu

    def is_stale(self) -> bool:
        """Return True if they were used after a change; wait for the last comparison."""
        if self._copy is None:
            return bool(self._differs)
        host, event = self._copy
        event.synchronize()
        return bool(host)

    def describe(self) -> str:
        """Return the number and shape of the layers."""
        shape = " x ".join(map(str, self._members[0].weight.shape))
        return f"{len(self._members)} layers of {shape}"


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
    for kept in list(_compared):
        if not (wait or kept.step < _steps - 1 or kept.has_arrived()):
            continue
        if kept.is_stale():
            stale.append(kept.describe())
            kept.step = -1  # good for nothing any more
        if kept.step < _steps:
            _compared.remove(kept)
    if stale:
        raise RuntimeError(
            f"memory=kept: values of {', '.join(stale)} were changed between two forward passes "
            "where PyTorch does not count it (through .data, or by an optimizer that is not "
            "torch.optim's); the outputs and gradients of the latter are of the old values. Use "
            "memory=batched, or call fourierft.configure(model) after such a change"
        )


def is_capturing() -> bool:
    """Return True while a CUDA graph is captured: its replays would not see a later weight."""
    return torch.cuda.is_available() and torch.cuda.is_current_stream_capturing()


def _origin(members: Sequence[Ingredients], layout: WeightLayout) -> list[Any]:
    return [layout, *(member.state() for member in members)]


def _are_stepped(coefficients: Iterable[Tensor]) -> bool:
    groups = [group for optimizer in list(_optimizers) for group in optimizer.param_groups]
    stepped = {id(parameter) for group in groups for parameter in group["params"]}
    return all(id(c) in stepped for c in coefficients)


def _end_step(optimizer: Optimizer, *_: Any) -> None:
    global _steps
    _steps += 1
    _optimizers.add(optimizer)
    for kept in _alive:
        kept.effective = []
    raise_if_stale(wait=False)


register_optimizer_step_post_hook(_end_step)
