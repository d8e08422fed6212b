"""From stored predictions to the metrics of a record, at any time and without the model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from experiments import predictions
from experiments.errors import RecordError
from experiments.metrics import METRICS
from experiments.recipe import Select
from experiments.selection import select
from experiments.tasks import Task


def score(run: Path, task: Task, rule: Select) -> dict[str, Any]:
    """Scores a run folder.

    Returns:
        `primary` {name, split, select, value, interval} by the recipe's rule; `best`, `last`,
        `heldout` as in `selection.select`, best and last with the `scores` of every metric on every
        split at that step. The primary split is the first of the task's.

    Raises:
        RecordError: no predictions of the primary split, or a damaged file.
    """
    splits = sorted(
        {path.name.rpartition("-")[0] for path in (run / predictions.FOLDER).glob("*.npz")}
    )
    evaluations = {split: predictions.load(run, split) for split in splits}
    wanted = getattr(task, "splits", splits)
    if not wanted or wanted[0] not in evaluations:
        missing, held = wanted[0] if wanted else "any split", ", ".join(splits) or "nothing"
        raise RecordError(
            f"{run / predictions.FOLDER}: no predictions of {missing} (the folder holds: {held})"
        )
    order = [split for split in wanted if split in evaluations]
    primary, name = order[0], task.metrics[0]
    chosen: dict[str, Any] = select(evaluations[primary], METRICS[name])
    for rule_name in ("best", "last"):
        step = chosen[rule_name]["step"]
        chosen[rule_name]["scores"] = {
            split: task.score(entry.predictions, entry.references)
            for split in order
            for entry in evaluations[split]
            if entry.step == step
        }
    named = {"name": name, "split": primary, "select": rule.value}
    return {
        "primary": named | {key: chosen[rule.value][key] for key in ("value", "interval")},
        **chosen,
    }
