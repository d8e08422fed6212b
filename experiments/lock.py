"""One run folder, one run at a time.

A lock file with a heartbeat, safe over shared file systems and after a kill.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from experiments.errors import Occupied, RecordError

LOCK = "lock.json"
BEAT_SECONDS = 10.0
STALE_SECONDS = 90.0


@contextmanager
def hold(folder: Path) -> Iterator[Callable[[], None]]:
    """Holds the folder's lock for the duration of the block.

    Yields a check that raises RecordError if the lock was lost meanwhile: a process that slept for
    longer than `STALE_SECONDS` must not write over its successor's work.

    A lock whose owner is dead is taken over: at once if the owner ran on this machine (its process
    is gone), after `STALE_SECONDS` without a heartbeat otherwise, since process numbers mean
    nothing on another host.

    Raises:
        Occupied: another live run holds the folder.
    """
    path, token = folder / LOCK, uuid.uuid4().hex
    _take(path, token)
    stop = threading.Event()
    beat = threading.Thread(target=_beat, args=(path, token, stop), daemon=True)
    beat.start()

    def check() -> None:
        if _owner(path).get("token") != token:
            raise RecordError(f"{folder}: another run took this folder over while this one slept")

    try:
        yield check
    finally:
        stop.set()
        beat.join()
        if _owner(path).get("token") == token:
            path.unlink(missing_ok=True)


def holder(folder: Path) -> dict[str, Any] | None:
    """Who works in the folder now: host, pid, since; None if nobody does. Touches nothing.

    Of another host's lock the heartbeat tells, by this machine's clock.
    """
    path = folder / LOCK
    owner = _owner(path)
    if not owner:
        return None
    if owner.get("machine") == _this_process()["machine"]:
        started = _started(owner.get("pid", -1))
        return owner if started is not None and started == owner.get("started") else None
    try:
        age = time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return None
    return owner if age <= STALE_SECONDS else None


def _take(path: Path, token: str) -> None:
    # Written aside and linked: a lock appears with its content or not at all, and only one of
    # several takers gets it.
    draft = path.with_name(f".{LOCK}.{token}")
    draft.write_text(json.dumps({"token": token, **_this_process()}), encoding="utf-8")
    try:
        if _link(draft, path) or _take_over(path, draft):
            return
    finally:
        draft.unlink(missing_ok=True)
    owner = _owner(path)
    raise Occupied(
        f"{path.parent}: another run is at work here",
        [
            f"host {owner.get('host')}, process {owner.get('pid')}, since {owner.get('since')}; "
            f"it holds {LOCK}"
        ],
    )


def _take_over(path: Path, draft: Path) -> bool:
    """Replaces a dead owner's lock by the draft.

    False if its owner lives or somebody was faster.
    """
    if not _stale(path, draft):
        return False
    # Whoever holds the heir's link is alone in replacing the lock, so what it sees there stays.
    heir = path.with_name(f".{LOCK}.heir")
    if not _link(draft, heir):
        if not _stale(heir, draft):
            return False
        heir.unlink(missing_ok=True)  # died within these few lines
        if not _link(draft, heir):
            return False
    try:
        if not path.exists():
            return _link(draft, path)
        if not _stale(path, draft):
            return False
        os.replace(draft, path)
        return True
    finally:
        heir.unlink(missing_ok=True)


def _link(draft: Path, path: Path) -> bool:
    """Makes `path` another name of the draft; False if it exists."""
    try:
        os.link(draft, path)
    except FileExistsError:
        return False
    return True


def _beat(path: Path, token: str, stop: threading.Event) -> None:
    while not stop.wait(BEAT_SECONDS):
        try:
            if _owner(path).get("token", token) != token:
                return  # taken over while this process slept: the new owner's to keep alive
            os.utime(path)
        except OSError:
            pass  # a shared file system may be away for a moment; the next beat tries again


def _stale(path: Path, draft: Path) -> bool:
    """True if the owner of a lock is dead, or the lock is gone."""
    owner, here = _owner(path), _this_process()
    if owner.get("machine") == here["machine"]:
        started = _started(owner.get("pid", -1))
        return started is None or started != owner.get("started")
    try:
        os.utime(draft)  # the file server's clock, not ours
        return draft.stat().st_mtime - path.stat().st_mtime > STALE_SECONDS
    except FileNotFoundError:
        return True


def _owner(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _this_process() -> dict[str, Any]:
    """Who holds the lock; `machine` is equal only where process numbers can be compared."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        space = os.readlink("/proc/self/ns/pid")
    except OSError:
        boot, space = uuid.uuid4().hex, ""  # no /proc: never comparable, the heartbeat decides
    return {
        "host": socket.gethostname(),
        "machine": f"{boot}/{space}",
        "pid": os.getpid(),
        "started": _started(os.getpid()),
        "since": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }


def _started(pid: int) -> str | None:
    """Start time of a process in clock ticks since boot, None if it does not exist.

    A reused number shows here.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields[19]
