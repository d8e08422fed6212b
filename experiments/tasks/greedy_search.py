"""Greedy search, token by token: a text that ends makes room for the next prompt."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from experiments.tasks.cached_pass import get_model, run_cached

if TYPE_CHECKING:
    from torch import Tensor, nn


def continue_greedily(
    net: nn.Module,
    prompts: Sequence[list[int]],
    order: Sequence[int],
    *,
    batch_size: int,
    max_new_tokens: int,
    ends: Sequence[int],
    no_repeat_ngram: int,
    steer: Callable[[list[int]], Callable[[Tensor], Tensor]] | None,
) -> Iterator[list[tuple[int, list[int]]]]:
    """Continue every prompt by its likeliest tokens.

    Answers differ much in length. In a fixed batch all would wait for the longest.

    Arguments are those of `generate_continuations`, for a network in evaluation mode, and `order`:
    positions of the prompts, as they are to be begun. `ends` is complete.

    Yields:
        Position and new tokens of each text that ended together.
    """
    waiting = deque(OpenText(position, prompts[position]) for position in order)
    batch = TextBatch(net, no_repeat_ngram, steer)
    while waiting or batch.texts:
        room = batch_size - len(batch.texts) if batch.grows else 0
        if waiting and room:
            batch.read([waiting.popleft() for _ in range(min(room, len(waiting)))])
        else:
            batch.step()
        ended = [
            text
            for text in batch.texts
            if text.made[-1] in ends or len(text.made) >= max_new_tokens
        ]
        if ended:
            batch.drop(ended)
            yield [(text.position, text.made) for text in ended]


@dataclass(eq=False)
class OpenText:
    """A text under way."""

    position: int
    """Position of its prompt."""
    prompt: list[int]
    """Token ids of the prompt."""
    made: list[int] = field(default_factory=list)
    """New token ids."""


class TextBatch:
    """Texts that get a token each at a time. Keys and values lie in one cache, padded at the left.

    Args:
        net: a causal language model of transformers.
        no_repeat_ngram: see `generate_continuations`.
        steer: likewise.
    """

    def __init__(
        self,
        net: nn.Module,
        no_repeat_ngram: int,
        steer: Callable[[list[int]], Callable[[Tensor], Tensor]] | None,
    ) -> None:
        import torch
        from transformers import NoRepeatNGramLogitsProcessor

        self.texts: list[OpenText] = []
        self._net = net
        self._limit: Any = (
            NoRepeatNGramLogitsProcessor(no_repeat_ngram) if no_repeat_ngram else None
        )
        self._steer = steer
        self._steering: Callable[[Tensor], Tensor] | None = None
        self._cache: Any = None
        device = next(net.parameters()).device
        self._mask = torch.zeros(0, 0, dtype=torch.long, device=device)
        self._last = torch.zeros(0, dtype=torch.long, device=device)

    @property
    def grows(self) -> bool:
        """True if further texts can join those that are under way.

        Not with caches that forget (sliding windows), whose rows must begin together.
        """
        from transformers.cache_utils import DynamicLayer

        return not self.texts or all(type(layer) is DynamicLayer for layer in self._cache.layers)

    def read(self, texts: list[OpenText]) -> None:
        """Read prompts, choose their first tokens and make them part of the batch."""
        import torch

        width = max(len(text.prompt) for text in texts)
        tokens = torch.zeros(len(texts), width, dtype=torch.long)
        mask = torch.zeros_like(tokens)
        for row, text in enumerate(texts):
            tokens[row, width - len(text.prompt) :] = torch.tensor(text.prompt)
            mask[row, width - len(text.prompt) :] = 1
        device = self._mask.device
        tokens, mask = tokens.to(device), mask.to(device)
        logits, cache = run_cached(self._net, tokens, mask, (mask.cumsum(1) - 1).clamp(min=0))
        if self.texts:
            for layer, new in zip(self._cache.layers, cache.layers, strict=True):
                layer.keys = _stack_left(layer.keys, new.keys, -2)
                layer.values = _stack_left(layer.values, new.values, -2)
        else:
            self._cache = cache
        self._mask = _stack_left(self._mask, mask, -1)
        self._last = torch.cat([self._last, self._choose(texts, logits)])
        self.texts += texts
        self._steering = None

    def step(self) -> None:
        """Choose the next token of every text."""
        import torch

        positions = self._mask.sum(1, keepdim=True)
        self._mask = torch.cat([self._mask, torch.ones_like(positions)], 1)
        logits, self._cache = run_cached(
            self._net, self._last[:, None], self._mask, positions, self._cache
        )
        self._last = self._choose(self.texts, logits)

    def drop(self, texts: Sequence[OpenText]) -> None:
        """Leave texts out from now on."""
        import torch

        rows = [row for row, text in enumerate(self.texts) if text not in texts]
        self.texts = [self.texts[row] for row in rows]
        keep = torch.tensor(rows, dtype=torch.long, device=self._mask.device)
        self._mask, self._last, self._steering = self._mask[keep], self._last[keep], None
        if not rows:
            self._cache, self._mask = None, self._mask[:, :0]
            return
        self._cache.batch_select_indices(keep)
        if self.grows:
            unused = int(self._mask.any(0).int().argmax())  # columns that pad every text
            self._mask = self._mask[:, unused:]
            for layer in self._cache.layers:
                layer.keys = layer.keys[..., unused:, :]
                layer.values = layer.values[..., unused:, :]

    def _choose(self, texts: Sequence[OpenText], logits: Tensor) -> Tensor:
        """Add a token to each of the texts, whose logits (B, vocabulary) these are."""
        import torch

        logits = self._penalise_repetition(texts, logits.float())
        if self._limit is not None:
            made = [torch.tensor([text.made], dtype=torch.long) for text in texts]
            logits = torch.cat(
                [self._limit(one, row) for one, row in zip(made, logits.split(1), strict=True)]
            )
        if self._steer is not None:
            logits = self._steer_now(texts)(logits)
        chosen = logits.argmax(-1)
        for text, token in zip(texts, chosen.tolist(), strict=True):
            text.made.append(token)
        return chosen

    def _penalise_repetition(self, texts: Sequence[OpenText], logits: Tensor) -> Tensor:
        """Apply the penalty of the model's own generation settings, as transformers does."""
        import torch
        from transformers import RepetitionPenaltyLogitsProcessor

        penalty = get_model(self._net).generation_config.repetition_penalty
        if penalty in (None, 1.0):
            return logits
        change = RepetitionPenaltyLogitsProcessor(penalty)
        rows = [
            change(torch.tensor([[*text.prompt, *text.made]], device=row.device), row)
            for text, row in zip(texts, logits.split(1), strict=True)
        ]
        return torch.cat(rows)

    def _steer_now(self, texts: Sequence[OpenText]) -> Callable[[Tensor], Tensor]:
        """Return what steers these texts; kept from token to token for the whole batch."""
        assert self._steer is not None
        if texts is not self.texts:
            return self._steer([text.position for text in texts])
        if self._steering is None:
            self._steering = self._steer([text.position for text in texts])
        return self._steering


def _stack_left(first: Tensor, second: Tensor, dim: int) -> Tensor:
    """Put the rows of two tensors below each other, padded at the left along a dimension."""
    import torch
    from torch.nn import functional

    length = max(first.shape[dim], second.shape[dim])
    after = [0, 0] * (-1 - dim)
    return torch.cat(
        [functional.pad(one, [*after, length - one.shape[dim], 0]) for one in (first, second)]
    )
