"""Sections of the measurement: each has its own time, and none takes the results of another."""

from __future__ import annotations

import gc
import json
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from experiments.files import write_atomically

Row = dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """Device and extent of a measurement."""

    device: str
    tiny: bool
    """Tiny shapes, which any CPU runs."""
    seconds: float
    """Seconds per row of contestants, about."""
    out: Path
    data: Path | None = None
    """Folder of GLUE's tasks."""
    weights: Path | None = None
    """Folder of MiniLM; None takes the installed package."""
    jobs: int = 8
    """Training runs at the same time."""


@dataclass(frozen=True)
class Section:
    """One part of the measurement."""

    measure: Callable[[Plan], Iterator[Row]]
    minutes: float
    """Limit on a GPU; `--dry` scales it with the whole."""


class OutOfTimeError(BaseException):
    """The limit of a section has passed; no Exception, so that no row takes it for its own."""


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise OutOfTimeError in the block after this time, between two Python instructions."""

    def stop(*_: Any) -> None:
        raise OutOfTimeError

    previous = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 1e-3))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


def describe_error(error: BaseException) -> str:
    """Return type and message of an error, on one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]


def run_sections(
    sections: dict[str, Section], plan: Plan, known: dict[str, Any], minutes: float
) -> dict[str, Any]:
    """Run the sections in order and write the results after every one of them.

    Args:
        sections: By name.
        plan: Device and extent.
        known: Results to start from (the machine); it is added to.
        minutes: Limit of all sections together.

    Returns:
        Per section `seconds`, `rows` and, where it did not end by itself, `stopped`.
    """
    end = time.monotonic() + 60 * minutes
    share = minutes / sum(section.minutes for section in sections.values())
    for name, section in sections.items():
        began = time.monotonic()
        found = known[name] = {"seconds": 0.0, "rows": []}
        # What an earlier section did not need is there for this one, up to twice its share.
        limit = min(end - began, 60 * section.minutes * max(1.0, min(share, 2.0)))
        print(f"\n## {name}, at most {max(limit, 0):.0f} s", flush=True)
        try:
            if limit <= 1:
                raise OutOfTimeError
            with time_limit(limit):
                for row in section.measure(plan):
                    found["rows"].append(row)
                    print(json.dumps(row, default=str), flush=True)
        except OutOfTimeError:
            found["stopped"] = f"out of time after {time.monotonic() - began:.0f} s"
        except Exception as error:
            found["stopped"] = describe_error(error)
        found["seconds"] = round(time.monotonic() - began, 1)
        if "stopped" in found:
            print(f"{name}: {found['stopped']}", file=sys.stderr, flush=True)
        text = json.dumps(known, indent=1, default=str) + "\n"
        write_atomically(plan.out / "result.json", text)
        gc.collect()
        if plan.device == "cuda":
            torch.cuda.empty_cache()
    return known


def find_failures(result: dict[str, Any]) -> list[str]:
    """Return what was stopped, failed its limit or could not be run, with its section."""
    found = []
    for name, section in result.items():
        if name == "machine":
            continue
        if "stopped" in section:
            found.append(f"{name}: {section['stopped']}")
        for row in section["rows"]:
            what = row.get("check") or row.get("model") or row.get("task") or ""
            if "failure" in row or row.get("passed") is False:
                found.append(f"{name}: {what}: {row.get('failure', row.get('error'))}")
            for group in (row[key] for key in ("eager", "replay", "counts") if key in row):
                for contestant, value in group.items():
                    if "error" in value:
                        found.append(f"{name}: {what} {contestant}: {value['error']}")
    return found
