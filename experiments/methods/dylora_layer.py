"""DyLoRA's layer, whose first ranks are an adapter of their own, and the draw of a rank a step."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from transformers import TrainerCallback

from experiments.seeding import stream


class DyLoRALinear(nn.Module):
    """Linear layer h = W0 x + (alpha / b) B[:, :b] A[:b] x with a changing rank b (2210.07558).

    Training takes the rank last drawn, evaluation always the same one. B starts at zero.

    Args:
        base_layer: the frozen linear layer.
        r: largest rank.
        alpha: numerator of the scale alpha / b.
        evaluated: b of evaluations and of the merged weights.
    """

    def __init__(self, base_layer: nn.Linear, r: int, alpha: float, evaluated: int):
        super().__init__()
        device = base_layer.weight.device
        self.base_layer, self.alpha, self.drawn, self.evaluated = base_layer, alpha, r, evaluated
        self.lora_A = nn.Parameter(torch.empty(r, base_layer.in_features, device=device))
        self.lora_B = nn.Parameter(torch.zeros(base_layer.out_features, r, device=device))
        nn.init.kaiming_uniform_(self.lora_A, a=math.sqrt(5))  # as LoRA's A

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Map inputs (..., in) to (..., out)."""
        rank = self.drawn if self.training else self.evaluated
        outputs = self.base_layer(inputs)
        narrow = functional.linear(inputs.to(self.lora_A.dtype), self.lora_A[:rank])  # (..., b)
        update = functional.linear(narrow, self.lora_B[:, :rank]) * (self.alpha / rank)
        return outputs + update.to(outputs.dtype)

    def merged(self) -> nn.Linear:
        """Return the base layer with the update at the evaluated rank in its weights."""
        rank, weight = self.evaluated, self.base_layer.weight
        with torch.no_grad():
            update = self.lora_B[:, :rank] @ self.lora_A[:rank] * (self.alpha / rank)
            weight.add_(update.to(weight.dtype))
        return self.base_layer


class RankDraw(TrainerCallback):
    """Draws one rank per optimizer step, the same in all layers.

    It depends on seed and step alone, so that a resumed run and every process of a distributed one
    draw the same.
    """

    def __init__(self, net: nn.Module, r: int, seed: int):
        self.layers = [module for module in net.modules() if isinstance(module, DyLoRALinear)]
        self.r, self.seed = r, seed

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Draw uniformly from 1 to r."""
        draw = torch.Generator().manual_seed(stream(self.seed, f"rank {state.global_step}"))
        rank = int(torch.randint(1, self.r + 1, (), generator=draw))
        for layer in self.layers:
            layer.drawn = rank
