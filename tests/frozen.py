"""A run on a host of its own that may freeze: `tests/frozen.py MOMENT MARK OVERRIDE...`.

A process namespace stands for the host: processes outside see other process numbers, so that the
heartbeat alone decides. The run stops itself at the given moment, where it would meet its
successor, and writes its process number outside into the file MARK; at no moment with `never`.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from functools import partial
from pathlib import Path

CLONE_NEWNS, CLONE_NEWUSER, CLONE_NEWPID = 0x20000, 0x10000000, 0x20000000
MS_REC, MS_PRIVATE, PR_SET_PDEATHSIG = 0x4000, 0x40000, 1
STALE_SECONDS = 3.0


def freeze(mark: Path, pid: str, module, name: str, times: int = 1) -> None:
    """Has the process stop before a function is called for the so-many-th time."""
    original, called = getattr(module, name), []

    def stopping(*args, **kwargs):
        called.append(name)
        if len(called) == times:
            mark.write_text(pid)
            os.kill(os.getpid(), signal.SIGSTOP)
        return original(*args, **kwargs)

    setattr(module, name, stopping)


def between_evaluations(freeze_at) -> None:
    from experiments.results import predictions

    freeze_at(predictions, "save", 3)


def in_a_checkpoint(freeze_at) -> None:
    import torch

    freeze_at(torch, "save", 3)


def before_the_record(freeze_at) -> None:
    from experiments.run import session

    freeze_at(session, "write_record")


def while_it_fails(freeze_at) -> None:
    from experiments.run import session
    from experiments.training import scoring

    scoring.check = lambda *_: 1 / 0
    freeze_at(session, "write_failure")


def while_it_replaces(freeze_at) -> None:
    from experiments.run import work_folder

    freeze_at(work_folder, "complete_repetition", 2)


MOMENTS = {
    one.__name__: one
    for one in (
        between_evaluations,
        in_a_checkpoint,
        before_the_record,
        while_it_fails,
        while_it_replaces,
    )
}


def enter_host() -> str:
    """Goes on as a process of another host; returns its number on this one."""
    user, group = os.geteuid(), os.getegid()
    _call("unshare", CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNS)
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"0 {user} 1")
    Path("/proc/self/gid_map").write_text(f"0 {group} 1")
    _go_on_in_child()
    _call("prctl", PR_SET_PDEATHSIG, signal.SIGKILL)
    _go_on_in_child()  # the first process of a namespace cannot stop itself
    pid = os.readlink("/proc/self")
    _call("mount", b"none", b"/", None, MS_REC | MS_PRIVATE, None)
    _call("mount", b"proc", b"/proc", b"proc", 0, None)
    return pid


def _go_on_in_child() -> None:
    child = os.fork()
    if child:
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        os._exit(status if status >= 0 else 128 - status)


def _call(name: str, *arguments: object) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, name)(*arguments):
        raise OSError(ctypes.get_errno(), f"{name} is not allowed here")


def main() -> None:
    from experiments.config.compose import compose_config, register
    from experiments.config.load import load_config
    from experiments.errors import UserError
    from experiments.results import lock
    from experiments.run.main import run

    moment, mark, *overrides = sys.argv[1:]
    pid = enter_host()
    lock.STALE_SECONDS, lock.HEARTBEAT_SECONDS = STALE_SECONDS, 0.5
    register()
    config = load_config(compose_config(overrides))
    if moment in MOMENTS:
        MOMENTS[moment](partial(freeze, Path(mark), pid))
    try:
        run(config)
    except UserError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
