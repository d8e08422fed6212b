"""Base class of tasks on one or two texts per row: GLUE, and the user's own tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from experiments.errors import DataError
from experiments.tasks import token_cache
from experiments.tasks.task import Data, Task, require_cells

if TYPE_CHECKING:
    from datasets import Dataset

SUBSET_SEED = 0  # seed of `train_rows`: one subset for every method and run seed


@dataclass(frozen=True, kw_only=True)
class Splits:
    """Labelled rows as the files hold them."""

    rows: dict[str, Dataset]
    """Text columns and `label`, a number, of `train` and every scored split."""
    fingerprint: str
    """Hash of the files' bytes."""
    held_out: Mapping[str, Any] | None = None
    """Rows of the training data that are scored instead; None if no split was drawn."""


@dataclass(kw_only=True)
class Sentences(Task):
    """Classification or regression of one or two texts."""

    columns: list[str]
    """One or two text columns."""
    max_length: int = field()
    """Tokens after which a row is cut."""

    @property
    def of_text(self) -> bool:
        """See `Task.of_text`."""
        return True

    @property
    def split_settings(self) -> list[Any]:
        """Settings that decide the rows of a split, beside the files and `train_rows`."""
        return []

    def problems(self) -> Iterator[str]:
        """See `Task.problems`."""
        yield from super().problems()
        if not 1 <= len(self.columns) <= 2:
            yield f"task.columns={self.columns}: must name one or two text columns"

    def read(self, source: str | None) -> Splits:
        """Read `train` and the scored splits, the one that selects the epoch first.

        Args:
            source: folder, file or repository (see `locate`).
        """
        raise TypeError(f"{type(self).__name__} does not say what it reads")

    def load(self, processor: Any, source: str | None) -> Data:
        """See `Task.load`."""
        splits = self.read(source)
        evaluations = dict(splits.rows)
        train = evaluations.pop("train")
        if self.train_rows is not None:
            if self.train_rows > len(train):
                raise DataError(f"task.train_rows={self.train_rows}: there are {len(train)} rows")
            train = train.shuffle(seed=SUBSET_SEED).select(range(self.train_rows))
        if self.eval_rows is not None:
            evaluations = {
                name: rows.select(range(min(self.eval_rows, len(rows))))
                for name, rows in evaluations.items()
            }
        regression = self.head.kind == "regression"
        length = self._get_length(processor)
        number = float if regression else int  # the loss tells them apart

        def tokenize(batch: dict[str, list]) -> dict[str, list]:
            rows = self._tokenize(batch, processor)
            return {**rows, "labels": [number(label) for label in batch["label"]]}

        def prepare(name: str, rows: Dataset, cut: int | None) -> Dataset:
            about = [splits.fingerprint, name, cut, self.columns, regression, length]
            about += self.split_settings
            return token_cache.tokenise_rows(rows, tokenize, processor, about, batched=True)

        prepared = prepare("train", train, self.train_rows)
        return Data(
            train=prepared,
            lengths=[len(row) for row in prepared["input_ids"]],
            evaluations={
                name: prepare(name, rows, self.eval_rows) for name, rows in evaluations.items()
            },
            collate=self.get_collator(processor),
            fingerprint=splits.fingerprint,
            held_out=splits.held_out,
        )

    def prepare_inputs(self, rows: Sequence[dict[str, Any]], processor: Any) -> list[dict]:
        """See `Task.prepare_inputs`."""
        require_cells(rows, self.columns)
        batch = {name: [row[name] for row in rows] for name in self.columns}
        tokens = self._tokenize(batch, processor)
        return [{key: tokens[key][row] for key in tokens} for row in range(len(rows))]

    def get_collator(self, processor: Any) -> Any:
        """See `Task.get_collator`."""
        from transformers import DataCollatorWithPadding

        return DataCollatorWithPadding(processor)

    def _get_length(self, processor: Any) -> int:
        return min(self.max_length, processor.model_max_length)

    def _tokenize(self, batch: dict[str, list], processor: Any) -> Any:
        texts = (batch[column] for column in self.columns)
        return processor(*texts, truncation=True, max_length=self._get_length(processor))
