"""GLUE: nine tasks, one class; conf/task/*.yaml say which columns and metrics."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments import hub
from experiments.errors import DataError
from experiments.hub.fingerprints import Files
from experiments.models.head import Head
from experiments.tasks.sentences import Sentences, Splits


@dataclass(kw_only=True)
class Glue(Sentences):
    """Sentence or sentence-pair classification or regression with the hub's columns.

    Hidden test labels are never read.
    """

    repo: str
    """Hub repository."""
    subset: str
    """Configuration of the repository."""
    labels: int
    """Number of classes; 1 for regression."""
    splits: list[str]
    """Labelled splits to score; the primary metric is of the first."""

    @property
    def head(self) -> Head:
        """Regression for one label, else classification."""
        return Head(kind="regression" if self.labels == 1 else "classification", labels=self.labels)

    def problems(self) -> Iterator[str]:
        """See `Task.problems`."""
        yield from super().problems()
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

    def read(self, source: str | None) -> Splits:
        """See `Sentences.read`.

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
        return Splits(rows=splits, fingerprint=digest.hexdigest())

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
