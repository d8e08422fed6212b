"""FourierFT as a PEFT tuner: import this package, then use PEFT's own functions."""

import statistics
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING, PEFT_TYPE_TO_TUNER_MAPPING
from peft.tuners.lora import LoraModel
from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer
from peft.utils import TRANSFORMERS_MODELS_TO_FOURIERFT_TARGET_MODULES_MAPPING, PeftType
from peft.utils.error import NoMatchingPeftModuleError
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from .bypass import weights_read_by
from .combination import add_combination
from .config import (
    EXTENDED_PEFT_TYPE,
    FourierFTConfig,
    StockConfig,
    check_config,
    first_few,
)
from .convolution import FourierFTConv
from .embedding import FourierFTEmbedding
from .forward_pass import unwatch_forwards, watch_forwards
from .frozen_weight import ADAPTABLE, KERNELS, SUPPORTED, is_quantised, merge_problem, weight_shape
from .layer import FourierFTLayer, adapted_layers, size_problem
from .layer_draws import layer_draws, layer_n
from .loading import check_loaded
from .module import FourierFTLinear
from .row_adapters import row_adapters

__all__ = [
    "FourierFTConfig",
    "FourierFTLayer",
    "FourierFTLinear",
    "FourierFTModel",
    "register",
]

_SUPPORTED_NAMES = ", ".join(f"{kind.__module__}.{kind.__name__}" for kind in ADAPTABLE)

_WORTH_A_WARNING = 0.05  # share of the update, in half precision; quantised merges always warn


class FourierFTModel(BaseTuner):
    """A model whose layers carry FourierFT adapters (see `FourierFTLayer`).

    PEFT makes it in ``get_peft_model`` and ``PeftModel.from_pretrained``. A configuration or an
    adapter file that does not fit the model is refused before the model is changed.
    """

    prefix = "fourierft_"
    tuner_layer_cls = FourierFTLayer
    target_module_mapping = TRANSFORMERS_MODELS_TO_FOURIERFT_TARGET_MODULES_MAPPING

    def inject_adapter(
        self, model: nn.Module, adapter_name: str, *args: Any, **kwargs: Any
    ) -> None:
        """Put an adapter into the model (called by PEFT).

        Raises:
            ValueError: Values out of range, ``n`` above the size of a targeted weight, or nothing
                matched ``target_modules`` (then PEFT's `NoMatchingPeftModuleError`).
            TypeError: A targeted module is no linear layer, convolution or embedding.
        """
        targets = self.peft_config[adapter_name].target_modules
        try:
            super().inject_adapter(model, adapter_name, *args, **kwargs)
        except NoMatchingPeftModuleError as error:
            raise NoMatchingPeftModuleError(f"{error} {_linear_modules(model)}") from error
        watch_forwards(model)
        if targets is None or isinstance(targets, str):
            return
        adapted = [
            f".{name}"
            for name, layer in adapted_layers(model).items()
            if adapter_name in layer.fourierft_spectrum
        ]
        unused = [t for t in sorted(targets) if not any(a.endswith(f".{t}") for a in adapted)]
        if unused:
            warnings.warn(
                f"target_modules: {unused} match no adapted module. {_linear_modules(model)}",
                stacklevel=2,
            )

    def add_weighted_adapter(
        self,
        adapters: Sequence[str],
        weights: Sequence[float],
        adapter_name: str,
        combination_type: str = "linear",
        density: float | None = None,
        majority_sign_method: str = "total",
    ) -> None:
        """Add an adapter whose update is the weighted sum of others' updates, exactly.

        Coefficients on common entries add up; where adapters have different entries, the new one
        has all of them. Their alphas and scalings may differ, and so may the adapted layers. A
        module in ``modules_to_save`` is copied from the one adapter that trains it. The new adapter
        is neither active nor trained.

        Args:
            adapters: Names.
            weights: One an adapter; negative ones subtract.
            adapter_name: Name of the new adapter.
            combination_type: ``linear``, or PEFT's ``ties``, ``dare_linear``, ``dare_ties`` and
                ``magnitude_prune``, which prune coefficients before they add them.
            density: Share of the coefficients that pruning keeps.
            majority_sign_method: ``total`` or ``frequency``, see PEFT's `ties`.

        Raises:
            ValueError: Another combination type, unknown adapters, weights that are not finite, or
                adapters that differ in basis or orientation, train biases or train one module
                twice; everything is named.
        """
        add_combination(
            *(self, adapters, weights, adapter_name),
            *(combination_type, density, majority_sign_method),
        )

    def merge_adapter(self, *args: Any, **kwargs: Any) -> None:
        """Merge as PEFT does, and warn of the rounding error, with numbers."""
        super().merge_adapter(*args, **kwargs)
        self._report_rounding(adapted_layers(self.model))

    def merge_and_unload(self, *args: Any, **kwargs: Any) -> nn.Module:
        """Merge as PEFT does, and warn of the rounding error, with numbers."""
        layers = adapted_layers(self.model)
        merged = super().merge_and_unload(*args, **kwargs)
        unwatch_forwards(merged)
        self._report_rounding(layers)
        return merged

    def unload(self) -> nn.Module:
        """Unload as PEFT does."""
        net = super().unload()
        unwatch_forwards(net)
        return net

    def _check_merge_allowed(self) -> None:
        """Name every weight that nothing can be merged into, before the first one is changed."""
        super()._check_merge_allowed()
        problems: dict[str, list[str]] = {}
        for name, layer in adapted_layers(self.model).items():
            if problem := merge_problem(layer.get_base_layer()):
                problems.setdefault(problem, []).append(name)
        if problems:
            listed = [f"{first_few(names)}: {problem}" for problem, names in problems.items()]
            raise ValueError("merge: " + "; ".join(listed))

    @contextmanager
    def _enable_peft_forward_hooks(self, *args: Any, **kwargs: Any) -> Iterator[None]:
        """Give every row its adapter where ``adapter_names`` is passed (called by PEFT)."""
        names = kwargs.get("adapter_names")
        with nullcontext() if names is None else row_adapters(self.model, names, kwargs):
            yield

    @staticmethod
    def _report_rounding(layers: dict[str, FourierFTLayer]) -> None:
        errors = {n: e for n, layer in layers.items() if (e := layer.merge_error) is not None}
        quantised = [is_quantised(layers[name].get_base_layer().weight) for name in errors]
        if not errors or (max(errors.values()) < _WORTH_A_WARNING and not any(quantised)):
            return
        worst = max(errors, key=lambda name: errors[name])
        warnings.warn(
            f"merge: rounding left an error of {statistics.median(errors.values()):.1%} of "
            f"|DeltaW| (median of {len(errors)} layers; {errors[worst]:.1%} in {worst}). Quantised "
            "and half-precision weights cannot hold small changes: keep the adapter apart, or "
            "merge into a float32 base model",
            stacklevel=3,
        )

    def _check_new_adapter_config(self, config: StockConfig) -> None:
        super()._check_new_adapter_config(config)
        check_config(config)

    def _add_modules_to_save_to_tie(self, config: StockConfig, tied: list[str]) -> None:
        LoraModel._add_modules_to_save_to_tie(self, config, tied)  # nothing in it is LoRA's

    def _add_targets_to_tie(self, config: StockConfig, tied: list[str]) -> None:
        raise ValueError(
            f"ensure_weight_tying: got an embedding in target_modules, tied to {', '.join(tied)}; "
            "allowed in modules_to_save or trainable_token_indices alone"
        )

    def _prepare_model(self, peft_config: StockConfig, model: nn.Module) -> None:
        """Check every targeted module before the first one is replaced."""
        wrong_types, wrong_sizes, matched_keys = [], [], set()
        inside: tuple[str, ...] = ()
        for name, module in model.named_modules():
            if name.startswith(inside) or not name:
                continue
            if isinstance(module, BaseTunerLayer):
                inside = (*inside, name + ".")
            if not self._check_target_module_exists(peft_config, name):
                continue
            layer = module.get_base_layer() if isinstance(module, BaseTunerLayer) else module
            if not isinstance(layer, ADAPTABLE):
                wrong_types.append(f"{name} ({type(layer).__module__}.{type(layer).__name__})")
                continue
            if getattr(layer, "max_norm", None) is not None:
                wrong_sizes.append(
                    f"{name}: max_norm={layer.max_norm} changes W0 at every call, which no update "
                    "can be added to: name it in exclude_modules"
                )
            key, _ = layer_n(peft_config, name)
            matched_keys.add(key)
            draws = layer_draws(peft_config, name)
            if problem := size_problem(peft_config, weight_shape(layer), draws, name):
                wrong_sizes.append(problem)
        if wrong_types:
            raise TypeError(
                f"target_modules: got {'; '.join(wrong_types)}, allowed {_SUPPORTED_NAMES}"
            )
        if wrong_sizes:
            raise ValueError(first_few(wrong_sizes))
        unused = sorted(set(peft_config.n_frequency_pattern or {}) - matched_keys)
        if matched_keys and unused:
            warnings.warn(f"n_frequency_pattern: {unused} match no adapted module", stacklevel=2)

    def _create_and_replace(
        self,
        peft_config: StockConfig,
        adapter_name: str,
        target: nn.Module,
        target_name: str,
        parent: nn.Module,
        current_key: str,
        parameter_name: str | None = None,
    ) -> None:
        layer = target.get_base_layer() if isinstance(target, BaseTunerLayer) else target
        if not isinstance(layer, ADAPTABLE):
            raise TypeError(
                f"target_modules: got {current_key} ({type(layer).__module__}."
                f"{type(layer).__name__}), allowed {_SUPPORTED_NAMES}"
            )
        if isinstance(layer, Conv1D):
            # Here the layer itself knows; PEFT's own tuner warns when the file does not say it.
            peft_config.fan_in_fan_out = True
        draws = layer_draws(peft_config, current_key)
        if isinstance(target, FourierFTLayer):
            target.update_layer(adapter_name, draws, peft_config)
            return
        adapted = _module_class(layer)(target, adapter_name, peft_config, draws)
        adapted.weight_is_read = target_name in weights_read_by(type(parent))
        if adapter_name not in self.active_adapters:
            adapted.requires_grad_(False)  # an added adapter trains only once it is set active
        self._replace_module(parent, target_name, adapted, target)

    def _replace_module(
        self, parent: nn.Module, name: str, new_module: nn.Module, old_module: nn.Module
    ) -> None:
        # PEFT's would copy ``weight`` over when unloading, which a head of several layers has not,
        # and move coefficients to the weight, which is on the meta device where it is offloaded.
        setattr(parent, name, new_module)

    @classmethod
    def _remap_adapter_state_dict_for_load(
        cls, model: nn.Module, config: StockConfig, adapter_name: str, state_dict: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        """Compare what is loaded with the model: PEFT would only warn about what is missing."""
        loaded = super()._remap_adapter_state_dict_for_load(model, config, adapter_name, state_dict)
        check_loaded(model, config, adapter_name, loaded)
        return loaded


def register() -> None:
    """Replace PEFT's own FourierFT tuner with this one, in this process (done on import)."""
    for peft_type in (PeftType.FOURIERFT, EXTENDED_PEFT_TYPE):
        PEFT_TYPE_TO_CONFIG_MAPPING[peft_type] = FourierFTConfig
    PEFT_TYPE_TO_TUNER_MAPPING[PeftType.FOURIERFT] = FourierFTModel


def _module_class(layer: nn.Module) -> type[FourierFTLinear]:
    if isinstance(layer, nn.Embedding):
        return FourierFTEmbedding
    return FourierFTConv if isinstance(layer, KERNELS) else FourierFTLinear


def _linear_modules(model: nn.Module) -> str:
    names = {
        name.removesuffix(".base_layer").rpartition(".")[2]
        for name, module in model.named_modules()
        if isinstance(module, SUPPORTED)
    }
    return f"Linear modules of this model: {', '.join(sorted(names)) or 'none'}."
