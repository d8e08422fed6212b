"""Whether records say what their stored predictions and generations say: every metric again."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from experiments.config.restore import restore_task
from experiments.errors import RecordError, UserError
from experiments.files import is_aside
from experiments.metrics.selection import Select
from experiments.results import kept_adapter
from experiments.results.identity import flatten, to_plain
from experiments.results.record import RECORD, Record, finite, read_record
from experiments.results.stored import find, legible
from experiments.training import scoring


def report(outputs: Path) -> int:
    """Prints a line for every record that does not match, then how many do.

    Returns:
        0 if all do, 1 otherwise.
    """
    matching = looked_at = 0
    for place in places(outputs):
        try:
            record = read_record(place)
            if record.metrics is None:
                continue
            wrong = list(differences(place, record))
        except UserError as error:
            wrong = [error.summary, *error.problems]
        except Exception as error:  # metrics of arrays that are not theirs raise any kind
            wrong = [f"cannot be computed again ({type(error).__name__}: {error})"]
        looked_at += 1
        if wrong:
            lines = map(legible, [f"{place}: does not match", *wrong])
            print("\n  - ".join(lines), file=sys.stderr, flush=True)
        matching += not wrong
    counted = f"{matching} of {looked_at} trained records match"
    print(f"{counted} what is stored beside them below {outputs}")
    return 0 if matching == looked_at else 1


def places(outputs: Path) -> list[Path]:
    """Folders with a record, those of runs that were moved aside left out."""
    found = [path.parent for path in find(outputs, RECORD)]
    return [place for place in found if not is_aside(place, outputs)]


def differences(place: Path, record: Record) -> Iterator[str]:
    """Yields every metric of a record that its stored predictions do not give, and every file of
    the adapter that is not the record's.

    Raises:
        UserError: predictions are missing or damaged, or the task is not known here.
    """
    recipe = record.config.get("train")
    try:
        rule = Select(recipe["select"])
    except (TypeError, LookupError, ValueError) as error:
        raise RecordError(f"no train.select in its configuration ({recipe!r})") from error
    task = restore_task(record.config.get("task"))
    yield from scoring.differences(place, task)
    yield from kept_adapter.differences(place, record)
    computed = to_plain(scoring.score(place, task, rule))
    again, there = (flatten(_without_chance(one)) for one in (computed, record.metrics))
    for key in sorted(there.keys() | again.keys()):
        stored, computed = there.get(key), again.get(key)
        if not _same(stored, computed):
            yield f"metrics.{key}: stored {stored!r}, computed {computed!r}"


def _without_chance(metrics: dict[str, Any]) -> dict[str, Any]:
    """Metrics without the epoch that earlier versions called best although no score was finite."""
    chosen = {
        rule: None
        for rule in ("best", "heldout")
        if isinstance(metrics.get(rule), dict) and finite(metrics[rule].get("value")) is None
    }
    return metrics | chosen


def _same(stored: Any, computed: Any) -> bool:
    """Equal but for rounding; null stands for what JSON has no number for."""
    if isinstance(stored, list) and isinstance(computed, list):
        return len(stored) == len(computed) and all(map(_same, stored, computed))
    if isinstance(computed, float) and not math.isfinite(computed):
        return stored is None
    numbers = [isinstance(one, (int, float)) for one in (stored, computed)]
    if all(numbers):
        return math.isclose(stored, computed, rel_tol=scoring.CLOSE, abs_tol=scoring.CLOSE)
    return stored == computed
