"""Methods that train a part of the base model itself.

Everything, the biases, or nothing but the head.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from experiments.methods.method import Method

if TYPE_CHECKING:
    from torch import nn


@dataclass(kw_only=True)
class Selective(Method):
    """Trains the parameters of the base model that `selects` names, and the head."""

    @property
    def shardable(self) -> bool:
        """See `Method.shardable`."""
        return True

    def selects(self, parameter: str) -> bool:
        """Return True if the base model's parameter of this name is trained."""
        return False

    def apply(self, net: nn.Module, head: Sequence[str]) -> nn.Module:
        """See `Method.apply`."""
        self.train_head_alone(net, head)
        for name, parameter in net.named_parameters():
            if self.selects(name):
                parameter.requires_grad_(True)
        return net


@dataclass(kw_only=True)
class Full(Selective):
    """Full fine-tuning (FF)."""

    @property
    def trains_base(self) -> bool:
        """See `Method.trains_base`."""
        return True

    def selects(self, parameter: str) -> bool:
        """Select every parameter."""
        return True


@dataclass(kw_only=True)
class BitFit(Selective):
    """BitFit: every bias of the base model."""

    def selects(self, parameter: str) -> bool:
        """Select the biases, those of the norms included."""
        return parameter.split(".")[-1] == "bias"


@dataclass(kw_only=True)
class LinearProbe(Selective):
    """Linear probing (LP): the head alone."""

    @property
    def trains_head_only(self) -> bool:
        """See `Method.trains_head_only`."""
        return True
