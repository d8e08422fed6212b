"""Forecast of a run's seconds on a GPU, for runs of which nothing similar was measured.

A roofline: a step takes as long as its products, copies and kernels need on the GPU, or as Python
needs to launch them, whichever is longer.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from experiments.report.comparison import reference


@dataclass(frozen=True, kw_only=True)
class Work:
    """Shape of the products of one base model."""

    blocks: int
    width: int
    weights: float
    """Weights of a block in units of width²."""
    kernels: int
    """Kernels of a block, forward and backward."""

    def run(self, tokens: float, kind: str, passes: int, *, adapted: bool, nf4: bool) -> float:
        """Return the seconds of `passes` products of every weight.

        One is the forward pass, a second the gradient of the input, a third that of the weight.
        """
        gpu = reference.costs()["gpu"]
        size = 4 if kind in ("fp32", "tf32") else 2
        product = max(
            2 * tokens * self.width**2 / gpu["flops"][kind],
            size * (2 * tokens * self.width + self.width**2) / gpu["bandwidth"],
            gpu["kernel"],
        )
        kernels = self.kernels * passes / 2 + (2 * gpu["adapter"] if adapted else 0)
        copied = 45 * passes * tokens * self.width * size
        copied += self.weights * passes * gpu["nf4"] * self.width**2 if nf4 else 0
        block = self.weights * passes * product + copied / gpu["bandwidth"] + kernels * gpu["gap"]
        return max(self.blocks * block, self.blocks * kernels * gpu["launch"] + gpu["step"])


def forecast_seconds(config: Any) -> float | None:
    """Return the seconds of a run on the GPU of reference/costs.yaml; None if nothing is known.

    The toy and runs of mode=count need no GPU: theirs are 0.
    """
    facts = reference.costs()
    if config.train is None or config.task.name == "toy":
        return 0.0
    model = facts["models"].get(config.model.name)
    if model is None or config.profile is not None:
        return None
    if "flops" in model:
        return _forecast_images(config, model, facts)
    about = _read_task(config, facts)
    if about is None:
        return None
    return _forecast_tokens(config, Work(**model), about)


def _read_task(config: Any, facts: dict[str, Any]) -> dict[str, Any] | None:
    """Return tokens and rows of a task, cut as the run cuts them."""
    name = config.task.name
    sizes = dict(reference.load("table2")["datasets"]) | reference.load("table5")["datasets"]
    images = name in reference.load("table5")["datasets"]
    about = facts["tasks"].get("images" if images else name)
    rows = (about or {}).get("rows") or sizes.get(name)
    if about is None or rows is None:
        return None
    counts = {
        split: round(float(digits) * worth)
        for split in ("train", "validation", *(["test"] if images else []))  # GLUE's is hidden
        if split in rows
        for digits, worth in [reference.count(str(rows[split]))]
    }
    train, scored = counts.pop("train"), sum(counts.values())
    return about | {
        "train": min(train, config.task.train_rows or train),
        "scored": min(scored, config.task.eval_rows or scored),
    }


def _forecast_tokens(config: Any, work: Work, about: dict[str, Any]) -> float:
    train = config.train
    kind = _find_kind(config)
    how = {
        "adapted": not (config.method.trains_base or config.method.trains_head_only),
        "nf4": getattr(config.model, "quantization", None) is not None,
    }
    steps = train.max_steps or math.ceil(about["train"] / train.batch_size) * train.epochs
    share = train.batch_size / train.accumulation * about["tokens"]
    passes = 3 if config.method.trains_base else 1 if config.method.trains_head_only else 2
    seconds = steps * train.accumulation * work.run(share, kind, passes, **how)
    epochs = steps / math.ceil(about["train"] / train.batch_size)
    batch = train.eval_batch_size or train.batch_size
    batches = math.ceil(about["scored"] / batch) * epochs / train.eval_every
    seconds += batches * work.run(batch * about["tokens"], kind, 1, **how)
    if about.get("texts"):
        texts, beams = config.task.generation_batch_size, getattr(config.task, "beams", 1)
        calls = math.ceil(about["texts"] / texts) * config.task.max_new_tokens
        seconds += calls * work.run(texts * beams, kind, 1, **how)
    return seconds


def _forecast_images(config: Any, model: dict[str, Any], facts: dict[str, Any]) -> float:
    """Return the seconds of the steps on photos and class images, and of drawing with guidance.

    The class images of a subject, drawn once for all methods, are left out.
    """
    gpu, train, task = facts["gpu"], config.train, config.task
    rate = gpu["flops"][_find_kind(config)]
    passes = 3 if config.method.trains_base else 2
    rows = train.batch_size / train.accumulation * (2 if task.prior_weight > 0 else 1)
    least = model["kernels"] * gpu["launch"]
    step = max(passes * rows * model["flops"] / rate, least * passes)
    prompts = len(task.prompts) if task.prompts else facts["tasks"]["dreambooth"]["prompts"]
    draw = max(2 * model["flops"] / rate, least)
    images = prompts * task.images_per_prompt * task.steps
    return (train.max_steps or train.epochs) * train.accumulation * step + images * draw


def _find_kind(config: Any) -> str:
    """Return the number format of the products."""
    precision = config.train.precision.name
    dtype = getattr(config.model, "dtype", None)
    if precision == "fp32" and dtype is not None and dtype.name != "fp32":
        return dtype.name
    if precision == "fp32" and config.train.matmul.value == "tf32":
        return "tf32"
    return precision
