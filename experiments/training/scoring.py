"""Metrics of a record from stored predictions, at any time and without the model."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from experiments.errors import RecordError
from experiments.metrics.classification import METRICS
from experiments.metrics.selection import Evaluation, Select, select
from experiments.results import predictions
from experiments.results.history import read_history
from experiments.tasks import Task
from experiments.tasks.task import OutputScores

CLOSE = 1e-9
"""Relative difference allowed for sums of another processor."""


def score(run: Path, task: Task, rule: Select, *, device: str = "auto") -> dict[str, Any]:
    """Compute the metrics of a run folder.

    Returns:
        `primary` {name, split, select, value, interval} by the recipe's rule; `best`, `last`,
        `heldout` as in `selection.select`, best and last with the `scores` of every metric on every
        split at that step. The primary split is the first of the task's. Where the task names a
        split of its own for choosing the epoch, `best` is the primary split's score at the epoch
        that is best there, `best.chosen_on` {split, value} says so, and `heldout` is None: `best`
        is held out already. Where no score is finite, `best` and `heldout` are None and the primary
        value too. For a task that selects nothing, `best` and `heldout` are None, and
        `last` scores what the network produced too; without any score `primary` is None and so are
        the values of `last`.

    Raises:
        RecordError: nothing to score, no predictions of a split that is needed, or a damaged file.
    """
    splits = sorted({path.name.rpartition("-")[0] for path in predictions.get_paths(run)})
    evaluations = {split: predictions.load(run, split) for split in splits}
    if not task.selects:
        return _score_last(run, task, evaluations, device)
    wanted = getattr(task, "splits", splits)
    chooser = task.selection_split
    needed = [wanted[0] if wanted else "any split", *([chooser] if chooser is not None else [])]
    absent = [split for split in needed if split not in evaluations]
    if absent:
        raise RecordError(
            f"{run / predictions.FOLDER}: no predictions of {' and '.join(absent)} "
            f"(the folder holds: {', '.join(splits) or 'nothing'})"
        )
    order = [split for split in wanted if split in evaluations]
    primary, name = order[0], task.metrics[0]
    if chooser is None:
        chosen: dict[str, Any] = select(evaluations[primary], METRICS[name])
    else:
        there, here = ([entry.step for entry in evaluations[key]] for key in (chooser, primary))
        if there != here:
            raise RecordError(
                f"{run / predictions.FOLDER}: {chooser} was evaluated at steps {there}, "
                f"{primary} at {here}"
            )
        chosen = select(evaluations[primary], METRICS[name], evaluations[chooser])
        if chosen["best"] is not None:
            chosen["best"]["chosen_on"] = {"split": chooser} | chosen["best"]["chosen_on"]
    for rule_name in ("best", "last"):
        if chosen[rule_name] is None:
            continue
        step = chosen[rule_name]["step"]
        chosen[rule_name]["scores"] = {
            split: task.score(entry.predictions, entry.references)
            for split in order
            for entry in evaluations[split]
            if entry.step == step
        }
    named = {"name": name, "split": primary, "select": rule.value}
    by_rule = chosen[rule.value] or {"value": None, "interval": None}
    return {
        "primary": named | {key: by_rule[key] for key in ("value", "interval")},
        **chosen,
    }


def check(run: Path, task: Task) -> None:
    """Raise RecordError unless the stored predictions agree with the scores of the history."""
    wrong = list(find_differences(run, task))
    if wrong:
        raise RecordError(
            f"{run / predictions.FOLDER}: not the predictions of this run's evaluations",
            [*wrong[:5], *([f"and {len(wrong) - 5} more"] if len(wrong) > 5 else [])],
        )


def find_differences(run: Path, task: Task) -> Iterator[str]:
    """Yield every disagreement between stored predictions and scores of the history.

    That is predictions without a score, scores without predictions, and scores that differ.

    Raises:
        RecordError: damaged predictions.
    """
    lines = read_history(run)
    yield from predictions.find_differences(run, lines)
    scores = {
        (line["step"], key): value
        for line in lines
        for key, value in line.items()
        if key not in predictions.OF_TRAINING
    }
    for split in sorted({split for split, _ in predictions.count_evaluations(lines)}):
        for entry in predictions.load(run, split):
            for name, value in task.score(entry.predictions, entry.references).items():
                there = scores.get((entry.step, f"{split}/{name}"), value)
                if not _are_close(value, there):
                    yield (
                        f"{predictions.FOLDER}/{split}-{entry.step:07d}.npz: {name} is {value!r}, "
                        f"history.jsonl has {there!r}"
                    )


def _are_close(one: Any, other: Any) -> bool:
    """Return True if equal up to the rounding of sums; values that are not finite equal null."""
    if not isinstance(other, (int, float)) or not math.isfinite(other):
        return not math.isfinite(one)
    return math.isclose(one, other, rel_tol=CLOSE, abs_tol=CLOSE)


def _score_last(
    run: Path, task: Task, evaluations: dict[str, list[Evaluation]], device: str
) -> dict[str, Any]:
    """Return the metrics of a task that selects no epoch: of its outputs and last evaluations."""
    outputs = task.evaluate_outputs(run, device=device) or OutputScores(scores={})
    scores = dict(outputs.scores)
    epoch = step = None
    for split, entries in evaluations.items():
        entry = entries[-1]
        epoch, step = entry.epoch, entry.step
        scores[split] = task.score(entry.predictions, entry.references) | scores.get(split, {})
    primary: dict[str, Any] | None = None
    chosen: dict[str, Any] = {"value": None, "interval": None}
    if scores:  # none where nothing is held out and another command judges the outputs
        split, name = _choose_primary(task.metrics, scores)
        of_outputs = name in outputs.scores.get(split, {})
        chosen = {
            "value": scores[split][name],
            "interval": outputs.interval if of_outputs else None,
        }
        primary = {"name": name, "split": split, "select": Select.last.value, **chosen}
    details = {"measured_with": outputs.details} if outputs.details else {}
    return {
        "primary": primary,
        "best": None,
        "last": {"epoch": epoch, "step": step, **chosen, "scores": scores, **details},
        "heldout": None,
    }


def _choose_primary(metrics: list[str], scores: dict[str, dict[str, float]]) -> tuple[str, str]:
    """Return split and name of the first requested metric that any split has, else of any."""
    for name in metrics:
        for split, values in scores.items():
            if name in values:
                return split, name
    split, values = next(iter(scores.items()))
    return split, next(iter(values))
