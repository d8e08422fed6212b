"""Adapter that a run keeps: written atomically, verified by its hashes."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from experiments.errors import RecordError
from experiments.files import set_default_mode, write_atomically
from experiments.results import stored
from experiments.results.record import RECORD, Record

FOLDER = "adapter"
MAIN_FILES = ("adapter_config.json", "trained.safetensors")
"""Files of which an adapter has one: PEFT's, or that of methods without it."""
PREVIOUS = ".adapter.spare.tmp"
"""Folder with the adapter of the last checkpoint, once a later evaluation was better."""
LABEL = ".kept.json"
"""File in the folder during the run: step of the adapter, and its files' hashes."""
CARD = "README.md"
"""Description of an adapter, as the hub shows it."""
CHUNK_BYTES = 2**20


def replace(run: Path, step: int, write: Callable[[Path], Any], checkpoint: int) -> None:
    """Replace the adapter of a run.

    Args:
        run: the run folder.
        step: step of its evaluation.
        write: function that fills an empty folder.
        checkpoint: step of the last checkpoint. A run resumed there needs the best adapter up to
            then.
    """
    draft, kept, spare = run / ".adapter.tmp", run / FOLDER, run / PREVIOUS
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir()
    write(draft)
    set_default_mode(draft)
    label = {"step": step, "files": compute_hashes(draft)}
    write_atomically(draft / LABEL, json.dumps(label))
    if kept.is_dir() and (_read_label(kept) or {}).get("step", step) <= checkpoint:
        shutil.rmtree(spare, ignore_errors=True)
        kept.rename(spare)
    else:
        shutil.rmtree(kept, ignore_errors=True)
    draft.rename(kept)


def add_label(run: Path, step: int) -> None:
    """Label an adapter that an earlier version kept without one.

    Args:
        run: the run folder.
        step: of the evaluation that it is of.
    """
    folder = run / FOLDER
    if folder.is_dir() and not (folder / LABEL).exists():
        write_atomically(
            folder / LABEL, json.dumps({"step": step, "files": compute_hashes(folder)})
        )


def restore(run: Path, step: int) -> bool:
    """Restore the adapter that was kept at `step`; False if it is missing or damaged."""
    kept, spare = run / FOLDER, run / PREVIOUS
    for folder in (kept, spare):
        label = _read_label(folder)
        if label is not None and label["step"] <= step and label["files"] == compute_hashes(folder):
            if folder == spare:
                shutil.rmtree(kept, ignore_errors=True)
                spare.rename(kept)
            return True
    shutil.rmtree(kept, ignore_errors=True)
    return False


def verify(run: Path, step: int | None) -> dict[str, str]:
    """Return the hashes of the adapter's files for the record of a finishing run.

    Args:
        run: the run folder.
        step: step of the selected score; None without one.

    Raises:
        RecordError: the adapter is missing, was altered, or is not of `step`.
    """
    folder = run / FOLDER
    label = _read_label(folder)
    if label is None:
        raise RecordError(
            f"{folder}: the adapter was removed or damaged during the run",
            ["the same command trains it again"],
        )
    problems = list(_compare_hashes(label["files"], folder))
    if step not in (None, label["step"]):
        problems.append(f"found step {label['step']}, expected step {step} of the selected score")
    if problems:
        raise RecordError(f"{folder}: not the adapter that was kept", problems)
    return label["files"]


def check(folder: Path, record: Record) -> None:
    """Compare the adapter of a finished run with its record, and look for non-finite values.

    Args:
        folder: the adapter's, in the run folder or exported.
        record: of the run.

    Raises:
        RecordError: the adapter is missing, was altered, or contains NaN or infinity.
    """
    if not folder.is_dir():
        raise RecordError(f"{folder}: no adapter there")
    problems = list(_compare_hashes(record.adapter, folder)) if record.adapter is not None else []
    if problems:
        raise RecordError(f"{folder}: not the recorded adapter", problems)
    broken = list(_find_nonfinite(folder))
    if broken:
        raise RecordError(f"{folder}: contains non-finite values", broken)


def find_differences(run: Path, record: Record) -> Iterator[str]:
    """Yield every file of the adapter that differs from the record, if hashes are recorded."""
    if record.adapter is not None:
        yield from _compare_hashes(record.adapter, run / FOLDER)


def compute_hashes(folder: Path) -> dict[str, str]:
    """Compute the SHA-256 of an adapter's files by name, without what is written about it."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.name in (LABEL, CARD, RECORD) or path.is_dir():
            continue
        stored.check_file(path, 2**40)
        digest = hashlib.sha256()
        with path.open("rb") as file:
            while piece := file.read(CHUNK_BYTES):
                digest.update(piece)
        found[path.relative_to(folder).as_posix()] = digest.hexdigest()
    return found


def _compare_hashes(expected: dict[str, str], folder: Path) -> Iterator[str]:
    there = compute_hashes(folder)
    for name in sorted(expected.keys() | there.keys()):
        if name not in there:
            yield f"{FOLDER}/{name}: missing"
        elif name not in expected:
            yield f"{FOLDER}/{name}: not of this run"
        elif there[name] != expected[name]:
            yield f"{FOLDER}/{name}: altered since"


def _read_label(folder: Path) -> dict[str, Any] | None:
    try:
        found = stored.read_json(folder / LABEL)
    except RecordError:
        return None
    if not isinstance(found, dict) or not isinstance(found.get("files"), dict):
        return None
    return found if isinstance(found.get("step"), int) else None


def _find_nonfinite(folder: Path) -> Iterator[str]:
    """Yield up to five tensors with NaN or infinity."""
    from safetensors import SafetensorError, safe_open

    found = 0
    for path in sorted(folder.rglob("*.safetensors")):
        try:
            with safe_open(path, "pt") as file:
                for name in file.keys():  # noqa: SIM118 (not a dict)
                    tensor = file.get_tensor(name)
                    if tensor.is_floating_point() and not tensor.isfinite().all():
                        found += 1
                        if found <= 5:
                            yield f"{path.name}: {name}"
        except (OSError, SafetensorError) as error:
            raise RecordError(f"{path}: damaged ({error})") from error
    if found > 5:
        yield f"and {found - 5} more"
