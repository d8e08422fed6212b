"""Adapter files of four bytes a coefficient, or two: one tensor for all layers.

PEFT's own format names every layer's tensor; this one keeps the layers in the model's order, a
fingerprint of their names and a checksum of all that it holds (files written before there was one
are read too). `export_compact` and `import_compact` convert between the two.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel, get_peft_model
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors.torch import save_file
from torch import Tensor, nn

from .config import EXTENSIONS, FourierFTConfig, first_few
from .layer import FourierFTLayer, adapted_layers
from .layer_settings import NO_LAYERS
from .weight_file import open_safetensors

FORMAT = "fourierft-compact-1"
_HINT = "a folder saved by PEFT is read by PeftModel.from_pretrained"
_COEFFICIENTS = "c"
_HEAD = "head."

# Fields that define the adapter. The first are always written, others if not the default.
_ALWAYS = ("n_frequency", "scaling", "random_loc_seed")
_FIELDS = (
    *_ALWAYS,
    "target_modules",
    "n_frequency_pattern",
    "layers_to_transform",
    "layers_pattern",
    "exclude_modules",
    "modules_to_save",
    *EXTENSIONS,
    "base_model_name_or_path",
    "task_type",
)


def export_compact(
    model: PeftModel,
    path: str | Path,
    adapter_name: str = "default",
    dtype: torch.dtype = torch.float32,
) -> Path:
    """Write an adapter, and the head if it trains one, to one safetensors file.

    Args:
        model: Holds the adapter.
        path: The file to write, in an existing folder; an existing file is replaced.
        adapter_name: Name of the adapter.
        dtype: Type of the coefficients: float32, or float16 (relative error about 2e-4; bfloat16
            has the same size and eight times the error). The head keeps its own, and is most of
            the file where there is one.

    Returns:
        The path.

    Raises:
        ValueError: No such adapter, trained biases (they have no place in this format), another
            dtype, coefficients that are not finite or beyond its range, or no such folder.
    """
    if not isinstance(model, PeftModel):
        raise ValueError(f"export_compact: got a {type(model).__name__}, allowed a PeftModel")
    if adapter_name not in model.peft_config:
        raise ValueError(f"adapter: got {adapter_name!r}, allowed {', '.join(model.peft_config)}")
    config = model.peft_config[adapter_name]
    problems = []
    if dtype not in (torch.float32, torch.float16):
        problems.append(f"dtype: got {dtype}, allowed torch.float32, torch.float16")
    if config.bias != "none":
        problems.append(f"bias: got {config.bias!r}, allowed 'none': biases are not in this format")
    if getattr(config, "trainable_token_indices", None):
        problems.append("trainable_token_indices: tokens are not in this format")
    layers = _layers(model, adapter_name)
    if not layers:
        problems.append(NO_LAYERS)
    if not Path(path).parent.is_dir() or Path(path).is_dir():
        problems.append(f"path: got {path}, allowed a file in a folder that exists")
    if problems:
        raise ValueError("export_compact: " + "; ".join(problems))
    coefficients = torch.cat(
        [layer.coefficients(adapter_name).detach().float().cpu() for layer in layers.values()]
    )
    stored = coefficients.to(dtype)
    head = {name: p.detach().cpu().contiguous() for name, p in _head(model, adapter_name).items()}
    broken = [name for name, tensor in head.items() if not torch.isfinite(tensor).all()]
    if not torch.isfinite(coefficients).all() or broken:
        what = ", ".join(["some coefficients"] * (not torch.isfinite(coefficients).all()) + broken)
        raise ValueError(f"{path}: not written, {what} are not finite")
    if not torch.isfinite(stored).all():
        largest = coefficients.abs().max()
        raise ValueError(
            f"{path}: not written, coefficients up to {largest:g} exceed {dtype}: use torch.float32"
        )
    tensors = {_COEFFICIENTS: stored, **{_HEAD + name: tensor for name, tensor in head.items()}}
    about = {"layers": _fingerprint(layers), "config": config_fields(config)}
    about["checksum"] = _checksum(about, tensors)
    # In one entry: safetensors writes several in any order, and equal adapters would differ.
    save_file(tensors, path, {FORMAT: _text(about)})
    return Path(path)


def import_compact(
    model: nn.Module, path: str | Path, adapter_name: str = "default", is_trainable: bool = False
) -> PeftModel:
    """Put the adapter of a compact file on a base model, or beside the adapters of a PEFT model.

    Args:
        model: A base model, or a `PeftModel`.
        path: The file.
        adapter_name: Name that the adapter gets.
        is_trainable: If True, the adapter can be trained further.

    Raises:
        ValueError: The file is damaged, of another format, or does not fit the model; the message
            names the file and what was found. A base model is then left as it was.
    """
    about, tensors = read_compact(path)
    try:
        config = FourierFTConfig(**about["config"], inference_mode=not is_trainable)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: its configuration cannot be read ({error})") from error
    wrapped = isinstance(model, PeftModel)
    if wrapped and adapter_name in model.peft_config:
        raise ValueError(f"adapter_name: got {adapter_name!r}, which the model has: choose another")
    if not wrapped and any(isinstance(module, BaseTunerLayer) for module in model.modules()):
        raise ValueError(
            "import_compact: this base model carries adapters already: give the PeftModel around "
            "it and another adapter_name, or a fresh base model"
        )
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    try:
        if wrapped:
            model.add_adapter(adapter_name, config)
        else:
            model = get_peft_model(model, config, adapter_name)
    except (ValueError, TypeError) as error:  # n too large, nothing to adapt, not linear
        raise ValueError(f"{path}: {error}") from error
    try:
        _fill(model, adapter_name, about.get("layers"), tensors)
    except ValueError as error:
        if wrapped:
            model.delete_adapter(adapter_name)
        else:
            for name, parameter in model.unload().named_parameters():
                parameter.requires_grad_(name in trained)
        raise ValueError(f"{path}: {error}") from None
    return model


def read_compact(path: str | Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read a compact file and compare it with its checksum.

    Returns:
        Its description (``layers``, ``config``) and its tensors: ``c`` and those of the head.

    Raises:
        ValueError: No such file, damaged, or of another format; the message names the file.
    """
    path = Path(path)
    if not path.is_file():
        what = f"a folder: {_HINT}" if path.is_dir() else "no such file"
        raise ValueError(f"{path}: {what}")
    with open_safetensors(path) as file:
        metadata = file.metadata() or {}
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    if FORMAT not in metadata or _COEFFICIENTS not in tensors:
        raise ValueError(
            f"{path}: not of the format {FORMAT} (found: {', '.join(metadata) or 'no metadata'}); "
            + _HINT
        )
    try:
        about = json.loads(metadata[FORMAT])
        unknown = sorted(about.keys() - {"layers", "config", "checksum"})
    except (AttributeError, ValueError) as error:
        raise ValueError(f"{path}: its configuration cannot be read ({error})") from error
    checksum = about.pop("checksum", None)
    if unknown or checksum not in (None, _checksum(about, tensors)):
        raise ValueError(
            f"{path}: damaged, "
            + (f"unknown entries {unknown}" if unknown else "it is not what its checksum says")
            + "; export the adapter again"
        )
    return about, tensors


@torch.no_grad()
def _fill(
    model: PeftModel, adapter_name: str, fingerprint: str | None, tensors: dict[str, Tensor]
) -> None:
    layers, head = _layers(model, adapter_name), _head(model, adapter_name)
    coefficients = [layer.fourierft_spectrum[adapter_name] for layer in layers.values()]
    sizes = [c.numel() for c in coefficients]
    found = tensors.pop(_COEFFICIENTS)
    problems = []
    if found.numel() != sum(sizes):
        problems.append(
            f"{found.numel()} coefficients found, {sum(sizes)} expected for {len(sizes)} layers"
        )
    elif fingerprint != _fingerprint(layers):
        problems.append(
            "made for a model whose adapted layers have other names, sizes or another order"
        )
    elif not torch.isfinite(found).all():
        problems.append("some coefficients are not finite")
    problems += [
        f"{name}: not finite" for name, t in sorted(tensors.items()) if not torch.isfinite(t).all()
    ]
    expected = {_HEAD + name: parameter for name, parameter in head.items()}
    for name in sorted(expected.keys() ^ tensors.keys()):
        problems.append(f"{name}: {'missing' if name in expected else 'not in the model'}")
    for name in sorted(expected.keys() & tensors.keys()):
        if expected[name].shape != tensors[name].shape:
            shapes = tuple(tensors[name].shape), tuple(expected[name].shape)
            problems.append(f"{name}: found shape {shapes[0]}, expected {shapes[1]}")
    if problems:
        raise ValueError(first_few(problems))
    for c, values in zip(coefficients, found.split(sizes), strict=True):
        c.copy_(values)
    for name, parameter in expected.items():
        parameter.copy_(tensors[name])


def _layers(model: PeftModel, adapter_name: str) -> dict[str, FourierFTLayer]:
    layers = adapted_layers(model.get_base_model())
    return {n: layer for n, layer in layers.items() if adapter_name in layer.fourierft_spectrum}


def _head(model: PeftModel, adapter_name: str) -> dict[str, nn.Parameter]:
    """Return by name the parameters that ``modules_to_save`` trains for this adapter."""
    marker = f".modules_to_save.{adapter_name}."
    return {
        name.replace(marker, "."): parameter
        for name, parameter in model.get_base_model().named_parameters()
        if marker in name
    }


def _fingerprint(layers: dict[str, FourierFTLayer]) -> str:
    shapes = {name: (layer.out_features, layer.in_features) for name, layer in layers.items()}
    return fingerprint_layers(shapes)


def fingerprint_layers(shapes: Mapping[str, tuple[int, int]]) -> str:
    """Return the fingerprint of adapted layers that compact files hold.

    Args:
        shapes: (out, in) by name, in the order of the model.
    """
    lines = [f"{name} {rows} {columns}" for name, (rows, columns) in shapes.items()]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def _checksum(about: dict[str, Any], tensors: dict[str, Tensor]) -> str:
    """Return the checksum of everything else that a file holds."""
    digest = hashlib.sha256(_text(about).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy())
    return digest.hexdigest()[:16]


def _text(about: dict[str, Any]) -> str:
    return json.dumps(about, separators=(",", ":"))


def config_fields(config: Any) -> dict[str, Any]:
    """Return the fields that define an adapter and are not the default."""
    default = FourierFTConfig()
    values = {}
    for name in _FIELDS:
        value = getattr(config, name, None)
        if name in _ALWAYS or (value is not None and value != getattr(default, name)):
            values[name] = sorted(value) if isinstance(value, set) else value
    return values
