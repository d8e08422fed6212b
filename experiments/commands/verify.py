"""Recompute every metric of finished runs from their stored predictions and generations."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from experiments.config.restore import restore_task
from experiments.errors import RecordError, UserError
from experiments.files import is_moved_aside
from experiments.metrics.selection import Select
from experiments.results import kept_adapter
from experiments.results.identity import flatten, to_plain
from experiments.results.record import RECORD, Record, read_record, replace_nonfinite
from experiments.results.stored import find_entries, make_printable
from experiments.training import scoring


def report(outputs: Path) -> int:
    """Print a line for every record that does not match, then the number that do.

    Returns:
        0 if all do, 1 otherwise.
    """
    matching = looked_at = 0
    for run_dir in find_run_dirs(outputs):
        try:
            record = read_record(run_dir)
            if record.metrics is None:
                continue
            wrong = list(differences(run_dir, record))
        except UserError as error:
            wrong = [error.summary, *error.problems]
        except Exception as error:  # metrics of arrays that are not theirs raise any kind
            wrong = [f"cannot be computed again ({type(error).__name__}: {error})"]
        looked_at += 1
        if wrong:
            lines = map(make_printable, [f"{run_dir}: does not match", *wrong])
            print("\n  - ".join(lines), file=sys.stderr, flush=True)
        matching += not wrong
    counted = f"{matching} of {looked_at} trained records match"
    print(f"{counted} what is stored beside them below {outputs}")
    return 0 if matching == looked_at else 1


def find_run_dirs(outputs: Path) -> list[Path]:
    """Return the folders with a record, except runs that were moved aside."""
    found = [path.parent for path in find_entries(outputs, RECORD)]
    return [run_dir for run_dir in found if not is_moved_aside(run_dir, outputs)]


def differences(run_dir: Path, record: Record) -> Iterator[str]:
    """Yield metrics that differ from their predictions, and adapter files from the record.

    Raises:
        UserError: predictions are missing or damaged, or the task is unknown.
    """
    recipe = record.config.get("train")
    try:
        rule = Select(recipe["select"])
    except (TypeError, LookupError, ValueError) as error:
        raise RecordError(f"no train.select in its configuration ({recipe!r})") from error
    task = restore_task(record.config.get("task"))
    yield from scoring.differences(run_dir, task)
    yield from kept_adapter.find_differences(run_dir, record)
    computed = to_plain(scoring.score(run_dir, task, rule))
    again, there = (flatten(_without_chance(one)) for one in (computed, record.metrics))
    for key in sorted(there.keys() | again.keys()):
        stored, computed = there.get(key), again.get(key)
        if not _same(stored, computed):
            yield f"metrics.{key}: stored {stored!r}, computed {computed!r}"


def _without_chance(metrics: dict[str, Any]) -> dict[str, Any]:
    """Return metrics without an epoch that earlier versions selected without a finite score."""
    chosen = {
        rule: None
        for rule in ("best", "heldout")
        if isinstance(metrics.get(rule), dict)
        and replace_nonfinite(metrics[rule].get("value")) is None
    }
    return metrics | chosen


def _same(stored: Any, computed: Any) -> bool:
    """Return True if equal up to rounding; null stands for non-finite numbers."""
    if isinstance(stored, list) and isinstance(computed, list):
        return len(stored) == len(computed) and all(map(_same, stored, computed))
    if isinstance(computed, float) and not math.isfinite(computed):
        return stored is None
    numbers = [isinstance(one, (int, float)) for one in (stored, computed)]
    if all(numbers):
        return math.isclose(stored, computed, rel_tol=scoring.CLOSE, abs_tol=scoring.CLOSE)
    return stored == computed
