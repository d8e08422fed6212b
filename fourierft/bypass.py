"""Modules that read the weight of a layer instead of calling it.

`torch.nn.MultiheadAttention` never calls its ``out_proj``, `torch.nn.TransformerEncoderLayer` does
not call ``linear1`` and ``linear2`` in evaluation, WavLM's attention hands the weights of all its
projections to one function. They are recognised by their code.
"""

from __future__ import annotations

import dis
import inspect
from collections.abc import Iterator
from functools import lru_cache
from types import CodeType

from torch import nn

# Attributes of a tensor that do not depend on its values. A trailing underscore marks a write.
_PROPERTIES = {"data", "device", "dtype", "is_cuda", "is_meta", "ndim", "numel", "requires_grad"}
_PROPERTIES |= {"dim", "element_size", "shape", "size"}
_TESTS = {"hasattr", "isinstance"}
_SETUP = ("init", "reset", "tie")


def weights_read_by(kind: type[nn.Module]) -> frozenset[str]:
    """Return names of attributes whose ``weight`` the methods of a module class compute with."""
    own = kind.__mro__[: kind.__mro__.index(nn.Module)]
    return frozenset().union(*map(_weights_read_in, own))


@lru_cache(maxsize=1024)
def _weights_read_in(kind: type) -> frozenset[str]:
    found: set[str] = set()
    for name, method in vars(kind).items():
        if isinstance(method, property):
            method = method.fget
        code = getattr(inspect.unwrap(method), "__code__", None)
        if code is not None and not any(word in name for word in _SETUP):
            for part in _code_objects(code):
                found.update(_weights_read(part))
    return frozenset(found)


def _code_objects(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _code_objects(constant)


def _weights_read(code: CodeType) -> Iterator[str]:
    """Yield every ``name`` of an expression ``owner.name.weight`` whose values are used."""
    # Long methods have prefixes before the arguments of their instructions.
    steps = [step for step in dis.get_instructions(code) if step.opname != "EXTENDED_ARG"]
    for i in range(1, len(steps) - 1):
        name, weight, after = steps[i - 1 : i + 2]
        if not (_looks_up(name) and _looks_up(weight) and weight.argval == "weight"):
            continue
        if _looks_up(after) and (after.argval in _PROPERTIES or after.argval.endswith("_")):
            continue
        if not any(step.argval in _TESTS for step in steps[max(i - 3, 0) : i - 1]):
            yield name.argval


def _looks_up(step: dis.Instruction) -> bool:
    return step.opname in ("LOAD_ATTR", "LOAD_METHOD")
