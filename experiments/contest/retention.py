"""Loss of a language model on text outside its task, before training and after."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from torch import nn

    from experiments.config.run_config import Config
    from experiments.tasks import Data

BATCH = 8
"""Rows evaluated at once."""


@dataclass(frozen=True, kw_only=True)
class Losses:
    """Negative log likelihood of the rows of some text."""

    sums: np.ndarray
    """Summed over a row's tokens, (rows,)."""
    tokens: np.ndarray
    """Tokens that are scored, (rows,)."""

    @property
    def mean(self) -> float:
        """Loss per token, in nats."""
        return float(self.sums.sum() / self.tokens.sum())


class Reader:
    """Base model and text on which finished runs are compared; built once.

    Args:
        config: run with the other text as its task.
    """

    def __init__(self, config: Config):
        from experiments.run import data_cache

        self._config = config
        self._weights, rows = data_cache.locate(config)
        _, self._data = data_cache.load(config.model, config.task, self._weights, rows)

    def read_base(self) -> Losses:
        """Return the losses of the base model as it was."""
        from experiments.run.build import build_base

        return _measure(build_base(self._config, self._weights), self._data, self._config.task)

    def read_trained(self, trained: Config, run_dir: Path) -> Losses:
        """Return the losses of the base model with what a run has trained.

        Args:
            trained: configuration of the run.
            run_dir: its folder.
        """
        from experiments.run.build import build_base, restore_trained

        net = restore_trained(trained, build_base(trained, self._weights), run_dir)
        return _measure(net, self._data, self._config.task)


def _measure(net: nn.Module, data: Data, task: Any) -> Losses:
    import torch

    from fourierft.holding import hold_weights

    device = next(net.parameters()).device
    split = next(iter(data.evaluations.values()))
    sums, tokens = [], []
    with torch.no_grad(), hold_weights(net.eval()):
        for start in range(0, len(split), BATCH):
            rows = [split[row] for row in range(start, min(start + BATCH, len(split)))]
            batch = {key: value.to(device) for key, value in data.collate(rows).items()}
            losses, counts = task.reduce(net(**batch).logits, batch["labels"])
            sums.append(losses.cpu().numpy())
            tokens.append(counts.cpu().numpy())
    return Losses(sums=np.concatenate(sums), tokens=np.concatenate(tokens))
