"""Tensors under inference mode and autocast."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

HALF = (torch.float16, torch.bfloat16)

_UNCHANGED = nullcontext()


def get_version(tensor: Tensor) -> int:
    """Return a tensor's version counter; -1 for inference tensors, which have none."""
    return -1 if tensor.is_inference() else tensor._version


def without_autocast(device: str) -> AbstractContextManager:
    """Disable autocast inside the block."""
    if device != "meta" and torch.is_autocast_enabled(device):
        return torch.autocast(device, enabled=False)
    return _UNCHANGED
