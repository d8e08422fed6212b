"""One forward pass of a model, in which layers of one shape build their weights together.

A weight is built when the first layer of its group is called, and is good for this pass alone: what
changes coefficients does so between passes, so no values need to be compared. A layer that is
called outside a pass of its model builds its own weight.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
import torch.distributed as dist
from torch import nn
from torch.optim.optimizer import register_optimizer_step_post_hook

from .engine.settings import group_size, prefers_group
from .engine.weight_cache import AdapterTerm, WeightLayout
from .engine.weight_group import Ingredients, PreparedWeight, prepare_weights
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
        chosen = layer.engine.memory == "batched" or prefers_group(shape, len(group))
        if len(group) == 1 or not chosen:
            return
        members = list(group.values())
        prepared = prepare_weights(members, layout, differentiable)
        for other, member, weight in zip(group, members, prepared, strict=True):
            self._prepared[other] = _Prepared(weight, member.state(), layout, differentiable)


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
