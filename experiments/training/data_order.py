"""Row order of every epoch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from transformers.trainer_pt_utils import get_length_grouped_indices

from experiments.seeding import stream

_EPOCHS = 20  # bits that hold any number of an epoch


class DataOrder(torch.utils.data.Sampler[int]):
    """Sampler whose row order follows from seed and epoch alone: a resumed run sees the same.

    Args:
        rows: number of training rows.
        seed: seed of the order.
        lengths: tokens per row, to batch rows of similar length; None for a plain shuffle.
        batch: rows per batch, for rows of similar length.
        augmented: yield number * rows + row instead of row, with a number that no other epoch and
            no other seed has.
    """

    def __init__(
        self,
        rows: int,
        seed: int,
        lengths: Sequence[int] | None,
        batch: int,
        augmented: bool = False,
    ):
        self.rows, self.seed, self.lengths, self.batch, self.epoch = rows, seed, lengths, batch, 0
        self.augmented = augmented

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch; accelerate calls this before each one."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.rows

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(stream(self.seed, f"epoch {self.epoch}"))
        if self.lengths is None:
            order = torch.randperm(self.rows, generator=generator).tolist()
        else:
            order = get_length_grouped_indices(self.lengths, self.batch, generator=generator)
        number = (self.seed << _EPOCHS) + self.epoch if self.augmented else 0
        return iter([number * self.rows + row for row in order])
