"""Recompute metrics, verdicts and claims of finished runs from what is stored beside them."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from experiments.config.restore import restore_task
from experiments.errors import RecordError, UserError
from experiments.files import is_moved_aside
from experiments.metrics.selection import Select
from experiments.report.comparison import run_index
from experiments.report.comparison.run_index import Run
from experiments.report.comparison.verdict import Verdict
from experiments.report.pages.verdicts import find_verdicts
from experiments.results import kept_adapter
from experiments.results.identity import flatten, to_plain
from experiments.results.record import RECORD, Record, read_record, replace_nonfinite
from experiments.results.stored import find_entries, make_printable
from experiments.training import scoring


def verify_runs(outputs: Path) -> int:
    """Print a line for every record and verdict that does not match, then the numbers that do.

    Returns:
        0 if all do, 1 otherwise.
    """
    matching = looked_at = 0
    computed: dict[Path, dict[str, Any]] = {}
    for run_dir in find_run_dirs(outputs):
        try:
            record = read_record(run_dir)
            if record.metrics is None:
                continue
            metrics = compute(run_dir, record)
            computed[run_dir] = metrics
            wrong = list(find_differences(run_dir, record, metrics))
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
    same = compare_verdicts(outputs, computed)
    return 0 if matching == looked_at and same else 1


def compare_verdicts(outputs: Path, computed: dict[Path, dict[str, Any]]) -> bool:
    """Print every verdict and claim that the computed metrics change, then the number of others.

    Args:
        outputs: folder of the runs.
        computed: metrics by run folder; a run that is not among them counts as not run.

    Returns:
        True if none changes.
    """
    index = run_index.collect(outputs)
    runs = [
        Run(run.run_dir, replace(run.record, metrics=computed[run.run_dir]))
        if run.record.metrics
        else run
        for run in index.runs
        if not run.record.metrics or run.run_dir in computed
    ]
    recorded = find_verdicts(index)
    again = find_verdicts(run_index.RunIndex(outputs, runs))
    changed = [what for what, verdict in recorded.items() if again[what] is not verdict]
    for what in changed:
        told = f"{recorded[what].value} by the records, {again[what].value} by the predictions"
        print(make_printable(f"{what}: {told}"), file=sys.stderr, flush=True)
    run = [what for what, verdict in recorded.items() if verdict is not Verdict.not_run]
    print(
        f"{len(run) - len(set(changed) & set(run))} of {len(run)} verdicts on cells and claims "
        "that were run are what the predictions give"
    )
    return not changed


def find_run_dirs(outputs: Path) -> list[Path]:
    """Return the folders with a record, except runs that were moved aside."""
    found = [path.parent for path in find_entries(outputs, RECORD)]
    return [run_dir for run_dir in found if not is_moved_aside(run_dir, outputs)]


def compute(run_dir: Path, record: Record) -> dict[str, Any]:
    """Compute the metrics of a record from what is stored beside it.

    Raises:
        UserError: predictions are missing or damaged, or the task is unknown.
    """
    recipe = record.config.get("train")
    try:
        rule = Select(recipe["select"])
    except (TypeError, LookupError, ValueError) as error:
        raise RecordError(f"no train.select in its configuration ({recipe!r})") from error
    task = restore_task(record.config.get("task"))
    return replace_nonfinite(to_plain(scoring.score(run_dir, task, rule)))


def find_differences(run_dir: Path, record: Record, computed: dict[str, Any]) -> Iterator[str]:
    """Yield metrics that differ from their predictions, and adapter files from the record."""
    yield from scoring.find_differences(run_dir, restore_task(record.config.get("task")))
    yield from kept_adapter.find_differences(run_dir, record)
    again, there = (flatten(_drop_nonfinite_choices(one)) for one in (computed, record.metrics))
    for key in sorted(there.keys() | again.keys()):
        stored, value = there.get(key), again.get(key)
        if not _are_close(stored, value):
            yield f"metrics.{key}: stored {stored!r}, computed {value!r}"


def _drop_nonfinite_choices(metrics: dict[str, Any]) -> dict[str, Any]:
    """Return metrics without an epoch that earlier versions selected without a finite score."""
    chosen = {
        rule: None
        for rule in ("best", "heldout")
        if isinstance(metrics.get(rule), dict)
        and replace_nonfinite(metrics[rule].get("value")) is None
    }
    return metrics | chosen


def _are_close(stored: Any, computed: Any) -> bool:
    """Return True if equal up to rounding."""
    if isinstance(stored, list) and isinstance(computed, list):
        return len(stored) == len(computed) and all(map(_are_close, stored, computed))
    numbers = [isinstance(one, (int, float)) for one in (stored, computed)]
    if all(numbers):
        return math.isclose(stored, computed, rel_tol=scoring.CLOSE, abs_tol=scoring.CLOSE)
    return stored == computed
