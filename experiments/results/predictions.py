"""Predictions of every evaluation, kept so that any rule or metric can be computed later."""

from __future__ import annotations

import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from experiments.errors import RecordError
from experiments.files import list_visible, replace_file
from experiments.metrics.selection import Evaluation
from experiments.results import stored
from experiments.results.history import TRAINING_LOSS

FOLDER = "predictions"
OF_TRAINING = (TRAINING_LOSS, "train/learning_rate", "train/gradient_norm")
"""Keys of a history that are not scores of an evaluation."""
LARGEST = 2**32
"""Bytes of the predictions of one evaluation."""
DAMAGED = (
    *(OSError, EOFError, ValueError, KeyError, TypeError, MemoryError, OverflowError),
    *(SyntaxError, NotImplementedError, RuntimeError, zipfile.BadZipFile),
)
"""Errors that numpy and zipfile raise for damaged bytes."""


def save(run: Path, split: str, entry: Evaluation) -> None:
    """Write predictions/<split>-<step>.npz atomically."""
    folder = run / FOLDER
    folder.mkdir(exist_ok=True)
    path = folder / f"{split}-{entry.step:07d}.npz"
    with replace_file(path) as draft, draft.open("wb") as file:
        np.savez(
            file,
            predictions=entry.predictions,
            references=entry.references,
            epoch=entry.epoch,
            step=entry.step,
        )


def get_paths(run: Path, split: str = "*") -> list[Path]:
    """Return the files of a split, or of all splits, by name, without other programs' files."""
    return [path for path in list_visible(run / FOLDER, f"{split}-*.npz") if parse_step(path) >= 0]


def load(run: Path, split: str) -> list[Evaluation]:
    """Read every stored evaluation of a split, in the order of training.

    A damaged file raises RecordError.
    """
    return [_read(path) for path in get_paths(run, split)]


def load_step(run: Path, split: str, step: int) -> Evaluation | None:
    """Read one stored evaluation; None if there is none. A damaged file raises RecordError."""
    path = run / FOLDER / f"{split}-{step:07d}.npz"
    return _read(path) if path.is_file() else None


def _read(path: Path) -> Evaluation:
    stored.check_file(path, LARGEST)
    try:
        _check_sizes(path)
        with np.load(path, allow_pickle=False) as arrays:
            entry = Evaluation(
                step=int(arrays["step"]),
                epoch=float(arrays["epoch"]),
                predictions=arrays["predictions"],
                references=arrays["references"],
            )
    except DAMAGED as error:
        raise RecordError(f"{path}: damaged predictions ({error})") from error
    both = (entry.predictions, entry.references)
    if any(array.ndim == 0 or array.dtype.kind not in "biuf" for array in both):
        raise RecordError(f"{path}: damaged predictions (not arrays of numbers)")
    if len(entry.predictions) != len(entry.references):
        raise RecordError(f"{path}: damaged predictions (not as many as references)")
    return entry


def find_first_damaged(run: Path) -> Path | None:
    """Return the earliest stored evaluation that cannot be read; None if all can."""
    paths = sorted(get_paths(run), key=parse_step)
    return next((path for path in paths if not _is_complete(path)), None)


def _check_sizes(path: Path) -> None:
    """Raise ValueError if the file is compressed and could take more memory than it has bytes."""
    with zipfile.ZipFile(path) as archive:
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
            raise ValueError("compressed, unlike files of this project")


def count_evaluations(history: Iterable[dict[str, Any]]) -> Counter[tuple[str, int]]:
    """Count the evaluations of each (split, step) in a history."""
    found: Counter[tuple[str, int]] = Counter()
    for line in history:
        splits = {key.rpartition("/")[0] for key in line if "/" in key and key not in OF_TRAINING}
        found.update((split, line["step"]) for split in splits)
    return found


def find_differences(run: Path, history: Iterable[dict[str, Any]]) -> Iterator[str]:
    """Yield every evaluation of a history without predictions, and vice versa."""
    expected = count_evaluations(history)
    there = {
        (split, int(step))
        for path in get_paths(run)
        for split, _, step in [path.stem.rpartition("-")]
        if step.isdecimal()
    }
    for split, step in sorted(expected.keys() | there):
        what = f"{FOLDER}/{split}-{step:07d}.npz"
        if (split, step) not in there:
            yield f"{what}: missing, though history.jsonl has its score"
        elif not expected[split, step]:
            yield f"{what}: without an evaluation in history.jsonl"
        elif expected[split, step] > 1:
            yield f"{what}: evaluated {expected[split, step]} times in history.jsonl"


def check(run: Path, history: Iterable[dict[str, Any]]) -> None:
    """Raise RecordError unless every evaluation so far has its predictions."""
    problems = list(find_differences(run, history))
    if problems:
        raise RecordError(
            f"{run / FOLDER}: not the predictions of this run's evaluations",
            [*problems[:5], *([f"and {len(problems) - 5} more"] if len(problems) > 5 else [])],
        )


def delete_after(run: Path, step: int) -> None:
    """Delete files after `step`: a resumed run then ends with an uninterrupted one's files."""
    for path in get_paths(run):
        if parse_step(path) > step:
            path.unlink()


def parse_step(path: Path) -> int:
    """Return the step of a stored evaluation from its file name; -1 if it has none."""
    number = path.stem.rpartition("-")[2]
    return int(number) if number.isdecimal() else -1


def _is_complete(path: Path) -> bool:
    """Return True if the file's checksums match."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except Exception:  # readers of damaged files raise many kinds
        return False
