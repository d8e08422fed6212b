"""Adapters as they lie on disk: folders saved by PEFT, and compact files."""

from __future__ import annotations

import copy
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import PeftConfig
from peft.utils import SAFETENSORS_WEIGHTS_NAME
from torch import Tensor, nn

from ..bypass import weights_read_by
from ..compact import fingerprint_layers, read_compact
from ..config import FourierFTConfig, first_few, layer_n, open_safetensors
from ..frozen_weight import SUPPORTED, weight_shape

_PREFIX = "base_model.model."
_ENDING = ".fourierft_spectrum"


@dataclass(frozen=True)
class AdaptedLayer:
    """A linear layer of a base model that an adapter is for."""

    name: str
    """Path of the module."""
    shape: tuple[int, int]
    """(out, in)."""
    n: int
    """Coefficients."""


@dataclass(frozen=True)
class StoredAdapter:
    """An adapter read from disk, for a base model."""

    config: FourierFTConfig
    layers: tuple[AdaptedLayer, ...]
    """Adapted layers, in the order of the model."""
    coefficients: Tensor
    """float32 (sum of n,), layer by layer."""
    head: dict[str, Tensor]
    """Parameters of the modules in ``modules_to_save`` by their names in the base model."""

    @property
    def checksum(self) -> str:
        """SHA-256 over coefficients and head, its first 16 digits."""
        digest = hashlib.sha256(self.coefficients.numpy().tobytes())
        for name, tensor in sorted(self.head.items()):
            digest.update(f"{name} {tuple(tensor.shape)} ".encode())
            digest.update(tensor.flatten().view(torch.uint8).numpy())
        return digest.hexdigest()[:16]


def read_adapter(net: nn.Module, source: str | Path) -> StoredAdapter:
    """Read an adapter and compare it with a base model, which is not changed.

    Args:
        net: The base model.
        source: A folder that PEFT has saved, or a file of `export_compact`.

    Raises:
        ValueError: Damaged, of another method, or for another model; names the source.
    """
    source = Path(source)
    try:
        return _read_folder(net, source) if source.is_dir() else _read_file(net, source)
    except (KeyError, TypeError, ValueError, OSError, re.error) as error:
        text = str(error)
        raise ValueError(text if text.startswith(str(source)) else f"{source}: {text}") from error


def list_adapters(folder: Path) -> list[Path]:
    """Return the folders and compact files in a folder that look like adapters, by name."""
    return [
        path
        for path in sorted(folder.iterdir())
        if path.suffix == ".safetensors" or (path / "adapter_config.json").is_file()
    ]


def _read_file(net: nn.Module, path: Path) -> StoredAdapter:
    about, tensors = read_compact(path)
    config = FourierFTConfig(**about["config"], inference_mode=True)
    layers = find_layers(net, config)
    if about.get("layers") != fingerprint_layers({layer.name: layer.shape for layer in layers}):
        raise ValueError("for a model whose adapted layers have other names, sizes or order")
    head = {
        name.removeprefix("head."): tensor
        for name, tensor in tensors.items()
        if name.startswith("head.")
    }
    return _checked(net, config, layers, tensors["c"].float(), head)


def _read_folder(net: nn.Module, folder: Path) -> StoredAdapter:
    config = PeftConfig.from_pretrained(str(folder))
    if not isinstance(config, FourierFTConfig):
        raise ValueError(f"an adapter of the type {config.peft_type.value}, not of FourierFT")
    path = folder / SAFETENSORS_WEIGHTS_NAME
    if not path.is_file():
        raise ValueError(f"{SAFETENSORS_WEIGHTS_NAME} not found")
    with open_safetensors(path) as file:
        tensors = {
            name.removeprefix(_PREFIX): file.get_tensor(name)
            for name in file.keys()  # noqa: SIM118
        }
    spectra = {
        name.removesuffix(_ENDING): tensor
        for name, tensor in tensors.items()
        if name.endswith(_ENDING)
    }
    head = {name: tensor for name, tensor in tensors.items() if not name.endswith(_ENDING)}
    layers = find_layers(net, config)
    problems = [f"{layer.name}: missing" for layer in layers if layer.name not in spectra]
    problems += [
        f"{name}: belongs to no adapted layer"
        for name in sorted(spectra.keys() - {layer.name for layer in layers})
    ]
    problems += [
        f"{layer.name}: found shape {tuple(spectra[layer.name].shape)}, expected ({layer.n},)"
        for layer in layers
        if layer.name in spectra and spectra[layer.name].shape != (layer.n,)
    ]
    if problems:
        raise ValueError(first_few(problems))
    flat = torch.cat([spectra[layer.name].float() for layer in layers])
    return _checked(net, config, layers, flat, head)


def find_layers(net: nn.Module, config: FourierFTConfig) -> tuple[AdaptedLayer, ...]:
    """Return the linear layers of a base model that a configuration adapts, as PEFT does."""
    from peft.tuners.tuners_utils import check_target_module_exists

    found = [
        AdaptedLayer(name, weight_shape(module), layer_n(config, name)[1])
        for name, module in net.named_modules()
        if isinstance(module, SUPPORTED) and check_target_module_exists(config, name)
    ]
    if not found:
        raise ValueError(
            f"target_modules: got {config.target_modules}, which match no linear layer"
        )
    unseen = [layer.name for layer in found if _is_read(net, layer.name)]
    if unseen:
        raise ValueError(
            f"target_modules: the modules around {first_few(unseen)} read a weight instead of "
            "calling the layer, so that nothing can be added to its output; use PEFT's model"
        )
    return tuple(found)


def _is_read(net: nn.Module, name: str) -> bool:
    """Return True if the module around a layer computes with its weight."""
    around, _, own = name.rpartition(".")
    return own in weights_read_by(type(net.get_submodule(around)))


def find_head_problems(net: nn.Module, head: Mapping[str, Tensor]) -> list[str]:
    """Return a message for every parameter of a head that does not fit a base model."""
    parameters, problems = dict(net.named_parameters()), []
    for name, tensor in sorted(head.items()):
        if name not in parameters:
            problems.append(f"{name}: not in the model")
        elif parameters[name].shape != tensor.shape:
            shapes = tuple(tensor.shape), tuple(parameters[name].shape)
            problems.append(f"{name}: found shape {shapes[0]}, expected {shapes[1]}")
        elif not torch.isfinite(tensor).all():
            problems.append(f"{name}: not finite")
    return problems


def make_heads(
    net: nn.Module, head: dict[str, Tensor], modules_to_save: Sequence[str]
) -> dict[str, nn.Module]:
    """Return copies of a base model's modules with an adapter's parameters, by their paths.

    Whole modules: to put parameters into the base model's for a call would show them to threads.

    Args:
        net: The base model.
        head: Parameters by name.
        modules_to_save: Ends of the modules' paths, as PEFT reads them.

    Raises:
        ValueError: Parameters that belong to none of the modules.
    """
    made: dict[str, nn.Module] = {}
    for name, module in net.named_modules():
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
        raise ValueError(f"modules_to_save: {list(modules_to_save)} do not hold {first_few(lost)}")
    return made


def _checked(
    net: nn.Module,
    config: FourierFTConfig,
    layers: tuple[AdaptedLayer, ...],
    coefficients: Tensor,
    head: dict[str, Tensor],
) -> StoredAdapter:
    expected, problems = sum(layer.n for layer in layers), []
    if config.bias != "none":
        problems.append(f"bias: got {config.bias!r}, allowed 'none'")
    if coefficients.shape != (expected,):
        problems.append(f"{coefficients.numel()} coefficients found, {expected} expected")
    if not torch.isfinite(coefficients).all():
        problems.append("some coefficients are not finite")
    problems += find_head_problems(net, head)
    if problems:
        raise ValueError(first_few(problems))
    return StoredAdapter(config, layers, coefficients, head)
