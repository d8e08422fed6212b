"""A new adapter as a weighted sum of others."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTuner
from peft.utils import merge_utils
from peft.utils.other import ModulesToSaveWrapper
from torch import Tensor

from .config import (
    FourierFTConfig,
    StockConfig,
    applied_from_right,
    basis,
    entry_region,
    first_few,
)
from .layer import FourierFTLayer, adapted_layers
from .layer_draws import layer_draws
from .spectrum import Draw

COMBINATIONS = ("linear", "ties", "dare_linear", "dare_ties", "magnitude_prune")
_COPIED = ("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern")


def add_combination(
    tuner: BaseTuner,
    adapters: Sequence[str],
    weights: Sequence[float],
    adapter_name: str,
    combination_type: str,
    density: float | None,
    majority_sign_method: str,
) -> None:
    """See `FourierFTModel.add_weighted_adapter`."""
    problems = list(
        _find_problems(tuner, adapters, weights, adapter_name, combination_type, density)
    )
    if problems:
        raise ValueError("add_weighted_adapter: " + "; ".join(problems))
    layers = {
        name: layer
        for name, layer in adapted_layers(tuner.model).items()
        if any(adapter in layer.fourierft_spectrum for adapter in adapters)
    }
    configs = {adapter: tuner.peft_config[adapter] for adapter in adapters}
    tuner.peft_config[adapter_name] = _make_config(configs, layers)
    try:
        tuner.inject_adapter(tuner.model, adapter_name)
    except (ValueError, TypeError):
        del tuner.peft_config[adapter_name]
        raise
    options: dict[str, Any] = {"density": density}
    if combination_type.endswith("ties"):
        options["majority_sign_method"] = majority_sign_method
    for layer in layers.values():
        parts = [(one, w) for one, w in zip(adapters, weights, strict=True) if _has(layer, one)]
        rows = [_on_entries_of(layer, adapter_name, one) for one, _ in parts]
        scale = torch.tensor([weight for _, weight in parts], dtype=torch.float64)
        if combination_type == "linear":
            total = (torch.stack(rows) * scale[:, None].to(rows[0].device)).sum(0)
        else:
            combine = getattr(merge_utils, combination_type)
            total = combine(rows, scale.to(rows[0].device), **options)
        dtype = layer.coefficients(parts[0][0]).dtype
        layer.coefficients(adapter_name).data = total.to(dtype)
    _copy_heads(tuner, adapters, adapter_name)
    tuner.set_requires_grad(adapter_name, False)


def _has(layer: FourierFTLayer, adapter: str) -> bool:
    return adapter in layer.fourierft_spectrum


def _find_problems(
    tuner: BaseTuner,
    adapters: Sequence[str],
    weights: Sequence[float],
    adapter_name: str,
    combination_type: str,
    density: float | None,
) -> Iterator[str]:
    known = list(tuner.peft_config)
    if isinstance(adapters, str) or not adapters:
        yield f"adapters: got {adapters!r}, allowed a list of {', '.join(known)}"
        return
    if unknown := sorted(set(adapters) - set(known)):
        yield f"adapters: got {', '.join(unknown)}, allowed {', '.join(known)}"
        return
    if len(weights) != len(adapters) or not all(map(math.isfinite, weights)):
        yield f"weights: got {list(weights)}, allowed {len(adapters)} finite ones, one an adapter"
    if adapter_name in known:
        yield f"adapter_name: got {adapter_name!r}, which the model has: choose another"
    if combination_type not in COMBINATIONS:
        yield (
            f"combination_type: got {combination_type!r}, allowed {', '.join(COMBINATIONS)} (the "
            "update has no rank, and linear is exact: nothing is to be concatenated or truncated)"
        )
    elif combination_type != "linear" and not (density is not None and 0 <= density <= 1):
        yield f"density: got {density}, allowed 0 to 1 with combination_type={combination_type!r}"
    configs = {adapter: tuner.peft_config[adapter] for adapter in adapters}
    yield from _find_differences(configs)
    heads = [m for m in tuner.model.modules() if isinstance(m, ModulesToSaveWrapper)]
    if any(sum(one in head.modules_to_save for one in configs) > 1 for head in heads):
        yield "modules_to_save: more than one of the adapters trains a module; they cannot be added"


def _find_differences(configs: Mapping[str, StockConfig]) -> Iterator[str]:
    """Yield the settings in which adapters that are added may not differ."""
    for key, value_of in (
        ("basis", basis),
        ("orientation", lambda c: "algorithm1" if applied_from_right(c) else "eq4"),
    ):
        values = {name: value_of(config) for name, config in configs.items()}
        if len(set(values.values())) > 1:
            listed = ", ".join(f"{value} ({name})" for name, value in values.items())
            yield f"{key}: got {listed}, allowed one for all adapters"
    kinds = {basis(config) for config in configs.values()}
    seeds = {draw.seed for config in configs.values() for draw in layer_draws(config, "")}
    if kinds <= {"random", "orthogonal"} and len(seeds) > 1:
        yield f"random_loc_seed: got {sorted(seeds)}, allowed one: it makes the {min(kinds)} basis"
    if kinds <= {"random", "orthogonal"}:
        for place, key in enumerate(("frequency_bias_center", "frequency_bias_bandwidth")):
            regions = {name: entry_region(config)[place] for name, config in configs.items()}
            if len(set(regions.values())) > 1:
                listed = ", ".join(f"{value} ({name})" for name, value in regions.items())
                yield f"{key}: got {listed}, allowed one with the {min(kinds)} basis"
    tokens = [n for n, c in configs.items() if getattr(c, "trainable_token_indices", None)]
    if tokens:
        yield f"trainable_token_indices: {first_few(tokens)} trained tokens, which cannot be added"
    biases = [name for name, config in configs.items() if config.bias != "none"]
    if biases:
        yield f"bias: {first_few(biases)} trained those of the base model, allowed bias='none'"


def _make_config(
    configs: Mapping[str, StockConfig], layers: Mapping[str, FourierFTLayer]
) -> FourierFTConfig:
    """Return the configuration of an adapter with the layers and entries of several."""
    own, *further = _unite_draws(list(configs), layers)
    source = next(iter(configs.values()))
    first = FourierFTConfig(**{f.name: getattr(source, f.name) for f in _fields(source)})
    targets: dict[str, Any] = {key: getattr(first, key) for key in _COPIED}
    if any(
        {key: getattr(config, key) for key in _COPIED} != targets for config in configs.values()
    ):
        targets = dict.fromkeys(_COPIED) | {"target_modules": set(layers)}
    heads = {name for config in configs.values() for name in config.modules_to_save or ()}
    others: dict[str, Any] = {"modules_to_save": sorted(heads) or None, "init_weights": True}
    return replace(first, **own, **targets, **others, further_draws=further or None)


def _fields(config: StockConfig) -> list[Any]:
    known = {f.name for f in fields(FourierFTConfig)}
    return [f for f in fields(config) if f.name in known and f.init]


def _unite_draws(
    adapters: Sequence[str], layers: Mapping[str, FourierFTLayer]
) -> list[dict[str, Any]]:
    """Return fields of the fewest draws that hold the entries of all adapters.

    Of draws with one seed and bias, a longer one begins with a shorter. A layer in which no adapter
    has a draw gets one entry of it, the least that a configuration can say.
    """
    sizes: dict[tuple, dict[str, int]] = {}
    for adapter in adapters:
        for name, layer in layers.items():
            for draw in layer.fourierft_draws.get(adapter, ()):
                found = sizes.setdefault((draw.seed, draw.region), {})
                found[name] = max(draw.n, found.get(name, 0))
    united = []
    for (seed, region), found in sizes.items():
        n = {name: found.get(name, 1) for name in layers}
        most = max(n.values())
        pattern = {name: size for name, size in n.items() if size != most}
        united.append(
            {
                "n_frequency": most,
                "n_frequency_pattern": pattern,
                "random_loc_seed": seed,
                "frequency_bias_center": region.center,
                "frequency_bias_bandwidth": region.bandwidth,
                "entry_rows": region.rows,
            }
        )
    return united


def _on_entries_of(layer: FourierFTLayer, adapter_name: str, source: str) -> Tensor:
    """Return coefficients of one adapter on the entries of another, with that one's alpha."""
    starts, start = {}, 0
    for draw in layer.fourierft_draws[adapter_name]:
        starts[(draw.seed, draw.region)] = start
        start += draw.n
    coefficients = layer.coefficients(source).detach().double()
    row = coefficients.new_zeros(start)
    draws: tuple[Draw, ...] = layer.fourierft_draws[source]
    for draw, part in zip(draws, coefficients.split([d.n for d in draws]), strict=True):
        start = starts[(draw.seed, draw.region)]
        row[start : start + draw.n] += part
    alphas = layer.fourierft_scaling
    return row * (alphas[source] / alphas[adapter_name])


def _copy_heads(tuner: BaseTuner, adapters: Sequence[str], adapter_name: str) -> None:
    """Copy modules that one of the adapters trains; they are not scaled."""
    for wrapper in tuner.model.modules():
        if isinstance(wrapper, ModulesToSaveWrapper) and adapter_name in wrapper.modules_to_save:
            for source in adapters:
                if source in wrapper.modules_to_save:
                    state = wrapper.modules_to_save[source].state_dict()
                    wrapper.modules_to_save[adapter_name].load_state_dict(state)
