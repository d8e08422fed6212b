"""Texts continued by a causal language model, several at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn


def generate_continuations(
    net: nn.Module,
    processor: Any,
    prompts: Sequence[list[int]],
    *,
    batch_size: int,
    max_new_tokens: int,
    ends: Sequence[int] = (),
    num_beams: int = 1,
    length_penalty: float = 1.0,
    no_repeat_ngram: int = 0,
    steer: Callable[[list[int]], Callable[[Tensor], Tensor]] | None = None,
) -> Iterator[list[tuple[int, str]]]:
    """Continue every prompt, the longest first, so that running out of memory shows at once.

    Args:
        net: a causal language model of transformers, adapted or not; in evaluation mode only while
            this runs.
        processor: its tokenizer.
        prompts: token ids of each prompt.
        batch_size: prompts at once; padded at the left and masked.
        max_new_tokens: tokens after which a text ends.
        ends: tokens that end a text, beside the tokenizer's own.
        num_beams: width of the beam search; 1: the likeliest token each time.
        length_penalty: exponent p in (sum of log probabilities) / tokens^p, to rank beams.
        no_repeat_ngram: no n-gram of so many tokens twice in a new text; 0: no limit. What the
            prompt holds may be said once: transformers' option of that name forbids it.
        steer: positions of prompts -> what changes their logits (B, vocabulary) before a token is
            chosen; called anew whenever texts come or go. None, and with beams: nothing.

    Yields:
        As texts end, the position of each prompt and the new text, special tokens left out.
    """
    import torch
    from tqdm import tqdm

    from experiments.tasks.beam_search import search_beams
    from experiments.tasks.cached_pass import learns_prompts
    from experiments.tasks.greedy_search import continue_greedily
    from fourierft.holding import hold_weights

    order = sorted(range(len(prompts)), key=lambda position: -len(prompts[position]))
    limits: dict[str, Any] = {
        "batch_size": batch_size,
        "max_new_tokens": max_new_tokens,
        "ends": [processor.eos_token_id, *ends],
        "no_repeat_ngram": no_repeat_ngram,
    }
    training = net.training
    net.eval()
    try:
        with (
            torch.no_grad(),
            hold_weights(net),
            tqdm(total=len(order), desc="Generation", disable=None) as bar,
        ):
            if num_beams > 1 or learns_prompts(net):
                limits |= {"num_beams": num_beams, "length_penalty": length_penalty}
                limits["steer"] = steer if num_beams == 1 else None
                padding = processor.pad_token_id
                found: Iterator[Any] = search_beams(net, prompts, order, padding=padding, **limits)
            else:
                found = continue_greedily(net, prompts, order, steer=steer, **limits)
            for batch in found:
                positions, tokens = zip(*batch, strict=True)
                texts = processor.batch_decode(list(tokens), skip_special_tokens=True)
                yield list(zip(positions, texts, strict=True))
                bar.update(len(batch))
    finally:
        net.train(training)
