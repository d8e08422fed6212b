"""Pictures of the user's own: folders by class, or parquet files."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from experiments.errors import DataError, DataMissing
from experiments.models.head import Head
from experiments.results.identity import LOCAL
from experiments.results.stored import find_excesses
from experiments.tasks import image_folder, image_tables
from experiments.tasks.held_out import SPLIT_SEED, draw_held_out, name_rows
from experiments.tasks.image_folder import Labelled, shorten_list
from experiments.tasks.images import Images

if TYPE_CHECKING:
    import numpy as np


@dataclass(kw_only=True)
class Pictures(Images):
    """Classes of the user's own pictures; splits that are not there are held out by class."""

    resolved: ClassVar[Sequence[str]] = (
        *("classes", "class_names", "label_column"),
        *("test_share", "validation_share"),
    )
    repo: str = ""
    data: str | None
    """Name of the data in the run's folder and record; the folder's, unless given."""
    classes: int = 0
    """Number of classes, read from the data."""
    class_names: list[str] | None = field(default=None, metadata=LOCAL)
    """Names of the classes, read from the data."""

    @property
    def head(self) -> Head:
        """Head with one score per class."""
        return Head(kind="images", labels=self.classes, names=tuple(self.class_names or ()))

    def resolve(self) -> None:
        """See `Task.resolve`: the splits there are, and the classes."""
        if self.classes or self.class_names:
            raise DataError("task.classes and task.class_names are read from the data")
        if self.path is None or not Path(self.path).expanduser().is_dir():
            there = self.path is None or Path(self.path).expanduser().exists()
            raise (DataError if there else DataMissing)(
                f"task.path={self.path}: no such folder (allowed: a folder with <class>/, with "
                "train/<class>/ and test/<class>/, or with train*.parquet)"
            )
        folder = Path(self.path).expanduser()
        found = image_folder.find_splits(folder)
        if "test" in found:
            self.test_share = None
        if "validation" in found:
            self.validation_share = None
        train = self._sources(folder)["train"]
        if train[0].is_dir():
            names = [path.name for path in image_folder.list_class_folders(train[0])]
        else:
            self.label_column, names = image_tables.read_classes(train, self.label_column)
        if len(names) < 2:
            raise DataError(f"task.path={self.path}: found {len(names)} classes, expected two")
        odd = [ascii(name) for name in names if any(find_excesses(name))]
        if odd:
            raise DataError(
                f"task.path={self.path}: classes with control characters: {shorten_list(odd)}"
            )
        self.classes, self.class_names = len(names), names

    def locate(self, offline: bool = False) -> str | None:
        """See `Task.locate`."""
        self._sources(Path(self.path or "").expanduser())
        return self.path

    def hold_out(
        self, split: Labelled, rows: np.ndarray, share: float, draw: np.random.Generator
    ) -> tuple[Any, Any]:
        """See `Images.hold_out`: each class keeps its share."""
        kept, scored = draw_held_out([split.labels[row] for row in rows], share, True)
        return rows[kept], rows[scored]

    def describe_held_out(
        self, splits: Mapping[str, Labelled], rows: Mapping[str, np.ndarray]
    ) -> dict[str, Any] | None:
        """See `Images.describe_held_out`."""
        shares = {"test": self.test_share, "validation": self.validation_share}
        drawn = {name: share for name, share in shares.items() if share is not None}
        if not drawn:
            return None
        folder = Path(self.path or "").expanduser()
        named = {
            name: name_rows(
                [_shorten(splits[name].places[row], folder) for row in rows[name]], "\n"
            )
            for name in drawn
        }
        return {
            "split": " and ".join(drawn),
            "share": round(1 - math.prod(1 - share for share in drawn.values()), 6),
            "seed": SPLIT_SEED,
            "rows": named,
        }


def _shorten(place: str, folder: Path) -> str:
    """Return the name of an image within the folder."""
    path = Path(place)
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else place
