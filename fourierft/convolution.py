"""The module that takes the place of a convolution."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .engine.linear import adapted_weight
from .engine.mixed_batch import BASE, group_rows
from .engine.weight_cache import AdapterTerm, summed_update
from .frozen_weight import is_plain_kernel
from .module import FourierFTLinear


class FourierFTConv(FourierFTLinear):
    """FourierFT around ``nn.Conv1d``, ``nn.Conv2d`` or ``nn.Conv3d``.

    The kernel is the matrix that it is in memory, (out, in / groups * size), and DeltaW is
    reshaped to it. Merging and saving are those of linear layers. W0 + DeltaW is built at every
    call.
    """

    def get_delta_weight(self, adapter_name: str) -> Tensor:
        """Return DeltaW in the shape of the kernel; see `FourierFTLayer.get_delta_weight`."""
        return super().get_delta_weight(adapter_name).view(self.get_base_layer().weight.shape)

    def supports_lora_conversion(self, adapter_name: str = "default") -> bool:
        """Return False: PEFT would decompose every slice of the kernel by itself."""
        return False

    def _forward_terms(
        self, x: Tensor, terms: Sequence[AdapterTerm], *args: Any, **kwargs: Any
    ) -> Tensor:
        layer = self.base_layer
        if not (args or kwargs) and is_plain_kernel(layer):
            kernel = adapted_weight(layer.weight.flatten(1), terms, self.engine)
            return layer._conv_forward(x, kernel.view(layer.weight.shape), layer.bias)
        result = layer(x, *args, **kwargs)
        return result + self._convolve(x.to(result.device), terms).to(result.dtype)

    def _forward_rows(self, x: Tensor, names: Sequence[str], *args: Any, **kwargs: Any) -> Tensor:
        result = self.base_layer(x, *args, **kwargs)
        for name, rows in group_rows(names).items():
            if name != BASE:
                at = torch.tensor(rows, device=result.device)
                own = x.to(result.device).index_select(0, at)
                update = self._convolve(own, [self._term(name)]).to(result.dtype)
                result = result.index_add(0, at, update)
        return result

    def _convolve(self, x: Tensor, terms: Sequence[AdapterTerm]) -> Tensor:
        """Convolve with DeltaW alone."""
        layer = self.get_base_layer()
        update = summed_update(terms).view(layer.weight.shape)
        return layer._conv_forward(x, update.to(x.dtype), None)
