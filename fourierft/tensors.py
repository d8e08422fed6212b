"""What a tensor is under the modes that torch may be in."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

HALF = (torch.float16, torch.bfloat16)

_UNCHANGED = nullcontext()


def version_of(tensor: Tensor) -> int:
    """How often it was written to, as far as it knows; inference tensors do not count (-1)."""
    return -1 if tensor.is_inference() else tensor._version


def without_autocast(device: str) -> AbstractContextManager:
    """Operations inside keep the dtypes that they are given."""
    if device != "meta" and torch.is_autocast_enabled(device):
        return torch.autocast(device, enabled=False)
    return _UNCHANGED
