"""Forward passes of a causal language model that keep keys and values."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


def get_model(net: Any) -> Any:
    """Return the model of transformers that PEFT's wrapper holds, or the model itself."""
    return net.get_base_model() if hasattr(net, "get_base_model") else net


def learns_prompts(net: Any) -> bool:
    """Return True for methods of PEFT whose tokens or keys its wrapper puts before a prompt."""
    return bool(getattr(getattr(net, "active_peft_config", None), "is_prompt_learning", False))


def run_cached(
    net: Any, tokens: Tensor, mask: Tensor, positions: Tensor, cache: Any = None
) -> tuple[Tensor, Any]:
    """Read tokens behind those that a cache holds.

    Args:
        net: a causal language model of transformers, adapted or not.
        tokens: (B, T).
        mask: (B, all tokens so far), 0 for padding.
        positions: (B, T), counted without padding.
        cache: keys and values of the tokens before; None for none.

    Returns:
        Logits (B, vocabulary) of the token that follows, and the cache.
    """
    given = {
        "input_ids": tokens,
        "attention_mask": mask,
        "position_ids": positions,
        "past_key_values": cache,
        "use_cache": True,
        "logits_to_keep": 1,
    }
    model = get_model(net)  # accelerate's autocast lies on PEFT's wrapper
    known = inspect.signature(model.forward).parameters  # some count positions themselves
    found = model(**{name: value for name, value in given.items() if name in known})
    return found.logits[:, -1], found.past_key_values
