"""AdaLoRA through PEFT, with its budget schedule laid over the steps of the run."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from experiments.methods.peft import Adapter

if TYPE_CHECKING:
    from peft import PeftConfig
    from torch import Tensor, nn
    from transformers import TrainerCallback


@dataclass(kw_only=True)
class AdaLoRA(Adapter):
    """AdaLoRA: DeltaW = (alpha / init_r) P diag(E) Q (2303.10512).

    The least important entries of E become zero until target_r a matrix are left on average.
    What is trained has rank init_r to the end; what is stored is what is left of it. The epoch
    that is kept may lie before the last rank is taken.
    """

    init_r: int
    """Rank of every matrix at the start."""
    target_r: int
    """Mean rank at the end."""
    alpha: float
    """Numerator of the scale alpha / init_r."""
    dropout: float = 0.0
    """Dropout on the adapter's input."""
    warmup: float
    """Share of all steps before the first rank is taken (t_i)."""
    final: float
    """Share of all steps after the last one is (t_f)."""
    interval: int
    """Steps from one allocation to the next (Delta_T)."""
    beta1: float = 0.85
    """Averaging factor of the sensitivity."""
    beta2: float = 0.85
    """Averaging factor of the uncertainty."""
    orthogonality: float
    """Weight of the orthogonality term in the loss (gamma)."""

    def problems(self) -> Iterator[str]:
        """See `Method.problems`."""
        yield from super().problems()
        if self.target_r < 1:
            yield f"method.target_r={self.target_r}: must be at least 1"
        if self.init_r <= self.target_r:
            yield f"method.init_r={self.init_r}: must exceed method.target_r={self.target_r}"
        if not 0 < self.alpha < math.inf:
            yield f"method.alpha={self.alpha}: must be positive"
        if not 0 <= self.dropout < 1:
            yield f"method.dropout={self.dropout}: must be in [0, 1)"
        for key in ("warmup", "final"):
            if not 0 <= getattr(self, key) < 1:
                yield f"method.{key}={getattr(self, key)}: must be in [0, 1)"
        if self.warmup + self.final >= 1:
            yield (
                f"method.final={self.final}: leaves no steps to allocate in "
                f"behind method.warmup={self.warmup}"
            )
        if self.interval < 1:
            yield f"method.interval={self.interval}: must be at least 1"
        for key in ("beta1", "beta2"):
            if not 0 < getattr(self, key) < 1:
                yield f"method.{key}={getattr(self, key)}: must be in (0, 1)"
        if not 0 <= self.orthogonality < math.inf:
            yield f"method.orthogonality={self.orthogonality}: must not be negative"

    def penalty(self, net: nn.Module) -> Tensor | None:
        """See `Method.penalty`; PEFT's own term only reaches models that it has a task type for."""
        from experiments.methods.adalora_schedule import compute_orthogonality

        return self.orthogonality * compute_orthogonality(net)

    def configuration(self, head: Sequence[str]) -> PeftConfig:
        """See `Adapter.configuration`; steps are known when training begins."""
        from peft import AdaLoraConfig

        return AdaLoraConfig(
            init_r=self.init_r,
            target_r=self.target_r,
            lora_alpha=self.alpha,
            lora_dropout=self.dropout,
            deltaT=self.interval,
            beta1=self.beta1,
            beta2=self.beta2,
            orth_reg_weight=self.orthogonality,
            total_step=1,
            target_modules=list(self.targets),
            modules_to_save=list(head) or None,
        )

    def apply(self, net: nn.Module, head: Sequence[str]) -> nn.Module:
        """See `Method.apply`."""
        net = super().apply(net, head)
        for name, parameter in net.named_parameters():
            if ".ranknum." in name:  # PEFT's divisor init_r, which the meta device would train
                parameter.requires_grad_(False)
        return net

    def callbacks(self, net: nn.Module, seed: int) -> list[TrainerCallback]:
        """See `Method.callbacks`."""
        from experiments.methods.adalora_schedule import BudgetSchedule

        return [BudgetSchedule(net, self.warmup, self.final)]

    def save(self, net: nn.Module, folder: Path) -> None:
        """See `Adapter.save`; the ranks that are left, and no others."""
        from experiments.methods.adalora_schedule import find_nonzero_ranks

        self._write(net, folder, find_nonzero_ranks(net))

    def checkpoint(self, net: nn.Module, folder: Path) -> None:
        """See `Method.checkpoint`; keeps every rank (pruned ones may return) and the schedule."""
        from experiments.methods.adalora_schedule import save_state

        self._write(net, folder, None)
        save_state(net, folder)

    def _write(self, net: nn.Module, folder: Path, ranks: dict[str, list[bool]] | None) -> None:
        configuration = net.active_peft_config
        kept, configuration.rank_pattern = configuration.rank_pattern, ranks
        try:
            super().save(net, folder)
        finally:  # PEFT renames the matrices in it when it saves
            configuration.rank_pattern = kept
