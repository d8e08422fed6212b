"""The module that takes the place of an embedding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .bases.transform import scaled
from .bases.update_rows import update_rows
from .engine.mixed_batch import BASE, group_rows
from .engine.weight_cache import AdapterTerm
from .module import FourierFTLinear
from .tensors import without_autocast


class FourierFTEmbedding(FourierFTLinear):
    """FourierFT around ``nn.Embedding``: DeltaW is (tokens, features).

    The rows of DeltaW that a batch asks for are computed one by one, the others not at all.
    """

    def supports_lora_conversion(self, adapter_name: str = "default") -> bool:
        """Return False: PEFT writes linear layers alone."""
        return False

    def _forward_terms(
        self, x: Tensor, terms: Sequence[AdapterTerm], *args: Any, **kwargs: Any
    ) -> Tensor:
        result = self.base_layer(x, *args, **kwargs)
        for term in terms:
            result = result + self._look_up(x, term).to(result)
        return result

    def _forward_rows(self, x: Tensor, names: Sequence[str], *args: Any, **kwargs: Any) -> Tensor:
        result = self.base_layer(x, *args, **kwargs)
        for name, rows in group_rows(names).items():
            if name != BASE:
                at = torch.tensor(rows, device=x.device)
                update = self._look_up(x.index_select(0, at), self._term(name)).to(result)
                result = result.index_add(0, at.to(result.device), update)
        return result

    def _look_up(self, tokens: Tensor, term: AdapterTerm) -> Tensor:
        """Return rows of DeltaW, multiplied as the base layer multiplies its own."""
        values = scaled(term.coefficients, term.alpha)
        with without_autocast(values.device.type):
            if tokens.is_meta:
                update = F.embedding(tokens, term.transform.update(values))
            else:
                found, place = tokens.to(values.device).unique(return_inverse=True)
                update = F.embedding(place, update_rows(term.transform, values, found))
            scale = self._get_embed_scale()
            return update if scale is None else update * scale.to(update)
