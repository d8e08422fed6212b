"""Comparison of an adapter's weights with the model that they are loaded into."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from .config import StockConfig, first_few


def check_loaded(
    model: nn.Module, config: StockConfig, adapter_name: str, loaded: Mapping[str, Tensor]
) -> None:
    """Compare what is loaded with the model: PEFT would only warn about what is missing.

    Args:
        model: Holds the adapter, whose values do not count.
        config: The adapter's.
        adapter_name: Name in the model.
        loaded: Parameters by their names in the model.

    Raises:
        ValueError: Coefficients are missing, of another shape or for other layers, or values are
            not finite; the message names the file.
    """
    ending = f"fourierft_spectrum.{adapter_name}"
    expected = {
        name: tuple(parameter.shape)
        for name, parameter in model.named_parameters(remove_duplicate=False)
        if name.endswith(ending)
    }
    # Keys that fit no layer keep their form in the file, without the adapter's name.
    found = {
        name: tuple(tensor.shape)
        for name, tensor in loaded.items()
        if name.endswith((ending, "fourierft_spectrum"))
    }
    problems = [
        f"{name}: not finite"
        for name, tensor in sorted(loaded.items())
        if tensor.is_floating_point() and not torch.isfinite(tensor).all()
    ]
    problems += [f"{name}: missing" for name in sorted(expected.keys() - found.keys())]
    problems += [
        f"{name}: belongs to no adapted layer" for name in sorted(found.keys() - expected.keys())
    ]
    problems += [
        f"{name}: found shape {found[name]}, expected {expected[name]}"
        for name in sorted(expected.keys() & found.keys())
        if found[name] != expected[name]
    ]
    if problems:
        source = getattr(config, "weights_file", "the adapter's weights")
        raise ValueError(
            f"{source}: {len(found)} coefficient tensors found, {len(expected)} expected; "
            + first_few(problems)
        )
