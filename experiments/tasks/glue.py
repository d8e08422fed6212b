"""GLUE: nine tasks, one class; conf/task/*.yaml say which columns and metrics."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments import hub
from experiments.errors import DataError
from experiments.tasks.task import Data, Head, Task

if TYPE_CHECKING:
    from datasets import Dataset

SUBSET_SEED = 0  # of `train_rows`: one subset for every method and run seed


@dataclass(kw_only=True)
class Glue(Task):
    """Sentence or sentence-pair classification or regression with the hub's columns. Hidden test labels are never read."""

    repo: str
    """Hub repository."""
    subset: str
    """Configuration of the repository."""
    columns: list[str]
    """One or two text columns."""
    labels: int
    """Number of classes; 1 for regression."""
    max_length: int
    """Tokens after which a row is cut."""
    splits: list[str]
    """Labelled splits to score; the first is what the primary metric is about."""

    @property
    def head(self) -> Head:
        """Regression for one label, else classification."""
        return Head(kind="regression" if self.labels == 1 else "classification", labels=self.labels)

    def problems(self) -> Iterator[str]:
        """See `Task.problems`."""
        yield from super().problems()
        if self.max_length < 4:
            yield f"task.max_length={self.max_length}: must be at least 4"
        if not 1 <= len(self.columns) <= 2:
            yield f"task.columns={self.columns}: must name one or two text columns"

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

    def load(self, processor: Any, source: str | None) -> Data:
        """See `Task.load`."""
        from transformers import DataCollatorWithPadding

        splits, fingerprint = self._read(source)
        train = splits["train"]
        if self.train_rows is not None and self.train_rows < len(train):
            train = train.shuffle(seed=SUBSET_SEED).select(range(self.train_rows))
        evaluations = {name: splits[name] for name in self.splits}
        if self.eval_rows is not None:
            evaluations = {
                name: rows.select(range(min(self.eval_rows, len(rows)))) for name, rows in evaluations.items()
            }
        length = min(self.max_length, processor.model_max_length)

        def tokenize(batch: dict[str, list]) -> dict[str, list]:
            rows = processor(*(batch[column] for column in self.columns), truncation=True, max_length=length)
            return {**rows, "labels": batch["label"]}

        def prepare(rows: Dataset) -> Dataset:
            return rows.map(
                tokenize,
                batched=True,
                remove_columns=rows.column_names,
                keep_in_memory=True,
                load_from_cache_file=False,
            )

        return Data(
            train=prepare(train),
            evaluations={name: prepare(rows) for name, rows in evaluations.items()},
            collate=DataCollatorWithPadding(processor),
            fingerprint=fingerprint,
        )

    def _files(self, folder: Path) -> dict[str, list[str]]:
        """Parquet files per needed split, in the folder itself or in its subfolder named like the subset."""
        for place in (folder, folder / self.subset):
            files = {name: sorted(map(str, place.glob(f"{name}[.-]*parquet"))) for name in ("train", *self.splits)}
            if any(files.values()):
                break
        missing = [name for name, found in files.items() if not found]
        if missing:
            present = sorted(item.name for item in folder.iterdir())[:12]
            raise DataError(
                f"task.path={self.path}: not the data of task={self.name}",
                [f"no {name}.parquet (or {name}-*.parquet) there or in {self.subset}/" for name in missing]
                + [f"the folder holds: {', '.join(present) or 'nothing'}"],
            )
        return files

    def _read(self, source: str | None) -> tuple[dict[str, Dataset], str]:
        """Labelled splits and a fingerprint of their bytes."""
        import datasets

        datasets.disable_progress_bars()
        local = self.path is not None
        files = self._files(Path(source)) if local else {}
        try:
            if local:
                splits = datasets.load_dataset("parquet", data_files=files)
                digest = hashlib.sha256()
                for path in (path for paths in files.values() for path in paths):
                    digest.update(Path(path).read_bytes())
                fingerprint = digest.hexdigest()
            else:
                splits = datasets.load_dataset(self.repo, self.subset)
                fingerprint = hashlib.sha256("".join(splits[name]._fingerprint for name in splits).encode()).hexdigest()
        except Exception as error:  # pyarrow and datasets raise dozens of kinds for a damaged file
            cause = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            place = f"task.path={self.path}" if local else f"dataset {self.repo}"
            raise DataError(f"{place}: cannot be read as parquet", [cause]) from error
        self._check(splits)
        return splits, fingerprint

    def _check(self, splits: Any) -> None:
        """Raises DataError for missing columns, hidden labels or labels out of range."""
        wanted, problems = [*self.columns, "label"], []
        for name in ("train", *self.splits):
            found = splits[name].column_names if name in splits else []
            for column in wanted:
                if column not in found:
                    problems.append(f"split {name}: no column {column!r} (columns: {', '.join(found) or 'none'})")
            if "label" in found and len(splits[name]):
                values = splits[name]["label"]
                low, high = min(values), max(values)
                if self.labels > 1 and not (0 <= low and high < self.labels):
                    hidden = " (hidden labels cannot be scored)" if low < 0 else ""
                    problems.append(
                        f"split {name}: labels from {low} to {high}, allowed 0 to {self.labels - 1}{hidden}"
                    )
            elif not len(splits[name]):
                problems.append(f"split {name}: no rows")
        if problems:
            raise DataError(f"task={self.name}: wrong data in {self.path or self.repo}", problems)
