"""Texts of the user's own: one or two columns of a table, and a column of labels."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from experiments.errors import DataError
from experiments.hub.fingerprints import Files
from experiments.models.head import Head
from experiments.results.identity import LOCAL
from experiments.results.stored import find_excesses
from experiments.tasks import label_column, table_files
from experiments.tasks.held_out import SPLIT_SEED, describe, draw_held_out
from experiments.tasks.image_folder import shorten_list
from experiments.tasks.image_tables import read_class_names
from experiments.tasks.label_column import LabelKind
from experiments.tasks.sentences import Sentences, Splits

if TYPE_CHECKING:
    import pyarrow

METRICS = {
    LabelKind.classification: ["accuracy", "matthews"],
    LabelKind.regression: ["pearson", "spearman"],
}
"""Metrics where the configuration names none."""

log = logging.getLogger(__name__)


@dataclass(kw_only=True)
class Text(Sentences):
    """Classes or numbers of the user's own texts.

    A file, or a folder with train and validation files: CSV, TSV, JSON lines or parquet.
    """

    resolved: ClassVar[Sequence[str]] = ("columns", "kind", "metrics", "class_names")
    holds_out: ClassVar[bool] = True
    data: str | None
    """Name of the data in the run's folder and record; the file's, unless given."""
    columns: list[str] = field(default_factory=list)
    """One or two text columns; []: the only one there is beside the label."""
    label: str
    """Column of the labels."""
    kind: LabelKind | None = None
    """classification or regression; null: told by the labels (see `label_column.RULE`)."""
    validation_share: float
    """Share of the training rows that is held out for scoring if there is no validation file."""
    metrics: list[str] = field(default_factory=list)
    """Functions of `experiments.metrics.classification`; []: those of `kind`."""
    class_names: list[str] | None = field(default=None, metadata=LOCAL)
    """Names of the classes, read from the training rows; null for a regression."""

    @property
    def head(self) -> Head:
        """One score per class, or one number."""
        if self.kind is LabelKind.regression:
            return Head(kind="regression", labels=1)
        names = tuple(self.class_names or ())
        return Head(kind="classification", labels=len(names), names=names)

    @property
    def splits(self) -> list[str]:
        """The validation rows are scored."""
        return ["validation"]

    @property
    def split_settings(self) -> list[Any]:
        """See `Sentences.split_settings`."""
        return [self.label, self.kind and self.kind.value, self.class_names, self.validation_share]

    def problems(self) -> Iterator[str]:
        """See `Task.problems`."""
        yield from super().problems()
        if not 0 < self.validation_share < 1:
            yield f"task.validation_share={self.validation_share}: must be between 0 and 1"

    def resolve(self) -> None:
        """See `Task.resolve`; every problem of the files is said at once."""
        if self.class_names is not None:
            raise DataError(
                f"task.class_names={self.class_names}: is read from column {self.label!r}"
            )
        tables = table_files.read_splits(self.path)
        problems = [*self._choose_columns(tables["train"]), *self._find_faults(tables)]
        if problems:
            raise DataError(f"task=text: wrong data in {self.path}", problems)
        labels = {split: self._parse_labels(table) for split, table in tables.items()}
        self._decide_kind(labels["train"])
        self.metrics = self.metrics or [*METRICS[self.kind or LabelKind.classification]]
        problems = list(self._find_unfit_labels(labels))
        if problems:
            raise DataError(f"task=text: wrong labels in {self.path}", problems)

    def locate(self, offline: bool = False) -> str | None:
        """See `Task.locate`."""
        table_files.find_splits(self.path)
        return self.path

    def inputs(self) -> dict[str, Files]:
        """See `Task.inputs`."""
        return table_files.list_inputs(self.path)

    def read(self, source: str | None) -> Splits:
        """See `Sentences.read`."""
        import pyarrow
        from datasets import Dataset

        rows, tables = {}, table_files.read_splits(self.path)
        labels = {split: self._parse_labels(table) for split, table in tables.items()}
        for split, table in tables.items():
            texts = {name: table.column(name).cast("string") for name in self.columns}
            numbers = pyarrow.array(self._number_labels(labels[split]))
            rows[split] = Dataset(pyarrow.table(texts | {"label": numbers}))
        held_out = None
        if "validation" not in rows:
            kept, scored = draw_held_out(
                rows["train"]["label"], self.validation_share, self.kind is LabelKind.classification
            )
            held_out = describe(self.validation_share, scored)
            rows = {"train": rows["train"].select(kept), "validation": rows["train"].select(scored)}
            there = len(kept) + len(scored)
            more = len(scored) > math.ceil(self.validation_share * there)
            log.info(
                "held out for scoring: %d of %d rows (task.validation_share=%g%s, seed %d)",
                *(len(scored), there, self.validation_share),
                *(", one for each class of several rows" * more, SPLIT_SEED),
            )
        if self.kind is LabelKind.classification:
            for line in label_column.find_oddities(labels["train"]):
                log.warning("column %r: %s", self.label, line)
        self._warn_repeated(rows)
        log.info("column %r: %s", self.label, self._describe_labels())
        return Splits(rows=rows, fingerprint=table_files.compute_hash(self.path), held_out=held_out)

    def _choose_columns(self, table: pyarrow.Table) -> Iterator[str]:
        """Take the only column of texts if none is named, or yield why that cannot be."""
        if self.columns or self.label not in table.column_names:
            return
        columns = zip(table.column_names, table.columns, strict=True)
        texts = [name for name, column in columns if name != self.label and _holds_text(column)]
        texts = list(dict.fromkeys(texts))
        if len(texts) == 1:
            self.columns = texts
        elif texts:
            yield f"task.columns=[]: must name one or two of {', '.join(texts)}"
        else:
            yield f"task.columns=[]: no column of text (columns: {', '.join(table.column_names)})"

    def _find_faults(self, tables: dict[str, pyarrow.Table]) -> Iterator[str]:
        """Yield missing columns, columns without text, and rows without text or label."""
        for split, table in tables.items():
            where = f"{split}: " * (len(tables) > 1)
            if not len(table):
                yield f"{where}no rows"
            for name in (*self.columns, self.label):
                key = "task.label" if name == self.label else "task.columns"
                fault = table_files.find_column_fault(table, key, name)
                if fault is not None:
                    yield f"{where}{fault}"
                    continue
                column = table.column(name)
                if column.null_count:
                    empty = [row for row, cell in enumerate(column, 1) if not cell.is_valid]
                    said = shorten_list([str(row) for row in empty])
                    yield f"{where}column {name!r} is empty in {len(empty)} rows: {said}"
                elif not len(table):
                    continue
                elif name != self.label and not _is_text(column.type):
                    yield f"{where}column {name!r} holds {column.type}, wanted text"
                elif name == self.label and not label_column.is_readable(column.type):
                    yield f"{where}column {name!r} holds {column.type}, wanted text or numbers"
        if self.label in self.columns:
            yield f"task.columns={self.columns}: {self.label!r} is the label (task.label)"

    def _parse_labels(self, table: pyarrow.Table) -> list[Any]:
        names = read_class_names(table.schema).get(self.label)
        return label_column.parse_labels(table.column(self.label), names)

    def _decide_kind(self, labels: Sequence[Any]) -> None:
        """Decide if the labels are classes or numbers, and name the classes."""
        mixture = list(label_column.find_mixture(labels)) if self.kind is None else []
        if mixture:
            raise DataError(f"task.label={self.label}: neither classes nor numbers", mixture)
        found = self.kind or label_column.find_kind(labels)
        if found is None:
            raise DataError(
                f"task.label={self.label}: {len(set(labels))} different whole numbers",
                [
                    f"task.kind=classification or task.kind=regression says which "
                    f"({label_column.RULE})"
                ],
            )
        self.kind = found
        if found is LabelKind.classification:
            self.class_names = label_column.name_classes(labels)

    def _find_unfit_labels(self, labels: dict[str, list[Any]]) -> Iterator[str]:
        """Yield what cannot be learnt or scored."""
        for split, values in labels.items():
            if self.kind is LabelKind.regression:
                odd = [str(row) for row, value in enumerate(values, 1) if not _is_finite(value)]
                if any(isinstance(value, str) for value in values):
                    strays = label_column.describe_strays(values)
                    yield f"{split}: labels that are not numbers: {'; '.join(strays)}"
                elif odd:
                    yield f"{split}: labels that are NaN or infinite in rows {shorten_list(odd)}"
                elif len(set(values)) == 1:
                    yield f"{split}: every label is {values[0]}"
                continue
            known, here = self.class_names or [], label_column.name_classes(values)
            if len(here) == 1 and split == "train":
                yield f"one class only, {here[0]!r}: there is nothing to learn"
            odd = [ascii(name) for name in known if any(find_excesses(name))]
            if odd and split == "train":
                yield f"classes with control characters: {shorten_list(odd)}"
            new = [name for name in here if name not in known]
            if new:
                yield f"{split}: classes that train has not: {shorten_list(new)}"
        if "validation" not in labels and self.kind is LabelKind.classification:
            values = labels["train"]
            if len(set(values)) == len(values) > 1:
                yield "no class has two rows, so that none can be held out"

    def _number_labels(self, values: Sequence[Any]) -> list[float] | list[int]:
        if self.kind is LabelKind.regression:
            return [float(value) for value in values]
        numbers = {name: number for number, name in enumerate(self.class_names or [])}
        return [numbers[label_column.name_class(value)] for value in values]

    def _describe_labels(self) -> str:
        if self.class_names is None:
            return "numbers (task.kind=regression)"
        names = f"{len(self.class_names)} classes, {shorten_list(self.class_names, 10)}"
        of_numbers = not any(isinstance(name, str) for name in label_column.parse(self.class_names))
        return names + "; task.kind=regression takes them for numbers" * of_numbers

    def _warn_repeated(self, rows: dict[str, Any]) -> None:
        """Warn of scored rows whose texts are trained on."""
        known = set(zip(*(rows["train"][name] for name in self.columns), strict=True))
        scored = zip(*(rows["validation"][name] for name in self.columns), strict=True)
        repeated = sum(texts in known for texts in scored)
        if repeated:
            log.warning(
                "%d of %d validation rows have texts that are in the training rows too",
                *(repeated, len(rows["validation"])),
            )


def _is_finite(value: Any) -> bool:
    return not isinstance(value, str) and math.isfinite(value)


def _is_text(kind: Any) -> bool:
    from pyarrow import types

    return types.is_string(kind) or types.is_large_string(kind)


def _holds_text(column: Any) -> bool:
    """Return True for a column of strings that are not all numbers."""
    if not _is_text(column.type):
        return False
    return any(label_column.read_number(cell) is None for cell in column.drop_null().to_pylist())
