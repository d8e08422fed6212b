"""Single adapted layers: every strategy beside the frozen layer, LoRA and PEFT's FourierFT."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from benchmarks.cases import layer_step
from benchmarks.gpu.contestants import count_operations, measure_race, measure_replays, strategies
from benchmarks.gpu.sections import Plan, Row, describe_error
from fourierft.engine.settings import GROUPED

# Square side and tokens: RoBERTa-base and -large, GPT-2 L, LLaMA-2-7B; micro-batches and batches.
SHAPES = [(768, 4096), (1024, 4096), (1280, 2048), (4096, 512), (4096, 2048), (4096, 8192)]
TINY_SHAPES = [(48, 16)]


def measure_layers(plan: Plan) -> Iterator[Row]:
    """Yield forward and backward of one layer, the input's gradient included.

    Without those that build many layers together: a model's steps show them.
    """
    shapes = TINY_SHAPES if plan.tiny else SHAPES
    alone = {name: e for name, e in strategies().items() if e.memory not in GROUPED}
    dtypes = {"bf16": torch.bfloat16, "fp32": torch.float32}
    for kind, dtype in dtypes.items():
        for d, tokens in shapes:
            if kind == "fp32" and d > 1280:
                continue  # no recipe trains such a layer in float32
            methods = {name: name for name in ("frozen", "lora", "stock")} | alone
            row: Row = {"d": d, "tokens": tokens, "kind": kind}
            steps, counts = {}, {}
            n = min(1000, d * d // 8)
            for name, method in methods.items():
                try:
                    steps[name] = layer_step(method, (d, d), tokens, n, dtype, plan.device)[0]
                    counts[name] = count_operations(steps[name], plan.device)
                except Exception as error:
                    steps.pop(name, None)
                    counts[name] = {"error": describe_error(error)}
            yield row | {
                "eager": measure_race(steps, plan.seconds),
                "replay": measure_replays(steps, plan.device, plan.seconds),
                "counts": counts,
            }
