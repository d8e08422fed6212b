"""Several processes of one run, as torchrun starts them.

The first rank owns the run folder; the others compute with it, and write nothing. They agree by way
of the store that torchrun keeps, which unlike a collective operation waits for hours and needs no
network of its own. With one process every function here does nothing.
"""

from __future__ import annotations

import functools
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

from experiments.errors import UserError

POLL_SECONDS = 0.1
STOP_SECONDS = 60.0
"""Longer than the first rank needs to start and to torchrun's noticing that it ended."""


def rank() -> int:
    """Return the rank of this process, 0 for the one that owns the folder."""
    return int(os.environ.get("RANK", 0))


def size() -> int:
    """Return the number of processes of the run."""
    return int(os.environ.get("WORLD_SIZE", 1))


def check_processes(batch_size: int, accumulation: int, sharded: bool) -> None:
    """Raise UserError if rows or, where they are sharded, weights cannot be divided evenly."""
    if sharded and size() == 1:
        raise UserError(
            "train.sharding=fsdp: one process has nothing to share weights with",
            [
                "start it with torchrun --nproc_per_node=GPUS train.py ...",
                "allowed for one process: none",
            ],
        )
    if batch_size % (accumulation * size()):
        parts = f"{size()} processes" + (f" x {accumulation} parts" if accumulation > 1 else "")
        raise UserError(
            f"torchrun: train.batch_size={batch_size} cannot be divided among {parts}",
            ["allowed: a number of processes that divides train.batch_size / train.accumulation"],
        )


def set(key: str, value: str = "yes") -> None:
    """Set a key for the other ranks to read."""
    if size() > 1:
        _store().set(key, value)


def get(key: str) -> str:
    """Return the value of a key, once a rank has set it.

    Should that rank have ended, torchrun ends this process too.
    """
    while not _store().check([key]):
        time.sleep(POLL_SECONDS)
    return _store().get(key).decode()


@contextmanager
def main_process_first(key: str) -> Iterator[None]:
    """Run the block on the first rank alone, then on the others: it downloads, they find."""
    if rank():
        get(key)
    yield
    if not rank():
        set(key)


def on_first_failure(action: Callable[[], Any]) -> bool:
    """Run an action on the rank whose error ends the run, and only there.

    What the others meet then, as connections that are closed, are consequences.

    Returns:
        Whether it was this rank; if it was another one, that one has done it when this returns.
    """
    if size() > 1 and _store().compare_set("failed", "", str(rank())) != str(rank()).encode():
        get("recorded")
        return False
    try:
        action()
    finally:
        set("recorded")
    return True


@contextmanager
def delay_sigterm() -> Iterator[None]:
    """Let the first rank outlive torchrun's request to stop when another rank has failed.

    It has half a minute to put the folder in order.
    """
    if size() == 1 or rank():
        yield
        return

    def stop(number: int, frame: Any) -> None:
        if not _store().check(["failed"]):
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def shutdown() -> None:
    """Wait for all ranks to end: without it a process may abort while its peers close."""
    if size() == 1:
        return
    if rank():
        get("ended")
    set("ended")
    from torch import distributed

    if distributed.is_initialized():
        distributed.barrier()
        distributed.destroy_process_group()


def abort(message: str) -> NoReturn:
    """End all ranks with one message: of the rank that failed first, else of rank 0.

    The others wait for torchrun to stop them, or that one would be stopped before it has spoken.
    """
    if size() > 1 and str(rank()) != (get("failed") if _store().check(["failed"]) else "0"):
        time.sleep(STOP_SECONDS)
    sys.exit(message)


@functools.cache
def _store() -> Any:
    """Return the key-value store at MASTER_ADDR and MASTER_PORT, with a prefix of our own."""
    from torch.distributed import PrefixStore, rendezvous

    store, _, _ = next(rendezvous("env://"))
    return PrefixStore("fourierft", store)
