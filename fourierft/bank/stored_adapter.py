"""Adapters as they lie on disk: folders saved by PEFT, and compact files."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import PeftConfig
from peft.utils import SAFETENSORS_WEIGHTS_NAME
from torch import Tensor

from ..compact import fingerprint_layers, read_compact
from ..config import FourierFTConfig, first_few
from ..weight_file import open_safetensors
from .base_model import AdaptedLayer, BaseModel

_PREFIX = "base_model.model."
_ENDING = ".fourierft_spectrum"


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
    def nbytes(self) -> int:
        """Memory of coefficients and head."""
        return sum(tensor.nbytes for tensor in (self.coefficients, *self.head.values()))

    @property
    def checksum(self) -> str:
        """SHA-256 over coefficients and head, its first 16 digits."""
        digest = hashlib.sha256(self.coefficients.numpy().tobytes())
        for name, tensor in sorted(self.head.items()):
            digest.update(f"{name} {tuple(tensor.shape)} ".encode())
            digest.update(tensor.flatten().view(torch.uint8).numpy())
        return digest.hexdigest()[:16]


def read_adapter(base: BaseModel, source: str | Path) -> StoredAdapter:
    """Read an adapter and compare it with a base model.

    Args:
        base: The base model.
        source: A folder that PEFT has saved, or a file of `export_compact`.

    Raises:
        ValueError: Damaged, of another method, or for another model; names the source.
    """
    source = Path(source)
    try:
        return _read_folder(base, source) if source.is_dir() else _read_file(base, source)
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


def _read_file(base: BaseModel, path: Path) -> StoredAdapter:
    about, tensors = read_compact(path)
    config = FourierFTConfig(**about["config"], inference_mode=True)
    layers = base.find_layers(config)
    if about.get("layers") != fingerprint_layers({layer.name: layer.shape for layer in layers}):
        raise ValueError("for a model whose adapted layers have other names, sizes or order")
    head = {
        name.removeprefix("head."): tensor
        for name, tensor in tensors.items()
        if name.startswith("head.")
    }
    return _checked(base, config, layers, tensors["c"].float(), head)


def _read_folder(base: BaseModel, folder: Path) -> StoredAdapter:
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
    layers = base.find_layers(config)
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
    return _checked(base, config, layers, flat, head)


def _checked(
    base: BaseModel,
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
    problems += base.find_head_problems(head)
    if problems:
        raise ValueError(first_few(problems))
    return StoredAdapter(config, layers, coefficients, head)
