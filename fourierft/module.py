"""The module that takes the place of a linear layer."""

import warnings
from typing import Any

import torch
from peft import FourierFTConfig as StockConfig
from peft.tuners.tuners_utils import check_adapters_to_merge
from torch import Tensor, nn

from .config import engine
from .layer import FourierFTLayer
from .linear import adapted_linear
from .offloading import recall
from .tensors import HALF
from .weights import frozen_weight, is_plain, is_quantised

NO_MIXED_BATCHES = (
    "adapter_names: FourierFT cannot apply another adapter to each row of a batch; choose one for "
    "all rows with set_adapter"
)


class FourierFTLinear(nn.Module, FourierFTLayer):
    """FourierFT around ``nn.Linear`` or the ``Conv1D`` of transformers (see `FourierFTLayer`).

    Args:
        base_layer: The layer to adapt.
        adapter_name: Name of the first adapter.
        config: Ours or PEFT's own.
        n_frequency: ``n`` for this layer.
    """

    def __init__(
        self,
        base_layer: nn.Module,
        adapter_name: str,
        config: StockConfig,
        n_frequency: int = 1000,
        **kwargs: Any,
    ) -> None:
        super().__init__()
        FourierFTLayer.__init__(self, base_layer, **kwargs)
        self._active_adapter = adapter_name
        self.engine = engine(config)
        self.update_layer(adapter_name, n_frequency, config)

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """``W0 x + sum of DeltaW x`` over the active adapters.

        Args:
            x: (..., in).

        Returns:
            (..., out) in the dtype that the base layer returns.
        """
        if kwargs.get("adapter_names") is not None:
            raise ValueError(NO_MIXED_BATCHES)
        layer = self.base_layer
        parts = self._active_parts() if self._is_adapting() else ()
        if not parts:
            return layer(x, *args, **kwargs)
        if parts[0].coefficients.is_meta and not x.is_meta:
            raise RuntimeError(
                f"adapter {self.active_adapters}: the coefficients are on the meta device and hold "
                "no values: load the adapter before the model runs"
            )
        options = self.fan_in_fan_out, self.engine, self._cache
        if not (args or kwargs) and is_plain(layer):
            return adapted_linear(x, layer.weight, layer.bias, parts, *options)
        result = layer(x, *args, **kwargs)
        x = x.to(result.device)  # to where accelerate has this layer run
        return (result + adapted_linear(x, None, None, parts, *options)).to(result.dtype)

    def _save_to_state_dict(self, *args: Any) -> None:
        recall(self.fourierft_spectrum)  # before it is saved itself
        super()._save_to_state_dict(*args)

    def _apply(self, fn: Any, recurse: bool = True) -> nn.Module:
        result = super()._apply(fn, recurse)
        self._cache.clear()
        self._prepare()
        return result

    @torch.no_grad()
    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Add DeltaW to the weight of the base layer.

        All merged adapters are summed in float32 onto W0 and rounded once. A quantised weight is
        dequantised, added to and quantised again; `merge_error` says what that took.

        Args:
            safe_merge: Leave the layer as it is and raise if the merged weight is not finite.
            adapter_names: Adapters to merge; None for the active ones.

        Raises:
            ValueError: The weight is quantised by something else than bitsandbytes or recomputed
                at every call, or (``safe_merge``) the result is not finite.
        """
        added = [
            name
            for name in check_adapters_to_merge(self, adapter_names)
            if name in self.fourierft_spectrum
        ]
        if not added:
            return
        layer = self.get_base_layer()
        frozen = self._frozen or frozen_weight(layer)
        names = [*self.merged_adapters, *added]
        with torch.inference_mode(False), torch.no_grad():  # the result may be trained through
            update = sum(self.get_delta_weight(name) for name in names)
            merged = frozen.values(layer) + (update.T if self.fan_in_fan_out else update)
        if safe_merge and not torch.isfinite(merged.to(_storage_dtype(layer.weight))).all():
            raise ValueError(
                f"merge: the weight would not be finite with adapters {names}; "
                "their coefficients or the weight are broken"
            )
        stored = frozen.store(layer, merged)
        self._frozen = frozen
        self._cache.clear()
        self.merged_adapters.extend(added)
        self.merge_error = None
        if (is_quantised(layer.weight) or layer.weight.dtype in HALF) and update.any():
            self.merge_error = float((stored - merged).norm() / update.norm())

    def unmerge(self) -> None:
        """Put W0 back, bit for bit as it was before the first merge."""
        if not self.merged:
            warnings.warn("Already unmerged. Nothing to do.", stacklevel=2)
            return
        self._frozen.restore(self.get_base_layer())
        self._frozen = self.merge_error = None
        self.merged_adapters.clear()

    def supports_lora_conversion(self, adapter_name: str = "default") -> bool:
        """Whether PEFT can turn the update into LoRA: it expects the weight's own layout."""
        return not self.fan_in_fan_out

    def __getstate__(self) -> dict[str, Any]:
        # Copies and pickles take the shared transforms anew instead of each carrying its own.
        return {**self.__dict__, "_transforms": {}}

    def __repr__(self) -> str:
        return "fourierft." + super().__repr__()


def _storage_dtype(weight: Tensor) -> torch.dtype:
    """What a merged weight is rounded to first."""
    return torch.float32 if is_quantised(weight) else weight.dtype
