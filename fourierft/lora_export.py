"""Adapters as LoRA adapters: exactly where entries lie in few rows, else truncated."""

from __future__ import annotations

import statistics
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from peft import LoraConfig, PeftModel, get_peft_model_state_dict
from peft.utils import SAFETENSORS_WEIGHTS_NAME
from safetensors.torch import save_file
from torch import Tensor

from .config import entry_region, first_few
from .layer import FourierFTLayer, adapted_layers
from .layer_settings import NO_LAYERS
from .module import FourierFTLinear

RANKS = (8, 16, 32, 64)

_ENDING = ".fourierft_spectrum"
_WORTH_A_WARNING = 0.1  # of |DeltaW|


def export_lora(
    model: PeftModel, folder: str | Path, adapter_name: str = "default", rank: int | None = None
) -> Path:
    """Write an adapter as a LoRA adapter.

    An adapter with ``entry_rows=k`` becomes one of rank 2k with the same update: nothing is
    truncated, DeltaW is the product of both factors, up to rounding to float32. It holds
    2k (d1 + d2) parameters a layer instead of n. Any other adapter needs a ``rank``, to which
    DeltaW is truncated by its singular values; a warning says what is lost (`lora_errors`).

    PEFT without this package, and whatever else serves LoRA, loads the folder.

    Args:
        model: Holds the adapter.
        folder: The folder to write; its adapter, if there is one, is replaced.
        adapter_name: Name of the adapter.
        rank: Rank of the LoRA adapter; None for 2k.

    Returns:
        The folder.

    Raises:
        ValueError: No such adapter, one whose entries may lie anywhere without a ``rank``, a rank
            above that of a weight, trained biases, or layers that are not linear or none.
    """
    layers = _find_layers("export_lora", model, adapter_name)
    config = model.peft_config[adapter_name]
    rows = entry_region(config).rows
    further = getattr(config, "further_draws", None)
    exact = rank is None and rows is not None and not further
    problems = []
    if rank is None and further:
        problems.append(
            f"further_draws: got {len(further)}, allowed none: a combination has the entries of "
            "several draws; rank=16 would truncate it"
        )
    elif rank is None and not exact:
        problems.append(
            "entry_rows: got None, allowed a number of rows: entries in all rows make an update of "
            "full rank; rank=16 would truncate it"
        )
    if config.bias != "none":
        problems.append(f"bias: got {config.bias!r}, allowed 'none'")
    highest = min(min(layer.out_features, layer.in_features) for layer in layers.values())
    if rank is not None and not 1 <= rank <= highest:
        problems.append(f"rank: got {rank}, allowed 1 to {highest}")
    if problems:
        raise ValueError("export_lora: " + "; ".join(problems))
    rank = 2 * (rows or 0) if rank is None else rank
    errors: dict[str, float] = {}
    state = get_peft_model_state_dict(model, adapter_name=adapter_name, save_embedding_layers=False)
    tensors = {}
    for name, tensor in state.items():
        if not name.endswith(_ENDING):  # the head
            tensors[name] = tensor.detach().cpu().contiguous()
            continue
        path = name.removesuffix(_ENDING)
        layer = layers[path.removeprefix("base_model.model.")]
        with torch.no_grad():
            if exact:
                left, right = layer.factors(adapter_name)
            else:
                left, right, errors[path] = _truncate(layer.get_delta_weight(adapter_name), rank)
        missing = rank - left.shape[1]  # rows of the spectrum that hold none of few entries
        tensors[f"{path}.lora_A.weight"] = F.pad(right, (0, 0, 0, missing)).float().cpu()
        tensors[f"{path}.lora_B.weight"] = F.pad(left, (0, missing)).float().cpu()
    written = LoraConfig(
        r=rank,
        lora_alpha=rank,
        inference_mode=True,
        **{
            field: getattr(config, field)
            for field in (
                *("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern"),
                *("modules_to_save", "base_model_name_or_path", "revision", "task_type"),
            )
        },
        trainable_token_indices=getattr(config, "trainable_token_indices", None),
        ensure_weight_tying=getattr(config, "ensure_weight_tying", False),
    )
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}
    save_file(tensors, folder / SAFETENSORS_WEIGHTS_NAME, {"format": "pt"})
    written.save_pretrained(folder)
    if errors and max(errors.values()) > _WORTH_A_WARNING:
        worst = max(errors, key=lambda name: errors[name])
        warnings.warn(
            f"export_lora: rank {rank} loses {statistics.median(errors.values()):.0%} of |DeltaW| "
            f"(median of {len(errors)} layers; {errors[worst]:.0%} in {worst}): n entries in all "
            "rows make an update of full rank. Merge the adapter, or train with entry_rows, whose "
            "export is exact",
            stacklevel=2,
        )
    return folder


@torch.no_grad()
def lora_errors(
    model: PeftModel, adapter_name: str = "default", ranks: Sequence[int] = RANKS
) -> dict[str, dict[int, float]]:
    """Return what a LoRA adapter of each rank would lose, |DeltaW - B A| / |DeltaW| at best.

    Args:
        model: Holds the adapter.
        adapter_name: Name of the adapter.
        ranks: Ranks.

    Returns:
        By layer and rank; 0 for an update of zero.

    Raises:
        ValueError: No such adapter, or layers that are not linear or none.
    """
    found = {}
    for name, layer in _find_layers("lora_errors", model, adapter_name).items():
        squares = torch.linalg.svdvals(layer.get_delta_weight(adapter_name)).double() ** 2
        found[name] = {rank: _lost(squares, rank) for rank in ranks}
    return found


def table_of_errors(errors: Mapping[str, Mapping[int, float]]) -> str:
    """Return the errors of all layers as text, their median in the last line."""
    ranks = list(next(iter(errors.values())))
    width = max(map(len, [*errors, "median"]))
    rows = {"": [f"r={rank}" for rank in ranks]}
    rows |= {name: [f"{error:.1%}" for error in found.values()] for name, found in errors.items()}
    median = [statistics.median(found[rank] for found in errors.values()) for rank in ranks]
    rows["median"] = [f"{error:.1%}" for error in median]
    return "\n".join(
        f"{name:{width}}" + "".join(f"{cell:>8}" for cell in cells) for name, cells in rows.items()
    )


def _find_layers(verb: str, model: PeftModel, adapter_name: str) -> dict[str, FourierFTLayer]:
    if not isinstance(model, PeftModel) or adapter_name not in model.peft_config:
        known = ", ".join(getattr(model, "peft_config", {})) or "a PeftModel"
        raise ValueError(f"{verb}: got adapter {adapter_name!r}, allowed {known}")
    layers = {
        name: layer
        for name, layer in adapted_layers(model.get_base_model()).items()
        if adapter_name in layer.fourierft_spectrum
    }
    if not layers:
        raise ValueError(f"{verb}: {NO_LAYERS}")
    other = [name for name, layer in layers.items() if type(layer) is not FourierFTLinear]
    if other:
        raise ValueError(f"{verb}: {first_few(other)} are not linear layers")
    return layers


def _truncate(update: Tensor, rank: int) -> tuple[Tensor, Tensor, float]:
    """Return (out, rank), (rank, in) and the share of the update that their product loses."""
    left, values, right = torch.linalg.svd(update, full_matrices=False)
    scaled = left[:, :rank] * values[:rank]
    return scaled, right[:rank], _lost(values.double() ** 2, rank)


def _lost(squares: Tensor, rank: int) -> float:
    total = squares.sum()
    return float((squares[rank:].sum() / total).sqrt()) if total else 0.0
