"""Tensors under inference mode and autocast."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

HALF = (torch.float16, torch.bfloat16)

_UNCHANGED = nullcontext()


def get_version(tensor: Tensor) -> int:
    """Return a tensor's version counter; -1 for inference tensors, which have none."""
    return -1 if tensor.is_inference() else tensor._version


def check_versions(coefficients: Sequence[Tensor], versions: Sequence[int]) -> None:
    """Raise RuntimeError if coefficients have other versions than in the forward pass."""
    if list(versions) != [get_version(c) for c in coefficients]:
        raise RuntimeError(
            "coefficients were modified by an inplace operation between the forward pass and "
            "this derivative of it"
        )


def without_autocast(device: str) -> AbstractContextManager:
    """Disable autocast inside the block."""
    if device != "meta" and torch.is_autocast_enabled(device):
        return torch.autocast(device, enabled=False)
    return _UNCHANGED
