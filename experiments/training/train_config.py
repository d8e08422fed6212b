"""Train: the optimisation settings of a recipe, as `train` in conf/ holds them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

from experiments.metrics.selection import Select
from experiments.results.identity import BEFORE, LOCAL

if TYPE_CHECKING:
    from experiments.tasks import Task


class Schedule(Enum):
    """Shape of the learning rates after the warmup."""

    linear = "linear"
    cosine = "cosine"
    constant = "constant"


class Precision(Enum):
    """Number format of the forward and backward pass; weights stay fp32."""

    fp32 = "fp32"
    bf16 = "bf16"
    fp16 = "fp16"


class Matmul(Enum):
    """Number format in which a GPU multiplies fp32 matrices and convolves fp32 images."""

    ieee = "ieee"
    tf32 = "tf32"


class Sharding(Enum):
    """Division of a network among the processes of torchrun."""

    none = "none"
    fsdp = "fsdp"


@dataclass(kw_only=True)
class Train:
    """AdamW, one learning rate for the adapter, one for the head."""

    epochs: float
    """Passes over the training rows."""
    batch_size: int
    """Rows per optimizer step, over all devices and accumulation steps."""
    learning_rate: float
    """Peak learning rate of the adapter (or of the base weights that the method trains)."""
    relative_rate: bool = field(default=False, metadata={BEFORE: False})
    """The learning rate is the share of its |W| by which a step moves each matrix of FourierFT."""
    head_learning_rate: float | None = None
    """Peak learning rate of the task head; null: the adapter's."""
    weight_decay: float = 0.0
    """Decoupled weight decay of trained matrices and coefficients; never of biases and norms."""
    betas: list[float] = field(default_factory=lambda: [0.9, 0.999])
    """AdamW's two averaging factors."""
    epsilon: float = 1e-8
    """AdamW's epsilon."""
    schedule: Schedule = Schedule.linear
    """Shape of the decay after the warmup."""
    warmup_ratio: float = 0.0
    """Share of all steps over which the learning rates rise from 0."""
    label_smoothing: float = 0.0
    """Share of the target probability that is spread over all classes or tokens."""
    max_grad_norm: float = 0.0
    """Gradient norm above which gradients are scaled down; 0: never."""
    group_by_length: bool = False
    """Batch rows of similar length: much less padding, a slightly less random order."""
    select: Select = Select.best
    """Evaluation that the adapter kept in the run folder comes from."""
    eval_every: float = 1
    """Epochs from one evaluation to the next, or a part of one; the end is always evaluated."""
    max_steps: int | None = None
    """Stop after this many optimizer steps (the schedule ends there too)."""
    precision: Precision = Precision.fp32
    """Number format of the forward and backward pass."""
    matmul: Matmul = field(default=Matmul.ieee, metadata={BEFORE: Matmul.ieee.value})
    """Products and convolutions of fp32 numbers on a GPU: ieee, or tf32 (10 bits of mantissa)."""
    accumulation: int = field(default=1, metadata=LOCAL)
    """Micro-batches per optimizer step; the losses stay those of the whole batch."""
    eval_batch_size: int = field(default=64, metadata=LOCAL)
    """Rows per forward pass of an evaluation."""
    checkpoint_every: int = field(default=1, metadata=LOCAL)
    """Evaluations from one checkpoint to the next; 0: none, a killed run starts again."""
    workers: int = field(default=0, metadata=LOCAL)
    """Processes that read and augment rows beside the training, one per core at most."""
    gradient_checkpointing: bool = field(default=False, metadata=LOCAL)
    """Compute activations again in the backward pass: less memory, more time."""
    deterministic: bool = field(default=False, metadata=LOCAL)
    """Operations of a GPU that give the same bits in every run, at a cost in time."""
    sharding: Sharding = field(default=Sharding.none, metadata=LOCAL)
    """Under torchrun: none, every process has the whole network; fsdp, a part of it (FSDP2)."""
    device: str = field(default="auto", metadata=LOCAL)
    """Device: auto, cpu or cuda."""

    def problems(self) -> Iterator[str]:
        """Yield every setting that cannot be trained with."""
        for key in (
            "epochs",
            "batch_size",
            "learning_rate",
            "eval_every",
            "accumulation",
            "eval_batch_size",
            "epsilon",
        ):
            if not 0 < getattr(self, key) < math.inf:  # so that nan is refused too
                yield f"train.{key}={getattr(self, key)}: must be positive"
        if self.max_steps is not None and self.max_steps < 1:
            yield f"train.max_steps={self.max_steps}: must be at least 1, or null for whole epochs"
        if self.head_learning_rate is not None and not 0 < self.head_learning_rate < math.inf:
            yield (
                f"train.head_learning_rate={self.head_learning_rate}: must be positive, "
                "or null for the adapter's"
            )
        for key in ("weight_decay", "max_grad_norm", "checkpoint_every", "workers"):
            if not 0 <= getattr(self, key) < math.inf:
                yield f"train.{key}={getattr(self, key)}: must not be negative"
        if not 0 <= self.warmup_ratio < 1:
            yield f"train.warmup_ratio={self.warmup_ratio}: must be in [0, 1)"
        if not 0 <= self.label_smoothing < 1:
            yield f"train.label_smoothing={self.label_smoothing}: must be in [0, 1)"
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            yield f"train.betas={self.betas}: must be two numbers in [0, 1)"
        if self.accumulation > 0 and self.batch_size % self.accumulation:
            yield (
                f"train.accumulation={self.accumulation}: must divide "
                f"train.batch_size={self.batch_size}"
            )
        if self.device not in ("auto", "cpu", "cuda"):
            yield f"train.device={self.device}: must be auto, cpu or cuda"

    def problems_with(self, task: Task) -> Iterator[str]:
        """Yield every setting that makes no sense for a task."""
        if self.group_by_length and not task.of_text:
            yield f"train.group_by_length=true: task={task.name} has no text"
        if not task.selects and self.select is not Select.last:
            yield (
                f"train.select={self.select.value}: task={task.name} "
                "chooses no epoch (allowed: last)"
            )
        if self.label_smoothing and task.head.kind in ("regression", "denoising"):
            yield (
                f"train.label_smoothing={self.label_smoothing}: task={task.name} predicts "
                f"neither classes nor tokens but {task.head.kind} (allowed: 0)"
            )
