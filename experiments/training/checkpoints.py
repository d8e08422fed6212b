"""Checkpoints of an interrupted run: the newest usable one, and the faults of others."""

from __future__ import annotations

import json
import logging
import shutil
import zipfile
from pathlib import Path

from experiments.results import stored

STATE = "trainer_state.json"
NEEDED = (STATE, "optimizer.pt", "scheduler.pt", "rng_state*.pth", "**/*.safetensors")
"""Files of a checkpoint: without one of these transformers silently starts that part afresh."""
LARGEST = 2**40
"""Largest size of a file, in bytes."""

log = logging.getLogger(__name__)


def find_latest(folder: Path, before: int | None = None) -> tuple[Path | None, int]:
    """Return the newest complete checkpoint and its step; (None, 0) if there is none.

    Newer ones are deleted. A warning names those that are damaged, but not those that a kill left
    incomplete: their state file, which is written last, is missing.

    Args:
        folder: holds a folder checkpoint-<step> for each.
        before: consider only earlier steps; None: any.
    """
    found: tuple[Path | None, int] = (None, 0)
    given_up = False
    for step, path in sorted(_list_checkpoints(folder), reverse=True):
        if before is not None and step >= before:
            given_up = True
            shutil.rmtree(path, ignore_errors=True)
            continue
        reason = find_fault(path)
        if reason is None:
            found = (path, step)
            break
        if (path / STATE).exists():
            given_up = True
            log.warning("%s: damaged, %s; it is deleted", path, reason)
        shutil.rmtree(path, ignore_errors=True)
    if given_up and found[0] is None:
        log.warning("no whole checkpoint is left: the run starts anew")
    return found


def find_fault(path: Path) -> str | None:
    """Return the reason why a run cannot resume from a checkpoint, or None."""
    for pattern in NEEDED:
        if next(path.glob(pattern), None) is None:
            return f"without {pattern.rpartition('/')[2]}"
    for item in sorted(path.rglob("*")):
        if item.is_dir():
            continue
        try:
            stored.check_file(item, LARGEST)
            if item.suffix in (".pt", ".pth"):
                _check_archive(item)
            elif item.suffix == ".safetensors":
                _check_weights(item)
            elif item.suffix == ".json":
                json.loads(item.read_text(encoding="utf-8"))
        except Exception as error:  # readers of damaged files raise many kinds
            return f"{item.name} cannot be read ({str(error).strip() or type(error).__name__})"
    state = json.loads((path / STATE).read_text(encoding="utf-8"))
    if not isinstance(state, dict) or state.get("global_step") != _parse_step(path):
        return f"{STATE} is of another step"
    return None


def is_complete_training(path: Path) -> bool:
    """Return True for a complete checkpoint after which nothing is left to train."""
    state = json.loads((path / STATE).read_text(encoding="utf-8"))
    return state["global_step"] >= state["max_steps"]


def _list_checkpoints(folder: Path) -> list[tuple[int, Path]]:
    found = ((_parse_step(path), path) for path in folder.glob("checkpoint-*"))
    return [(step, path) for step, path in found if step is not None]


def _parse_step(path: Path) -> int | None:
    number = path.name.removeprefix("checkpoint-")
    return int(number) if number.isdecimal() else None


def _check_archive(path: Path) -> None:
    """Raise BadZipFile where a file of torch is cut off or its checksums do not hold."""
    with zipfile.ZipFile(path) as archive:
        broken = archive.testzip()
    if broken is not None:
        raise zipfile.BadZipFile(f"checksum of {broken}")


def _check_weights(path: Path) -> None:
    """Raise ValueError where a file of safetensors is not as long as its header says."""
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(min(size, path.stat().st_size)))
    ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
    if path.stat().st_size != 8 + size + max(ends, default=0):
        raise ValueError("cut off")
