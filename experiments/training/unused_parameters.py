"""Trained parameters that a loss does not depend on: DDP must know if there are any."""

from __future__ import annotations

from torch import Tensor, nn


def find_unused(net: nn.Module, loss: Tensor) -> list[str]:
    """Return the names of the trained parameters that a loss does not depend on."""
    used, seen, pending = set(), set(), [loss.grad_fn]
    while pending:
        node = pending.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):  # where the gradient of a parameter ends
            used.add(id(node.variable))
        pending += [following for following, _ in node.next_functions]
    return [
        name
        for name, value in net.named_parameters()
        if value.requires_grad and id(value) not in used
    ]
