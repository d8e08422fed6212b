"""Tasks for causal language models: a prompt is given, its completion is learnt and scored."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from experiments.models.head import Head
from experiments.tasks import token_cache
from experiments.tasks.task import Task

if TYPE_CHECKING:
    import numpy as np
    from datasets import Dataset

log = logging.getLogger(__name__)

IGNORED = -100
"""Label of a token that is not scored."""


@dataclass(kw_only=True)
class Language(Task):
    """A text to continue. Loss and cross entropy are about the completion and its end alone."""

    max_length: int = field()
    """Tokens after which a row is cut."""
    max_new_tokens: int
    """Tokens after which a generated text is cut."""
    generation_batch_size: int = 16
    """Prompts that are continued at once (local)."""

    @property
    def selects(self) -> bool:
        """See `Task.selects`: what is generated in the end is scored."""
        return False

    @property
    def of_text(self) -> bool:
        """See `Task.of_text`."""
        return True

    @property
    def head(self) -> Head:
        """The language model's own."""
        return Head(kind="language")

    @property
    def measurable(self) -> Sequence[str]:
        """See `Task.measurable`."""
        return ("cross_entropy",)

    def problems(self) -> Iterator[str]:
        """See `Task.problems`."""
        yield from super().problems()
        for key in ("max_new_tokens", "generation_batch_size"):
            if getattr(self, key) < 1:
                yield f"task.{key}={getattr(self, key)}: must be at least 1"

    def reduce(self, logits: Any, labels: Any) -> tuple[Any, Any]:
        """Summed negative log likelihood (rows,) and number of scored tokens (rows,)."""
        import torch
        from torch.nn import functional

        labels = functional.pad(labels[:, 1:], (0, 1), value=IGNORED)  # token t predicts t + 1
        losses = [
            functional.cross_entropy(row.float(), wanted, ignore_index=IGNORED, reduction="sum")
            for row, wanted in zip(logits, labels, strict=True)  # a row at a time: the vocabulary
        ]
        return torch.stack(losses), (labels != IGNORED).sum(-1)

    def score(self, predictions: np.ndarray, references: np.ndarray) -> dict[str, float]:
        """Mean negative log likelihood per scored token, in nats.

        Args:
            predictions: (rows,) summed over the row's tokens.
            references: (rows,) numbers of tokens.
        """
        return {"cross_entropy": float(predictions.sum() / max(1, references.sum()))}

    def tokenised(
        self,
        rows: Dataset,
        processor: Any,
        pieces: Callable[[dict[str, Any]], tuple[str, str]],
        key: str,
    ) -> Dataset:
        """Rows as `input_ids` and `labels`, made once and kept in the user's cache.

        Args:
            rows: what the data files hold.
            processor: the tokenizer.
            pieces: a row -> prompt and completion.
            key: all that `rows` and `pieces` depend on: fingerprint of the data, subset, format.

        Returns:
            Rows in their order. One whose prompt leaves no room for a completion within
            `max_length` is left out, and the log says how many.
        """
        length = min(self.max_length, processor.model_max_length)
        encoded = token_cache.tokenised(
            rows,
            lambda row: encode(processor, *pieces(row), length),
            processor,
            [type(self).__name__, key, length],
        )
        # Not `filter`, which would keep a file of its own in the cache.
        kept = [row for row, labels in enumerate(encoded["labels"][:]) if labels[-1] != IGNORED]
        if len(kept) == len(encoded):
            return encoded
        log.warning(
            "%d of %d rows have a prompt longer than task.max_length=%d and are left out",
            *(len(encoded) - len(kept), len(encoded), length),
        )
        return encoded.select(kept)


def encode(processor: Any, prompt: str, completion: str, length: int) -> dict[str, list[int]]:
    """One row: the prompt's tokens as generation will see them, then completion and end of text.

    Returns:
        input_ids, at most `length`, and labels: IGNORED for the prompt.
    """
    given = processor(prompt, verbose=False)["input_ids"]
    whole = processor(prompt + completion, verbose=False)["input_ids"]
    if whole[: len(given)] == given:
        added = whole[len(given) :]
    else:  # a token would span the border
        added = processor(completion, add_special_tokens=False, verbose=False)["input_ids"]
    added = [*added, processor.eos_token_id]
    tokens = [*given, *added][:length]
    return {
        "input_ids": tokens,
        "labels": ([IGNORED] * len(given) + added)[:length],
    }


@dataclass(frozen=True)
class Collator:
    """Rows -> input_ids, attention_mask and labels (B, T), padded at the right."""

    padding: int
    """Token that pads; masked everywhere."""

    def __call__(self, rows: list[dict[str, list[int]]]) -> dict[str, Any]:
        """See the class."""
        import torch

        width = max(len(row["input_ids"]) for row in rows)
        shape = len(rows), width
        tokens = torch.full(shape, self.padding)
        labels = torch.full(shape, IGNORED)
        mask = torch.zeros(shape, dtype=torch.long)
        for position, row in enumerate(rows):
            size = len(row["input_ids"])
            tokens[position, :size] = torch.tensor(row["input_ids"])
            labels[position, :size] = torch.tensor(row["labels"])
            mask[position, :size] = 1
        return {"input_ids": tokens, "attention_mask": mask, "labels": labels}
