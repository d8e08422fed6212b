"""What `train.sharding=fsdp` divides, and what every process has whole for a while."""

from __future__ import annotations

import os

from torch import nn

from experiments.training.train_config import Sharding, Train
from fourierft.layer import adapted_layers


def count_ranks() -> int:
    """Return the number of processes that torchrun started, on all nodes."""
    return int(os.environ.get("WORLD_SIZE", 1))


def count_parts(train: Train | None) -> int:
    """Return the number of processes that weights, gradients and averages are divided among."""
    return count_ranks() if train is not None and train.sharding is Sharding.fsdp else 1


def find_block_classes(net: nn.Module) -> list[str]:
    """Return the names of the classes whose modules are gathered one after another.

    Embeddings come apart, by accelerate's own rule.
    """
    names = getattr(net, "_no_split_modules", None) or []
    return sorted(name for name in names if not name.endswith("Embeddings"))


def keep_no_weights(net: nn.Module) -> None:
    """Let FourierFT layers compute W0 + DeltaW anew where `memory` is left to them.

    Kept at full size, these would undo the division.
    """
    for layer in adapted_layers(net).values():
        if layer.engine.memory == "auto":
            layer.engine = layer.engine._replace(memory="recompute")


def count_gathered_bytes(net: nn.Module) -> int:
    """Return the bytes of what is whole at a time, beside a process's own parts.

    These are two blocks (the next is gathered while one computes) with the gradient of one, and all
    that is outside of blocks.
    """
    classes = find_block_classes(net)
    blocks = [module for module in net.modules() if type(module).__name__ in classes]
    inside = {id(value) for block in blocks for value in block.parameters()}
    outside = sum(value.nbytes for value in net.parameters() if id(value) not in inside)
    whole = max((_count_bytes(block) for block in blocks), default=0)
    trained = max((_count_bytes(block, trained=True) for block in blocks), default=0)
    return 2 * whole + trained + outside


def _count_bytes(module: nn.Module, trained: bool = False) -> int:
    return sum(value.nbytes for value in module.parameters() if value.requires_grad or not trained)
