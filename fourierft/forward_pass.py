"""One forward pass of a model, in which layers of one shape build their weights together.

A weight is built when the first layer of its group is called, and is good for this pass alone: what
changes coefficients does so between passes, so no values need to be compared. Where a step has
several passes it may be kept until an optimizer steps. A layer that is called outside a pass of its
model builds its own weight.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook

from .engine.kept_weights import KeptWeights, count_steps, may_keep, raise_if_stale
from .engine.settings import group_size, prefers_group
from .engine.weight_cache import AdapterTerm, WeightLayout
from .engine.weight_group import Ingredients, PreparedWeight, build_weights, make_planes
from .layer import FourierFTLayer, adapted_layers


class _Prepared(NamedTuple):
    """A layer's weight and what it is good for."""

    weight: PreparedWeight
    state: tuple[Any, ...]
    layout: WeightLayout
    differentiable: bool


class ForwardPass:
    """Weights of the layers of a model, for one pass.

    Args:
        net: The model.
        layers: Its adapted layers in order.
    """

    def __init__(self, net: nn.Module, layers: dict[FourierFTLayer, int]) -> None:
        self.net = net
        self.layers = layers
        self._prepared: dict[FourierFTLayer, _Prepared | None] = {}

    def get_weight(
        self, layer: FourierFTLayer, terms: Sequence[AdapterTerm], layout: WeightLayout
    ) -> PreparedWeight | None:
        """Return the effective weight of a layer that is being called; None if it builds its own.

        Args:
            layer: The layer.
            terms: Adapters that it is called with.
            layout: Layout that it needs.
        """
        differentiable = torch.is_grad_enabled()
        # What is packed for the backward pass may be computed anew there, outside this pass
        # (checkpointing): it has to be computed alike.
        if layout.interleaved or (differentiable and _packs_saved_tensors()):
            return None
        given = Ingredients(layer.get_base_layer().weight, terms)
        if layer not in self._prepared:
            self._build_group(layer, given, layout, differentiable)
        found = self._prepared[layer]
        if found is None or found[1:] != (given.state(), layout, differentiable):
            return None
        if not differentiable:
            self._prepared[layer] = None  # nothing else holds it
        return found.weight

    def _build_group(
        self, layer: FourierFTLayer, given: Ingredients, layout: WeightLayout, differentiable: bool
    ) -> None:
        """Build the weights of a layer and of the next ones like it."""
        self._prepared[layer] = None
        own = layer.ingredients()
        if own is None or own.state() != given.state():
            return
        group, kind, shape = {layer: own}, own.kind(), tuple(own.weight.shape)
        most = group_size(shape)
        for other in list(self.layers)[self.layers[layer] + 1 :]:
            if len(group) == most:
                break
            if other in self._prepared or other.engine != layer.engine:
                continue
            found = other.ingredients()
            if found is not None and found.kind() == kind:
                group[other] = found
        memory = layer.engine.memory
        if memory != "kept" and len(group) == 1:
            return
        if memory == "auto" and not prefers_group(shape, len(group)):
            return
        members = list(group.values())
        planes: list[Tensor | None] = [None] * len(members)
        if differentiable:
            effective = _get_weights(list(group), members, layout)
            planes = make_planes(members, layout)
        else:
            effective = build_weights(members, layout)
        for other, member, *weight in zip(group, members, effective, planes, strict=True):
            prepared = PreparedWeight(*weight)
            self._prepared[other] = _Prepared(prepared, member.state(), layout, differentiable)


def _get_weights(
    layers: Sequence[FourierFTLayer], members: Sequence[Ingredients], layout: WeightLayout
) -> list[Tensor]:
    """Return weights to train with: built, or kept since the last optimizer step."""
    caches = [layer._cache for layer in layers]
    first, kept = caches[0], caches[0].kept
    if kept is not None and all(cache.kept is kept for cache in caches):
        weights = kept.effective  # before the checks: a step of another thread gives them up
        if weights and may_keep(members) and kept.fits(members, layout):
            kept.compare()
            return weights
    kept = None
    for cache in caches:
        cache.kept = None  # frees the old weights before the new ones are made
    effective = build_weights(members, layout)
    first.accumulates |= first.last_step == count_steps()
    first.last_step = count_steps()
    memory = layers[0].engine.memory
    if (memory == "kept" or (memory == "auto" and first.accumulates)) and may_keep(members):
        kept = KeptWeights(members, layout, effective)
        for cache in caches:
            cache.kept = kept
    return effective


class _Passes(threading.local):
    """Passes that are running in a thread, the innermost last."""

    def __init__(self) -> None:
        self.running: list[ForwardPass] = []


_passes = _Passes()
_layers_of: WeakKeyDictionary[nn.Module, dict[FourierFTLayer, int]] = WeakKeyDictionary()


def find_pass(layer: FourierFTLayer) -> ForwardPass | None:
    """Return the running pass of the model that a layer belongs to."""
    for running in reversed(_passes.running):
        if layer in running.layers:
            return running
    return None


def watch_forwards(net: nn.Module) -> None:
    """Begin a `ForwardPass` at every call of a model from now on; its layers may have changed."""
    _layers_of.pop(net, None)
    if _begin not in net._forward_pre_hooks.values():
        net.register_forward_pre_hook(_begin)
        net.register_forward_hook(_end, always_call=True)


def unwatch_forwards(net: nn.Module) -> None:
    """Undo `watch_forwards`."""
    _layers_of.pop(net, None)
    for hooks in (net._forward_pre_hooks, net._forward_hooks):
        for number in [number for number, hook in hooks.items() if hook in (_begin, _end)]:
            del hooks[number]
            net._forward_hooks_always_called.pop(number, None)


# Functions of a module, so that models can be copied and pickled.
def _begin(net: nn.Module, args: Any) -> None:
    if torch.compiler.is_compiling():
        return
    _end(net)  # of a call that was interrupted
    raise_if_stale(wait=not torch.is_grad_enabled())
    layers = _layers_of.get(net)
    if layers is None:
        found = adapted_layers(net).values()
        layers = _layers_of[net] = {layer: place for place, layer in enumerate(found)}
    if any(layer.prepares_weight() for layer in layers) and not _is_sharded(net):
        _passes.running.append(ForwardPass(net, layers))


def _end(net: nn.Module, *_: Any) -> None:
    if not torch.compiler.is_compiling():
        _passes.running = [running for running in _passes.running if running.net is not net]


def _packs_saved_tensors() -> bool:
    return torch._C._autograd._top_saved_tensors_default_hooks(True) is not None


def _is_sharded(net: nn.Module) -> bool:
    """Return True under FSDP: it reduces gradients block by block, as soon as each is through."""
    if not (dist.is_available() and dist.is_initialized()):
        return False
    from torch.distributed.fsdp import FSDPModule, FullyShardedDataParallel

    return any(isinstance(m, (FSDPModule, FullyShardedDataParallel)) for m in net.modules())


# An interrupted call leaves its pass; an optimizer's step is a change that no version may show.
register_optimizer_step_post_hook(lambda *_: _passes.running.clear())
