"""Adapters with entries in few rows as LoRA adapters, exactly."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from peft import LoraConfig, PeftModel, get_peft_model_state_dict
from peft.utils import SAFETENSORS_WEIGHTS_NAME
from safetensors.torch import save_file

from .config import entry_region
from .layer import adapted_layers

_ENDING = ".fourierft_spectrum"


def export_lora(model: PeftModel, folder: str | Path, adapter_name: str = "default") -> Path:
    """Write an adapter with ``entry_rows=k`` as a LoRA adapter of rank 2k with the same update.

    No truncation: DeltaW is the product of both factors, up to rounding to float32. PEFT without
    this package, and whatever else serves LoRA, loads the folder. It holds 2k (d1 + d2) parameters
    a layer instead of n.

    Args:
        model: Holds the adapter.
        folder: The folder to write; its adapter, if there is one, is replaced.
        adapter_name: Name of the adapter.

    Returns:
        The folder.

    Raises:
        ValueError: No such adapter, one whose entries may lie anywhere, or trained biases.
    """
    if not isinstance(model, PeftModel) or adapter_name not in model.peft_config:
        known = ", ".join(getattr(model, "peft_config", {})) or "a PeftModel"
        raise ValueError(f"export_lora: got adapter {adapter_name!r}, allowed {known}")
    config = model.peft_config[adapter_name]
    rows = entry_region(config).rows
    problems = []
    if rows is None:
        problems.append(
            "entry_rows: got None, allowed a number of rows: entries in all rows make an update of "
            "full rank, which peft.convert_to_lora truncates"
        )
    if config.bias != "none":
        problems.append(f"bias: got {config.bias!r}, allowed 'none'")
    if problems or rows is None:
        raise ValueError("export_lora: " + "; ".join(problems))
    rank = 2 * rows
    layers = adapted_layers(model.get_base_model())
    state = get_peft_model_state_dict(model, adapter_name=adapter_name, save_embedding_layers=False)
    tensors = {}
    for name, tensor in state.items():
        if not name.endswith(_ENDING):  # the head
            tensors[name] = tensor.detach().cpu().contiguous()
            continue
        path = name.removesuffix(_ENDING)
        layer = layers[path.removeprefix("base_model.model.")]
        with torch.no_grad():
            left, right = layer.factors(adapter_name)
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
    )
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}
    save_file(tensors, folder / SAFETENSORS_WEIGHTS_NAME, {"format": "pt"})
    written.save_pretrained(folder)
    return folder
