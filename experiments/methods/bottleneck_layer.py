"""Bottleneck adapters: small two-layer networks behind the modules of a transformer's blocks."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn import functional

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": functional.relu,
    "gelu": functional.gelu,
}

# The last projection of either half of a block: in RoBERTa and BERT, ViT, GPT-2, LLaMA.
_ATTENTION = re.compile(
    r"(.+)\.(attention\.output\.dense|attention\.o_proj|attn\.c_proj|self_attn\.o_proj)"
)
_FEED_FORWARD = re.compile(
    r"(.+)\.(?<!attention\.)(output\.dense|mlp\.fc2|mlp\.c_proj|mlp\.down_proj)"
)


class BottleneckLayer(nn.Module):
    """Bottleneck h -> h + W_up f(W_down norm(h) + b_down) + b_up behind the module that it wraps.

    W_up and b_up start at zero: the network computes what it did before, to the bit.

    Args:
        base_layer: returns hidden states (..., hidden), or a tuple that begins with them.
        hidden: width of the hidden states.
        width: of the bottleneck.
        activation: f, one of ACTIVATIONS.
        norm: a LayerNorm of its own before the bottleneck; False: the identity.
    """

    def __init__(self, base_layer: nn.Module, hidden: int, width: int, activation: str, norm: bool):
        super().__init__()
        device = next(base_layer.parameters()).device
        self.base_layer, self.activation = base_layer, activation
        self.norm = nn.LayerNorm(hidden, device=device) if norm else nn.Identity()
        self.down = nn.Linear(hidden, width, device=device)
        self.up = nn.Linear(width, hidden, device=device)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Return the wrapped module's output with its hidden states (..., hidden) changed."""
        found = self.base_layer(*args, **kwargs)
        hidden = found[0] if isinstance(found, tuple) else found
        wide = hidden.to(self.down.weight.dtype)  # the base may be in half precision
        narrow = ACTIVATIONS[self.activation](self.down(self.norm(wide)))
        hidden = hidden + self.up(narrow).to(hidden.dtype)
        return (hidden, *found[1:]) if isinstance(found, tuple) else hidden


def find_blocks(net: nn.Module) -> list[dict[str, str]]:
    """Return the paths in every block, first to last.

    Returns:
        Per block its own path as `block`, and those of the last projections of its halves as
        `attention` and `feed_forward`; empty where the form of the blocks is not known.
    """
    found: dict[str, dict[str, str]] = {}
    for path, _ in net.named_modules():
        for place, form in (("attention", _ATTENTION), ("feed_forward", _FEED_FORWARD)):
            if match := form.fullmatch(path):
                found.setdefault(match[1], {"block": match[1]})[place] = path
    return [block for block in found.values() if len(block) == 3]


def find_norms(block: nn.Module) -> list[nn.Module]:
    """Return the normalisations inside a block, whatever the architecture calls them."""
    return [module for module in block.modules() if type(module).__name__.endswith("Norm")]


def insert_bottlenecks(net: nn.Module, paths: Sequence[str], hidden: int, **settings: Any) -> None:
    """Wrap the modules at `paths` in a `BottleneckLayer` with `hidden` and `settings`, in place."""
    for path in sorted(paths, key=len, reverse=True):  # what is inside first: paths stay right
        net.set_submodule(path, BottleneckLayer(net.get_submodule(path), hidden, **settings))
