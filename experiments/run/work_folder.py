"""The folder that a run is made in: opened, and closed when the run is whole or has failed.

A finished run that is repeated (`force=true`) stays where it is until its repetition, made in a
folder within, is whole. All steps go by way of the owner's link (`lock.FolderLock`), and a kill
between any two leaves what the next start completes.
"""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path
from typing import Any

import yaml

from experiments.errors import RecordError
from experiments.files import MOVING_ASIDE, REPETITION, replace_file, write_atomically
from experiments.results import inputs, kept_adapter
from experiments.results.identity import to_plain
from experiments.results.lock import LOCK, FolderLock, acquire_lock, find_links
from experiments.results.record import CONFIG, FAILURE, RECORD, Record, read_record
from experiments.results.run_folder import find_record, is_same_run, read_configuration

CHECKPOINTS = "checkpoints"


def prepare(folder_lock: FolderLock, config: Any) -> Path | Record:
    """Prepare a run folder, completing first what an earlier start left incomplete.

    What must not be continued is moved aside: what another configuration, or this one with other
    inputs, left when it failed, since its checkpoints are not ours, and with `force` whatever this
    repetition has not made itself.

    Returns:
        Where to make the run, by the owner's link; the record if the run is finished.

    Raises:
        RecordError: the folder holds another run, or one that began with other inputs.
    """
    root = folder_lock.path
    _remove_drafts(root)
    if (root / MOVING_ASIDE).is_dir():
        _move_aside(folder_lock)
    settled = complete_repetition(folder_lock) is not None
    if config.force and settled and _can_resume(root, config):
        return read_record(root)
    work = root
    if not config.force:
        if (record := find_record(folder_lock.run_dir, config)) is not None:
            return record
        if (root / CONFIG).exists() and not (root / FAILURE).exists():  # interrupted: of this run
            inputs.check(folder_lock.run_dir, config, None)
        elif _list_items(root) and not _can_resume(root, config):
            _move_aside(folder_lock)
    elif (root / RECORD).exists():
        work = root / REPETITION
        if work.exists() and not _can_resume(work, config):
            work.rename(_find_free_name(folder_lock.run_dir, "replaced"))
        if not work.exists():
            draft = root / f".{REPETITION}.tmp"
            shutil.rmtree(draft, ignore_errors=True)
            draft.mkdir()
            _write_configuration(draft, config)
            draft.rename(work)  # never empty: that is how a whole one ends
    elif _list_items(root) and not _is_same_repetition(root, config):
        _move_aside(folder_lock)
    replace_open_files(work)
    (work / FAILURE).unlink(missing_ok=True)
    _write_configuration(work, config)
    return work


def complete_repetition(folder_lock: FolderLock) -> Path | None:
    """Put a whole repetition in the place of the run that it repeats.

    Returns:
        The folder that now holds the earlier run, or the run's own if that went before; None if
        there is no whole repetition.
    """
    root, aside = folder_lock.path, None
    repetition = root / REPETITION
    if not repetition.is_dir():
        return None
    if (repetition / RECORD).exists():
        if (root / RECORD).exists():
            aside = _move_aside(folder_lock)
        remove_temporary(repetition)
        for item in sorted(repetition.iterdir(), key=_is_record):
            item.rename(root / item.name)
    elif any(repetition.iterdir()):
        return None
    repetition.rmdir()
    return aside or folder_lock.run_dir


def abandon_repetition(folder_lock: FolderLock) -> Path | None:
    """Move a repetition that failed beside the finished run; return where, None without one."""
    repetition = folder_lock.path / REPETITION
    if not ((folder_lock.path / RECORD).exists() and repetition.is_dir()):
        return None
    failed = _find_free_name(folder_lock.run_dir, "failed")
    repetition.rename(failed)
    return failed


def replace_open_files(folder: Path) -> None:
    """Separate what will be written to from what an earlier owner may still hold open.

    Files that are appended to become copies, drafts go.
    """
    _remove_drafts(folder)
    for path in [folder / "run.log", *folder.glob("generations/*.jsonl")]:
        if path.is_file():
            with replace_file(path) as draft:
                shutil.copy2(path, draft)


def _remove_drafts(folder: Path) -> None:
    for draft in [*folder.glob(".*.tmp"), *folder.glob("*/.*.tmp"), *folder.glob("*/*/.*.tmp")]:
        if draft.is_file():
            draft.unlink(missing_ok=True)


def remove_temporary(folder: Path) -> None:
    """Remove what a finished run needs no longer."""
    shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)
    (folder / kept_adapter.FOLDER / kept_adapter.LABEL).unlink(missing_ok=True)
    for draft in folder.glob(".*.tmp"):
        if draft.is_dir():
            shutil.rmtree(draft, ignore_errors=True)
        else:
            draft.unlink(missing_ok=True)


def clean_finished(run_dir: Path) -> None:
    """Clear a finished run whose process was killed on its last steps; leave others alone."""
    with contextlib.suppress(OSError):
        left = [
            item for item in run_dir.iterdir() if item.name.startswith((CHECKPOINTS, LOCK, "."))
        ]
        left += find_links(run_dir)
        if not left and not (run_dir / kept_adapter.FOLDER / kept_adapter.LABEL).exists():
            return
        with contextlib.suppress(RecordError), acquire_lock(run_dir) as folder_lock:
            if (folder_lock.path / RECORD).exists():
                remove_temporary(folder_lock.path)


def _write_configuration(work: Path, config: Any) -> None:
    write_atomically(work / CONFIG, yaml.safe_dump(to_plain(config), sort_keys=False))


def _move_aside(folder_lock: FolderLock) -> Path:
    """Move the contents of a run folder into a new one beside it, and return that.

    The record moves first: without it nothing counts as done. A complete repetition stays.
    """
    root = folder_lock.path
    leaving = root / MOVING_ASIDE
    leaving.mkdir(exist_ok=True)
    whole = (root / REPETITION / RECORD).exists()
    for item in sorted(_list_items(root), key=lambda item: not _is_record(item)):
        if not (whole and item.name == REPETITION):
            item.rename(leaving / item.name)
    aside = _find_free_name(folder_lock.run_dir, "replaced")
    leaving.rename(aside)
    return aside


def _list_items(root: Path) -> list[Path]:
    """List a run folder without locks, drafts of locks and what is being removed."""
    return [item for item in root.iterdir() if LOCK not in item.name and item.name != MOVING_ASIDE]


def _is_record(item: Path) -> bool:
    return item.name == RECORD


def _can_resume(folder: Path, config: Any) -> bool:
    """Return True if this very run left what lies in a folder, and can go on with these inputs."""
    return is_same_run(folder, config) and not inputs.have_changed(folder, config)


def _is_same_repetition(root: Path, config: Any) -> bool:
    """Return True if the folder holds this very repetition, which was killed."""
    if (root / FAILURE).exists() or not _can_resume(root, config):
        return False
    return bool(read_configuration(root).get("force"))


def _find_free_name(run_dir: Path, why: str) -> Path:
    """Return a name beside the run folder that is not taken."""
    number = 1
    while (beside := run_dir.with_name(f"{run_dir.name}.{why}-{number}")).exists():
        number += 1
    return beside
