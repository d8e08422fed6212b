"""Arguments of Hugging Face's Trainer from a recipe, and AdamW with a group for each rate."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import TrainingArguments

from experiments.device import select_device
from experiments.seeding import stream
from experiments.training.sharding import count_ranks
from experiments.training.train_config import Precision, Schedule, Sharding, Train
from fourierft.counting import in_head

SCHEDULES = {
    Schedule.linear: "linear",
    Schedule.cosine: "cosine",
    Schedule.constant: "constant_with_warmup",
}


def build_arguments(train: Train, rows: int, run: Path, seed: int) -> TrainingArguments:
    """Return the Trainer's arguments.

    Args:
        train: the recipe.
        rows: training rows.
        run: the run folder, which gets `checkpoints`.
        seed: seed of the run.
    """
    ranks = count_ranks()
    batch = train.batch_size // train.accumulation // ranks
    updates = math.ceil(rows / train.batch_size)  # per epoch
    evaluate_every = math.ceil(round(updates * train.eval_every, 6))
    workers = min(train.workers, len(os.sched_getaffinity(0)))  # more would get in the way
    on_cpu = select_device(train.device) == "cpu"
    sharded = train.sharding is Sharding.fsdp
    accelerator: dict[str, Any] = {"non_blocking": not on_cpu}  # pinned batches need no wait
    if sharded:  # gradients that wait for the last micro-batch would be whole on every rank
        accelerator["gradient_accumulation_kwargs"] = {"sync_each_batch": True}
    arguments = TrainingArguments(
        output_dir=str(run / "checkpoints"),
        per_device_train_batch_size=batch,
        per_device_eval_batch_size=train.eval_batch_size,
        gradient_accumulation_steps=train.accumulation,
        num_train_epochs=train.epochs,
        max_steps=train.max_steps or -1,
        lr_scheduler_type=SCHEDULES[train.schedule],
        warmup_steps=train.warmup_ratio,  # below 1 it is a share of all steps
        label_smoothing_factor=train.label_smoothing,
        max_grad_norm=train.max_grad_norm,
        eval_strategy="steps",
        eval_steps=evaluate_every,
        logging_steps=evaluate_every,
        save_strategy="steps" if train.checkpoint_every else "no",
        save_steps=evaluate_every * max(1, train.checkpoint_every),
        save_total_limit=2,  # a kill while one is written leaves the one before
        seed=stream(seed, "dropout"),
        data_seed=stream(seed, "data"),
        use_cpu=on_cpu,
        bf16=train.precision is Precision.bf16,
        fp16=train.precision is Precision.fp16,
        label_names=["labels"],
        remove_unused_columns=False,
        dataloader_pin_memory=not on_cpu,
        accelerator_config=accelerator,
        fsdp=True if sharded else None,
        fsdp_config={"version": 2} if sharded else None,
        dataloader_num_workers=workers,
        dataloader_persistent_workers=workers > 0,
        activation_checkpointing=train.gradient_checkpointing,
        activation_checkpointing_kwargs={"use_reentrant": False},
        logging_nan_inf_filter=False,
        report_to=[],
        disable_tqdm=not sys.stderr.isatty(),
    )
    _ = arguments.device  # decides n_gpu
    arguments._n_gpu = 1  # several visible GPUs would multiply the batch (nn.DataParallel)
    return arguments


def build_optimizer(
    train: Train,
    parameters: Iterable[tuple[str, nn.Parameter]],
    head: Sequence[str],
    decaying: set[str],
    step_sizes: Mapping[str, float] | None = None,
) -> torch.optim.Optimizer:
    """Return AdamW over adapter and head, each with and without weight decay.

    Args:
        train: the recipe.
        parameters: names and values; those without a gradient are left out.
        head: modules of the task head, which has a learning rate of its own.
        decaying: names of the parameters with weight decay.
        step_sizes: shares of |W| that a learning rate of 1 moves, by name; the recipe's rate is
            then such a share, and every matrix gets a rate and a group of its own.
    """
    sizes, parameters = step_sizes or {}, list(parameters)
    lost = sizes.keys() - {name for name, _ in parameters}
    if lost:  # its rate would not be a share of |W|
        raise RuntimeError(f"no parameter of the name {min(lost)}, whose step was measured")
    head_rate = train.head_learning_rate or train.learning_rate
    groups: dict[tuple[bool, bool, float], list[nn.Parameter]] = {}
    for name, parameter in parameters:
        if parameter.requires_grad:
            of_head = in_head(name, head)
            rate = head_rate if of_head else train.learning_rate / sizes.get(name, 1.0)
            groups.setdefault((of_head, name in decaying, rate), []).append(parameter)
    return torch.optim.AdamW(
        [
            {"params": group, "lr": rate, "weight_decay": train.weight_decay if decays else 0.0}
            for (_, decays, rate), group in groups.items()
        ],
        betas=tuple(train.betas),
        eps=train.epsilon,
        fused=True,
    )
