"""The base model of a bank: its layers and parameters, which adapters are compared with."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from peft.tuners.tuners_utils import check_target_module_exists
from torch import Tensor, nn

from ..bypass import weights_read_by
from ..config import FourierFTConfig, first_few
from ..frozen_weight import SUPPORTED, weight_shape
from ..layer_draws import layer_draws

# Of a configuration, what `find_layers` depends on.
_FIELDS = (
    *("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern"),
    *("n_frequency", "n_frequency_pattern", "further_draws"),
)


@dataclass(frozen=True)
class AdaptedLayer:
    """A linear layer of a base model that an adapter is for."""

    name: str
    """Path of the module."""
    shape: tuple[int, int]
    """(out, in)."""
    n: int
    """Coefficients."""


class BaseModel:
    """Names and shapes in a model, read once: adapters come by the thousand.

    Args:
        net: The model; its modules stay the same, wherever and in whatever dtype they are.
    """

    def __init__(self, net: nn.Module) -> None:
        self.net = net
        self._linear = {
            name: weight_shape(module)
            for name, module in net.named_modules()
            if isinstance(module, SUPPORTED)
        }
        parameters = net.named_parameters(remove_duplicate=False)  # a head may be a tied one
        self._parameters = {name: value.shape for name, value in parameters}
        self._found: dict[str, tuple[AdaptedLayer, ...]] = {}

    def find_layers(self, config: FourierFTConfig) -> tuple[AdaptedLayer, ...]:
        """Return the linear layers that a configuration adapts, as PEFT does.

        Raises:
            ValueError: None, or some of which the model reads the weight.
        """
        values = [getattr(config, field) for field in _FIELDS]
        key = repr([sorted(value) if isinstance(value, set) else value for value in values])
        if key not in self._found:
            self._found[key] = self._match(config)
        return self._found[key]

    def _match(self, config: FourierFTConfig) -> tuple[AdaptedLayer, ...]:
        found = tuple(
            AdaptedLayer(name, shape, sum(draw.n for draw in layer_draws(config, name)))
            for name, shape in self._linear.items()
            if check_target_module_exists(config, name)
        )
        if not found:
            raise ValueError(
                f"target_modules: got {config.target_modules}, which match no linear layer"
            )
        unseen = [layer.name for layer in found if self._is_read(layer.name)]
        if unseen:
            raise ValueError(
                f"target_modules: the modules around {first_few(unseen)} read a weight instead of "
                "calling the layer, so that nothing can be added to its output; use PEFT's model"
            )
        return found

    def _is_read(self, name: str) -> bool:
        """Return True if the module around a layer computes with its weight."""
        around, _, own = name.rpartition(".")
        return own in weights_read_by(type(self.net.get_submodule(around)))

    def find_head_problems(self, head: Mapping[str, Tensor]) -> list[str]:
        """Return a message for every parameter of a head that does not fit."""
        problems = []
        for name, tensor in sorted(head.items()):
            expected = self._parameters.get(name)
            if expected is None:
                problems.append(f"{name}: not in the model")
            elif expected != tensor.shape:
                shapes = tuple(tensor.shape), tuple(expected)
                problems.append(f"{name}: found shape {shapes[0]}, expected {shapes[1]}")
            elif not torch.isfinite(tensor).all():
                problems.append(f"{name}: not finite")
        return problems

    def make_heads(
        self, head: Mapping[str, Tensor], modules_to_save: Sequence[str]
    ) -> dict[str, nn.Module]:
        """Return copies of the model's modules with an adapter's parameters, by their paths.

        Whole modules: to put parameters into the model's for a call would show them to threads.

        Args:
            head: Parameters by name.
            modules_to_save: Ends of the modules' paths, as PEFT reads them.

        Raises:
            ValueError: Parameters that belong to none of the modules.
        """
        made: dict[str, nn.Module] = {}
        for name, module in self.net.named_modules() if head else ():
            own = {
                key.removeprefix(f"{name}."): value
                for key, value in head.items()
                if key.startswith(f"{name}.")
            }
            if not own or not name.endswith(tuple(modules_to_save)):
                continue
            copied = made[name] = copy.deepcopy(module)
            copied._forward_hooks.clear()
            for key, value in own.items():
                copied.get_parameter(key).data.copy_(value)
            copied.requires_grad_(False).eval()
        lost = [key for key in head if not any(key.startswith(f"{name}.") for name in made)]
        if lost:
            raise ValueError(
                f"modules_to_save: {list(modules_to_save)} do not hold {first_few(lost)}"
            )
        return made
