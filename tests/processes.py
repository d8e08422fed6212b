"""train.py and commands in processes of their own, without importing torch anew in each.

They are forked from a process that has imported what a run imports and done nothing else. To start
Python and import all that takes ten seconds of a processor, a fork next to none.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import gc
import multiprocessing
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, TextIO

ROOT = Path(__file__).resolve().parent.parent
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["experiments.run.main", "experiments.training.trainer"])


class Started:
    """A running program, with the part of `subprocess.Popen` that tests need."""

    def __init__(self, program: str, *words: str, folder: Path = ROOT, **environment: str):
        """Starts it.

        Args:
            program: a script below the checkout, or a module that `python -m` would run.
            words: its arguments.
            folder: where it runs.
            environment: variables beside those of the tests.
        """
        self.log = Path(tempfile.NamedTemporaryFile(dir=_logs().name, delete=False).name)
        given = (program, words, str(folder), os.environ | environment, str(self.log))
        self._process = FORKS.Process(target=_execute, args=given)  # may have workers of its own
        atexit.register(self._process.kill)  # what a failed test left is not waited for
        with contextlib.chdir(ROOT):  # where the process that forks finds the modules
            self._process.start()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """As `Popen`'s: negative for a signal, None as long as it runs."""
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        """Waits for the end; after the timeout kills it and raises."""
        self._process.join(timeout)
        if self._process.exitcode is None:
            self._process.kill()
            raise subprocess.TimeoutExpired("forked", timeout)
        return self._process.exitcode

    def communicate(self, timeout: float | None = None) -> tuple[str, None]:
        """Waits for the end; returns what was printed on both streams."""
        self.wait(timeout)
        return self.log.read_text(errors="replace"), None

    def kill(self) -> None:
        self._process.kill()

    def terminate(self) -> None:
        self._process.terminate()

    def kill_when(self, there, seconds: float = 400) -> None:
        """SIGKILL as soon as `there()` is true, which must be before the program ends."""
        deadline = time.monotonic() + seconds
        while not there():
            assert self.poll() is None, self.log.read_text(errors="replace")
            assert time.monotonic() < deadline, "waited in vain"
            time.sleep(0.01)
        self.kill()
        assert self.wait(60) == -signal.SIGKILL


def train(*overrides: str, **environment: str) -> Started:
    """`python train.py OVERRIDES`."""
    return Started("train.py", *overrides, **environment)


def run(
    command: list[str], *, stdout: TextIO, env: dict[str, str], **_: Any
) -> subprocess.CompletedProcess:
    """`subprocess.run` of a Python program whose output goes to a file."""
    started = Started(*command[2 if command[1] == "-m" else 1 :], **env)
    status = started.wait(timeout=500)
    stdout.write(started.log.read_text())
    return subprocess.CompletedProcess(command, status)


def ranks(number: int, program: str, *words: str) -> tuple[list[int], str]:
    """A program as torchrun starts it on several ranks, stopping all once one has failed.

    Returns:
        The ranks' exit statuses, and what they printed.
    """
    from torch.distributed import TCPStore

    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    shared = {
        **{"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port)},
        **{"TORCHELASTIC_USE_AGENT_STORE": "True"},
        **{"WORLD_SIZE": str(number), "LOCAL_WORLD_SIZE": str(number)},
    }
    started = [
        Started(program, *words, RANK=str(rank), LOCAL_RANK=str(rank), **shared)
        for rank in range(number)
    ]
    while any(process.poll() is None for process in started):
        if any(process.poll() for process in started):
            for process in started:
                process.terminate()
            break
        time.sleep(0.05)
    printed = "".join(process.communicate(timeout=300)[0] for process in started)
    return [process.returncode for process in started], printed


def nodes(number: int, program: str, *words: str) -> tuple[list[int], str]:
    """A program on nodes of one process each, as `torchrun --nnodes=NUMBER` starts it on each.

    Returns:
        The launchers' exit statuses, and what they and the program printed.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        endpoint = f"127.0.0.1:{probe.getsockname()[1]}"
    started = [
        Started("tests/node.py", str(number), endpoint, program, *words) for _ in range(number)
    ]
    printed = "".join(process.communicate(timeout=300)[0] for process in started)
    return [process.returncode for process in started], printed


def torchrun(number: int, program: str, *words: str) -> tuple[int, str]:
    """A program on several ranks, which a real torchrun starts; once more if gloo aborts."""
    for _ in range(2):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        options = (f"--nproc_per_node={number}", "--master_addr=127.0.0.1")
        agent = Started("torch.distributed.run", *options, f"--master_port={port}", program, *words)
        printed, _ = agent.communicate(timeout=300)
        if "SIGABRT" not in printed:  # as was once seen at its start
            break
    return agent.returncode, printed


@functools.cache
def _logs() -> tempfile.TemporaryDirectory:
    return tempfile.TemporaryDirectory(prefix="fourierft-tests-")


def _execute(
    program: str, words: tuple[str, ...], folder: str, environment: dict[str, str], log: str
) -> None:
    gc.freeze()  # a collection need not look at all that was imported
    with open(log, "wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    sys.argv = [program, *words]
    if program.endswith(".py"):
        runpy.run_path(str(ROOT / program), run_name="__main__")
    else:
        runpy.run_module(program, run_name="__main__", alter_sys=True)
