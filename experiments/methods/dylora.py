"""DyLoRA: LoRA whose first ranks also work alone, thanks to a rank drawn at every step."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from experiments.errors import ConfigError
from experiments.methods.method import Method
from experiments.methods.peft import find_unmatched

if TYPE_CHECKING:
    from torch import nn
    from transformers import TrainerCallback


@dataclass(kw_only=True)
class DyLoRA(Method):
    """DyLoRA: h = W0 x + (alpha / b) B[:, :b] A[:b] x, b drawn from 1 to r each step (2210.07558).

    See `experiments.methods.dylora_layer`.
    """

    targets: list[str]
    """Names (last components) of the modules to adapt."""
    r: int
    """Largest rank; all of it is stored."""
    alpha: float
    """Numerator of the scale alpha / b."""
    evaluated: int | None = None
    """Rank of evaluations and of merged weights, 1 to r; null: r."""

    def problems(self) -> Iterator[str]:
        """See `Method.problems`."""
        if not self.targets:
            yield "method.targets=[]: must name at least one module"
        if self.r < 1:
            yield f"method.r={self.r}: must be at least 1"
        if not 0 < self.alpha < math.inf:
            yield f"method.alpha={self.alpha}: must be positive"
        if self.evaluated is not None and not 1 <= self.evaluated <= self.r:
            yield f"method.evaluated={self.evaluated}: must be a rank from 1 to {self.r}, or null"

    def apply(self, net: nn.Module, head: Sequence[str]) -> nn.Module:
        """See `Method.apply`."""
        from torch import nn

        from experiments.methods.dylora_layer import DyLoRALinear

        problems = list(find_unmatched(net, self.targets))
        found = {
            path: module
            for path, module in net.named_modules()
            if path.rpartition(".")[2] in self.targets
        }
        problems += [
            f"method.targets: {path} is a {type(module).__name__} (allowed: plain linear layers)"
            for path, module in found.items()
            if type(module) is not nn.Linear  # quantised ones could not be merged
        ]
        if problems:
            raise ConfigError(f"method={self.name} cannot adapt this model", problems)
        self.train_head_alone(net, head)
        for path, layer in found.items():
            rank = self.evaluated or self.r
            net.set_submodule(path, DyLoRALinear(layer, self.r, self.alpha, rank))
        return net

    def callbacks(self, net: nn.Module, seed: int) -> list[TrainerCallback]:
        """See `Method.callbacks`."""
        from experiments.methods.dylora_layer import RankDraw

        return [RankDraw(net, self.r, seed)]

    def restore(self, net: nn.Module, folder: Path, *, merged: bool = True) -> nn.Module:
        """See `Method.restore`; the evaluated rank is what is merged."""
        from experiments.methods.dylora_layer import DyLoRALinear

        net = super().restore(self.apply(net, []), folder)
        for path, module in list(net.named_modules()):
            if merged and isinstance(module, DyLoRALinear):
                net.set_submodule(path, module.merged())
        return net
