"""Row order of every epoch, and the batches that processes and accumulation make of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from accelerate.data_loader import prepare_data_loader
from torch.utils.data import DataLoader
from transformers import TrainingArguments
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


class StepBatches(torch.utils.data.BatchSampler):
    """Batches of one process: the rows of each optimizer step are divided, each in one batch.

    An epoch's last step may have fewer rows. Left to accelerate, processes would fill their last
    batches up with rows of the epoch's beginning. Here its batches are as equal as they can be. A
    process for which no row is left gets one that does not count (see `weigh`).

    Args:
        sampler: order of the rows.
        batch_size: rows per step.
        accumulation: batches per step and process.
        processes: number of processes.
        process: index of this one.
    """

    def __init__(
        self,
        sampler: DataOrder,
        batch_size: int,
        accumulation: int = 1,
        processes: int = 1,
        process: int = 0,
    ):
        self.sampler, self.batch_size = sampler, batch_size
        self.processes, self.process = processes, process
        self.largest = batch_size // accumulation // processes
        self.steps = math.ceil(len(sampler) / batch_size)

    def __len__(self) -> int:
        last = len(self._divide(self.steps - 1)) // self.processes
        return (self.steps - 1) * (self.batch_size // self.largest // self.processes) + last

    def __iter__(self) -> Iterator[list[int]]:
        order = list(self.sampler)
        for step in range(self.steps):
            start = step * self.batch_size
            for index, size in enumerate(self._divide(step)):
                if index % self.processes == self.process:
                    yield order[start : start + size] or order[:1]
                start += size

    def weigh(self, step: int) -> list[float]:
        """Return the weights that make a sum of batches' means the mean over a step's rows.

        They are relative to equal ones: 1 in a full step; 0 for a batch that does not count.

        Args:
            step: index of the step in its epoch.
        """
        sizes = self._divide(step)
        return [size * len(sizes) / sum(sizes) for size in sizes[self.process :: self.processes]]

    def _divide(self, step: int) -> list[int]:
        """Return the rows of each batch of a step, those of all processes in turn."""
        rows = min(self.batch_size, len(self.sampler) - step * self.batch_size)
        number = math.ceil(rows / self.largest / self.processes) * self.processes
        return [rows // number + (index < rows % number) for index in range(number)]


def build_loader(
    rows: Sequence[Any],
    batches: StepBatches,
    collate: Callable[[list[Any]], dict[str, Any]],
    arguments: TrainingArguments,
) -> DataLoader:
    """Return the loader of the batches of one process, on its device."""
    loader = DataLoader(
        rows,  # type: ignore[arg-type]
        batch_sampler=batches,
        collate_fn=collate,
        num_workers=arguments.dataloader_num_workers,
        pin_memory=arguments.dataloader_pin_memory,
        persistent_workers=arguments.dataloader_persistent_workers,
    )
    return prepare_data_loader(
        loader,
        arguments.device,
        num_processes=1,  # nothing is left to divide
        process_index=0,
        put_on_device=True,
        non_blocking=arguments.accelerator_config.non_blocking,
    )
