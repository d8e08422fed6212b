"""Loading coefficients that accelerate has offloaded; they then stay, being small.

Its hooks bring a module's parameters before the module runs. Coefficients lie in a
``ParameterDict``, which never runs, so its hook would leave them on the meta device.
"""

from __future__ import annotations

import functools

import torch
from accelerate.hooks import AlignDevicesHook, SequentialHook, remove_hook_from_module
from torch import nn
from torch.utils import swap_tensors


def restore_offloaded(parameters: nn.ParameterDict) -> None:
    """Move offloaded parameters to the device that uses them, and keep them there.

    They remain the same objects, so that an optimizer which holds them goes on training them.
    """
    hook = _offload_hook(parameters)
    if hook is None:
        return
    for name, parameter in parameters.items():
        if parameter.is_meta:
            value = hook.weights_map[name].to(hook.execution_device, copy=True)
            swap_tensors(parameter, nn.Parameter(value, requires_grad=parameter.requires_grad))
    hook.offload = False  # or it would put new parameters in their place when it is removed
    remove_hook_from_module(parameters)


def execution_device(layer: nn.Module) -> torch.device | None:
    """Return the device that an offloaded layer runs on; None if it is not offloaded."""
    hook = _offload_hook(layer)
    return None if hook is None else torch.device(hook.execution_device)


def merely_aligns(layer: nn.Module) -> bool:
    """Return True if a layer's replaced forward is accelerate's, and moves its input alone.

    That is what ``device_map`` leaves on layers that are not offloaded.
    """
    hook, forward = layer.__dict__.get("_hf_hook"), layer.__dict__.get("forward")
    return (
        type(hook) is AlignDevicesHook
        and not (hook.offload or hook.io_same_device or hook.no_grad)
        and isinstance(forward, functools.partial)
        and forward.args == (layer,)
        and getattr(layer._old_forward, "__func__", None) is type(layer).forward
    )


def _offload_hook(module: nn.Module) -> AlignDevicesHook | None:
    hook = module.__dict__.get("_hf_hook")
    for each in hook.hooks if isinstance(hook, SequentialHook) else (hook,):
        if isinstance(each, AlignDevicesHook) and each.offload:
            return each
    return None
