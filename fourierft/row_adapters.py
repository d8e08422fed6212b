"""`adapter_names=`: one adapter for every row of a batch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from peft.utils.other import AuxiliaryTrainingWrapper
from torch import nn

from .config import first_few
from .engine.mixed_batch import BASE
from .layer import FourierFTLayer, adapted_layers


@contextmanager
def row_adapters(
    model: nn.Module, adapter_names: Sequence[str], options: Mapping[str, Any]
) -> Iterator[None]:
    """Give every row of the batches inside the block its own adapter.

    Args:
        model: A transformers model with FourierFT layers.
        adapter_names: Names, one a row; ``__base__`` for a row without an adapter.
        options: Keyword arguments of the model's call: a beam search (``num_beams``) repeats
            every row but those of an encoder.

    Raises:
        TypeError: ``adapter_names`` is not a list of names.
        ValueError: An adapter is unknown; the weight of an adapted layer is read past the layer;
            or gradients are checkpointed, so that the backward pass would call the layers again,
            without the names.
    """
    names = _checked(model, adapter_names)
    beams = options.get("num_beams")
    beams = beams if isinstance(beams, int) else 1
    encoder = _encoder(model) if beams > 1 else None
    unrepeated = set(encoder.modules()) if encoder is not None else set()
    repeated = [name for name in names for _ in range(beams)]
    handles = [
        module.register_forward_pre_hook(
            _hook(names if module in unrepeated else repeated), with_kwargs=True
        )
        for module in model.modules()
        if isinstance(module, (FourierFTLayer, AuxiliaryTrainingWrapper))
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _hook(names: list[str]) -> Any:
    def add_names(module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict]:
        return args, {**kwargs, "adapter_names": names}

    return add_names


def _checked(model: nn.Module, adapter_names: Sequence[str]) -> list[str]:
    if isinstance(adapter_names, str) or not all(isinstance(name, str) for name in adapter_names):
        raise TypeError(f"adapter_names: got {adapter_names!r}, allowed a list of names, one a row")
    layers = adapted_layers(model)
    known = sorted({name for layer in layers.values() for name in layer.fourierft_spectrum})
    unknown = sorted(set(adapter_names) - set(known) - {BASE})
    if unknown:
        raise ValueError(
            f"adapter_names: got {', '.join(unknown)}, allowed {', '.join([*known, BASE])}"
        )
    read = [name for name, layer in layers.items() if layer.weight_is_read]
    if read:
        raise ValueError(
            f"adapter_names: the modules around {first_few(read)} read a weight that is one for "
            "all rows; choose one adapter with set_adapter"
        )
    if model.training and any(getattr(m, "gradient_checkpointing", False) for m in model.modules()):
        raise ValueError(
            "adapter_names: cannot train with gradient checkpointing; "
            "call gradient_checkpointing_disable() first"
        )
    return list(adapter_names)


def _encoder(model: nn.Module) -> nn.Module | None:
    """Return the encoder of an encoder-decoder model."""
    found = model.get_encoder() if hasattr(model, "get_encoder") else None
    return None if found is model else found
