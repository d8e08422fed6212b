"""The device that a process computes on, decided here for every part of a run."""

from __future__ import annotations

import os


def select_device(asked: str = "auto") -> str:
    """Return "cpu", or the GPU of this process: under torchrun the one of its LOCAL_RANK.

    Args:
        asked: `train.device`: auto (a GPU if there is one), cpu or cuda.
    """
    import torch

    if asked == "cpu" or not torch.cuda.is_available():
        return "cpu"
    return f"cuda:{os.environ.get('LOCAL_RANK', 0)}"
