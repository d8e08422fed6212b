"""Beam search, by transformers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from experiments.tasks.cached_pass import get_model, learns_prompts, run_cached

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import Cache


def search_beams(
    net: nn.Module,
    prompts: Sequence[list[int]],
    order: Sequence[int],
    *,
    batch_size: int,
    max_new_tokens: int,
    ends: Sequence[int],
    no_repeat_ngram: int,
    num_beams: int,
    length_penalty: float,
    padding: int,
    steer: Callable[[list[int]], Callable[[Tensor], Tensor]] | None = None,
) -> Iterator[list[tuple[int, Tensor]]]:
    """Find the best continuation of every prompt, batch by batch.

    Arguments are those of `generate_continuations`, for a network in evaluation mode, and `order`:
    positions of the prompts, as they are to be continued; `padding`: token that fills up prompts
    and texts. `ends` is complete; `steer` is for a width of 1.

    Yields:
        Position and new tokens, padded at the right, of each text of a batch.
    """
    import torch
    from transformers import LogitsProcessorList

    device = next(net.parameters()).device
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        width = max(len(prompts[position]) for position in chosen)
        tokens = torch.full((len(chosen), width), padding)
        mask = torch.zeros_like(tokens)
        for row, position in enumerate(chosen):
            size = len(prompts[position])
            tokens[row, width - size :] = torch.tensor(prompts[position])
            mask[row, width - size :] = 1
        tokens, mask = tokens.to(device), mask.to(device)
        processors = _build_processors(width, no_repeat_ngram)
        if steer is not None:
            change = steer(list(chosen))
            processors.append(lambda _, logits, change=change: change(logits))
        with _end_with_the_best(net):
            written = net.generate(
                input_ids=tokens,
                attention_mask=mask,
                past_key_values=_read_prompts(net, tokens, mask, num_beams),
                max_new_tokens=max_new_tokens,
                pad_token_id=padding,
                eos_token_id=list(ends),
                use_cache=True,
                num_beams=num_beams,
                length_penalty=length_penalty,
                early_stopping="never",  # the best of all that fits, as microsoft/LoRA takes it
                do_sample=False,
                logits_processor=LogitsProcessorList(processors),
            )
        yield list(zip(chosen, written[:, width:], strict=True))


@contextmanager
def _end_with_the_best(net: Any) -> Iterator[None]:
    """Let a search end when no beam can come to more than the best text that has ended.

    Transformers searches until none can come to more than the last of `num_beams` such texts, of
    which the first alone is taken here: mostly until the longest text allowed.
    """
    model = get_model(net)
    check = model._check_early_stop_heuristic

    def check_best(**state: Any) -> Tensor:
        first = {name: state[name][:, :1] for name in ("beam_scores", "is_sent_finished")}
        ahead: Tensor = check(**{**state, **first})
        return ahead

    model._check_early_stop_heuristic = check_best
    try:
        yield
    finally:
        del model._check_early_stop_heuristic


def _read_prompts(net: nn.Module, tokens: Tensor, mask: Tensor, num_beams: int) -> Cache | None:
    """Return keys and values of all prompt tokens but the last, for every beam.

    Transformers would read a prompt once per beam. The last token is left for it, as it wants
    logits to begin with. None if there is nothing to save, or the cache is not ours to make.
    """
    preset = get_model(net).generation_config.cache_implementation
    if tokens.shape[1] == 1 or learns_prompts(net) or preset:
        return None
    given = mask[:, :-1]
    cache: Cache
    _, cache = run_cached(net, tokens[:, :-1], given, (given.cumsum(-1) - 1).clamp(min=0))
    cache.batch_repeat_interleave(num_beams)
    return cache


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
