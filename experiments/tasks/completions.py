"""Prompts and answers of the user's own: two columns of a table."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from experiments.errors import DataError
from experiments.hub.fingerprints import Files
from experiments.tasks import table_files
from experiments.tasks.chat_template import fill_template
from experiments.tasks.held_out import describe, draw_held_out
from experiments.tasks.image_folder import shorten_list
from experiments.tasks.language import Collator, Language
from experiments.tasks.sentences import SUBSET_SEED
from experiments.tasks.task import Data

if TYPE_CHECKING:
    import pyarrow

log = logging.getLogger(__name__)


@dataclass(kw_only=True)
class Completions(Language):
    """Answers to prompts: a file, or a folder with train and validation files, as for `Text`."""

    holds_out: ClassVar[bool] = True
    data: str | None
    """Name of the data in the run's folder and record; the file's, unless given."""
    prompt: str
    """Column of the prompts."""
    answer: str
    """Column of the answers, which alone are learnt."""
    template: str
    """Text that the answer follows, with {prompt}, where no chat template is used."""
    chat_template: bool | None = None
    """Put prompts as a user's turn by the tokenizer's chat template; null: if it has one."""
    validation_share: float
    """Share of the training rows that is held out if there is no validation file."""

    @property
    def prompt_columns(self) -> list[str]:
        """See `Language.prompt_columns`."""
        return [self.prompt]

    def problems(self) -> Iterator[str]:
        """See `Task.problems`."""
        yield from super().problems()
        if not 0 < self.validation_share < 1:
            yield f"task.validation_share={self.validation_share}: must be between 0 and 1"
        try:
            filled = self.template.format(prompt="\0")
        except (LookupError, ValueError, AttributeError, TypeError) as error:
            yield (
                f"task.template={self.template!r}: cannot be filled in ({error!r}; allowed: "
                "{prompt}, and doubled braces for braces)"
            )
        else:
            if "\0" not in filled:
                yield f"task.template={self.template!r}: lacks {{prompt}}"

    def locate(self, offline: bool = False) -> str | None:
        """See `Task.locate`."""
        table_files.find_splits(self.path)
        return self.path

    def inputs(self) -> dict[str, Files]:
        """See `Task.inputs`."""
        return table_files.list_inputs(self.path)

    def resolve(self) -> None:
        """See `Task.resolve`: nothing is left open, but mistakes are said at once."""
        problems = [
            line
            for split, table in table_files.read_splits(self.path).items()
            for line in self._faults(split, table)
        ]
        if problems:
            raise DataError(f"task={self.name}: wrong data in {self.path}", problems)

    def make_prompt(self, row: dict[str, Any], processor: Any) -> str:
        """See `Language.make_prompt`."""
        wanted = self.chat_template
        if wanted is None:
            wanted = getattr(processor, "chat_template", None) is not None
        if wanted:
            return fill_template(processor, [{"role": "user", "content": row[self.prompt]}])
        return self.template.format(prompt=row[self.prompt])

    def load(self, processor: Any, source: str | None) -> Data:
        """See `Task.load`."""
        from datasets import Dataset

        fingerprint = table_files.compute_hash(self.path)
        columns = list(dict.fromkeys([self.prompt, self.answer]))
        rows = {
            split: Dataset(table.select(columns).replace_schema_metadata(None))
            for split, table in table_files.read_splits(self.path).items()
        }
        held_out = None
        if "validation" not in rows:
            kept, scored = draw_held_out(range(len(rows["train"])), self.validation_share, False)
            held_out = describe(self.validation_share, scored)
            rows = {"train": rows["train"].select(kept), "validation": rows["train"].select(scored)}
        if self.train_rows is not None:
            there = len(rows["train"])
            if self.train_rows > there:
                raise DataError(f"task.train_rows={self.train_rows}: there are {there} rows")
            rows["train"] = rows["train"].shuffle(seed=SUBSET_SEED).select(range(self.train_rows))
        few = rows["validation"]
        rows["validation"] = few.select(range(min(self.eval_rows or len(few), len(few))))
        template = self.make_prompt({self.prompt: "{prompt}"}, processor)
        parts = {
            split: self.tokenised(
                part,
                processor,
                lambda row: (self.make_prompt(row, processor), row[self.answer].strip()),
                f"{fingerprint} {split} {columns} {self.train_rows} {self.eval_rows} "
                f"{self.validation_share} {template}",
            )
            for split, part in rows.items()
        }
        empty = [split for split, part in parts.items() if not len(part)]
        if empty:
            raise DataError(
                f"task={self.name}: no row of {' and '.join(empty)} fits in "
                f"task.max_length={self.max_length}"
            )
        log.info("prompts are put as: %r", template)
        return Data(
            train=parts["train"],
            lengths=[len(tokens) for tokens in parts["train"]["input_ids"]],
            evaluations={"validation": parts["validation"]},
            collate=Collator(processor.pad_token_id),
            fingerprint=fingerprint,
            held_out=held_out,
        )

    def _faults(self, split: str, table: pyarrow.Table) -> Iterator[str]:
        """Yield missing columns, and columns that are not text in every row."""
        if len(table) < 2:
            yield f"{split}: fewer than two rows"
        for key in ("prompt", "answer"):
            name = getattr(self, key)
            fault = table_files.find_column_fault(table, f"task.{key}", name)
            if fault is not None:
                yield f"{split}: {fault}"
                continue
            column = table.column(name)
            rows = [
                str(number)
                for number, cell in enumerate(column.to_pylist(), 1)
                if not isinstance(cell, str) or (key == "answer" and not cell.strip())
            ]
            if rows:
                said = f"{len(rows)} rows: {shorten_list(rows)}"
                yield f"{split}: column {name!r} has no text in {said}"
