"""GLUE: nine tasks, one class; conf/task/*.yaml say which columns and metrics."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments import hub
from experiments.errors import DataError
from experiments.hub.fingerprints import Files
from experiments.models.head import Head
from experiments.tasks import token_cache
from experiments.tasks.task import Data, Task

if TYPE_CHECKING:
    from datasets import Dataset

SUBSET_SEED = 0  # seed of `train_rows`: one subset for every method and run seed


@dataclass(kw_only=True)
class Glue(Task):
    """Sentence or sentence-pair classification or regression with the hub's columns.

    Hidden test labels are never read.
    """

    repo: str
    """Hub repository."""
    subset: str
    """Configuration of the repository."""
    columns: list[str]
    """One or two text columns."""
    labels: int
    """Number of classes; 1 for regression."""
    max_length: int = field()
    """Tokens after which a row is cut."""
    splits: list[str]
    """Labelled splits to score; the primary metric is of the first."""

    @property
    def of_text(self) -> bool:
        """See `Task.of_text`."""
        return True

    @property
    def head(self) -> Head:
        """Regression for one label, else classification."""
        return Head(kind="regression" if self.labels == 1 else "classification", labels=self.labels)

    def problems(self) -> Iterator[str]:
        """See `Task.problems`."""
        yield from super().problems()
        if not 1 <= len(self.columns) <= 2:
            yield f"task.columns={self.columns}: must name one or two text columns"
        if self.labels < 1:
            yield f"task.labels={self.labels}: must be at least 1"
        if not self.splits:
            yield "task.splits=[]: must name at least one labelled split"

    def locate(self, offline: bool = False) -> str | None:
        """See `Task.locate`."""
        source = hub.locate(
            self.repo,
            self.path,
            probe=f"{self.subset}/train-00000-of-00001.parquet",
            option="task.path",
            kind="dataset",
            offline=offline,
        )
        if self.path is not None:
            self._files(Path(source))
        return source

    def downloads(self) -> list[hub.Download]:
        """See `Task.downloads`."""
        if self.path is not None:
            return []
        files = tuple(f"{self.subset}/{name}-*.parquet" for name in ("train", *self.splits))
        return [hub.Download(repo=self.repo, kind="dataset", patterns=files)]

    def inputs(self) -> dict[str, Files]:
        """See `Task.inputs`."""
        folder = hub.locate_local(self.repo, self.path, kind="dataset")
        found = {} if folder is None else self._files(folder)
        return {f"{split} data": Files(paths=[*map(Path, paths)]) for split, paths in found.items()}

    def load(self, processor: Any, source: str | None) -> Data:
        """See `Task.load`."""
        import datasets
        from transformers import DataCollatorWithPadding

        if not sys.stderr.isatty():
            datasets.disable_progress_bars()
        splits, fingerprint = self._read(source)
        train = splits["train"]
        if self.train_rows is not None:
            if self.train_rows > len(train):
                raise DataError(f"task.train_rows={self.train_rows}: there are {len(train)} rows")
            train = train.shuffle(seed=SUBSET_SEED).select(range(self.train_rows))
        evaluations = {name: splits[name] for name in self.splits}
        if self.eval_rows is not None:
            evaluations = {
                name: rows.select(range(min(self.eval_rows, len(rows))))
                for name, rows in evaluations.items()
            }
        length = min(self.max_length, processor.model_max_length)
        number = float if self.labels == 1 else int  # the loss tells them apart

        def tokenize(batch: dict[str, list]) -> dict[str, list]:
            rows = processor(
                *(batch[column] for column in self.columns), truncation=True, max_length=length
            )
            return {**rows, "labels": [number(label) for label in batch["label"]]}

        def prepare(name: str, rows: Dataset, cut: int | None) -> Dataset:
            about = [fingerprint, name, cut, self.columns, self.labels == 1, length]
            return token_cache.tokenise_rows(rows, tokenize, processor, about, batched=True)

        prepared = prepare("train", train, self.train_rows)
        return Data(
            train=prepared,
            lengths=[len(row) for row in prepared["input_ids"]],
            evaluations={
                name: prepare(name, rows, self.eval_rows) for name, rows in evaluations.items()
            },
            collate=DataCollatorWithPadding(processor),
            fingerprint=fingerprint,
        )

    def _files(self, folder: Path) -> dict[str, list[str]]:
        """Return parquet files per needed split, in the folder or in its subfolder `subset`."""
        for place in (folder, folder / self.subset):
            files = {
                name: sorted(map(str, place.glob(f"{name}[.-]*parquet")))
                for name in ("train", *self.splits)
            }
            if any(files.values()):
                break
        missing = [name for name, found in files.items() if not found]
        if missing:
            present = sorted(item.name for item in folder.iterdir())[:12]
            said = f"task.path={self.path}" if self.path else f"dataset {self.repo}"
            raise DataError(
                f"{said}: not the data of task={self.name}",
                [
                    f"no {name}.parquet (or {name}-*.parquet) there or in {self.subset}/"
                    for name in missing
                ]
                + [f"the folder holds: {', '.join(present) or 'nothing'}"],
            )
        return files

    def _folder(self, source: str | None) -> Path:
        """Return the folder of parquet files, downloaded if necessary without hidden test labels.

        Without a network `datasets.load_dataset` would find only what it prepared itself, never
        what `hf download` put into the cache.
        """
        if self.path is not None:
            return Path(source or self.path)
        return hub.fetch(*self.downloads())

    def _read(self, source: str | None) -> tuple[dict[str, Dataset], str]:
        """Read the labelled splits, and hash their bytes.

        By pyarrow: `datasets.load_dataset("parquet")` copies the data into its cache and stops at
        the first bad shard, whose name is in its log alone.
        """
        import pyarrow
        from datasets import Dataset
        from pyarrow import parquet

        splits, problems, digest = {}, [], hashlib.sha256()
        for split, paths in self._files(self._folder(source)).items():
            tables = []
            for path in paths:
                try:
                    content = Path(path).read_bytes()
                    tables.append(parquet.ParquetFile(pyarrow.BufferReader(content)).read())
                except (OSError, pyarrow.ArrowException) as error:
                    problems.append(f"{path}: cannot be read as parquet ({_format_error(error)})")
                    continue
                digest.update(content)
            if len(tables) < len(paths):
                continue
            found = list(self._unfit(split, dict(zip(paths, tables, strict=True))))
            if not found:
                wanted = [
                    table.select([*self.columns, "label"]).replace_schema_metadata(None)
                    for table in tables
                    if len(table)  # an empty one may have any types
                ]
                splits[split] = Dataset(pyarrow.concat_tables(wanted, promote_options="permissive"))
            problems += found
        if problems:
            raise DataError(f"task={self.name}: wrong data in {self.path or self.repo}", problems)
        return splits, digest.hexdigest()

    def _unfit(self, split: str, tables: dict[str, Any]) -> Iterator[str]:
        """Yield every problem of a split's files, each checked alone."""
        if not any(map(len, tables.values())):
            yield f"split {split}: no rows"
        for path, table in tables.items():
            where = f"split {split}" + (f", {Path(path).name}" if len(tables) > 1 else "")
            for problem in self._faults(table):
                yield f"{where}: {problem}"

    def _faults(self, table: Any) -> Iterator[str]:
        """Yield missing columns, wrong types, empty cells, hidden and out-of-range labels."""
        from pyarrow import types

        regression = self.labels == 1
        for name in (*self.columns, "label"):
            if name not in table.column_names:
                there = ", ".join(table.column_names) or "none"
                yield f"no column {name!r} (columns: {there})"
                continue
            column = table.column(name)
            kind = column.type
            if not len(table):
                continue
            if name != "label":
                fits = types.is_string(kind) or types.is_large_string(kind)
            else:
                fits = types.is_integer(kind) or (regression and types.is_floating(kind))
            if not fits:
                wanted = "text" if name != "label" else "numbers" if regression else "whole numbers"
                yield f"column {name!r} holds {kind}, wanted {wanted}"
            elif column.null_count:
                yield f"column {name!r} is empty in {column.null_count} rows"
            elif name == "label":
                yield from self._unfit_labels(column)

    def _unfit_labels(self, column: Any) -> Iterator[str]:
        """Yield labels that cannot be learnt: not finite, hidden or of no class."""
        from pyarrow import compute, types

        if types.is_floating(column.type):
            # pyarrow has no kernel for half precision
            finite = compute.is_finite(column.cast("float64"))
            broken = len(column) - compute.sum(finite).as_py()
            if broken:
                yield f"column 'label' is NaN or infinite in {broken} rows"
        elif self.labels > 1:
            low, high = (bound(column).as_py() for bound in (compute.min, compute.max))
            if not (0 <= low and high < self.labels):
                hidden = " (hidden labels cannot be scored)" if low < 0 else ""
                yield f"labels from {low} to {high}, allowed 0 to {self.labels - 1}{hidden}"


def _format_error(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
