"""Text for many requests at once; requests join and leave between tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache

from ..bank.adapter_bank import AdapterBank
from ..bank.places import PinnedAdapter
from ..bank.rows import BankedRows
from ..engine.mixed_batch import BASE


@dataclass(eq=False)
class TextRequest:
    """A text that is being made."""

    tokens: list[int]
    """The prompt."""
    adapter: PinnedAdapter | None
    """None for the base model."""
    max_tokens: int
    """New tokens at most."""
    temperature: float = 0.0
    """0: the likeliest token."""
    top_p: float = 1.0
    """Share of the probability that tokens are drawn from."""
    seed: int | None = None
    """Seed of the draws; None: another one each time."""
    emit: Callable[[int | None, str | None], None] = lambda token, reason: None
    """Function of a new token, None at the end, and of the reason for the end (stop, length)."""
    cancelled: bool = False
    """True once nobody waits for the text any more."""
    made: int = 0
    """New tokens so far."""
    generator: torch.Generator = field(init=False)

    def __post_init__(self) -> None:
        self.generator = torch.Generator()
        if self.seed is None:
            self.generator.seed()
        else:
            self.generator.manual_seed(self.seed)

    def choose(self, logits: Tensor) -> int:
        """Return the next token for logits (vocabulary,)."""
        if self.temperature == 0:
            best = int(logits.argmax())
            if logits[best].isnan():
                raise RuntimeError("logits are not numbers")
            return best
        logits = logits.float().cpu()
        # Below the smallest temperature logits would overflow; it is greedy anyway.
        shares = ((logits - logits.max()) / max(self.temperature, 1e-4)).softmax(-1)
        if self.top_p < 1:
            ordered, places = shares.sort(descending=True)
            ordered[ordered.cumsum(-1) - ordered >= self.top_p] = 0
            return int(places[ordered.multinomial(1, generator=self.generator)])
        return int(shares.multinomial(1, generator=self.generator))


class Decoder:
    """Texts that are made together, a token of each at a time.

    Keys and values of all texts lie in one cache, padded at the left. New requests are read in a
    batch of their own, whose cache is then joined to it.

    Args:
        bank: The adapters, and the causal language model that they are for.
        ends: Tokens that end a text.
    """

    def __init__(self, bank: AdapterBank, ends: Sequence[int]) -> None:
        self.bank = bank
        self.ends = frozenset(ends)
        self.requests: list[TextRequest] = []
        self._rows: BankedRows | None = None
        self._cache: DynamicCache | None = None
        self._mask = torch.zeros(0, 0, dtype=torch.long, device=self._net.device)
        self._last = torch.zeros(0, dtype=torch.long, device=self._net.device)

    @property
    def _net(self) -> Any:
        net: nn.Module = self.bank.net
        return net

    @torch.no_grad()
    def join(self, requests: Sequence[TextRequest]) -> None:
        """Read the prompts of requests, emit their first tokens and make them part of the batch."""
        device, longest = self._net.device, max(len(request.tokens) for request in requests)
        ids = torch.zeros(len(requests), longest, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for row, request in enumerate(requests):
            ids[row, longest - len(request.tokens) :] = torch.tensor(request.tokens)
            mask[row, longest - len(request.tokens) :] = 1
        ids, mask, cache = ids.to(device), mask.to(device), DynamicCache()
        positions = (mask.cumsum(1) - 1).clamp_min(0)
        logits = self._run(self._gather(requests), ids, mask, positions, cache)
        if self._cache is None:
            self._cache = cache
        else:
            self._cache = _map_layers(partial(_stack_left, dim=-2), self._cache, cache)
        self._mask = _stack_left(self._mask, mask, dim=-1)
        self.requests, self._rows = [*self.requests, *requests], None
        added = self._advance(requests, logits)
        self._last = torch.cat([self._last, added])
        self._drop_ended()

    @torch.no_grad()
    def step(self) -> None:
        """Emit one token of every text; texts that end leave."""
        positions = self._mask.sum(1, keepdim=True)
        self._mask = torch.cat([self._mask, torch.ones_like(positions)], 1)
        if self._rows is None:
            self._rows = self._gather(self.requests)
        logits = self._run(self._rows, self._last[:, None], self._mask, positions, self._cache)
        self._last = self._advance(self.requests, logits)
        self._drop_ended()

    def _gather(self, requests: Sequence[TextRequest]) -> BankedRows:
        return self.bank.gather([request.adapter or BASE for request in requests])

    def _run(
        self,
        rows: BankedRows,
        ids: Tensor,
        mask: Tensor,
        positions: Tensor,
        cache: DynamicCache | None,
    ) -> Tensor:
        with self.bank.rows(rows):
            found = self._net(
                input_ids=ids,
                attention_mask=mask,
                position_ids=positions,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            )
        return found.logits[:, -1]

    def _advance(self, requests: Sequence[TextRequest], logits: Tensor) -> Tensor:
        """Choose and emit the next token of each request; -1 stands for a text that ends."""
        chosen = []
        for request, row in zip(requests, logits, strict=True):
            try:
                token = request.choose(row)
            except RuntimeError:  # logits that are not numbers: an adapter that diverged
                request.emit(None, "error")
                chosen.append(-1)
                continue
            request.made += 1
            if request.cancelled or token in self.ends:
                request.emit(None, "stop")
                token = -1
            elif request.made == request.max_tokens:
                request.emit(token, None)
                request.emit(None, "length")
                token = -1
            else:
                request.emit(token, None)
            chosen.append(token)
        return torch.tensor(chosen, device=logits.device)

    def _drop_ended(self) -> None:
        keep = (self._last >= 0).nonzero()[:, 0]
        if len(keep) == len(self.requests):
            return
        self.requests, self._rows = [self.requests[row] for row in keep.tolist()], None
        self._last, self._mask = self._last[keep], self._mask[keep]
        if not self.requests:
            self._cache, self._mask = None, self._mask[:, :0]
            return
        unused = int(self._mask.any(0).int().argmax())  # columns that pad every text
        self._mask = self._mask[:, unused:]
        self._cache = _map_layers(lambda t: t[keep][:, :, unused:], self._cache)


def _map_layers(change: Callable[..., Tensor], *caches: Any) -> DynamicCache:
    """Return a cache whose keys and values are functions of those of other caches."""
    return DynamicCache(
        [
            (change(*(one.keys for one in layers)), change(*(one.values for one in layers)))
            for layers in zip(*(cache.layers for cache in caches), strict=True)
        ]
    )


def _stack_left(first: Tensor, second: Tensor, dim: int) -> Tensor:
    """Put the rows of two tensors below each other, padded at the left along a dimension."""
    length = max(first.shape[dim], second.shape[dim])
    after = [0, 0] * (-1 - dim)
    return torch.cat(
        [nn.functional.pad(t, [*after, length - t.shape[dim], 0]) for t in (first, second)]
    )
