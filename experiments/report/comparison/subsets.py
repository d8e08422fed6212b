"""Fields that make a run smaller than its task and recipe."""

from __future__ import annotations

from typing import Any

from experiments.report.comparison.run_index import Run

CUTS = {
    "task.train_rows": "{} rows",
    "task.eval_rows": "{} rows scored",
    "train.max_steps": "{} steps",
}
"""Fields that make a run smaller than its task and recipe, with their wording in a title."""


def find_cuts(run: Run) -> dict[str, Any]:
    """Return the fields that make a run smaller than its task and recipe."""
    from experiments.config.changes import find_recipe  # late: with all models and tasks

    given = {key: run.values[key] for key in CUTS if run.values.get(key) is not None}
    if not given:
        return {}
    recipe = find_recipe(*(run.record.run[part] for part in ("model", "task", "method")))
    return {key: value for key, value in given.items() if not recipe or recipe[1].get(key) != value}
