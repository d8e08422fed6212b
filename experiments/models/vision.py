"""Image classifiers: ViT."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from experiments.models.transformer import Transformer

if TYPE_CHECKING:
    from torch import nn

    from experiments.tasks import Head


@dataclass(kw_only=True)
class VisionTransformer(Transformer):
    """ViT; so far counted, not trained."""

    def build(self, head: Head, source: str | None, *, meta: bool = False) -> nn.Module:
        """See `Model.build`."""
        from transformers import AutoModel

        return self.network(AutoModel, source, meta)
