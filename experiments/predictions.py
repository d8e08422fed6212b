"""Predictions of every evaluation, kept so that any rule or metric can be computed later."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import numpy as np

from experiments.errors import RecordError
from experiments.selection import Evaluation

FOLDER = "predictions"


def store(run: Path, split: str, entry: Evaluation) -> None:
    """Writes predictions/<split>-<step>.npz in one step."""
    place = run / FOLDER
    place.mkdir(exist_ok=True)
    draft = place / f".{split}.tmp"
    with draft.open("wb") as file:
        np.savez(
            file,
            predictions=entry.predictions,
            references=entry.references,
            epoch=entry.epoch,
            step=entry.step,
        )
    os.replace(draft, place / f"{split}-{entry.step:07d}.npz")


def load(run: Path, split: str) -> list[Evaluation]:
    """Every stored evaluation of a split, in the order of training.

    RecordError names a damaged file.
    """
    found = []
    for path in sorted((run / FOLDER).glob(f"{split}-*.npz")):
        try:
            with np.load(path, allow_pickle=False) as arrays:
                found.append(
                    Evaluation(
                        step=int(arrays["step"]),
                        epoch=float(arrays["epoch"]),
                        predictions=arrays["predictions"],
                        references=arrays["references"],
                    )
                )
        except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise RecordError(f"{path}: damaged predictions ({error})") from error
    return found


def cut(run: Path, step: int) -> None:
    """Deletes what lies behind `step`: a resumed run ends with an uninterrupted one's files."""
    for path in (run / FOLDER).glob("*-*.npz"):
        if int(path.stem.rpartition("-")[2]) > step:
            path.unlink()
