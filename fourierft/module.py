"""The module that takes the place of a linear layer."""

import warnings
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from peft import FourierFTConfig as StockConfig
from peft.tuners.tuners_utils import check_adapters_to_merge
from torch import Tensor, nn

from .bases.few_rows import FewRows
from .config import engine
from .engine.kept_weights import raise_if_stale
from .engine.linear import adapted_linear
from .engine.mixed_batch import BASE, group_rows, mixed_update, prefers_groups
from .engine.weight_cache import AdapterTerm
from .forward_pass import find_pass
from .frozen_weight import (
    compute_dtype,
    frozen_weight,
    is_plain,
    is_plain_4bit,
    is_quantised,
)
from .layer import FourierFTLayer
from .offloading import restore_offloaded
from .spectrum import Draw
from .tensors import HALF


class FourierFTLinear(nn.Module, FourierFTLayer):
    """FourierFT around ``nn.Linear`` or the ``Conv1D`` of transformers (see `FourierFTLayer`).

    Args:
        base_layer: The layer to adapt.
        adapter_name: Name of the first adapter.
        config: Ours or PEFT's own.
        draws: Draws of this layer's entries.
    """

    def __init__(
        self,
        base_layer: nn.Module,
        adapter_name: str,
        config: StockConfig,
        draws: tuple[Draw, ...],
        **kwargs: Any,
    ) -> None:
        nn.Module.__init__(self)
        FourierFTLayer.__init__(self, base_layer, **kwargs)
        self._active_adapter = adapter_name
        self.engine = engine(config)
        self.update_layer(adapter_name, draws, config)

    def forward(
        self, x: Tensor, *args: Any, adapter_names: Sequence[str] | None = None, **kwargs: Any
    ) -> Tensor:
        """Return ``W0 x + sum of DeltaW x`` over the active adapters.

        Args:
            x: (..., in).
            *args: Further arguments of the base layer.
            adapter_names: Per row of ``x`` the adapter to use instead, ``__base__`` for none.
            **kwargs: Further keyword arguments of the base layer.

        Returns:
            (..., out) in the dtype that the base layer returns.

        Raises:
            ValueError: ``adapter_names`` does not fit the rows, or adapters are merged.
        """
        layer, adapting = self.base_layer, self._is_adapting()
        if adapter_names is not None and (adapting or self.merged_adapters):
            names = self._names_of_rows(x, adapter_names)
            if len(set(names)) > 1:
                return self._forward_rows(x, names, *args, **kwargs)
            terms = [self._term(name) for name in set(names) - {BASE}]
        else:
            terms = self._active_terms() if adapting else []
        if not terms:
            return layer(x, *args, **kwargs)
        self._check_values(x, terms)
        return self._forward_terms(x, terms, *args, **kwargs)

    def _forward_terms(
        self, x: Tensor, terms: Sequence[AdapterTerm], *args: Any, **kwargs: Any
    ) -> Tensor:
        """Return ``W0 x + sum of DeltaW x`` over some adapters, at least one."""
        layer = self.base_layer
        options = self.fan_in_fan_out, self.engine, self._cache
        plain = not (args or kwargs)
        four_bits = plain and not torch.compiler.is_compiling() and is_plain_4bit(layer)
        if four_bits or (plain and is_plain(layer)):
            if "_hf_hook" in layer.__dict__:
                x = x.to(layer.weight.device)  # all that accelerate's hook would do
            weight, bias = layer.weight, layer.bias
            if not four_bits:
                running = find_pass(self)
                prepare = None if running is None else partial(running.get_weight, self)
                return adapted_linear(x, weight, bias, terms, *options, prepare)
            dtype = compute_dtype(layer, x)
            bias = None if bias is None else bias.to(dtype)
            return adapted_linear(x.to(dtype), weight, bias, terms, *options).to(x.dtype)
        result = layer(x, *args, **kwargs)
        if getattr(result, "shape", None) != (*x.shape[:-1], self.out_features):
            raise TypeError(
                f"target_modules: the output of {type(layer).__name__} (a "
                f"{type(layer).__bases__[0].__name__}) is not W x + b, so that no update of W can "
                "be added to it: name it in exclude_modules"
            )
        x = x.to(result.device)  # to where accelerate has this layer run
        return (result + adapted_linear(x, None, None, terms, *options)).to(result.dtype)

    def _check_values(self, x: Tensor, terms: Sequence[AdapterTerm]) -> None:
        if terms[0].coefficients.is_meta and not x.is_meta:
            raise RuntimeError(
                f"adapter {self.active_adapters}: the coefficients are on the meta device and hold "
                "no values: load the adapter before the model runs"
            )

    def _names_of_rows(self, x: Tensor, adapter_names: Sequence[str]) -> list[str]:
        """Return the adapter of each row of ``x``; base if this layer has none of that name."""
        if len(adapter_names) != len(x):
            raise ValueError(
                f"adapter_names: got {len(adapter_names)} names for {len(x)} rows of an input of "
                f"shape {tuple(x.shape)}, allowed one a row"
            )
        if self.merged_adapters:
            raise ValueError("adapter_names: adapters are merged; call unmerge_adapter() first")
        return [name if name in self.fourierft_scaling else BASE for name in adapter_names]

    def _forward_rows(self, x: Tensor, names: Sequence[str], *args: Any, **kwargs: Any) -> Tensor:
        """Return ``W0 x + DeltaW x`` with each row's own adapter."""
        layer, rows = self.base_layer, group_rows(names)
        adapted = [name for name in rows if name != BASE]
        terms = [self._row_term(name) for name in adapted]
        self._check_values(x, terms)
        x_rows = x.reshape(len(x), -1, self.in_features)
        shape = self.out_features, self.in_features
        n = max(term.transform.n for term in terms)
        plain = not (args or kwargs) and is_plain(layer)
        if plain and prefers_groups(x_rows.shape[0] * x_rows.shape[1], len(rows), n, shape, True):
            places = [torch.tensor(rows[name], device=x.device) for name in rows]
            outputs = [
                self._product(x.index_select(0, place), name)
                for name, place in zip(rows, places, strict=True)
            ]
            return torch.cat(outputs).index_select(0, torch.cat(places).argsort())
        place = {name: index for index, name in enumerate(adapted)}
        result = layer(x, *args, **kwargs)
        x_rows = x_rows.to(result.device)
        update = mixed_update(x_rows, terms, [place.get(name, -1) for name in names])
        return (result + update.view(result.shape)).to(result.dtype)

    def _product(self, x: Tensor, adapter: str) -> Tensor:
        """Multiply with W0 + DeltaW of one adapter, which is not cached."""
        layer = self.base_layer
        if adapter == BASE:
            return layer(x)
        engine = self.engine._replace(memory="recompute")
        term = [self._term(adapter)]
        return adapted_linear(x, layer.weight, layer.bias, term, self.fan_in_fan_out, engine)

    def _row_term(self, adapter: str) -> AdapterTerm:
        """Return an adapter with its transform as (out, in), also where the weight is (in, out)."""
        term = self._term(adapter)
        if not self.fan_in_fan_out:
            return term
        return term._replace(transform=self._shared_transform(adapter, False))

    def _save_to_state_dict(self, *args: Any) -> None:
        raise_if_stale()
        restore_offloaded(self.fourierft_spectrum)  # before it is saved itself
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
        dequantised, added to and quantised again; `merge_error` holds the rounding error.

        Args:
            safe_merge: Leave the layer as it is and raise if the merged weight is not finite.
            adapter_names: Adapters to merge; None for the active ones.

        Raises:
            ValueError: The weight is quantised by a library other than bitsandbytes or recomputed
                at every call, or (``safe_merge``) the result is not finite.
        """
        added = [
            name
            for name in check_adapters_to_merge(self, adapter_names)
            if name in self.fourierft_spectrum
        ]
        if not added:
            return
        raise_if_stale()
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
        if self._frozen is None:
            warnings.warn("Already unmerged. Nothing to do.", stacklevel=2)
            return
        self._frozen.restore(self.get_base_layer())
        self._frozen = self.merge_error = None
        self.merged_adapters.clear()

    def supports_lora_conversion(self, adapter_name: str = "default") -> bool:
        """Return True if PEFT can turn the update into LoRA: it expects the weight's own layout."""
        if not isinstance(self.transform(adapter_name), FewRows):
            warnings.warn(
                "convert_to_lora: entries in all rows make an update of full rank, of which a "
                "small rank keeps little: fourierft.lora_errors(model) tells how much",
                stacklevel=3,
            )
        return not self.fan_in_fan_out

    def __getstate__(self) -> dict[str, Any]:
        # Copies and pickles take the shared transforms anew instead of each carrying its own.
        return {**self.__dict__, "_transforms": {}}

    def __repr__(self) -> str:
        return "fourierft." + super().__repr__()


def _storage_dtype(weight: Tensor) -> torch.dtype:
    """Return the type that a merged weight is rounded to first."""
    return torch.float32 if is_quantised(weight) else weight.dtype
