"""Environment of a run: versions, commit, machine and peak memory."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).resolve().parents[2]
PACKAGES = (
    "torch",
    "peft",
    "transformers",
    "datasets",
    "accelerate",
    "diffusers",
    "hydra-core",
    "bitsandbytes",
    "numpy",
)


def describe() -> dict[str, Any]:
    """Return versions, commit and machine of this process."""
    import torch

    versions: dict[str, str | None] = {}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = None
    return {
        "python": platform.python_version(),
        "versions": versions,
        **describe_commit(),
        "host": platform.node(),
        "platform": platform.platform(),
        "processor": _read_processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def describe_commit() -> dict[str, Any]:
    """Return the commit of the checkout, and True in `dirty` if tracked files differ from it.

    Both are None outside a git checkout.
    """

    def git(*words: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", "-C", str(CHECKOUT), *words], capture_output=True, text=True, timeout=10
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    head, changes = git("rev-parse", "HEAD"), git("status", "--porcelain", "--untracked-files=no")
    return {"commit": head, "dirty": None if changes is None else bool(changes)}


class PeakMemory:
    """Peak memory between construction and `peak`.

    Memory of the process on CPU, of the allocator on a GPU.

    Args:
        device: what is computed on.
    """

    def __init__(self, device: str = "cpu") -> None:
        import torch

        self.gpu = None if device == "cpu" else device

        gc.collect()  # what an earlier run of this process left
        with contextlib.suppress(OSError, AttributeError):  # another libc than glibc
            # Freed memory that malloc keeps would be taken anew without the process growing.
            ctypes.CDLL(None).malloc_trim(0)
        if self.gpu is not None:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self.gpu)
        with contextlib.suppress(OSError):
            # Reset the high-water mark, so that sweeps measure each run.
            Path("/proc/self/clear_refs").write_text("5")
        self.before = _read_status("VmRSS") or 0

    def peak(self) -> dict[str, Any]:
        """Return bytes: `peak_rss` of this process, `peak_gpu` (None on a CPU) and `taken`.

        `taken` is `peak_gpu`, or the growth of the process.
        """
        import torch

        gpu = None if self.gpu is None else torch.cuda.max_memory_allocated(self.gpu)
        peak = _read_status("VmHWM")
        taken = gpu if gpu is not None else max(0, (peak or 0) - self.before)
        return {"peak_rss": peak, "peak_gpu": gpu, "taken": taken}


def _read_status(field: str) -> int | None:
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(field)), None)


def _read_processor() -> str | None:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or None
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), None
    )
