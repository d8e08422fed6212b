"""Contestants run in turns, so that what disturbs the machine disturbs them alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch

FEWEST, MOST = 5, 40
SHORT = 0.1  # seconds


def race(
    contestants: dict[str, Callable[[], object]],
    seconds: float,
    after: dict[str, Callable[[], object]] | None = None,
    clock: Callable[[], float] | None = None,
) -> dict[str, dict]:
    """Time every contestant round after round.

    Args:
        contestants: By name, the first is what the others are compared with.
        seconds: About how long to go on; at least FEWEST rounds, at most MOST.
        after: Per contestant, what undoes it; not timed.
        clock: What measures the contestants (default: `time.perf_counter`); `time.process_time`
            leaves out what other processes take of a busy machine.

    Returns:
        Per contestant: `ms`, median milliseconds; `ratio` to the first, the median over rounds of
        the two times in the same round; `spread`, the middle half of those ratios; `rounds`.
    """
    undo, now = after or {}, clock or time.perf_counter

    def timed(name: str) -> float:
        _wait()
        began = now()
        contestants[name]()
        _wait()
        spent = now() - began
        undo.get(name, int)()
        return spent

    def settled(name: str) -> float:
        # The one before may have given memory back to the system, and who runs next would pay for
        # getting it again: short ones run once untimed in every turn.
        if timed_once[name] < SHORT:
            timed(name)
        return timed(name)

    for name in contestants:
        timed(name)  # warm: memory, plans, caches
    timed_once = {name: timed(name) for name in contestants}
    rounds: list[dict[str, float]] = []
    end = now() + seconds
    while len(rounds) < FEWEST or (now() < end and len(rounds) < MOST):
        rounds.append({name: settled(name) for name in contestants})
    first = next(iter(contestants))
    results = {}
    for name in contestants:
        ratios = [found[name] / found[first] for found in rounds]
        low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive")
        results[name] = {
            "ms": statistics.median(found[name] for found in rounds) * 1e3,
            "ratio": middle,
            "spread": [low, high],
            "rounds": len(rounds),
        }
    return results


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def peak_bytes(run: Callable[[], object], device: str) -> int:
    """Most bytes allocated at once by `run`, beyond what was there before."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        return torch.cuda.max_memory_allocated() - before
    activity = torch.profiler.ProfilerActivity.CPU
    with torch.profiler.profile(activities=[activity], profile_memory=True) as profile:
        run()
    events = [e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]
    held = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak


def saved_bytes(run: Callable[[], object], kept: set[int]) -> int:
    """Return the bytes of distinct storages that autograd saves in `run`.

    Args:
        run: A forward pass.
        kept: Addresses of storages that are there anyway (parameters), not to be counted.
    """
    storages: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in kept:
            storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        held = run()  # noqa: F841 - the graph must live while addresses are told apart
    return sum(storages.values())
