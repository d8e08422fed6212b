"""The adapted linear layer."""

import warnings
from typing import Any

import torch
from peft import FourierFTConfig as StockConfig
from peft.tuners.tuners_utils import BaseTunerLayer, check_adapters_to_merge
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from .config import alpha, basis, engine, frequency_bias
from .effective import Part, WeightCache
from .linear import Engine, adapted_linear
from .spectrum import sample_entries
from .tensors import HALF
from .transform import Transform, apply_transform, transform_of
from .weights import SUPPORTED, FrozenWeight, frozen_weight, is_plain, is_quantised, weight_shape


class FourierFTLayer(BaseTunerLayer):
    """The adapters of one linear layer.

    ``h = W0 x + DeltaW x`` with ``DeltaW = alpha * Re(ifft2(ToDense(c, E)))`` (Eq. 2-4). Per
    adapter, the coefficients ``c`` are trained; the entries ``E`` follow from shape, n, seed and
    bias, are drawn when first needed (never on the meta device), are shared by all layers of the
    same shape, and are not saved. ``c`` starts standard normal, so **DeltaW is not zero at step
    0**, unless ``init_weights`` is set.

    DeltaW and W0 are added once, not multiplied apart: see `adapted_linear`, and `Engine` for what
    is kept in memory. ``engine`` may be replaced at any time (`configure`).

    Merging keeps W0, so that `unmerge` restores it bit for bit: while merged, a layer holds its
    weight twice. After ``merge_and_unload`` only the merged weight is left.
    """

    # Names that PEFT reads. The first is also the key in adapter files.
    adapter_layer_names = ("fourierft_spectrum",)
    other_param_names = (
        "fourierft_n_frequency",
        "fourierft_scaling",
        "fourierft_random_loc_seed",
        "fourierft_frequency_bias",
        "fourierft_basis",
        "_transforms",
    )

    def __init__(self, base_layer: nn.Module, **kwargs: Any) -> None:
        self.base_layer = base_layer
        self.fourierft_spectrum = nn.ParameterDict({})
        self.fourierft_n_frequency: dict[str, int] = {}
        self.fourierft_scaling: dict[str, float] = {}
        self.fourierft_random_loc_seed: dict[str, int] = {}
        self.fourierft_frequency_bias: dict[str, tuple[float | None, float]] = {}
        self.fourierft_basis: dict[str, str] = {}
        self._transforms: dict[str, Transform] = {}
        self._cache = WeightCache()
        self.engine = Engine()
        self._disable_adapters = False
        self.merged_adapters: list[str] = []
        self._frozen: FrozenWeight | None = None
        self.merge_error: float | None = None
        """Of the last merge into a half-precision or quantised weight: |stored - (W0 + DeltaW)| /
        |DeltaW|, what rounding took from the update."""
        self.kwargs = kwargs

        layer = self.get_base_layer()
        if not isinstance(layer, SUPPORTED):
            raise TypeError(f"FourierFT: {type(layer).__name__} cannot be adapted")
        self.out_features, self.in_features = weight_shape(layer)
        # Conv1D stores its weight as (in, out).
        self.fan_in_fan_out = isinstance(layer, Conv1D)

    def update_layer(self, adapter_name: str, n_frequency: int, config: StockConfig) -> None:
        """Add an adapter with fresh coefficients.

        Raises:
            ValueError: ``n_frequency`` is below 1 or above the number of weights.
        """
        cells = self.out_features * self.in_features
        if not 1 <= n_frequency <= cells:
            raise ValueError(
                f"n_frequency: got {n_frequency}, allowed 1 to "
                f"{self.out_features} * {self.in_features} = {cells}"
            )
        self.fourierft_n_frequency[adapter_name] = n_frequency
        self.fourierft_scaling[adapter_name] = alpha(config, (self.out_features, self.in_features))
        self.fourierft_random_loc_seed[adapter_name] = config.random_loc_seed
        self.fourierft_frequency_bias[adapter_name] = frequency_bias(config)
        self.fourierft_basis[adapter_name] = basis(config)
        self._transforms.pop(adapter_name, None)

        # Drawn even where zeros replace them: the random stream then moves as it does with PEFT,
        # and what is initialised next (a head) does not depend on this flag.
        coefficients = torch.randn(n_frequency)
        if config.init_weights:
            coefficients = torch.zeros_like(coefficients)
        self.fourierft_spectrum[adapter_name] = nn.Parameter(coefficients)

        self._move_adapter_to_device_of_base_layer(adapter_name)
        self.set_adapter(self.active_adapters, inference_mode=config.inference_mode)
        self._prepare()

    def transform(self, adapter_name: str) -> Transform:
        """What makes an update of coefficients, in the layout of the base layer's weight.

        Shared with the other layers of this shape, where the coefficients live.
        """
        transform = self._transforms.get(adapter_name)
        device = self.fourierft_spectrum[adapter_name].device
        if transform is None or transform.device != device:
            transform = self._transforms[adapter_name] = transform_of(
                (self.out_features, self.in_features),
                self.fourierft_n_frequency[adapter_name],
                self.fourierft_random_loc_seed[adapter_name],
                self.fourierft_frequency_bias[adapter_name],
                self.fourierft_basis[adapter_name],
                device,
                self.fan_in_fan_out,
            )
        return transform

    def entries(self, adapter_name: str) -> Tensor:
        """Rows and columns of the trained entries, int64 (2, n), where the coefficients live.

        Shared with the other layers of this shape; not to be written to.
        """
        return sample_entries(
            (self.out_features, self.in_features),
            self.fourierft_n_frequency[adapter_name],
            self.fourierft_random_loc_seed[adapter_name],
            *self.fourierft_frequency_bias[adapter_name],
            device=self.fourierft_spectrum[adapter_name].device,
        )

    def get_delta_weight(self, adapter_name: str) -> Tensor:
        """DeltaW of an adapter, (out, in), also where the base layer stores (in, out).

        float32 whatever the dtype of model and coefficients (float64 for float64 coefficients);
        differentiable.
        """
        part = self._part(adapter_name)
        update = apply_transform(part.transform, part.coefficients, part.alpha)
        return update.t().contiguous() if self.fan_in_fan_out else update

    def _part(self, adapter_name: str) -> Part:
        return Part(
            self.transform(adapter_name),
            self.fourierft_scaling[adapter_name],
            self.fourierft_spectrum[adapter_name],
        )

    def delete_adapter(self, adapter_name: str) -> None:
        """See PEFT's."""
        super().delete_adapter(adapter_name)
        self._cache.clear()

    def _prepare(self) -> None:
        """Make what the forward pass looks up: a compiler finds it, and breaks no graph."""
        for adapter_name, coefficients in self.fourierft_spectrum.items():
            if not coefficients.is_meta:
                self.transform(adapter_name)


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
        layer = self.base_layer
        if self._disable_adapters or self.merged_adapters:
            if self._disable_adapters and self.merged_adapters:
                self.unmerge()
            return layer(x, *args, **kwargs)
        parts = [
            self._part(name) for name in self.active_adapters if name in self.fourierft_scaling
        ]
        if not parts:
            return layer(x, *args, **kwargs)
        options = self.fan_in_fan_out, self.engine, self._cache
        if not (args or kwargs) and is_plain(layer):
            return adapted_linear(x, layer.weight, layer.bias, parts, *options)
        result = layer(x, *args, **kwargs)
        return (result + adapted_linear(x, None, None, parts, *options)).to(result.dtype)

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
            ValueError: The weight is quantised by something else than bitsandbytes, or
                (``safe_merge``) the result is not finite.
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


def adapted_layers(model: nn.Module) -> dict[str, FourierFTLayer]:
    """The FourierFT layers of a model by their paths, in its order."""
    return {
        name: module for name, module in model.named_modules() if isinstance(module, FourierFTLayer)
    }


def _storage_dtype(weight: Tensor) -> torch.dtype:
    """What a merged weight is rounded to first."""
    return torch.float32 if is_quantised(weight) else weight.dtype
