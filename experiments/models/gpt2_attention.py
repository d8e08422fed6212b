"""GPT-2's attention with separate q, k and v projections."""

from __future__ import annotations

import torch
from torch import nn


class SplitAttention(nn.Module):
    """GPT-2's fused projection as three Linears; attention splits their joined output again."""

    def __init__(self, fused: nn.Module):
        super().__init__()
        inputs, outputs = fused.weight.shape  # Conv1D keeps (in, 3 * out)
        width, device = outputs // 3, fused.weight.device
        for position, name in enumerate(("q_proj", "k_proj", "v_proj")):
            part = nn.Linear(inputs, width, device=device, dtype=fused.weight.dtype)
            columns = slice(position * width, (position + 1) * width)
            if device.type != "meta":
                with torch.no_grad():
                    part.weight.copy_(fused.weight[:, columns].T)
                    part.bias.copy_(fused.bias[columns])
            setattr(self, name, part)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Map hidden (..., in) to (..., 3 * in), in the order q, k, v."""
        return torch.cat([self.q_proj(hidden), self.k_proj(hidden), self.v_proj(hidden)], dim=-1)


def split_attention(net: nn.Module) -> nn.Module:
    """Replace every fused `c_attn` of a GPT-2 in place; other networks stay as they are."""
    for module in list(net.modules()):
        if hasattr(module, "c_attn"):
            module.c_attn = SplitAttention(module.c_attn)
    return net


def fuse_attention(net: nn.Module) -> nn.Module:
    """Undo `split_attention` in place, so that plain transformers can load the saved model."""
    from transformers.pytorch_utils import Conv1D

    for module in list(net.modules()):
        if isinstance(getattr(module, "c_attn", None), SplitAttention):
            split = module.c_attn
            parts = split.q_proj, split.k_proj, split.v_proj
            weight = torch.cat([part.weight.detach().T for part in parts], dim=1)
            fused = Conv1D(weight.shape[1], weight.shape[0])
            fused.weight = nn.Parameter(weight.contiguous())
            fused.bias = nn.Parameter(torch.cat([part.bias.detach() for part in parts]))
            module.c_attn = fused
    return net
