"""Image networks that take bytes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn


def accept_bytes(net: nn.Module, mean: Sequence[float], std: Sequence[float]) -> nn.Module:
    """Let an image network also take `pixel_values` as bytes (B, H, W, 3), as decoders return them.

    They become (x / 255 - mean) / std, (B, 3, H, W), on the network's device, so that a loader
    moves a quarter of the bytes of floats. Floats are left as they are.
    """
    constants: dict[torch.device, tuple[torch.Tensor, torch.Tensor]] = {}

    def normalise(module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> tuple | None:
        pixels = kwargs.get("pixel_values")
        if pixels is None or pixels.dtype != torch.uint8:
            return None
        if pixels.device not in constants:  # a copy to a GPU waits for all that it still computes
            centre, spread = (
                torch.tensor(values, device=pixels.device).view(3, 1, 1) for values in (mean, std)
            )
            constants[pixels.device] = 1 / (255 * spread), centre / spread
        factor, shift = constants[pixels.device]
        floats = pixels.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format)
        floats = floats.mul_(factor).sub_(shift)
        return args, kwargs | {"pixel_values": floats}

    net.register_forward_pre_hook(normalise, with_kwargs=True)
    return net
