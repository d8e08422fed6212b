"""A bank in one safetensors file that is mapped into memory."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from safetensors.torch import save_file
from torch import Tensor

from ..compact import config_fields
from ..config import FourierFTConfig, first_few
from ..weight_file import open_safetensors
from .base_model import AdaptedLayer, BaseModel
from .shelf import Shelf, Slot, hash_row

FORMAT = "fourierft-bank-1"


class FileEntry(NamedTuple):
    """An adapter in a file."""

    about: dict[str, Any]
    """Fields of `BankedAdapter`."""
    shelf: int
    """Index of its shelf in the file."""
    modules_to_save: list[str]
    """Names of its head's modules."""
    head: dict[str, Tensor]
    """Parameters of its head."""


class BankFile(NamedTuple):
    """Contents of a file."""

    shelves: list[Shelf]
    """Shelves without coefficients."""
    blocks: list[Tensor]
    """Coefficients of each shelf, mapped from the file."""
    checksums: list[list[str]]
    """Checksum of each row of each block."""
    entries: list[FileEntry]
    """Adapters; those of one shelf in the order of its rows."""


def write_bank(
    path: Path, shelves: Sequence[Shelf], entries: Sequence[FileEntry], slots: Sequence[Slot]
) -> None:
    """Write a bank; an existing file is replaced once the new one is whole.

    Args:
        path: The file.
        shelves: The shelves.
        entries: The adapters.
        slots: Place of each on its shelf.
    """
    tensors: dict[str, Tensor] = {}
    described: list[dict[str, Any] | None] = []
    for number, shelf in enumerate(shelves):
        pairs = zip(entries, slots, strict=True)
        own = [slot for entry, slot in pairs if entry.shelf == number]
        if not own:
            described.append(None)
            continue
        block = tensors[f"coefficients.{number}"] = shelf.gather(own)
        described.append(
            {
                "config": config_fields(shelf.config),
                "layers": [[layer.name, *layer.shape, layer.n] for layer in shelf.layers],
                "checksums": [hash_row(row) for row in block],
            }
        )
    adapters = []
    for number, entry in enumerate(entries):
        tensors |= {f"head.{number}.{name}": tensor for name, tensor in entry.head.items()}
        adapters.append([entry.about, entry.shelf, entry.modules_to_save])
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        save_file(
            tensors, draft, {FORMAT: json.dumps({"shelves": described, "adapters": adapters})}
        )
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def read_bank(base: BaseModel, path: Path) -> BankFile:
    """Open a file of `write_bank` and compare it with a base model.

    Raises:
        ValueError: Not such a file, damaged, or for another model.
    """
    if not path.is_file():
        raise ValueError(f"{path}: no such file")
    with open_safetensors(path) as file:
        text = (file.metadata() or {}).get(FORMAT)
        if text is None:
            raise ValueError(f"{path}: not of the format {FORMAT}")
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    try:
        said = json.loads(text)
        found = BankFile([], [], [], [])
        for number, shelf in enumerate(said["shelves"]):
            if shelf is None:
                continue
            _check_layers(base, shelf)
            config = FourierFTConfig(**shelf["config"], inference_mode=True)
            found.shelves.append(Shelf(_layers(shelf), config))
            found.blocks.append(tensors[f"coefficients.{number}"])
            found.checksums.append(shelf["checksums"])
        places = [n for n, shelf in enumerate(said["shelves"]) if shelf is not None]
        for number, (about, shelf, saved) in enumerate(said["adapters"]):
            start = f"head.{number}."
            head = {
                name.removeprefix(start): tensor
                for name, tensor in tensors.items()
                if name.startswith(start)
            }
            problems = base.find_head_problems(head)
            if problems:
                raise ValueError(first_few(problems))
            found.entries.append(FileEntry(about, places.index(shelf), saved, head))
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: damaged, its description cannot be read ({error})") from error
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return found


def _layers(shelf: dict[str, Any]) -> tuple[AdaptedLayer, ...]:
    return tuple(AdaptedLayer(name, (out, in_), n) for name, out, in_, n in shelf["layers"])


def _check_layers(base: BaseModel, shelf: dict[str, Any]) -> None:
    config = FourierFTConfig(**shelf["config"], inference_mode=True)
    expected, found = set(base.find_layers(config)), set(_layers(shelf))
    wrong = [f"{layer.name} {layer.shape}" for layer in sorted(found - expected, key=str)]
    if wrong or expected != found:
        raise ValueError(f"for a model with other layers: {first_few(wrong) or 'some are missing'}")
