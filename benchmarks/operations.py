"""Operations that adapted layers start in a forward and backward pass, counted on a CPU."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.cases import adapt
from fourierft import Engine

CONTESTANTS: dict[str, str | Engine] = {
    "frozen": "frozen",
    "LoRA r=8": "lora",
    "PEFT's FourierFT": "stock",
    **{name: Engine(name, "dense") for name in ("recompute", "save", "batched", "kept")},
}
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
LAYERS = 24
_SIDE, _TOKENS, _N = 32, 4, 100
# They compute nothing; views are left out by their own mark.
_BOOKKEEPING = ("aten::empty", "aten::new_empty", "aten::detach", "aten::_unsafe_view")


class _Count(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not func.is_view and not func.name().startswith(_BOOKKEEPING):
            self.found[func.name()] += 1
        return func(*args, **(kwargs or {}))


def count_per_layer(method: str | Engine, dtype: torch.dtype) -> float:
    """Return the operations per layer of 24 layers of one shape, with the input's gradient.

    Of a micro-batch that is not the first of its step (which matters to `kept` alone). Any shape
    starts the same ones. A library's operation may be several kernels (a transform of a long
    signal), so these are lower bounds of kernels.
    """
    torch.manual_seed(0)
    plain = [nn.Linear(_SIDE, _SIDE, bias=False, dtype=dtype) for _ in range(LAYERS)]
    net = adapt(nn.Sequential(*plain), method, _N, [str(place) for place in range(LAYERS)])
    x = torch.randn(_TOKENS, _SIDE, dtype=dtype, requires_grad=True)
    dy = torch.randn(_TOKENS, _SIDE, dtype=dtype)
    wanted = [x, *(p for p in net.parameters() if p.requires_grad)]
    torch.autograd.grad(net(x), wanted, dy)  # tables are made
    optimizer = torch.optim.SGD(wanted)  # without gradients it changes nothing, but is known
    optimizer.step()
    torch.autograd.grad(net(x), wanted, dy)
    with _Count() as count:
        torch.autograd.grad(net(x), wanted, dy)
    return count.found.total() / LAYERS
