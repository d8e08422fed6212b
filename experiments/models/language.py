"""Causal language models: GPT-2, LLaMA, and any other from a folder."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.device import select_device
from experiments.errors import ConfigError, DataError
from experiments.hub.fingerprints import Files, find_tokenizer
from experiments.models.model import Quantization
from experiments.models.transformer import Transformer, labels
from experiments.results.identity import LOCAL

if TYPE_CHECKING:
    from torch import nn

    from experiments.models.head import Head

FUSED = ("gpt2",)
"""Architectures whose projections are not linear layers, so that they cannot be quantised."""


class Dtype(Enum):
    """Number format of weights that are not quantised."""

    fp32 = "float32"
    bf16 = "bfloat16"
    fp16 = "float16"


@dataclass(kw_only=True)
class CausalLM(Transformer):
    """GPT-2, LLaMA, or any other causal language model from a folder.

    GPT-2's fused `c_attn` becomes q, k and v projections, so that every method names the same
    targets.
    """

    tokenizer: str | None = field(default=None, metadata=LOCAL)
    """Local folder with a tokenizer, for models without weights; null: a byte tokenizer."""
    dtype: Dtype | None = None
    """Number format of the weights, and of the products with quantised ones; null: fp32."""

    @property
    def quantisable(self) -> bool:
        """See `Model.quantisable`; a folder's architecture is checked when it is built."""
        return self.architecture not in FUSED

    def inputs(self) -> dict[str, Files]:
        """See `Model.inputs`."""
        found = super().inputs()
        if not self.pretrained and self.tokenizer is not None:
            found["tokenizer"] = find_tokenizer(Path(self.tokenizer).expanduser())
        return found

    def processor(self, source: str | None, *, device: str = "auto") -> Any:
        """Return a tokenizer with a padding token."""
        if source is None and self.tokenizer is None:
            from experiments.models.byte_tokenizers import make_byte_tokenizer

            return make_byte_tokenizer(self.positions(source), causal=True)
        own = Path(self.tokenizer or "").expanduser()
        if source is None and not (own / "tokenizer_config.json").is_file():
            raise DataError(f"model.tokenizer={self.tokenizer}: tokenizer_config.json not found")
        tokenizer = self.load_tokenizer(source or str(own))
        largest, rows = max(tokenizer.get_vocab().values()), self.configuration(source).vocab_size
        if largest >= rows:
            raise ConfigError(
                f"model.tokenizer={self.tokenizer}: found {largest + 1} tokens, "
                f"model={self.name} has {rows}"
            )
        tokenizer.model_max_length = min(tokenizer.model_max_length, self.positions(source))
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token  # masked wherever it pads
        return tokenizer

    def positions(self, source: str | None) -> int:
        """Return the number of tokens of the longest text that the model can read."""
        return getattr(self.configuration(source), "max_position_embeddings", 1024)

    def build(
        self, head: Head, source: str | None, *, meta: bool = False, device: str = "auto"
    ) -> nn.Module:
        """See `Model.build`; a classifier reads the last token."""
        import torch
        from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

        from experiments.models.gpt2_attention import split_attention

        loading = {"dtype": getattr(torch, (self.dtype or Dtype.fp32).value)}
        if self.quantization is not None and not meta:
            kind = self.configuration(source).model_type
            if kind in FUSED:
                raise ConfigError(
                    f"model.quantization={self.quantization.value}: model.path={self.path} holds "
                    f"a {kind!r} model, whose projections are not linear layers"
                )
            loading["quantization_config"] = self._quantized(loading["dtype"])
            # Left to transformers, every rank's would go to the first GPU.
            loading["device_map"] = {"": select_device(device)}
        if head.kind in ("classification", "regression"):
            classifier = AutoModelForSequenceClassification
            net = self.network(classifier, source, meta, loading, **labels(head))
            if not meta:  # the last token is looked for before the padding
                net.config.pad_token_id = self.processor(source).pad_token_id
        else:
            net = self.network(AutoModelForCausalLM, source, meta, loading)
            net.loss_type = "ForCausalLM"  # what GPT-2 falls back to, with a warning
        net = split_attention(net)
        if self.quantization is Quantization.nf4:
            leave_unpacked(net)
        net.config.use_cache = False  # of keys and values: training would fill it in vain
        return net

    def plain(self, net: nn.Module, source: str | None) -> Any:
        """See `Model.plain`; enables the cache of keys and values again."""
        net.config.use_cache = True
        return net

    def _quantized(self, dtype: Any) -> Any:
        """Return the quantisation settings for transformers."""
        from transformers import BitsAndBytesConfig

        if self.quantization is Quantization.int8:
            # It would say in every product that its inputs become half precision.
            logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)
            return BitsAndBytesConfig(load_in_8bit=True)
        return BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=dtype,
        )


def leave_unpacked(net: nn.Module) -> nn.Module:
    """Stop bitsandbytes from packing 4-bit weights anew on CPUs with AVX512-BF16.

    It refuses layers whose outputs are not a multiple of 32, and results would depend on the CPU.
    """
    for module in net.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
    return net
