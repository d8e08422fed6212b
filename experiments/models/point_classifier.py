"""Figure 7's network."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional


class PointClassifier(nn.Module):
    """Figure 7's network, W_out relu(W_hidden relu(W_in x)); methods adapt its `hidden` matrix."""

    def __init__(self, inputs: int, width: int, classes: int):
        super().__init__()
        self.input = nn.Linear(inputs, width)
        self.hidden = nn.Linear(width, width, bias=False)
        self.output = nn.Linear(width, classes)

    def forward(
        self, points: torch.Tensor, labels: torch.Tensor | None = None
    ) -> dict[str, torch.Tensor]:
        """Map points (B, inputs) to logits (B, classes); with labels (B,), add the mean loss."""
        logits = self.output(functional.relu(self.hidden(functional.relu(self.input(points)))))
        loss = {} if labels is None else {"loss": functional.cross_entropy(logits, labels)}
        return loss | {"logits": logits}
