"""Timed cases: single layers, and a model of RoBERTa-base's shape, frozen and adapted."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import peft
import torch
from peft import LoraConfig
from peft.tuners.fourierft import FourierFTModel as StockModel
from peft.tuners.lora import LoraModel
from torch import nn
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    RobertaConfig,
    RobertaForSequenceClassification,
)

import fourierft
from fourierft import Engine, hold_weights
from fourierft.bases.reference import reference_update
from fourierft.layer import adapted_layers

ALPHA = 150.0
WRITER = {"hidden_size": 768, "intermediate_size": 2048, "num_hidden_layers": 8}
WRITER |= {"num_attention_heads": 12, "num_key_value_heads": 12, "vocab_size": 1000}


def adapt(net: nn.Module, method: str | Engine, n: int, targets: list[str]) -> nn.Module:
    """Adapt the model with one tuner, its own parameters frozen.

    Args:
        net: With nothing adapted yet.
        method: `frozen`, `lora`, `stock` (PEFT's FourierFT), or ours: `auto`, `cache`, `recompute`,
            `dense`, `sampled` (the last two cache as well), or with any other `Engine`.
        n: Coefficients per matrix.
        targets: Modules to adapt.
    """
    net.requires_grad_(False)
    if method == "frozen":
        return net
    if method == "lora":
        tuner = LoraModel(net, LoraConfig(r=8, target_modules=targets), "default")
    elif method == "stock":
        config = peft.FourierFTConfig(n_frequency=n, scaling=ALPHA, target_modules=targets)
        tuner = StockModel(net, config, "default")
    else:
        named = {
            "auto": Engine(),
            "recompute": Engine("recompute"),
            "dense": Engine("cache", "dense"),
            "sampled": Engine("cache", "sampled"),
        }
        engine = method if isinstance(method, Engine) else named.get(method, Engine("cache"))
        config = fourierft.FourierFTConfig(
            n_frequency=n,
            scaling=ALPHA,
            target_modules=targets,
            **engine._asdict(),
        )
        tuner = fourierft.FourierFTModel(net, config, "default")
    tuner._cast_adapter_dtype("default")  # float32 in half-precision models, as PeftModel does
    return tuner.model


def check_update(layer: fourierft.FourierFTLayer) -> None:
    """Raise ArithmeticError if a layer's update is not the formula's: no time of it would count."""
    found = layer.get_delta_weight("default").double()
    coefficients = layer.fourierft_spectrum["default"].detach().double()
    expected = reference_update(coefficients, layer.entries("default"), found.shape, ALPHA)
    if not (found - expected).norm() <= 1e-2 * expected.norm():  # half precision rounds once
        raise ArithmeticError(f"the update of {tuple(found.shape)} is not the formula's")


def layer_step(
    method: str | Engine,
    shape: tuple[int, int],
    tokens: int,
    n: int,
    dtype: torch.dtype,
    device: str,
    four_bits: bool = False,
) -> tuple[Callable[[], Any], nn.Module]:
    """Return forward and backward of one linear layer, input gradient included; and the layer."""
    torch.manual_seed(0)
    out, in_ = shape
    linear = nn.Linear(in_, out, bias=False, dtype=dtype, device=device)
    net = nn.ModuleDict({"layer": pack(linear) if four_bits else linear})
    layer = adapt(net, method, n, ["layer"])["layer"]
    if isinstance(layer, fourierft.FourierFTLayer):
        check_update(layer)
    x = torch.randn(tokens, in_, dtype=dtype, device=device, requires_grad=True)
    dy = torch.randn(tokens, out, dtype=dtype, device=device)
    trained = [p for p in layer.parameters() if p.requires_grad]

    def step() -> None:
        torch.autograd.grad(layer(x), [x, *trained], dy)

    return step, layer


def pack(linear: nn.Linear) -> nn.Module:
    """Return a layer without bias in NF4, scales quantised as in the recipes."""
    import bitsandbytes

    device, dtype = linear.weight.device, linear.weight.dtype
    shape = linear.in_features, linear.out_features
    small = bitsandbytes.nn.Linear4bit(*shape, False, dtype, quant_type="nf4")
    small.weight = bitsandbytes.nn.Params4bit(
        linear.weight.data.cpu(), requires_grad=False, quant_type="nf4", compress_statistics=True
    )
    return small.to(device)


def continuation(
    method: str | Engine, rows: int, device: str, four_bits: bool, name: str
) -> Callable[[], Any]:
    """Return greedy generation by a LLaMA of 8 blocks, 768 wide, query and value adapted.

    Args:
        method: see `adapt`.
        rows: Texts at once.
        device: Device to compute on.
        four_bits: Linear layers are in NF4.
        name: `held` to hold weights; `compared` to compare their values at every token, beside
            4-bit weights in a product of their own (as it was before `hold_weights`).
    """
    torch.manual_seed(0)
    net = LlamaForCausalLM(LlamaConfig(**WRITER)).to(device).eval()
    if four_bits:
        for path, layer in list(net.model.named_modules()):
            if type(layer) is nn.Linear:
                net.model.set_submodule(path, pack(layer).eval())
                net.model.get_submodule(path).support_avx512bf16_for_cpu = False
    net = adapt(net, method, 1000, ["q_proj", "v_proj"])
    if name == "compared" and four_bits:
        for layer in adapted_layers(net).values():
            layer.base_layer.register_forward_hook(lambda *call: None)
    ids = torch.randint(5, 1000, (rows, 16), device=device)
    settings = {"do_sample": False, "pad_token_id": 0, "use_cache": True}
    settings |= {"min_new_tokens": 32, "max_new_tokens": 32}

    def generate() -> None:
        with hold_weights(net) if name == "held" else nullcontext(), torch.no_grad():
            net.generate(input_ids=ids, attention_mask=torch.ones_like(ids), **settings)

    return generate


def changing(step: Callable[[], Any], layer: nn.Module) -> Callable[[], Any]:
    """Wrap a case to get new coefficients every time, as after an optimizer's step."""
    trained = [p for p in layer.parameters() if p.requires_grad]

    def changed() -> None:
        for parameter in trained:
            parameter.data.mul_(1.0001)
        step()

    return changed


class TimedModel:
    """RoBERTa-base's shape with random weights, query and value adapted, the head trained."""

    def __init__(self, method: str, dtype: torch.dtype, device: str, layers: int = 12) -> None:
        torch.manual_seed(0)
        settings = RobertaConfig(num_hidden_layers=layers)
        net = RobertaForSequenceClassification(settings).to(dtype).to(device)
        self.net = adapt(net, method, 1000, ["query", "value"])
        self.net.classifier.requires_grad_(True)
        if method == "frozen":
            # Gradients then pass through all layers, as they must for any adapter.
            attention = self.net.roberta.encoder.layer[0].attention.self
            attention.query.bias.requires_grad_(True)
            attention.value.bias.requires_grad_(True)
        trained = [p for p in self.net.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(trained, lr=1e-3, fused=True)
        self.device = device

    def batch(self, rows: int, length: int) -> dict[str, torch.Tensor]:
        """Random tokens and labels."""
        ids = torch.randint(5, 1000, (rows, length), device=self.device)
        return {"input_ids": ids, "labels": torch.randint(2, (rows,), device=self.device)}

    def step(self, rows: int, length: int, accumulation: int = 1) -> Callable[[], Any]:
        """Run a whole optimizer step."""
        batch = self.batch(rows, length)
        self.net.train()

        def step() -> None:
            for _ in range(accumulation):
                self.net(**batch).loss.backward()
            self.optimizer.step()
            self.optimizer.zero_grad()

        return step

    def evaluation(self, rows: int, length: int) -> Callable[[], Any]:
        """Run a forward pass without gradients."""
        batch = self.batch(rows, length)

        @torch.no_grad()
        def evaluate() -> None:
            self.net.eval()(**batch)

        return evaluate

    def forward(self, rows: int, length: int) -> Callable[[], Any]:
        """Run a forward pass that keeps its graph, and return the loss."""
        batch = self.batch(rows, length)
        return lambda: self.net.train()(**batch).loss

    def addresses(self) -> set[int]:
        """Return the bytes of the storages of all parameters and buffers."""
        held = [*self.net.parameters(), *self.net.buffers()]
        return {tensor.untyped_storage().data_ptr() for tensor in held}
