"""What transformers does not have: Figure 7's network, GPT-2 with separate q, k, v, images as
bytes, a byte tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional


class PointClassifier(nn.Module):
    """Figure 7's network, W_out relu(W_hidden relu(W_in x)); a method adapts its
    `hidden` matrix."""

    def __init__(self, inputs: int, width: int, classes: int):
        super().__init__()
        self.input = nn.Linear(inputs, width)
        self.hidden = nn.Linear(width, width, bias=False)
        self.output = nn.Linear(width, classes)

    def forward(
        self, points: torch.Tensor, labels: torch.Tensor | None = None
    ) -> dict[str, torch.Tensor]:
        """points (B, inputs), labels (B,) -> logits (B, classes), with labels the mean
        cross entropy."""
        logits = self.output(functional.relu(self.hidden(functional.relu(self.input(points)))))
        loss = {} if labels is None else {"loss": functional.cross_entropy(logits, labels)}
        return loss | {"logits": logits}


class SplitAttention(nn.Module):
    """GPT-2's fused projection as three Linears; attention splits their concatenated
    output again."""

    def __init__(self, fused: nn.Module):
        super().__init__()
        inputs, outputs = fused.weight.shape  # Conv1D keeps (in, 3 * out)
        width, device = outputs // 3, fused.weight.device
        for position, name in enumerate(("q_proj", "k_proj", "v_proj")):
            part = nn.Linear(inputs, width, device=device, dtype=fused.weight.dtype)
            columns = slice(position * width, (position + 1) * width)
            if device.type != "meta":
                with torch.no_grad():
                    part.weight.copy_(fused.weight[:, columns].T)
                    part.bias.copy_(fused.bias[columns])
            setattr(self, name, part)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """hidden (..., in) -> (..., 3 * in), in the order q, k, v."""
        return torch.cat([self.q_proj(hidden), self.k_proj(hidden), self.v_proj(hidden)], dim=-1)


def split_attention(net: nn.Module) -> nn.Module:
    """Replaces every fused `c_attn` of a GPT-2 in place; other networks come back as they are."""
    for module in list(net.modules()):
        if hasattr(module, "c_attn"):
            module.c_attn = SplitAttention(module.c_attn)
    return net


def fuse_attention(net: nn.Module) -> nn.Module:
    """Undoes `split_attention` in place: plain transformers then reads what is saved."""
    from transformers.pytorch_utils import Conv1D

    for module in list(net.modules()):
        if isinstance(getattr(module, "c_attn", None), SplitAttention):
            split = module.c_attn
            parts = split.q_proj, split.k_proj, split.v_proj
            weight = torch.cat([part.weight.detach().T for part in parts], dim=1)
            fused = Conv1D(weight.shape[1], weight.shape[0])
            fused.weight = nn.Parameter(weight.contiguous())
            fused.bias = nn.Parameter(torch.cat([part.bias.detach() for part in parts]))
            module.c_attn = fused
    return net


def take_bytes(net: nn.Module, mean: Sequence[float], std: Sequence[float]) -> nn.Module:
    """Lets an image network take `pixel_values` as bytes (B, H, W, 3), too, as decoders make them.

    They become (x / 255 - mean) / std, (B, 3, H, W), where the network runs: a loader ships a
    quarter of what floats would take. Floats are taken as they are.
    """

    def normalise(module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> tuple | None:
        pixels = kwargs.get("pixel_values")
        if pixels is None or pixels.dtype != torch.uint8:
            return None
        centre, spread = (
            torch.tensor(values, device=pixels.device).view(3, 1, 1) for values in (mean, std)
        )
        floats = pixels.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format)
        floats = floats.mul_(1 / (255 * spread)).sub_(centre / spread)
        return args, kwargs | {"pixel_values": floats}

    net.register_forward_pre_hook(normalise, with_kwargs=True)
    return net


def byte_tokenizer(positions: int, *, causal: bool = False) -> Any:
    """One token per byte and RoBERTa's special tokens, made on the spot for models without weights.

    Args:
        positions: of the model.
        causal: a text to continue: no special tokens around it, every position can be used.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate([*special, *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    if not causal:
        tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        cls_token="<s>",
        eos_token="</s>",
        sep_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        mask_token="<mask>",
        # RoBERTa's positions start behind the padding index.
        model_max_length=positions if causal else positions - 2,
        model_input_names=["input_ids", "attention_mask"],
    )
