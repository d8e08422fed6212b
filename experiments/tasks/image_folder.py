"""Labelled images on disk: parquet files with encoded images, or folders by class.

Not by `datasets`: its "imagefolder" silently leaves out other files, gives no labels at all if one
class has a subfolder, and finds a broken image only when a training step decodes it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from experiments.hub.fingerprints import Files
from experiments.tasks import image_scan, image_transforms

ALIASES = {"validation": ("validation", "val", "valid"), "train": ("train",), "test": ("test",)}


@dataclass
class Labelled:
    """Encoded images of one split and their classes, each kept in memory once."""

    contents: list[Any] = field(default_factory=list)
    """Encoded images: buffers."""
    labels: list[Any] = field(default_factory=list)
    """Class number or class name of each image."""
    names: list[str] | None = None
    """Names of the classes, if the source lists them."""
    places: list[str] = field(default_factory=list)
    """Name of each image in error messages."""


def find_splits(folder: Path) -> dict[str, list[Path]]:
    """Find parquet files or image folders per split; parquet first, in the folder or its `data`."""
    for place in (folder, folder / "data"):
        found = {
            split: [path for name in names for path in sorted(place.glob(f"{name}[.-]*parquet"))]
            for split, names in ALIASES.items()
        }
        if any(found.values()):
            return {split: paths for split, paths in found.items() if paths}
    return {
        split: [folder / name]
        for split, names in ALIASES.items()
        for name in names
        if (folder / name).is_dir()
    }


def list_files(paths: Sequence[Path]) -> Files:
    """Return the files of a split that `find_splits` found: parquet files, or images by class."""
    if not paths[0].is_dir():
        return Files(paths=paths)
    classes = map(image_scan.scan, list_class_folders(paths[0]))
    return Files(paths=[image for found in classes for image in found.images], below=paths[0])


def list_class_folders(folder: Path) -> list[Path]:
    """Return subfolders in alphabetical order, without hidden ones."""
    return sorted(item for item in folder.iterdir() if item.is_dir() and item.name[0] != ".")


def read_folder(folder: Path, digest: Any) -> tuple[Labelled, list[str]]:
    """Read images below <folder>/<class>/, classes in turn so that the first rows cover all.

    Args:
        folder: holds a subfolder per class.
        digest: hash to update with names and bytes.

    Returns:
        The images, and a line for each problem.
    """
    split, problems, files, unused = Labelled(), [], [], []
    classes = list_class_folders(folder)
    split.names = [path.name for path in classes]
    for number, path in enumerate(classes):
        found = image_scan.scan(path)
        if not found.images:
            problems.append(f"{path}: no images")
        files += [(turn, number, image) for turn, image in enumerate(found.images)]
        unused += found.unused
    if not classes:
        problems.append(f"{folder}: no subfolders, wanted one per class")
    for _, number, image in sorted(files):
        try:
            content = image.read_bytes()
        except OSError as error:
            problems.append(f"{image}: cannot be read ({error.strerror})")
            continue
        digest.update(image.relative_to(folder).as_posix().encode())
        digest.update(content)
        split.contents.append(content)
        split.labels.append(number)
        split.places.append(str(image))
    image_scan.warn_unused(unused, str(folder))
    return split, problems


def align_labels(splits: dict[str, Labelled], classes: int) -> list[str]:
    """Convert the labels of all splits to numbers of the same classes.

    Returns:
        A line for each problem: another number of classes, classes that differ between splits,
        labels out of range, classes without a training image.
    """
    problems = []
    if len({type(split.labels[0]) for split in splits.values() if split.labels}) > 1:
        return ["class names in one split and class numbers in another"]
    for split in splits.values():
        if split.names is None and split.labels and isinstance(split.labels[0], str):
            split.names = sorted(set(split.labels))
            numbers = {name: number for number, name in enumerate(split.names)}
            split.labels = [numbers[name] for name in split.labels]
    train = splits["train"]
    if train.names is not None and len(train.names) != classes:
        problems.append(
            f"train has {len(train.names)} classes ({shorten_list(train.names)}), "
            f"task.classes={classes}"
        )
    for name, split in splits.items():
        if split.names is not None and train.names is not None and split.names != train.names:
            for more, fewer, where in (
                (split.names, train.names, f"{name}, not in train"),
                (train.names, split.names, f"train, not in {name}"),
            ):
                only = [one for one in more if one not in set(fewer)]
                if only:
                    problems.append(f"classes in {where}: {shorten_list(only)}")
            if sorted(split.names) == sorted(train.names):
                problems.append(f"{name} numbers its classes in another order than train")
        low, high = min(split.labels), max(split.labels)
        if not (0 <= low and high < classes):
            hidden = " (hidden labels cannot be scored)" if low < 0 else ""
            allowed = f"allowed 0 to {classes - 1}{hidden}"
            problems.append(f"{name}: labels from {low} to {high}, {allowed}")
    if not problems:
        empty = sorted(set(range(classes)) - set(train.labels))
        if empty:
            shown = [train.names[number] if train.names else str(number) for number in empty]
            problems.append(f"train has no image of these classes: {shorten_list(shown)}")
    return problems


def find_corrupt(splits: dict[str, Labelled]) -> list[str]:
    """Return a line for each kind of fault of a split's images, naming some of them."""
    problems = []
    for name, split in splits.items():
        found: dict[str, list[str]] = {}
        for content, place in zip(split.contents, split.places, strict=True):
            fault = image_transforms.find_fault(content)
            if fault is not None:
                found.setdefault(fault, []).append(place)
        problems += [
            f"{name}: unreadable images, {len(places)} ({fault}): {shorten_list(places)}"
            for fault, places in found.items()
        ]
    return problems


def shorten_list(items: Sequence[str], most: int = 5) -> str:
    """Return the first few of a list, and the number of those left out."""
    more = [f"and {len(items) - most} more"] if len(items) > most else []
    return ", ".join([*items[:most], *more])
