"""Contestants of a race on a GPU: strategies, graph replay, kernel and sync counts."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable
from typing import Any

import torch

from benchmarks.gpu.sections import describe_error
from benchmarks.timing import race
from fourierft import Engine
from fourierft.engine.settings import GRADIENT, MEMORY

# The first recomputes, the others group their builds alone.
_LEFT_OUT = {("spectral", "dense"), ("batched", "sampled"), ("kept", "sampled")}

Step = Callable[[], Any]


def strategies() -> dict[str, Engine]:
    """Return the engine's default and every other way that its own tables name.

    Without those that are others by another name, or their halves.
    """
    named = itertools.product(
        [memory for memory in MEMORY if memory != "auto"],
        [gradient for gradient in GRADIENT if gradient != "auto"],
    )
    return {"default": Engine()} | {
        " ".join(pair): Engine(*pair) for pair in named if pair not in _LEFT_OUT
    }


def measure_race(steps: dict[str, Step], seconds: float) -> dict[str, Any]:
    """Time what can be run, in turns; what cannot is reported by its error."""
    found: dict[str, Any] = {}
    able = {}
    for name, step in steps.items():
        try:
            step()
            able[name] = step
        except Exception as error:
            found[name] = {"error": describe_error(error)}
    if able:
        found |= race(able, seconds)
    return found


def count_operations(step: Step, device: str) -> dict[str, int | None]:
    """Return the kernels of one call and its syncs; on a CPU the innermost operations, no syncs."""
    step()
    kinds = torch.profiler.ProfilerActivity
    activities = [kinds.CPU, kinds.CUDA] if device == "cuda" else [kinds.CPU]
    with torch.profiler.profile(activities=activities) as profile:
        step()
    events = list(profile.events() or [])
    if device != "cuda":
        inner = [event for event in events if event.name.startswith("aten::")]
        leaves = [e for e in inner if not any(c.name.startswith("aten::") for c in e.cpu_children)]
        return {"operations": len(leaves), "syncs": None}
    on_device = [event for event in events if event.device_type == torch.autograd.DeviceType.CUDA]
    return {"operations": len(on_device), "syncs": count_syncs(step)}


def count_syncs(step: Step) -> int:
    """Return how often one call waits for the GPU's queue."""
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return sum("synchroniz" in str(warning.message) for warning in seen)


def capture(step: Step) -> Step:
    """Return the replay of a captured graph: the GPU's time without the host's.

    Raises:
        RuntimeError: The step waits for the queue, so it cannot be captured.
    """
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay


def measure_replays(steps: dict[str, Step], device: str, seconds: float) -> dict[str, Any]:
    """Time the graph replays of the contestants in turns; nothing on a CPU."""
    if device != "cuda":
        return {}
    replays: dict[str, Step] = {}
    found: dict[str, Any] = {}
    for name, step in steps.items():
        try:
            replays[name] = capture(step)
        except Exception as error:
            torch.cuda.synchronize()
            found[name] = {"error": describe_error(error)}
    return found | (race(replays, seconds) if replays else {})
