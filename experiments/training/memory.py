"""Estimate of the memory that a run will take.

Weights, gradients and optimizer state are counted. Activations saved for the backward pass are
measured on fake tensors, which have shapes and no values: seconds for a model of any size.
Left out: the libraries themselves, the allocator's rounding, and the context of a GPU.
"""

from __future__ import annotations

import dataclasses
import logging
import math
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from experiments.device import select_device
from experiments.models import Model, Transformer
from experiments.training import sharding
from experiments.training.train_config import Precision, Train
from experiments.training.weight_bytes import count_weight_bytes
from fourierft.engine.settings import GROUPED, choose_memory, group_size
from fourierft.frozen_weight import is_quantised
from fourierft.layer import adapted_layers

if TYPE_CHECKING:
    from experiments.models.head import Head
    from experiments.tasks import Data, Task

log = logging.getLogger(__name__)

_DRY = ("language", "classification", "regression", "images")
"""Heads whose batches `_make_batch` can make."""
LOGITS = 3
"""Copies in float32 of the logits when a loss is at its peak: they, their softmax, its gradient."""
GIGABYTE = 1e9


def estimate_memory(
    net: nn.Module, model: Model, task: Task, train: Train | None, data: Data | None
) -> dict[str, Any]:
    """Return the bytes that a run is expected to take.

    Args:
        net: network after `Method.apply`; on the meta device for counting.
        model: what it was built from.
        task: gives the head and the length of rows.
        train: the recipe; None for counting: one row per step.
        data: for the longest row; None: rows as long as the task allows.

    Returns:
        `weights`, `gradients`, `optimizer`, `updates` (W0 + DeltaW kept by FourierFT layers); then
        the most that comes and goes: `step` (forward and backward of one micro-batch),
        `evaluation`, `generation` (keys and values); `total`, of which those three count once;
        `rows` and `tokens` of the micro-batch. None where nothing is known. Under torchrun all of
        it is of one process; sharded, `gathered` is what it has whole for a while.
    """
    trained = sum(value.nbytes for value in net.parameters() if value.requires_grad)
    weights = count_weight_bytes(net, model.quantization if _is_on_meta(net) else None)
    rows, parts = 1, sharding.count_parts(train)
    if train is not None:
        rows = train.batch_size // train.accumulation // sharding.count_ranks()
    tokens = _count_tokens(task, data)
    # The network is still on the CPU; the trainer moves it.
    device = "meta" if train is None else select_device(train.device)
    half = train is not None and train.precision is not Precision.fp32
    found: dict[str, Any] = {
        "weights": math.ceil(weights / parts),
        "gradients": math.ceil(trained / parts),
        "optimizer": math.ceil(2 * trained / parts),  # AdamW's two averages
        "updates": _effective_weights(net, device, "cache", half),
        "step": None,
        "evaluation": None,
        "generation": None,
    }
    if isinstance(model, Transformer) and task.head.kind in _DRY:
        found |= _estimate_steps(net, device, model, task, train, data, rows, tokens, half)
    if parts > 1:
        found["gathered"] = sharding.count_gathered_bytes(net)
        if found["generation"] is not None:  # by the first process, with the whole network
            found["generation"] += max(0, weights - found["weights"] - found["gathered"])
    passing = max(found[key] or 0 for key in _STEPS)
    fixed = sum(found.get(key, 0) for key in _LASTING)
    return found | {"total": fixed + passing, "rows": rows, "tokens": tokens}


def format_estimate(found: dict[str, Any]) -> str:
    """Return the estimate as one line for the log."""
    parts = ", ".join(
        f"{key} {found[key] / GIGABYTE:.3g}"
        for key in (*_LASTING, *_STEPS)
        if found.get(key) is not None
    )
    return f"{found['total'] / GIGABYTE:.3g} GB ({parts})"


_LASTING = ("weights", "gradients", "optimizer", "updates", "gathered")
_STEPS = ("step", "evaluation", "generation")


def _estimate_steps(
    net: nn.Module,
    device: str,
    model: Transformer,
    task: Task,
    train: Train | None,
    data: Data | None,
    rows: int,
    tokens: int | None,
    half: bool,
) -> dict[str, int | None]:
    """Return the bytes of a step, an evaluation batch and a batch of generated texts."""
    configuration = net.config
    vocabulary = configuration.vocab_size if task.head.kind == "language" else 0
    workspace = _estimate_workspace(net, device)
    saved = _estimate_activations(net, model, task.head, half, rows, tokens)
    if saved is None:
        return {}
    saved += sum(_effective_weights(net, device, use, half) for use in ("save", *GROUPED))
    if train is not None and train.gradient_checkpointing:
        layers = configuration.num_hidden_layers
        inputs = layers * rows * (tokens or 1) * configuration.hidden_size * 4
        saved = inputs + saved // layers
    logits = LOGITS * rows * (tokens or 0) * vocabulary * 4
    found: dict[str, int | None] = {"step": saved + logits + workspace}
    if train is not None and data is not None and data.evaluations:
        most = max(map(len, data.evaluations.values()))
        batch = min(train.eval_batch_size, most) * (tokens or 0) * vocabulary * 4
        held = _effective_weights(net, device, "cache", half, held=True, quantised=False)
        held -= _effective_weights(net, device, "cache", half, quantised=False)
        found["evaluation"] = LOGITS * batch + held + workspace
    if data is not None and data.prompts and vocabulary:
        heads = getattr(configuration, "num_key_value_heads", configuration.num_attention_heads)
        width = configuration.hidden_size // configuration.num_attention_heads * heads
        size = next(value.element_size() for value in net.parameters() if not is_quantised(value))
        texts = getattr(task, "generation_batch_size", 1) * getattr(task, "beams", 1)
        most = configuration.max_position_embeddings
        texts *= min(data.longest or most, most)
        cache = texts * 2 * width * configuration.num_hidden_layers * size
        held = _effective_weights(net, device, "cache", False, held=True)
        found["generation"] = cache + held - _effective_weights(net, device, "cache", half)
    return found


def _estimate_activations(
    net: nn.Module,
    model: Transformer,
    head: Head,
    half: bool,
    rows: int,
    tokens: int | None,
) -> int | None:
    """Return the bytes that the forward pass saves for backward; None if a dry pass fails."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    learning = set(_find_trained(net))
    try:
        with FakeTensorMode():
            plain = dataclasses.replace(model, quantization=None, pretrained=False)
            dry = plain.build(head, None)
            for name, value in dry.named_parameters():
                value.requires_grad_(name in learning)
            own = {id(value) for value in [*dry.parameters(), *dry.buffers()]}
            kept: dict[int, torch.Tensor] = {}

            def keep(value: torch.Tensor) -> torch.Tensor:
                if id(value) not in own:
                    kept[value.untyped_storage()._cdata] = value
                return value

            with (
                torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value),
                torch.autocast("cpu", torch.bfloat16, enabled=half),
            ):
                dry(**_make_batch(dry.config, head, rows, tokens))
            own_storages = {value.untyped_storage()._cdata for value in dry.parameters()}
            return sum(
                value.untyped_storage().nbytes()
                for key, value in kept.items()
                if key not in own_storages
            )
    except Exception as error:  # whatever a model's code cannot do without numbers: no estimate
        log.debug("memory: no dry pass (%s)", error)
        return None


def _make_batch(configuration: Any, head: Head, rows: int, tokens: int | None) -> dict[str, Any]:
    """Return a batch of the right shapes."""
    if head.kind == "images":
        size = configuration.image_size
        return {
            "pixel_values": torch.zeros(rows, configuration.num_channels, size, size),
            "labels": torch.zeros(rows, dtype=torch.long),
        }
    ids = torch.zeros(rows, tokens, dtype=torch.long)
    kind = torch.float32 if head.kind == "regression" else torch.long
    labels = ids if head.kind == "language" else torch.zeros(rows, dtype=kind)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}


def _find_trained(net: nn.Module) -> Iterator[str]:
    """Yield names in the base model of trained parameters and of weights with an adapter."""
    for name, value in net.named_parameters():
        if value.requires_grad:
            plain = name.removeprefix("base_model.model.")
            yield plain.replace(".modules_to_save.default.", ".")
    for name, module in net.named_modules():
        if "base_layer" in module._modules and any(
            value.requires_grad for value in module.parameters()
        ):
            yield f"{name.removeprefix('base_model.model.')}.weight"


def _count_tokens(task: Task, data: Data | None) -> int | None:
    if data is not None and data.lengths is not None and len(data.lengths):
        return max(data.lengths)
    return task.max_length


def _is_on_meta(net: nn.Module) -> bool:
    return any(value.is_meta for value in net.parameters())


def _effective_weights(
    net: nn.Module,
    device: str,
    memory: str,
    half: bool,
    held: bool = False,
    quantised: bool = True,
) -> int:
    """Return the bytes of W0 + DeltaW in the FourierFT layers that use memory in one way.

    Args:
        net: network with its adapters.
        device: where it will compute.
        memory: `cache`, from step to step; `save`, `batched` or `kept`, within one.
        half: products are in half precision.
        held: in `hold_weights`, where all layers cache but those that recompute on demand.
        quantised: count layers with a quantised W0 too.
    """
    total = 0
    for layer in adapted_layers(net).values():
        base, engine = layer.get_base_layer(), layer.engine
        packed = is_quantised(base.weight)
        if packed and not quantised:
            continue
        if held and engine.memory != "recompute":
            engine = engine._replace(memory="cache")
        if choose_memory(engine, device, None if packed else base.weight) == memory:
            dtype = base.weight.dtype
            if packed:  # of 8 bits: DeltaW, in the type of the input
                dtype = getattr(base, "compute_dtype", None) or torch.float32
            size = min(dtype.itemsize, 2) if half else dtype.itemsize
            total += layer.out_features * layer.in_features * size
    return total


def _estimate_workspace(net: nn.Module, device: str) -> int:
    """Return twice the bytes of the largest adapted matrix, or of a group of them, in float32.

    These hold updates and their gradients, or a weight that is dequantised for a product.
    """
    alone, together = {(0, 0)}, Counter[tuple[int, int]]()
    for layer in adapted_layers(net).values():
        shape, weight = (layer.out_features, layer.in_features), layer.get_base_layer().weight
        alone.add(shape)
        kept = None if is_quantised(weight) else weight
        together[shape] += choose_memory(layer.engine, device, kept) in GROUPED
    groups = {shape: min(layers, group_size(shape)) for shape, layers in together.items()}
    return 2 * 4 * max(max(groups.get(shape, 1), 1) * math.prod(shape) for shape in alone)
