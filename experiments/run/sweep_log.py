"""Log of a sweep: a heading before every run, a table after the last.

Runs of a sweep may be made by other processes or nodes, so each adds its line to a file that an
environment variable names. A log that cannot be written costs the headings, never a run.
"""

from __future__ import annotations

import json
import math
import os
import shlex
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from experiments.metrics.classification import format_score
from experiments.results.record import Record, replace_nonfinite

VARIABLE = "FOURIERFT_SWEEP"
SHOWN = 3
"""Runs that failed for one reason and are listed; the others are counted."""


def begin(output: Path, choices: Mapping[str, Sequence[str]]) -> None:
    """Begin the log of a sweep in this process and those that it starts.

    Args:
        output: folder of all runs.
        choices: overrides of every key, more than one for a key that is swept.
    """
    path = output / ".sweeps" / f"{time.strftime('%Y-%m-%dT%H-%M-%S')}-{os.getpid()}.jsonl"
    varied = [key for key, values in choices.items() if len(values) > 1]
    first: dict[str, Any] = {"runs": math.prod(map(len, choices.values())), "varied": varied}
    first["offline"] = "tracking.mode=offline" in choices.get("tracking.mode", ())
    os.environ.pop(VARIABLE, None)
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(first) + "\n", encoding="utf-8")
        os.environ[VARIABLE] = str(path.absolute())


def announce(number: int, overrides: Sequence[str]) -> None:
    """Print the heading of a run; the first has number 1."""
    first, entries = _read()
    if first is not None:
        varied = " ".join(_select(overrides, first["varied"])) or "the only one"
        above = "" if entries and entries[-1]["state"] == "failed" else "\n"
        print(f"{above}run {number} of {first['runs']}: {varied}", flush=True)


def add_record(
    number: int, overrides: Sequence[str], seconds: float, record: Record, *, before: bool
) -> None:
    """Add a finished run; `before` means that an earlier sweep finished it."""
    state = "done before" if before else "done"
    primary = replace_nonfinite((record.metrics or {}).get("primary") or {})
    score = {key: primary[key] for key in ("name", "value", "interval") if key in primary}
    if not score:
        score = {"name": "adapter parameters", "value": record.parameters["adapter"]}
    _append({"run": number, "of": list(overrides), "state": state, "seconds": seconds, **score})


def add_failure(number: int, overrides: Sequence[str], seconds: float, message: str) -> None:
    """Add a run that failed."""
    entry = {"run": number, "of": list(overrides), "state": "failed", "seconds": seconds}
    _append(entry | {"message": message})


def find_same_failure(message: str) -> int | None:
    """Return the first run that failed with this message, None if none did."""
    _, entries = _read()
    return next((one["run"] for one in entries if one.get("message") == message), None)


def finish(output: Path) -> str | None:
    """Return the table of the sweep's runs and what to do next; None if nothing was logged."""
    first, entries = _read()
    path = os.environ.pop(VARIABLE, None)
    if first is None or not entries:
        if path is not None:
            Path(path).unlink(missing_ok=True)
        return None
    counts = Counter(one["state"] for one in entries)
    counts["not finished"] = max(0, first["runs"] - len(entries))
    told = ", ".join(f"{count} {state}" for state, count in counts.items() if count)
    elsewhere = "" if output == Path("outputs") else f" --outputs {output}"
    command = f"{_name_interpreter()} -m experiments.report{elsewhere}"
    report = f"report: {command} writes {output}/report/index.html"
    found = f"find {shlex.quote(str(output))} -name 'offline-run-*'"
    sync = f"wandb: kept offline; {found} -exec wandb sync {{}} + sends the runs"
    return "\n".join(
        [
            f"\n{first['runs']} runs: {told}",
            *_align(list(_list_rows(first["varied"], sorted(entries, key=lambda one: one["run"])))),
            *(f"({place}) {_shorten(one)}" for one, place in _number(entries).items()),
            *([report] if counts.keys() & {"done", "done before"} else []),
            *([sync] if first["offline"] else []),
        ]
    )


def _name_interpreter() -> str:
    """Return .venv/bin/python as README writes it; without such a folder here, python."""
    here, python = Path.cwd(), Path(sys.executable)
    return str(python.relative_to(here)) if python.is_relative_to(here) else "python"


def _list_rows(varied: Sequence[str], entries: Sequence[dict[str, Any]]) -> Iterator[list[str]]:
    """Yield the heading and the rows of the table."""
    yield ["run", *varied, "score", "seconds", ""]
    places = _number(entries)
    failed = Counter(one.get("message") for one in entries)
    listed: Counter[str] = Counter()
    for entry in entries:
        state, message = entry["state"], entry.get("message")
        if message is not None:
            listed[message] += 1
            state = f"failed ({places[message]})"
            if listed[message] > SHOWN:
                continue
            if listed[message] == SHOWN and failed[message] > SHOWN:
                state += f", and {failed[message] - SHOWN} more"
        swept = _select(entry["of"], varied)
        chosen = dict(text.lstrip("+~").partition("=")[::2] for text in swept)
        cells = [chosen.get(key, "") for key in varied]
        yield [str(entry["run"]), *cells, _format_score(entry), f"{entry['seconds']:.0f}", state]


def _format_score(entry: Mapping[str, Any]) -> str:
    value, interval = entry.get("value"), entry.get("interval")
    if value is None:
        return ""
    text = f"{value:,}" if isinstance(value, int) else format_score(value)
    limits = f" [{', '.join(map(format_score, interval))}]" if interval else ""
    return f"{entry['name']} {text}{limits}"


def _number(entries: Sequence[dict[str, Any]]) -> dict[str, int]:
    """Return the messages of failed runs with their places in the notes."""
    messages = dict.fromkeys(one["message"] for one in entries if "message" in one)
    return {message: place for place, message in enumerate(messages, 1)}


def _shorten(message: str) -> str:
    """Return what is wrong and the first problem in a line."""
    return " ".join(line.strip() for line in message.splitlines()[:2])


def _align(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def _select(overrides: Sequence[str], keys: Sequence[str]) -> list[str]:
    return [text for text in overrides if text.partition("=")[0].lstrip("+~") in keys]


def _append(entry: dict[str, Any]) -> None:
    # Not made anew: a sweep that was interrupted has taken its log away, and its array goes on.
    with suppress(OSError, KeyError):
        file = os.open(os.environ[VARIABLE], os.O_WRONLY | os.O_APPEND)
        try:
            os.write(file, f"{json.dumps(entry)}\n".encode())
        finally:
            os.close(file)


def _read() -> tuple[dict[str, Any] | None, list[dict[str, Any]]]:
    """Return the first line of the log and the others; None if there is no log."""
    with suppress(OSError, KeyError, ValueError):
        lines = Path(os.environ[VARIABLE]).read_text(encoding="utf-8").splitlines()
        first, *others = map(json.loads, lines)
        return first, others
    return None, []
