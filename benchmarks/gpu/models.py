"""Whole optimizer steps of the paper's base models, with random weights."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import transformers
from torch import nn

from benchmarks.cases import adapt, pack
from benchmarks.gpu.contestants import count_operations, measure_race, strategies
from benchmarks.gpu.sections import Plan, Row, describe_error
from benchmarks.timing import peak_bytes
from fourierft import Engine


@dataclass(frozen=True)
class Shape:
    """A base model's form and its batch."""

    architecture: str
    """Name of transformers' configuration class, without `Config`."""
    model: str
    """Name of transformers' model class."""
    sizes: dict[str, Any]
    targets: list[str]
    rows: int
    length: int
    """Tokens per row; 0 for images."""
    rates: tuple[str, ...] = ("fp32", "tf32", "bf16")
    micro_batches: int = 1
    """Forward and backward passes of a step."""


_ENCODER = ("Roberta", "RobertaForSequenceClassification")
_LARGE = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16}
_LARGE |= {"intermediate_size": 4096}
SHAPES = {
    "RoBERTa-base": Shape(*_ENCODER, {}, ["query", "value"], 32, 128),
    "RoBERTa-base, 4 micro-batches": Shape(*_ENCODER, {}, ["query", "value"], 4, 128, ("bf16",), 4),
    "RoBERTa-large": Shape(*_ENCODER, _LARGE, ["query", "value"], 32, 128),
    "GPT-2 M": Shape(
        "GPT2", "GPT2LMHeadModel", {"n_embd": 1024, "n_layer": 24, "n_head": 16}, ["c_attn"], 8, 256
    ),
    "GPT-2 L": Shape(
        "GPT2", "GPT2LMHeadModel", {"n_embd": 1280, "n_layer": 36, "n_head": 20}, ["c_attn"], 8, 256
    ),
    "ViT-L": Shape("ViT", "ViTForImageClassification", _LARGE, ["q_proj", "v_proj"], 32, 0),
    # A quarter of the blocks: a step is their sum, and all contestants fit beside each other.
    "LLaMA-2-7B, 8 of 32 blocks": Shape(
        "Llama",
        "LlamaForCausalLM",
        {"num_hidden_layers": 8},
        ["q_proj", "v_proj"],
        4,
        512,
        ("bf16 weights", "nf4"),
    ),
}
_TINY = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
_TINY |= {"intermediate_size": 64}
TINY_SIZES = {
    "Roberta": _TINY | {"vocab_size": 100},
    "GPT2": {"n_embd": 32, "n_layer": 1, "n_head": 2, "vocab_size": 100},
    "ViT": _TINY | {"image_size": 32},
    "Llama": _TINY | {"vocab_size": 100, "num_key_value_heads": 2},
}


def build_model(shape: Shape, rate: str, plan: Plan) -> nn.Module:
    """Return a frozen model with random weights, made on the device."""
    torch.manual_seed(0)
    sizes = TINY_SIZES[shape.architecture] if plan.tiny else shape.sizes
    config = getattr(transformers, f"{shape.architecture}Config")(**sizes)
    kind = torch.bfloat16 if rate in ("bf16 weights", "nf4") else torch.float32
    default = torch.get_default_dtype()
    torch.set_default_dtype(kind)
    try:
        with torch.device(plan.device):
            net = getattr(transformers, shape.model)(config).requires_grad_(False)
    finally:
        torch.set_default_dtype(default)
    if rate == "nf4":
        quantise(net.model)
    return net.train()


def quantise(net: nn.Module) -> None:
    """Replace every linear layer by bitsandbytes' NF4, double quantisation as in the recipes."""
    for name, layer in list(net.named_modules()):
        if type(layer) is nn.Linear:
            net.set_submodule(name, pack(layer))


def share_weights(net: nn.Module) -> nn.Module:
    """Return a copy that has the frozen weights in common with the original."""
    return copy.deepcopy(net, {id(tensor): tensor for tensor in net.parameters()})


def build_batch(shape: Shape, net: nn.Module, plan: Plan) -> dict[str, torch.Tensor]:
    """Return random rows for this model."""
    rows, length = (2, 8) if plan.tiny else (shape.rows, shape.length)
    if not shape.length:
        side = net.config.image_size
        images = torch.randn(rows, 3, side, side, device=plan.device)
        return {"pixel_values": images, "labels": torch.zeros(rows, dtype=int, device=plan.device)}
    words = torch.randint(3, net.config.vocab_size, (rows, length), device=plan.device)
    classifies = "Classification" in shape.model
    labels = torch.zeros(rows, dtype=int, device=plan.device) if classifies else words
    return {"input_ids": words, "labels": labels}


def build_step(
    net: nn.Module, batch: dict[str, torch.Tensor], rate: str, plan: Plan, micro_batches: int = 1
) -> Callable[[], Any]:
    """Return a whole optimizer step; of the frozen model, forward and backward pass."""
    trained = [p for p in net.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-3, fused=True) if trained else None
    if not trained:  # gradients pass through all blocks, as they must for any adapter
        net.get_input_embeddings().register_forward_hook(lambda *call: call[2].requires_grad_())

    def step() -> None:
        torch.backends.cuda.matmul.allow_tf32 = rate == "tf32"
        for _ in range(micro_batches):
            with torch.autocast(plan.device, torch.bfloat16, enabled=rate == "bf16"):
                loss = net(**batch).loss
            loss.backward()
        if optimizer is not None:
            optimizer.step()
            optimizer.zero_grad()
        torch.backends.cuda.matmul.allow_tf32 = False

    return step


def measure_models(plan: Plan) -> Iterator[Row]:
    """Yield a row per model and rate: times in turns, kernels, syncs, most memory."""
    methods: dict[str, str | Engine] = {name: name for name in ("frozen", "lora", "stock")}
    methods |= strategies()
    for name, shape in SHAPES.items():
        for rate in shape.rates:
            if rate == "tf32" and plan.device != "cuda":
                continue
            row: Row = {"model": name, "rate": rate}
            try:
                original = build_model(shape, rate, plan)
            except Exception as error:
                yield row | {"failure": describe_error(error)}
                continue
            steps, counts = {}, {}
            batch = build_batch(shape, original, plan)
            for method, chosen in methods.items():
                if shape.micro_batches == 1 and getattr(chosen, "memory", None) == "kept":
                    continue  # it is `batched` there
                try:
                    n = 10 if plan.tiny else 1000
                    net = adapt(share_weights(original), chosen, n, shape.targets)
                    steps[method] = build_step(net, batch, rate, plan, shape.micro_batches)
                    counts[method] = count_operations(steps[method], plan.device)
                    if not plan.tiny:
                        counts[method]["peak"] = peak_bytes(steps[method], plan.device)
                except Exception as error:
                    steps.pop(method, None)
                    counts[method] = {"error": describe_error(error)}
            yield row | {"eager": measure_race(steps, plan.seconds), "counts": counts}
            del original, steps, batch
