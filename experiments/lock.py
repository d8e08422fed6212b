"""One run folder, one run at a time: a lock file with a heartbeat, safe over shared file systems and after a kill."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from experiments.errors import RecordError

LOCK = "lock.json"
BEAT_SECONDS = 10.0
STALE_SECONDS = 90.0


@contextmanager
def hold(folder: Path) -> Iterator[None]:
    """Holds the folder's lock for the duration of the block.

    A lock whose owner is dead is taken over: at once if the owner ran on this machine (its process is gone), after
    `STALE_SECONDS` without a heartbeat otherwise, since process numbers mean nothing on another host.

    Raises:
        RecordError: another live run holds the folder.
    """
    path, token = folder / LOCK, uuid.uuid4().hex
    _take(path, token)
    stop = threading.Event()
    beat = threading.Thread(target=_beat, args=(path, stop), daemon=True)
    beat.start()
    try:
        yield
    finally:
        stop.set()
        beat.join()
        if _owner(path).get("token") == token:
            path.unlink(missing_ok=True)


def _take(path: Path, token: str) -> None:
    # Written aside and linked: the lock appears with its content or not at all, and only one of several takers gets it.
    draft = path.with_name(f".{LOCK}.{token}")
    draft.write_text(json.dumps({"token": token, **_this_process()}), encoding="utf-8")
    try:
        for _ in range(3):
            try:
                os.link(draft, path)
                return
            except FileExistsError:
                owner = _owner(path)
                if not _stale(path, owner, draft):
                    break
                grave = path.with_name(f".{LOCK}.stale.{token}")
                try:
                    os.rename(path, grave)
                except FileNotFoundError:
                    continue  # somebody else was faster; whoever links first has it
                if _owner(grave).get("token") != owner.get("token"):
                    os.rename(grave, path)  # it changed hands between look and rename: give it back
                    break
                grave.unlink()
    finally:
        draft.unlink(missing_ok=True)
    owner = _owner(path)
    raise RecordError(
        f"{path.parent}: another run is at work here",
        [f"host {owner.get('host')}, process {owner.get('pid')}, since {owner.get('since')}; it holds {LOCK}"],
    )


def _beat(path: Path, stop: threading.Event) -> None:
    while not stop.wait(BEAT_SECONDS):
        try:
            os.utime(path)
        except OSError:
            pass  # a shared file system may be away for a moment; the next beat tries again


def _stale(path: Path, owner: dict[str, Any], draft: Path) -> bool:
    here = _this_process()
    if owner.get("machine") == here["machine"]:
        return _started(owner.get("pid", -1)) != owner.get("started")
    try:
        os.utime(draft)  # the file server's clock, not ours
        return draft.stat().st_mtime - path.stat().st_mtime > STALE_SECONDS
    except FileNotFoundError:
        return True


def _owner(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError):
        return {}


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
    """Start time of a process in clock ticks since boot, None if it does not exist: a reused number shows here."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields[19]
