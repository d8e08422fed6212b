"""Ceilings of the machine, measured: matrix products, memory, launches."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from benchmarks.gpu.sections import Plan, Row
from benchmarks.timing import race

_LAUNCHES = 100


def measure_ceilings(plan: Plan) -> Iterator[Row]:
    """Yield TFLOP/s of matrix products, GB/s of copies, microseconds of a launch."""
    size = 256 if plan.tiny else 8192
    kinds = {"fp32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16}
    for name, dtype in kinds.items():
        if name == "tf32" and plan.device != "cuda":
            continue
        a = torch.randn(size, size, device=plan.device).to(dtype)
        torch.backends.cuda.matmul.allow_tf32 = name == "tf32"
        try:
            found = race({"product": lambda a=a: a @ a}, plan.seconds)["product"]
        finally:
            torch.backends.cuda.matmul.allow_tf32 = False
        yield {"ceiling": f"{name} product", "TFLOP/s": 2 * size**3 / found["ms"] / 1e9}
        del a
    numbers = 2**20 if plan.tiny else 2**29
    source = torch.empty(numbers, device=plan.device).zero_()
    target = torch.empty_like(source)
    found = race({"copy": lambda: target.copy_(source)}, plan.seconds)["copy"]
    yield {"ceiling": "memory", "GB/s": 2 * source.nbytes / found["ms"] / 1e6}
    small = torch.zeros(1, device=plan.device)

    def launch() -> None:
        for _ in range(_LAUNCHES):
            small.add_(1)

    found = race({"launches": launch}, plan.seconds)["launches"]
    yield {"ceiling": "launch", "us": found["ms"] * 1e3 / _LAUNCHES}
