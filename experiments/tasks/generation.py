"""Texts continued by a causal language model, in batches of prompts of like length."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn


def generate_continuations(
    net: nn.Module,
    processor: Any,
    prompts: Sequence[list[int]],
    *,
    batch_size: int,
    max_new_tokens: int,
    ends: Sequence[int] = (),
    no_repeat_ngram: int = 0,
    steer: Callable[[list[int]], Any] | None = None,
    **options: Any,
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
        no_repeat_ngram: no n-gram of so many tokens twice in a new text; 0: no limit. What the
            prompt holds may be said once: transformers' option of that name forbids it.
        steer: positions of a batch's prompts -> what changes their logits before a token is chosen,
            a function of the tokens so far (B, T) and the logits (B, vocabulary); None: nothing.
        options: further arguments of transformers' `generate`.

    Yields:
        Per batch, the position of each prompt and the new text, special tokens left out.
    """
    import torch
    from tqdm import tqdm
    from transformers import LogitsProcessorList

    from fourierft.holding import hold_weights

    device = next(net.parameters()).device
    order = sorted(range(len(prompts)), key=lambda position: -len(prompts[position]))
    training, padding = net.training, processor.pad_token_id
    net.eval()
    try:
        with (
            torch.no_grad(),
            hold_weights(net),
            tqdm(total=len(order), desc="Generation", disable=None) as bar,
        ):
            for start in range(0, len(order), batch_size):
                chosen = order[start : start + batch_size]
                width = len(prompts[chosen[0]])
                tokens = torch.full((len(chosen), width), padding)
                mask = torch.zeros_like(tokens)
                for row, position in enumerate(chosen):
                    size = len(prompts[position])
                    tokens[row, width - size :] = torch.tensor(prompts[position])
                    mask[row, width - size :] = 1
                written = net.generate(
                    input_ids=tokens.to(device),
                    attention_mask=mask.to(device),
                    max_new_tokens=max_new_tokens,
                    pad_token_id=padding,
                    eos_token_id=[processor.eos_token_id, *ends],
                    use_cache=True,
                    logits_processor=LogitsProcessorList(
                        [
                            *_build_processors(width, no_repeat_ngram),
                            *([] if steer is None else [steer(chosen)]),
                        ]
                    ),
                    **options,
                )
                texts = processor.batch_decode(written[:, width:], skip_special_tokens=True)
                yield list(zip(chosen, texts, strict=True))
                bar.update(len(chosen))
    finally:
        net.train(training)


def _build_processors(width: int, no_repeat_ngram: int) -> list[Any]:
    """Return the processors of the next token's scores; `width` is the prompts'."""
    if not no_repeat_ngram:
        return []
    from transformers import LogitsProcessor, NoRepeatNGramLogitsProcessor

    limit = NoRepeatNGramLogitsProcessor(no_repeat_ngram)

    class NoRepetition(LogitsProcessor):
        """Forbids repetition within the new text alone."""

        def __call__(self, input_ids: Any, scores: Any) -> Any:
            return limit(input_ids[:, width:], scores)

    return [NoRepetition()]
