"""The frozen weight of a layer: its kind, and a copy to restore after merging."""

from __future__ import annotations

import copy
import sys
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized
from transformers.pytorch_utils import Conv1D

from .offloading import merely_aligns

# The quantised layers of bitsandbytes derive from nn.Linear.
SUPPORTED = (nn.Linear, Conv1D)
KERNELS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
ADAPTABLE = (*SUPPORTED, *KERNELS, nn.Embedding)


class FrozenWeight:
    """A floating-point weight, kept by reference as it was before merging."""

    def __init__(self, layer: nn.Module) -> None:
        self.data = layer.weight.data

    def values(self, layer: nn.Module) -> Tensor:
        """Return W0 on the layer's device: the model may have been moved or cast while merged."""
        return self.data.to(layer.weight.data)

    def store(self, layer: nn.Module, merged: Tensor) -> Tensor:
        """Make ``merged`` the weight of the layer; return it as rounded to the layer's format."""
        layer.weight.data = merged.to(layer.weight.dtype).contiguous()
        return layer.weight.data

    def restore(self, layer: nn.Module) -> None:
        """Put the kept weight back into the layer, bit for bit."""
        layer.weight.data = self.values(layer)


class FrozenWeight4bit(FrozenWeight):
    """The weight of ``bitsandbytes.nn.Linear4bit``."""

    def __init__(self, layer: nn.Module) -> None:
        self.weight = layer.weight

    def values(self, layer: nn.Module) -> Tensor:
        """Return the weight dequantised to float32."""
        return dequantised_4bit(self.weight.to(layer.weight.device))

    def store(self, layer: nn.Module, merged: Tensor) -> Tensor:
        """Quantise again, with the settings that the weight had."""
        old = self.weight
        state = old.quant_state
        dtype = getattr(state, "original_dtype", state.dtype)  # "original" once packed for a CPU
        layer.weight = type(old)(
            merged.to(dtype).cpu(),
            requires_grad=False,
            compress_statistics=old.compress_statistics,
            blocksize=old.blocksize,
            quant_type=old.quant_type,
            quant_storage=old.quant_storage,
            module=layer,
        ).to(merged.device)
        return dequantised_4bit(layer.weight)

    def restore(self, layer: nn.Module) -> None:
        """See `FrozenWeight.restore`."""
        if self.weight.device != layer.weight.device:
            self.weight = self.weight.to(layer.weight.device)
        layer.weight = self.weight
        layer.quant_state = self.weight.quant_state


class FrozenWeight8bit(FrozenWeight):
    """The weight of ``bitsandbytes.nn.Linear8bitLt``, whose scales move to a state when it runs."""

    def __init__(self, layer: nn.Module) -> None:
        self.weight = layer.weight
        self.state: tuple[Any, ...] = layer.state.CB, layer.state.SCB

    def values(self, layer: nn.Module) -> Tensor:
        """Return the weight dequantised to float32."""
        scales = self.weight.SCB if self.state[1] is None else self.state[1]
        return _dequantised_8bit(self.weight.data, scales, layer.weight.device)

    def store(self, layer: nn.Module, merged: Tensor) -> Tensor:
        """Quantise again, row by row."""
        layer.weight = type(self.weight)(
            merged.cpu(), requires_grad=False, has_fp16_weights=False
        ).to(merged.device)
        layer.state.CB = layer.state.SCB = None  # taken from the weight when it next runs
        return _dequantised_8bit(layer.weight.data, layer.weight.SCB, merged.device)

    def restore(self, layer: nn.Module) -> None:
        """See `FrozenWeight.restore`."""
        device = layer.weight.device
        if self.weight.device != device:
            self.weight = self.weight.to(device)
            self.state = tuple(None if part is None else part.to(device) for part in self.state)
        layer.weight = self.weight
        layer.state.CB, layer.state.SCB = self.state


def frozen_weight(layer: nn.Module) -> FrozenWeight:
    """Return the weight of a layer, to be kept while another takes its place.

    Raises:
        ValueError: Nothing can be merged into it (see `merge_problem`).
    """
    if problem := merge_problem(layer):
        raise ValueError(f"merge: {problem}")
    if is_4bit(layer.weight):
        return FrozenWeight4bit(layer)
    return FrozenWeight(layer) if layer.weight.dtype.is_floating_point else FrozenWeight8bit(layer)


def merge_problem(layer: nn.Module) -> str | None:
    """Return the reason why nothing can be merged into the weight of a layer, or None."""
    weight = layer.weight
    if isinstance(layer, nn.Embedding) and is_quantised(weight):
        return f"the weight of {type(layer).__name__} is quantised: keep the adapter apart"
    hooked = "weight" not in layer._parameters and layer._forward_pre_hooks
    if hooked or is_parametrized(layer, "weight"):
        return (
            "the weight is recomputed at every call, which would undo the merge: end that first "
            "(torch.nn.utils.remove_weight_norm, remove_spectral_norm, prune.remove or "
            "parametrize.remove_parametrizations of the base layer), or keep the adapter apart"
        )
    if is_4bit(weight) or hasattr(weight, "SCB") or is_ordinary(weight):
        return None
    return (
        f"the weight is not a plain matrix ({type(weight).__name__}, {weight.dtype}), allowed are "
        "floating-point weights and those of bitsandbytes' Linear4bit and Linear8bitLt"
    )


def weight_shape(layer: nn.Module) -> tuple[int, int]:
    """Return (out, in) of a layer, of the matrix that the weight is.

    A kernel is (out, in / groups * size), an embedding (tokens, features).
    """
    if isinstance(layer, nn.Embedding):
        return layer.num_embeddings, layer.embedding_dim
    if isinstance(layer, KERNELS):
        return layer.out_channels, layer.weight[0].numel()
    if isinstance(layer, Conv1D):
        # Under DeepSpeed ZeRO-3 the weight itself is an empty shard.
        fan_in, fan_out = getattr(layer.weight, "ds_shape", layer.weight.shape)
        return fan_out, fan_in
    return layer.out_features, layer.in_features


def is_plain(layer: nn.Module) -> bool:
    """Return True if the layer computes just W0 x + b, so that W0 + DeltaW can replace W0."""
    return type(layer) in SUPPORTED and is_ordinary(layer.weight) and _computes_alone(layer)


def is_plain_kernel(layer: nn.Module) -> bool:
    """Return True if the layer just convolves with W0, so that W0 + DeltaW can replace it."""
    return type(layer) in KERNELS and is_ordinary(layer.weight) and _computes_alone(layer)


def _computes_alone(layer: nn.Module) -> bool:
    """Return True if a layer has no hooks and no other forward than that of its class."""
    return (
        not (layer._forward_hooks or layer._forward_pre_hooks)
        and not (layer._backward_hooks or layer._backward_pre_hooks)
        and ("forward" not in layer.__dict__ or merely_aligns(layer))
    )


def is_plain_4bit(layer: nn.Module) -> bool:
    """Return True if a layer computes W0 x + b with a 4-bit W0 that DeltaW can be added to.

    Not one of 8 bits: it rounds its inputs to 8 bits as well, so that its product is another than
    that with the dequantised weight, and is cheaper.
    """
    bnb = sys.modules.get("bitsandbytes")
    if bnb is None or type(layer) is not bnb.nn.Linear4bit:
        return False
    weight = layer.weight
    return (
        type(weight) is bnb.nn.Params4bit
        and is_4bit(weight)
        and tuple(weight.quant_state.shape) == (layer.out_features, layer.in_features)
        and _computes_alone(layer)
    )


def compute_dtype(layer: nn.Module, x: Tensor) -> torch.dtype:
    """Return the type that a ``Linear4bit`` multiplies in; like it, decide at its first input."""
    if not layer.compute_type_is_set:
        layer.set_compute_type(x)
        layer.compute_type_is_set = True
    return layer.compute_dtype or x.dtype


def is_ordinary(weight: Tensor) -> bool:
    """Return True if the weight is a floating-point matrix and nothing else."""
    return type(weight) in (Tensor, nn.Parameter) and weight.dtype.is_floating_point


def is_4bit(weight: Any) -> bool:
    """Return True for a quantised ``Params4bit`` (its storage may have a float type)."""
    return getattr(weight, "quant_state", None) is not None


def is_quantised(weight: Any) -> bool:
    """Return True if the weight is not stored in a floating-point format."""
    return is_4bit(weight) or not weight.dtype.is_floating_point


def dequantised_4bit(weight: Any) -> Tensor:
    """Return the values of a ``Params4bit`` in float32, (out, in)."""
    from bitsandbytes import functional

    data, state = weight.data, weight.quant_state
    if getattr(state, "packing_format_for_cpu", False):
        # bitsandbytes has rearranged the weight for a faster product; only it knows the way back,
        # which writes into the state that it is given.
        data, state = functional._convert_weight_packed_for_cpu_inverse(data, copy.deepcopy(state))
    # As one long row: on CPUs with AVX512 bitsandbytes 0.50 takes a wrong scale for parts of rows
    # that are not whole blocks.
    row = copy.copy(state)
    row.shape = torch.Size((1, state.shape.numel()))
    row.dtype = torch.float32  # not that of the weight which was quantised: no rounding in between
    return functional.dequantize_4bit(data, row).reshape(state.shape)


def _dequantised_8bit(data: Tensor, scales: Tensor, device: torch.device) -> Tensor:
    from bitsandbytes import functional

    return functional.int8_vectorwise_dequant(data.to(device), scales.to(device)).float()
