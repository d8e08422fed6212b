"""Bottleneck adapters: Houlsby's, Lin's, Pfeiffer's and AdapterDrop, which differ in fields."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING

from experiments.errors import ConfigError, UserError
from experiments.methods.method import Method

if TYPE_CHECKING:
    from torch import nn


class Place(Enum):
    """Modules that an adapter can follow."""

    attention = "attention"
    feed_forward = "feed_forward"
    block = "block"


class Activation(Enum):
    """Nonlinearity between the two projections."""

    relu = "relu"
    gelu = "gelu"


@dataclass(kw_only=True)
class Bottleneck(Method):
    """Bottleneck adapters, h -> h + W_up f(W_down norm(h)) behind parts of every block.

    They cannot be merged. See `experiments.methods.bottleneck_layer`.
    """

    width: int
    """Width of the bottleneck."""
    places: list[Place]
    """Positions of the adapters; attention, feed_forward: behind that half's last projection,
    before its residual is added; block: behind the whole block."""
    norm: bool
    """Use a LayerNorm of the adapter's own before the bottleneck."""
    activation: Activation
    """Nonlinearity f."""
    dropped: int = 0
    """Number of lowest blocks without adapters."""
    train_norms: bool = False
    """Train the normalisations of the adapted blocks, too."""

    def problems(self) -> Iterator[str]:
        """See `Method.problems`."""
        if self.width < 1:
            yield f"method.width={self.width}: must be at least 1"
        if not self.places:
            allowed = ", ".join(place.value for place in Place)
            yield f"method.places=[]: must name at least one (allowed: {allowed})"
        if self.dropped < 0:
            yield f"method.dropped={self.dropped}: must not be negative"

    def apply(self, net: nn.Module, head: Sequence[str]) -> nn.Module:
        """See `Method.apply`."""
        from experiments.methods import bottleneck_layer

        blocks = bottleneck_layer.find_blocks(net)
        if self.dropped >= len(blocks):
            problem = (
                f"method.dropped={self.dropped}: the model has {len(blocks)} blocks"
                if blocks
                else "its blocks have no known form (allowed: BERT, RoBERTa, ViT, GPT-2, LLaMA)"
            )
            raise ConfigError(f"method={self.name} cannot adapt this model", [problem])
        adapted = blocks[self.dropped :]
        self.train_head_alone(net, head)
        for block in adapted if self.train_norms else ():
            for norm in bottleneck_layer.find_norms(net.get_submodule(block["block"])):
                norm.requires_grad_(True)
        bottleneck_layer.insert_bottlenecks(
            net,
            [block[place.value] for block in adapted for place in self.places],
            net.config.hidden_size,
            width=self.width,
            activation=self.activation.value,
            norm=self.norm,
        )
        return net

    def restore(self, net: nn.Module, folder: Path, *, merged: bool = True) -> nn.Module:
        """See `Method.restore`; a nonlinearity is not part of any weight, so nothing is merged."""
        if merged:
            raise UserError(
                f"method={self.name}: cannot be merged, its adapters have a nonlinearity and are "
                "no part of any weight (allowed: the run itself, and its adapter folder)"
            )
        return super().restore(self.apply(net, []), folder)
