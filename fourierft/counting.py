"""Number of parameters that a method trains and stores; the head is always counted apart."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from torch import nn


@dataclass(frozen=True)
class Counts:
    """Parameter counts of a model, each tied parameter once."""

    adapter: int
    """Trainable parameters outside the head."""
    head: int
    """Trainable parameters inside the head."""
    base: int
    """Parameters of the base model as it was before anything wrapped it, its head included."""
    stored_bytes: int
    """Bytes of the adapter's trainable parameters at their dtype, without file headers."""


def fourierft_parameters(n: int, layers: int) -> int:
    """Return FourierFT's trainable parameters: n per adapted weight, whatever its size."""
    return n * layers


def lora_parameters(shapes: Iterable[Sequence[int]], r: int) -> int:
    """Return LoRA's trainable parameters: r * (d1 + d2) for every adapted weight ``(d1, d2)``."""
    return sum(r * (d1 + d2) for d1, d2 in shapes)


def stored_bytes(numbers: int, bytes_per_number: int = 4) -> int:
    """Return the bytes of that many stored numbers (4 for float32), without file headers."""
    return numbers * bytes_per_number


def in_head(path: str, head: Sequence[str]) -> bool:
    """Return True if the parameter at this path belongs to the head.

    It does if a component of the path is one of the head's module names, or PEFT's
    ``modules_to_save``.
    """
    return not {*head, "modules_to_save"}.isdisjoint(path.split("."))


def count(net: nn.Module, head: Sequence[str]) -> Counts:
    """Count the parameters of a model, wrapped by PEFT or plain; on the meta device too.

    Wrappers are recognised by their structure, as PEFT and this package build them: a module that
    holds ``base_layer`` or ``original_module`` adds everything else that it holds; so does a model
    with a ``peft_config`` outside its ``base_model``. In a plain model every parameter is the
    base's, and "adapter" means those trained outside the head.

    Args:
        net: The model, with ``requires_grad`` set as in training.
        head: Names of the head's modules. A parameter belongs to it
            if a component of its path equals one of them, or is PEFT's ``modules_to_save``.
    """
    adding = _adding_prefixes(net)
    in_base: dict[int, bool] = {}
    of_head: dict[int, bool] = {}
    parameters = {}
    # A tied parameter has several paths, and one of them may lie in the base model or the head.
    for path, parameter in net.named_parameters(remove_duplicate=False):
        key = id(parameter)
        parameters[key] = parameter
        added = any(
            path.startswith(prefix) and not path.startswith(kept) for prefix, kept in adding
        )
        in_base[key] = in_base.get(key, False) or not added
        of_head[key] = of_head.get(key, False) or in_head(path, head)

    trainable = [key for key, parameter in parameters.items() if parameter.requires_grad]
    adapter = [parameters[key] for key in trainable if not of_head[key]]
    return Counts(
        adapter=sum(map(_size, adapter)),
        head=sum(_size(parameters[key]) for key in trainable if of_head[key]),
        base=sum(_size(parameter) for key, parameter in parameters.items() if in_base[key]),
        stored_bytes=sum(parameter.numel() * parameter.element_size() for parameter in adapter),
    )


def _adding_prefixes(net: nn.Module) -> list[tuple[str, tuple[str, ...]]]:
    """Return path prefixes of modules that add parameters, with the base model's paths inside."""
    prefixes: list[tuple[str, tuple[str, ...]]] = []
    for name, module in net.named_modules(remove_duplicate=False):
        start = f"{name}." if name else ""
        # `_modules`, because PEFT's wrappers answer for the attributes of what they wrap.
        children = module._modules
        wrapped = [child for child in ("base_layer", "original_module") if child in children]
        prefixes.extend((start, (f"{start}{child}.",)) for child in wrapped)
        if "base_model" in children and hasattr(module, "peft_config"):
            # Prompt methods put the model itself there, all others a tuner around it.
            tuner = "prompt_encoder" not in children and "model" in children["base_model"]._modules
            inner = "base_model.model." if tuner else "base_model."
            prefixes.append((start, (f"{start}{inner}",)))
    return prefixes


def _size(parameter: nn.Parameter) -> int:
    """Return the size of a parameter; a 4-bit one packs two values into each element."""
    quantised = getattr(parameter, "quant_state", None)
    return parameter.numel() if quantised is None else quantised.shape.numel()
