"""Encoders with a classification or regression head: RoBERTa, BERT."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from experiments.models.transformer import Transformer, labels

if TYPE_CHECKING:
    from torch import nn

    from experiments.models.head import Head


@dataclass(kw_only=True)
class Encoder(Transformer):
    """RoBERTa or BERT with a sequence classification (or regression) head."""

    def processor(self, source: str | None, *, device: str = "auto") -> Any:
        """Return the tokenizer; without weights a byte tokenizer.

        Full-size rehearsals then need no download.
        """
        if source is not None:
            return self.load_tokenizer(source)
        from experiments.models.byte_tokenizers import make_byte_tokenizer

        return make_byte_tokenizer(self.sizes.get("max_position_embeddings", 512))

    def build(
        self, head: Head, source: str | None, *, meta: bool = False, device: str = "auto"
    ) -> nn.Module:
        """See `Model.build`."""
        from transformers import AutoModel, AutoModelForSequenceClassification

        if head.kind == "none":
            return self.network(AutoModel, source, meta)
        return self.network(AutoModelForSequenceClassification, source, meta, **labels(head))
