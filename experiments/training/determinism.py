"""Operations of a GPU that give the same bits in every run (`train.deterministic`)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from experiments.errors import UserError
from experiments.training.train_config import Train

VARIABLES = {"CUBLAS_WORKSPACE_CONFIG": ":4096:8", "FLASH_ATTENTION_DETERMINISTIC": "1"}
"""What cuBLAS and flash-attn read; transformers' `full_determinism` also makes every launch wait,
and leaves all of it set."""


@contextmanager
def deterministic_algorithms(train: Train | None) -> Iterator[None]:
    """Run the block with deterministic algorithms alone, if the recipe asks for them.

    Raises:
        UserError: an operation has none.
    """
    if train is None or not train.deterministic:
        yield
        return
    import torch

    cudnn, variables = torch.backends.cudnn, {name: os.environ.get(name) for name in VARIABLES}
    before = torch.are_deterministic_algorithms_enabled(), cudnn.deterministic, cudnn.benchmark
    os.environ.update(VARIABLES)
    torch.use_deterministic_algorithms(True)
    cudnn.deterministic, cudnn.benchmark = True, False
    try:
        yield
    except RuntimeError as error:
        if "deterministic implementation" not in str(error):
            raise
        operation = str(error).partition(" does not")[0]
        raise UserError(
            f"train.deterministic=true: {operation} has no deterministic implementation "
            "(allowed here: false)"
        ) from error
    finally:
        torch.use_deterministic_algorithms(before[0])
        cudnn.deterministic, cudnn.benchmark = before[1:]
        for name, value in variables.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
