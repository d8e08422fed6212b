"""Faults of a recipe that this machine has no device for."""

from __future__ import annotations

import os

from experiments.device import select_device
from experiments.errors import UserError
from experiments.training.train_config import Matmul, Precision, Sharding, Train


def check_device(train: Train) -> None:
    """Raise UserError if this machine cannot train as the recipe says."""
    import torch

    problems = []
    gpu = select_device(train.device) != "cpu"
    if train.device == "cuda" and not gpu:
        problems.append("train.device=cuda: no GPU found (allowed: auto, cpu)")
    if train.precision is Precision.fp16 and not gpu:
        problems.append("train.precision=fp16: needs a GPU (allowed on a CPU: fp32, bf16)")
    here = int(os.environ.get("LOCAL_WORLD_SIZE", 1))  # processes that torchrun starts here
    if (
        train.precision is Precision.bf16
        and gpu
        and not torch.cuda.is_bf16_supported(including_emulation=False)
    ):
        name = torch.cuda.get_device_name()
        problems.append(
            f"train.precision=bf16: {name} cannot compute in bf16 (allowed there: fp32, fp16)"
        )
    if train.matmul is Matmul.tf32 and not gpu:
        problems.append("train.matmul=tf32: needs a GPU (allowed on a CPU: ieee)")
    elif train.matmul is Matmul.tf32 and torch.cuda.get_device_capability() < (8, 0):
        name = torch.cuda.get_device_name()
        problems.append(f"train.matmul=tf32: {name} has no TF32 (allowed there: ieee)")
    if train.sharding is Sharding.fsdp and not gpu and torch.cuda.is_available():
        problems.append("train.sharding=fsdp: divides among GPUs (train.device: auto, cuda)")
    if gpu and here > torch.cuda.device_count():
        problems.append(
            f"torchrun: {here} processes on {torch.cuda.device_count()} GPUs (allowed: one a GPU)"
        )
    if problems:
        raise UserError("this machine cannot train this run", problems)


def set_matmul(train: Train) -> None:
    """Let matrix products and cuDNN's convolutions round alike: torch's defaults differ."""
    import torch

    allowed = train.matmul is Matmul.tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = allowed
