"""The device that a run trains on."""

from __future__ import annotations

import os

from experiments.errors import UserError
from experiments.training.train_config import Precision, Train


def check_device(train: Train) -> None:
    """Raise UserError if this machine cannot train as the recipe says."""
    import torch

    problems = []
    gpu = torch.cuda.is_available()
    if train.device == "cuda" and not gpu:
        problems.append("train.device=cuda: no GPU found (allowed: auto, cpu)")
    if train.precision is Precision.fp16 and (train.device == "cpu" or not gpu):
        problems.append("train.precision=fp16: needs a GPU (allowed on a CPU: fp32, bf16)")
    here = int(os.environ.get("LOCAL_WORLD_SIZE", 1))  # processes that torchrun starts here
    if gpu and train.device != "cpu" and here > torch.cuda.device_count():
        problems.append(
            f"torchrun: {here} processes on {torch.cuda.device_count()} GPUs (allowed: one a GPU)"
        )
    if problems:
        raise UserError("this machine cannot train this run", problems)


def select_device(train: Train) -> str:
    """Return the device of training and generation: a GPU if there is one and it is allowed."""
    import torch

    return "cuda" if torch.cuda.is_available() and train.device != "cpu" else "cpu"
