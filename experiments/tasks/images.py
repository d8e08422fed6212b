"""Image classification: eight data sets, one class; conf/task/*.yaml say how each is split."""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments import hub
from experiments.errors import DataError
from experiments.hub.fingerprints import Files
from experiments.models.head import Head
from experiments.tasks import image_folder, image_tables, image_transforms
from experiments.tasks.image_folder import Labelled
from experiments.tasks.image_views import Views, collate
from experiments.tasks.task import Data, Task, require_cells

if TYPE_CHECKING:
    import numpy as np

SPLIT_SEED = 0
"""Seed of the held-out parts: one split for every method and run seed. The paper's authors drew
theirs without a seed."""
SUBSET_SEED = 0  # of `train_rows`

log = logging.getLogger(__name__)


@dataclass(kw_only=True)
class Images(Task):
    """Images with one class each, the epoch chosen on a validation split, scored on a test split.

    Read from parquet files or from folders by class; decoded and augmented when a row is accessed.
    """

    repo: str
    """Hub repository with the training split."""
    test_repo: str | None = None
    """Hub repository with the test split; null: the same."""
    classes: int
    """Number of classes."""
    test_share: float | None
    """Share of all images that is held out as the test split; null: there is a test split."""
    validation_share: float | None
    """Share of the training images that is held out for choosing the epoch; null: there is a
    validation split."""
    label_column: str | None = None
    """Column with the class, if the data leave it unclear."""

    @property
    def head(self) -> Head:
        """Head with one score per class."""
        return Head(kind="images", labels=self.classes)

    @property
    def splits(self) -> list[str]:
        """Scored splits, the primary one first."""
        return ["test", "validation"]

    @property
    def selection_split(self) -> str:
        """See `Task.selection_split`."""
        return "validation"

    def problems(self) -> Iterator[str]:
        """See `Task.problems`."""
        yield from super().problems()
        if self.classes < 2:
            yield f"task.classes={self.classes}: must be at least 2"
        for key in ("test_share", "validation_share"):
            share = getattr(self, key)
            if share is not None and not 0 < share < 1:
                yield f"task.{key}={share}: must be between 0 and 1, or null for a given split"

    def locate(self, offline: bool = False) -> str | None:
        """See `Task.locate`."""
        places = [
            hub.locate(
                repo,
                self.path,
                probe="README.md",
                option="task.path",
                kind="dataset",
                offline=offline,
            )
            for repo in self._repos
        ]
        if self.path is not None:
            self._sources(Path(places[0]))
        return places[0]

    def downloads(self) -> list[hub.Download]:
        """See `Task.downloads`."""
        files = ("README.md", "*.parquet")
        repos = [] if self.path is not None else self._repos
        return [hub.Download(repo=repo, kind="dataset", patterns=files) for repo in repos]

    def inputs(self) -> dict[str, Files]:
        """See `Task.inputs`."""
        repos = self._repos if self.path is None else [self.repo]
        found_at = [hub.locate_local(repo, self.path, kind="dataset") for repo in repos]
        folders = [folder for folder in found_at if folder is not None]
        if len(folders) < len(repos):
            return {}
        found = self._sources(*folders)
        return {f"{split} data": image_folder.list_files(found[split]) for split in self._needed}

    def load(self, processor: Any, source: str | None) -> Data:
        """See `Task.load`.

        Args:
            processor: `ImageFormat` of the model.
            source: folder or repository (see `locate`).
        """
        import numpy as np

        splits, fingerprint = self._read(self._folders(source))
        rows = {split: np.arange(len(part.contents)) for split, part in splits.items()}
        draw = np.random.default_rng(SPLIT_SEED)
        for name, share in (("test", self.test_share), ("validation", self.validation_share)):
            if share is not None:
                splits[name] = splits["train"]
                kept, held = self.hold_out(splits["train"], rows["train"], share, draw)
                rows["train"], rows[name] = kept, held
        if self.train_rows is not None:
            there = len(rows["train"])
            if self.train_rows > there:
                raise DataError(f"task.train_rows={self.train_rows}: there are {there} rows")
            order = np.random.default_rng(SUBSET_SEED).permutation(there)
            rows["train"] = rows["train"][order[: self.train_rows]]

        def views(split: str, augmented: bool = False) -> Views:
            few = None if augmented else self.eval_rows
            return Views(splits[split], rows[split][:few], processor.side, augmented)

        return Data(
            train=views("train", augmented=True),
            evaluations={split: views(split) for split in ("validation", "test")},
            collate=collate,
            fingerprint=fingerprint,
            held_out=self.describe_held_out(splits, rows),
            augmented=True,
        )

    def hold_out(
        self, split: Labelled, rows: np.ndarray, share: float, draw: np.random.Generator
    ) -> tuple[Any, Any]:
        """Split rows of a split into those that stay and a held-out share."""
        return hold_out(rows, share, draw)

    def describe_held_out(
        self, splits: Mapping[str, Labelled], rows: Mapping[str, np.ndarray]
    ) -> dict[str, Any] | None:
        """Describe held-out rows for the record; None where seed and data identify them."""
        return None

    def prepare_inputs(self, rows: Sequence[dict[str, Any]], processor: Any) -> list[dict]:
        """See `Task.prepare_inputs`: a column `file` holds paths of images."""
        require_cells(rows, ["file"])
        found, problems = [], []
        for row in rows:
            try:
                content = Path(row["file"]).read_bytes()
                view = image_transforms.make_evaluation_view(content, processor.side)
                found.append({"pixel_values": view})
            except Exception as error:  # PIL's readers raise many kinds
                reason = (str(error).strip() or type(error).__name__).splitlines()[0]
                problems.append(f"{row['file']}: {reason}")
        if problems:
            raise DataError("images that cannot be read", problems)
        return found

    def get_collator(self, processor: Any) -> Any:
        """See `Task.get_collator`."""
        return collate

    @property
    def _repos(self) -> list[str]:
        return list(dict.fromkeys([self.repo, self.test_repo or self.repo]))

    @property
    def _needed(self) -> list[str]:
        """Splits that must exist; the others are held out."""
        held_out = {"test": self.test_share, "validation": self.validation_share}
        return ["train", *(split for split, share in held_out.items() if share is None)]

    def _folders(self, source: str | None) -> list[Path]:
        """Return the folders of the data, downloaded if necessary."""
        if self.path is not None:
            return [Path(source or self.path)]
        return [hub.fetch(download) for download in self.downloads()]

    def _sources(self, *folders: Path) -> dict[str, list[Path]]:
        """Return the files or class folders of every existing split.

        Raises:
            DataError: a needed one is missing, or there are two test splits to choose from.
        """
        found: dict[str, list[Path]] = {}
        for folder in folders:
            for split, paths in image_folder.find_splits(folder).items():
                found.setdefault(split, paths)
        if not found and self._needed == ["train"] and image_folder.list_class_folders(folders[0]):
            found = {"train": [folders[0]]}
        place = f"task.path={self.path}" if self.path else f"dataset {' and '.join(self._repos)}"
        problems = [
            f"no {split}*.parquet and no {split}/<class>/ with images"
            + ("" if split == "train" else f"; task.{split}_share=0.1 would hold a tenth out")
            for split in self._needed
            if split not in found
        ]
        if problems:
            present = sorted(item.name for item in folders[0].iterdir())[:12]
            problems.append(f"the folder holds: {', '.join(present) or 'nothing'}")
        if self.test_share is not None and "test" in found:
            problems.append(
                f"there is a test split, and task.test_share={self.test_share} would draw another "
                "one: task.test_share=null takes what is there"
            )
        if problems:
            raise DataError(f"{place}: not the data of task={self.name}", problems)
        return found

    def _read(self, folders: Sequence[Path]) -> tuple[dict[str, Labelled], str]:
        """Read the images of the needed splits with class numbers, and hash their bytes."""
        digest, splits, problems = hashlib.sha256(), {}, []
        sources = self._sources(*folders)
        if self.validation_share is not None and "validation" in sources:
            log.info("the validation split there is not used: task.validation_share draws one")
        for name in self._needed:
            paths = sources[name]
            digest.update(name.encode())
            if paths[0].is_dir():
                split, found = image_folder.read_folder(paths[0], digest)
            else:
                split, found = image_tables.read_parquet(
                    paths, self.classes, self.label_column, digest
                )
            splits[name] = split
            problems += found if found or split.contents else [f"{name}: no images"]
        if not problems:
            problems += image_folder.align_labels(splits, self.classes)
        problems += image_folder.find_corrupt(splits)
        if problems:
            place = self.path or " and ".join(self._repos)
            raise DataError(f"task={self.name}: wrong data in {place}", problems)
        return splits, digest.hexdigest()


def hold_out(rows: np.ndarray, share: float, draw: np.random.Generator) -> tuple[Any, Any]:
    """Split rows at random into those that stay and a held-out share, rounded up.

    Rounding up is scikit-learn's way and `datasets`', and gives every size of the paper's Table 8.
    """
    import numpy as np

    count = math.ceil(Fraction(str(share)) * len(rows))  # 0.1 as a float is a little more
    order = draw.permutation(rows)
    return np.sort(order[count:]), np.sort(order[:count])
