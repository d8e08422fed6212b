"""Bytes of a network's weights, quantised ones with their scales."""

from __future__ import annotations

from torch import nn

from experiments.models import Quantization


def count_weight_bytes(net: nn.Module, quantization: Quantization | None) -> int:
    """Return the bytes of all parameters of the base model and its adapters.

    Args:
        net: quantised already, or on the meta device.
        quantization: quantisation that a network on the meta device would get.
    """
    sizes = {id(value): _count_bytes(value) for value in net.parameters()}
    sizes |= {id(value): value.nbytes for value in net.buffers()}
    if quantization is not None:
        output = net.get_output_embeddings()
        for module in net.modules():
            frozen = isinstance(module, nn.Linear) and not module.weight.requires_grad
            if frozen and module is not output:
                numbers, rows = module.weight.numel(), module.weight.shape[0]
                sizes[id(module.weight)] = (
                    numbers + 4 * rows
                    if quantization is Quantization.int8
                    # Half a byte; a byte for the scale of 64; a float for that of 256 scales.
                    else numbers // 2 + numbers // 64 + numbers // (64 * 256) * 4
                )
    return sum(sizes.values())


def _count_bytes(value: nn.Parameter) -> int:
    """Return the bytes of one parameter, the scales of a quantised one included."""
    size = value.nbytes
    state = getattr(value, "quant_state", None)
    while state is not None:
        size += state.absmax.nbytes
        state = state.state2
    scales = getattr(value, "SCB", None)
    return size + (scales.nbytes if scales is not None else 0)
