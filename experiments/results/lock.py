"""Lock of a run folder: one run at a time.

A lock file with a heartbeat, safe on shared file systems and after a kill. Its owner accesses the
folder through a link of its own, which a successor removes: a process that was suspended meanwhile
fails to write, rename or delete anything there, however late it resumes.

Not flock, nor filelock, which uses it: shared file systems often keep it to one host or lack it.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.errors import Lost, Occupied, RecordError
from experiments.results import stored

LOCK = "lock.json"
HEARTBEAT_SECONDS = 10.0
STALE_SECONDS = 90.0


@dataclass(frozen=True, kw_only=True)
class FolderLock:
    """Locked folder, as seen by its owner."""

    run_dir: Path
    """The folder."""
    token: str
    """Token of this owner, never reused."""

    @property
    def path(self) -> Path:
        """The owner's link to the folder, `.<name>.<token>` beside it.

        The owner makes all changes through it.
        """
        return self.run_dir.with_name(f".{self.run_dir.name}.{self.token}")

    @property
    def is_held(self) -> bool:
        """False once another process has taken the folder over."""
        return _read_owner(self.path / LOCK).get("token") == self.token

    def get_visible_path(self, path: Path) -> Path:
        """Return a path below `path` under the folder's own name, for messages."""
        return self.run_dir / path.relative_to(self.path)

    def check(self) -> None:
        """Raise Lost if another process has taken the folder over."""
        if not self.is_held:
            raise Lost(f"{self.run_dir}: another run took over this folder from this one")


@contextmanager
def acquire_lock(folder: Path) -> Iterator[FolderLock]:
    """Hold the folder's lock for the duration of the block.

    A lock whose owner is dead is taken over: at once if the owner ran on this machine (its process
    is gone), after `STALE_SECONDS` without a heartbeat otherwise, since process numbers mean
    nothing on another host.

    Raises:
        Occupied: another live run holds the folder.
    """
    folder_lock = FolderLock(run_dir=folder, token=uuid.uuid4().hex)
    _acquire(folder / LOCK, folder_lock)
    stop = threading.Event()
    beat = threading.Thread(target=_send_heartbeats, args=(folder_lock, stop), daemon=True)
    beat.start()
    try:
        yield folder_lock
    finally:
        stop.set()
        beat.join()
        if folder_lock.is_held:
            (folder_lock.path / LOCK).unlink(missing_ok=True)
        _remove_link(folder_lock.path)


def find_owner(folder: Path) -> dict[str, Any] | None:
    """Return the live owner of the folder (host, pid, since); None if there is none. Read-only.

    For another host's lock the heartbeat decides, by this machine's clock.
    """
    path = folder / LOCK
    owner = _read_owner(path)
    if not owner:
        return None
    if owner.get("machine") == _describe_process()["machine"]:
        started = _read_start_time(owner.get("pid", -1))
        return owner if started is not None and started == owner.get("started") else None
    try:
        age = time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return None
    return owner if age <= STALE_SECONDS else None


def _acquire(path: Path, folder_lock: FolderLock) -> None:
    # Written aside and linked: a lock appears with its content or not at all, and only one of
    # several takers gets it.
    draft = path.with_name(f".{LOCK}.{folder_lock.token}")
    try:
        while True:
            draft.write_text(
                json.dumps({"token": folder_lock.token, **_describe_process()}), encoding="utf-8"
            )
            try:
                taken = _create_link(draft, path) or _take_over(path, draft, folder_lock)
                break
            except FileNotFoundError:
                if not path.parent.is_dir():
                    raise
                # Another taker found the draft before it was written, and took it for a dead one's.
        if taken:
            try:
                _revoke_links(folder_lock)
                folder_lock.path.symlink_to(folder_lock.run_dir.name)
            except OSError:  # a full disk
                path.unlink(missing_ok=True)
                raise
            _remove_leftovers(path, draft)
            return
    finally:
        draft.unlink(missing_ok=True)
    owner = _read_owner(path)
    raise Occupied(
        f"{path.parent}: another run is using this folder",
        [
            f"host {owner.get('host')}, process {owner.get('pid')}, since {owner.get('since')}; "
            f"it holds {LOCK}"
        ],
    )


def _take_over(path: Path, draft: Path, folder_lock: FolderLock) -> bool:
    """Replace a dead owner's lock by the draft.

    False if its owner is alive or another process was faster.
    """
    if not _is_stale(path, draft):
        return False
    # Only the holder of the claim may replace the lock, so what it sees there stays.
    claim = path.with_name(f".{LOCK}.heir")
    if not _create_link(draft, claim):
        if not _is_stale(claim, draft):
            return False
        claim.unlink(missing_ok=True)  # died within these few lines
        if not _create_link(draft, claim):
            return False
    try:
        if not path.exists():
            return _create_link(draft, path)
        if not _is_stale(path, draft):
            return False
        # Before: else an owner that wakes at its end would remove the new lock.
        _revoke_links(folder_lock)
        os.replace(draft, path)
        return True
    finally:
        claim.unlink(missing_ok=True)


def _revoke_links(folder_lock: FolderLock) -> None:
    """Revoke the folder from all earlier owners, whatever they are doing."""
    for link in find_links(folder_lock.run_dir):
        if link.name != folder_lock.path.name:
            _remove_link(link)


def find_links(run_dir: Path) -> list[Path]:
    """Return the links of all owners of a folder, dead ones included."""
    name = re.compile(rf"\.{re.escape(run_dir.name)}\.[0-9a-f]{{32}}")
    return [item for item in run_dir.absolute().parent.iterdir() if name.fullmatch(item.name)]


def _remove_link(link: Path) -> None:
    """Remove an owner's link, or the folder that an owner without its link created there."""
    try:
        link.unlink(missing_ok=True)
    except OSError:
        shutil.rmtree(link, ignore_errors=True)


def _remove_leftovers(path: Path, draft: Path) -> None:
    """Remove leftovers of processes that died while taking the lock."""
    for item in path.parent.glob(f".{LOCK}.*"):
        if item != draft and (not _read_owner(item) or _is_stale(item, draft)):
            item.unlink(missing_ok=True)


def _create_link(draft: Path, path: Path) -> bool:
    """Make `path` another name of the draft; return False if it exists."""
    try:
        os.link(draft, path)
    except FileExistsError:
        return False
    return True


def _send_heartbeats(folder_lock: FolderLock, stop: threading.Event) -> None:
    path = folder_lock.path / LOCK
    while not stop.wait(HEARTBEAT_SECONDS):
        try:
            if _read_owner(path).get("token", folder_lock.token) != folder_lock.token:
                return  # taken over while this process slept: the new owner's to keep alive
            os.utime(path)
        except OSError:
            pass  # a shared file system may be away for a moment; the next beat tries again


def _is_stale(path: Path, draft: Path) -> bool:
    """Return True if the owner of a lock is dead, or the lock is gone."""
    owner, here = _read_owner(path), _describe_process()
    if owner.get("machine") == here["machine"]:
        started = _read_start_time(owner.get("pid", -1))
        return started is None or started != owner.get("started")
    try:
        os.utime(draft)  # the file server's clock, not ours
        return draft.stat().st_mtime - path.stat().st_mtime > STALE_SECONDS
    except FileNotFoundError:
        return True


def _read_owner(path: Path) -> dict[str, Any]:
    try:
        found = stored.read_json(path)
    except RecordError:
        return {}
    return found if isinstance(found, dict) else {}


def _describe_process() -> dict[str, Any]:
    """Describe this process as an owner; `machine` is equal only where pids are comparable."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        space = os.readlink("/proc/self/ns/pid")
    except OSError:
        boot, space = uuid.uuid4().hex, ""  # no /proc: never comparable, the heartbeat decides
    return {
        "host": socket.gethostname(),
        "machine": f"{boot}/{space}",
        "pid": os.getpid(),
        "started": _read_start_time(os.getpid()),
        "since": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }


def _read_start_time(pid: int) -> str | None:
    """Return the start time of a process in clock ticks since boot; None if it does not exist.

    It tells a reused pid from the original process.
    """
    try:
        fields = Path(f"/proc/{int(pid)}/stat").read_text().rpartition(")")[2].split()
    except (OSError, ValueError, TypeError):  # a lock may hold anything for a number
        return None
    return None if fields[0] in "ZX" else fields[19]
