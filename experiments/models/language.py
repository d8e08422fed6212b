"""Causal language models: GPT-2, LLaMA."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.errors import ConfigError, DataError
from experiments.models.transformer import Transformer

if TYPE_CHECKING:
    from torch import nn

    from experiments.tasks import Head


@dataclass(kw_only=True)
class CausalLM(Transformer):
    """GPT-2 or LLaMA.

    GPT-2's fused `c_attn` becomes q, k and v projections, so that every method names the same
    targets.
    """

    tokenizer: str | None = None
    """Local folder with a tokenizer, for models without weights; null: one that speaks bytes
    (local)."""

    def processor(self, source: str | None) -> Any:
        """A tokenizer whose padding is defined."""
        if source is None and self.tokenizer is None:
            from experiments.networks import byte_tokenizer

            return byte_tokenizer(self.positions, causal=True)
        if (
            source is None
            and not (Path(self.tokenizer).expanduser() / "tokenizer_config.json").is_file()
        ):
            raise DataError(f"model.tokenizer={self.tokenizer}: no tokenizer_config.json there")
        tokenizer = self.tokenizer_of(source or str(Path(self.tokenizer).expanduser()))
        largest, rows = max(tokenizer.get_vocab().values()), self.vocabulary
        if largest >= rows:
            raise ConfigError(
                f"model.tokenizer={self.tokenizer}: has {largest + 1} tokens, "
                f"model={self.name} knows {rows}"
            )
        tokenizer.model_max_length = min(tokenizer.model_max_length, self.positions)
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token  # masked wherever it pads
        return tokenizer

    @property
    def positions(self) -> int:
        """Tokens of the longest text that the model can read."""
        return self.sizes.get("n_positions", self.sizes.get("max_position_embeddings", 1024))

    @property
    def vocabulary(self) -> int:
        """Tokens that the model has an embedding for."""
        return self.configuration(None).vocab_size

    def build(self, head: Head, source: str | None, *, meta: bool = False) -> nn.Module:
        """See `Model.build`."""
        from transformers import AutoModelForCausalLM

        from experiments.networks import split_attention

        net = split_attention(self.network(AutoModelForCausalLM, source, meta))
        net.loss_type = "ForCausalLM"  # what GPT-2 falls back to, with a warning
        return net
