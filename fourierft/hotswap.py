"""Replacing an adapter's values in place: no module, parameter or compiled code changes."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from peft import PeftConfig, PeftModel
from peft.tuners.tuners_utils import check_target_module_exists
from peft.utils import load_peft_weights
from torch import Tensor, nn

from .config import (
    ORIENTATIONS,
    FourierFTConfig,
    StockConfig,
    alpha,
    applied_from_right,
    basis,
    first_few,
)
from .layer import FourierFTLayer, adapted_layers
from .layer_draws import layer_draws

_PREFIX = "base_model.model."
_ENDING = ".fourierft_spectrum"


class PreparedSwap:
    """Values that can take the place of an adapter's, read and compared with the model.

    Args:
        targets: Parameters of the model; themselves, as a cast gives them other memory.
        values: Values of the same shapes.
        layers: The layers that the adapter adapts.
        adapter_name: Name of the adapter.
    """

    def __init__(
        self,
        targets: list[Tensor],
        values: list[Tensor],
        layers: Collection[FourierFTLayer],
        adapter_name: str,
    ) -> None:
        self._targets = targets
        self._values = values
        self._layers = layers
        self._adapter_name = adapter_name

    @torch.no_grad()
    def swap(self) -> None:
        """Write the values into the model. Can be called again, after another was swapped in.

        Raises:
            ValueError: The adapter is merged.
        """
        if problem := _merge_problem(self._layers, self._adapter_name):
            raise ValueError(f"hotswap: {problem}")
        torch._foreach_copy_(self._targets, self._values)


def hotswap_adapter(
    model: nn.Module,
    model_name_or_path: str | Path,
    adapter_name: str,
    torch_device: str | None = None,
    **kwargs: Any,
) -> None:
    """Replace an adapter's values by those of a saved one; it keeps its name.

    As PEFT's function of this name does for LoRA, which refuses FourierFT: in place, so that a
    compiled model is not compiled again. Coefficients with another alpha are multiplied, so that
    the alpha of the model holds for them. Layers that the new adapter has not get zeros.

    Args:
        model: A `PeftModel`, compiled or not.
        model_name_or_path: Folder that PEFT saved, or a name on the hub.
        adapter_name: Name of the adapter in the model.
        torch_device: Device that values are read to; by default that of each parameter.
        **kwargs: Options of `PeftConfig.from_pretrained` and `peft.utils.load_peft_weights`.

    Raises:
        ValueError: No such adapter, it is merged, or the new one has other entries, another basis
            or orientation, further layers or heads, or damaged values, or one of both trained
            biases or tokens. The model is as it was.
    """
    prepare_swap(model, model_name_or_path, adapter_name, torch_device, **kwargs).swap()


def prepare_swap(
    model: nn.Module,
    model_name_or_path: str | Path,
    adapter_name: str,
    torch_device: str | None = None,
    **kwargs: Any,
) -> PreparedSwap:
    """Read what `hotswap_adapter` would write; see there for arguments and errors."""
    peft_model = getattr(model, "_orig_mod", model)
    known = getattr(peft_model, "peft_config", {})
    if not isinstance(peft_model, PeftModel) or adapter_name not in known:
        raise ValueError(
            f"hotswap: got adapter {adapter_name!r}, allowed {', '.join(known) or 'a PeftModel'}"
        )
    source = str(model_name_or_path)
    config = PeftConfig.from_pretrained(source, **kwargs)
    if not isinstance(config, FourierFTConfig):
        raise ValueError(f"{source}: an adapter of the type {config.peft_type}, not of FourierFT")
    found = load_peft_weights(source, device=torch_device or "cpu", **kwargs)
    state = {name.removeprefix(_PREFIX): tensor for name, tensor in found.items()}
    net = peft_model.get_base_model()
    layers = {
        name: layer
        for name, layer in adapted_layers(net).items()
        if adapter_name in layer.fourierft_spectrum
    }
    marker = f".modules_to_save.{adapter_name}."
    heads = {
        name.replace(marker, "."): parameter
        for name, parameter in net.named_parameters(remove_duplicate=False)
        if marker in name
    }
    problems = [
        *_find_kept_values(known[adapter_name], adapter_name),
        *_find_problems(layers, config, adapter_name, state, heads),
    ]
    if problems:
        raise ValueError(f"{source}: {first_few(problems)}")
    targets: list[Tensor] = []
    values = []
    for name, layer in layers.items():
        c = layer.coefficients(adapter_name)
        new = state.get(name + _ENDING)
        if new is None:
            new = torch.zeros_like(c)
        shape = layer.out_features, layer.in_features
        factor = alpha(config, shape) / layer.fourierft_alpha[adapter_name]
        targets.append(c)
        values.append((new if factor == 1 else new.double() * factor).to(c))
    for name, parameter in heads.items():
        targets.append(parameter)
        values.append(state[name].to(parameter))
    return PreparedSwap(targets, values, layers.values(), adapter_name)


def _merge_problem(layers: Collection[FourierFTLayer], adapter_name: str) -> str | None:
    if any(adapter_name in layer.merged_adapters for layer in layers):
        return f"adapter {adapter_name!r} is merged; call unmerge_adapter() first"
    return None


def _find_kept_values(own: PeftConfig, adapter_name: str) -> Iterator[str]:
    """Name what the model's adapter trained that a swap would leave, mixing both adapters."""
    for key, unset in (("trainable_token_indices", None), ("bias", "none")):
        value = getattr(own, key, unset)
        if value and value != unset:
            yield (
                f"{key}: got {value!r} for adapter {adapter_name!r} of the model, "
                f"allowed {unset!r} (use load_adapter)"
            )


def _find_problems(
    layers: Mapping[str, FourierFTLayer],
    config: StockConfig,
    adapter_name: str,
    state: Mapping[str, Tensor],
    heads: Mapping[str, Tensor],
) -> Iterator[str]:
    if problem := _merge_problem(layers.values(), adapter_name):
        yield problem
    if config.bias != "none":
        yield f"bias: got {config.bias!r}, allowed 'none'"
    side = ORIENTATIONS[applied_from_right(config)]
    for name, layer in layers.items():
        for key, found, expected in (
            ("entries", layer_draws(config, name), layer.fourierft_draws[adapter_name]),
            ("basis", basis(config), layer.fourierft_basis[adapter_name]),
            ("orientation", side, ORIENTATIONS[layer.fourierft_from_right[adapter_name]]),
        ):
            if found != expected:
                yield f"{name}: {key} found {found}, expected {expected} (use load_adapter)"
        c, new = layer.fourierft_spectrum[adapter_name], state.get(name + _ENDING)
        if new is None and check_target_module_exists(config, name):
            yield f"{name}: missing"
        elif new is not None and new.shape != c.shape:
            yield f"{name}: found shape {tuple(new.shape)}, expected {tuple(c.shape)}"
    for name in sorted(state.keys() - {name + _ENDING for name in layers} - heads.keys()):
        yield f"{name}: not of adapter {adapter_name!r} in this model"
    for name, parameter in heads.items():
        if name not in state or state[name].shape != parameter.shape:
            yield f"{name}: missing, or of another shape than {tuple(parameter.shape)}"
    for name, tensor in state.items():
        if not torch.isfinite(tensor).all():
            yield f"{name}: not finite"
