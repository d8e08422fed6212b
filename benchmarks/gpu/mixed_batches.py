"""Batches in which every row has an adapter of its own, against PEFT's LoRA."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from benchmarks.cases import ALPHA
from benchmarks.gpu.contestants import measure_race
from benchmarks.gpu.sections import Plan, Row
from fourierft import FourierFTConfig

# Side, rows, tokens per row, adapters: generation token by token, and prompts.
CASES = [(768, 32, 1, 1), (768, 32, 1, 32), (4096, 32, 1, 32), (4096, 8, 256, 8)]
TINY_CASES = [(32, 4, 1, 2)]


class Block(nn.Module):
    """A single linear layer, as a model that PEFT adapts."""

    def __init__(self, side: int) -> None:
        super().__init__()
        self.layer = nn.Linear(side, side, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Apply the layer."""
        return self.layer(x)


def measure_mixed_batches(plan: Plan) -> Iterator[Row]:
    """Yield times of a forward pass with `adapter_names`, in turns."""
    for side, rows, tokens, adapters in TINY_CASES if plan.tiny else CASES:
        n = min(1000, side * side // 8)
        configs = {
            "lora": LoraConfig(r=8, target_modules=["layer"]),
            "fourierft": FourierFTConfig(
                n_frequency=n, scaling=ALPHA, target_modules=["layer"], random_loc_seed=2024
            ),
        }
        x = torch.randn(rows, tokens, side, device=plan.device)
        names = [f"a{row % adapters}" for row in range(rows)]
        base = Block(side).to(plan.device)
        steps: dict[str, Callable[[], Any]] = {"frozen": _forward(base, x)}
        for method, config in configs.items():
            net = get_peft_model(Block(side).to(plan.device), config, adapter_name="a0")
            for other in range(1, adapters):
                net.add_adapter(f"a{other}", config)
            steps[method] = _forward(net.eval(), x, adapter_names=names)
        case = {"d": side, "rows": rows, "tokens": tokens, "adapters": adapters}
        yield case | {"eager": measure_race(steps, plan.seconds)}


def _forward(net: nn.Module, x: torch.Tensor, **more: Any) -> Callable[[], Any]:
    return torch.no_grad()(lambda: net(x, **more))
