"""Base class of tasks for causal language models: completions of prompts."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from experiments.errors import DataError, UserError
from experiments.metrics.classification import cross_entropy
from experiments.models.head import Head
from experiments.results.identity import LOCAL
from experiments.tasks import token_cache
from experiments.tasks.task import Task, require_cells

if TYPE_CHECKING:
    import numpy as np
    from datasets import Dataset

log = logging.getLogger(__name__)

IGNORED = -100
"""Label of tokens that are not scored."""


@dataclass(kw_only=True)
class Language(Task):
    """Base class: texts to continue. Only the completion and its end are scored."""

    max_length: int = field()
    """Tokens after which a row is cut."""
    max_new_tokens: int
    """Tokens after which a generated text is cut."""
    generation_batch_size: int = field(default=16, metadata=LOCAL)
    """Number of prompts continued at once."""

    @property
    def selects(self) -> bool:
        """See `Task.selects`: the texts generated in the end are scored."""
        return False

    @property
    def of_text(self) -> bool:
        """See `Task.of_text`."""
        return True

    @property
    def head(self) -> Head:
        """Head of the language model itself."""
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
        """Return summed negative log likelihood (rows,) and number of scored tokens (rows,)."""
        import torch
        from torch.nn import functional

        labels = functional.pad(labels[:, 1:], (0, 1), value=IGNORED)  # token t predicts t + 1
        losses = [
            functional.cross_entropy(row.float(), wanted, ignore_index=IGNORED, reduction="sum")
            for row, wanted in zip(logits, labels, strict=True)  # a row at a time: the vocabulary
        ]
        return torch.stack(losses), (labels != IGNORED).sum(-1)

    def score(self, predictions: np.ndarray, references: np.ndarray) -> dict[str, float]:
        """Compute the mean negative log likelihood per scored token, in nats.

        Args:
            predictions: (rows,) summed over the row's tokens.
            references: (rows,) numbers of tokens.
        """
        return {"cross_entropy": cross_entropy(predictions, references)}

    @property
    def prompt_columns(self) -> list[str]:
        """Columns that a row needs to be continued; `make_prompt` may read others."""
        return []

    def make_prompt(self, row: dict[str, Any], processor: Any) -> str:
        """Return the text that the network continues, as in training."""
        raise UserError(f"task={self.name}: continues no rows of a table")

    def get_decoding(self, processor: Any) -> dict[str, Any]:
        """Return further arguments of `generate_continuations`; greedy without any."""
        return {}

    def finish_text(self, text: str) -> str:
        """Return what counts of a generated text."""
        return text.strip()

    def get_answer_room(self, processor: Any) -> int:
        """Return the tokens that a text may have: at least half of the context is the prompt's."""
        return min(self.max_new_tokens, processor.model_max_length // 2)

    def prepare_inputs(self, rows: Sequence[dict[str, Any]], processor: Any) -> list[dict]:
        """See `Task.prepare_inputs`: the tokens of each row's prompt."""
        require_cells(rows, self.prompt_columns)
        prompts = [self.make_prompt(row, processor) for row in rows]
        tokens = processor(prompts, verbose=False)["input_ids"]
        new = self.get_answer_room(processor)
        room = processor.model_max_length - new
        long = [str(number) for number, ids in enumerate(tokens, 1) if len(ids) > room]
        if long:
            raise DataError(
                f"prompts of more than {room} tokens leave no room for {new} new ones "
                f"(task.max_new_tokens={self.max_new_tokens})",
                [f"rows {', '.join(long[:5])}" + f" and {len(long) - 5} more" * (len(long) > 5)],
            )
        return [{"input_ids": ids} for ids in tokens]

    def tokenised(
        self,
        rows: Dataset,
        processor: Any,
        pieces: Callable[[dict[str, Any]], tuple[str, str]],
        key: str,
    ) -> Dataset:
        """Tokenise rows to `input_ids` and `labels`, or read them from the user's cache.

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
        encoded = token_cache.tokenise_rows(
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
    """Encode a row: the prompt's tokens as in generation, then completion and end of text.

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
    """Collates rows to input_ids, attention_mask and labels (B, T), padded at the right."""

    padding: int
    """Token of the padding; masked everywhere."""

    def __call__(self, rows: list[dict[str, list[int]]]) -> dict[str, Any]:
        """Collate rows."""
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
