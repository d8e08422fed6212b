"""Settings in which a run differs from its recipe, or from the defaults where there is none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from experiments.report.comparison.names import name_method, name_model
from experiments.report.comparison.run_index import Run

UNTOLD = {"seed", "recipe", "model.weights_file", "model.package"}
"""Fields that the page tells elsewhere, or that only say where weights lie."""
LONGEST = 80
"""Characters of a value."""


@dataclass(frozen=True, kw_only=True)
class RecipeDifference:
    """Difference of one run from its recipe."""

    source: str
    """The recipe in words."""
    column: str
    """Heading of its values."""
    lines: list[tuple[str, str, str]]
    """Key, the recipe's value, the run's."""


def compare(run: Run) -> RecipeDifference | None:
    """Return the difference of a trained run; None for runs of models or tasks that are gone."""
    from experiments.config.changes import find_recipe  # late: with all models and tasks
    from experiments.config.run_config import LATER

    said = run.record.run
    if said.get("mode", "train") != "train":
        return None
    found = find_recipe(said["model"], said["task"], said["method"], said.get("source"))
    if found is None:
        return None
    recipe, wanted = found
    here = {key: value for key, value in LATER.items() if key in wanted} | run.identity
    lines = [
        (key, _format(wanted, key), _format(here, key))
        for key in sorted({*wanted, *here} - UNTOLD, key=_place)
        if wanted.get(key) != here.get(key)
    ]
    column = "Default" if recipe == "none" else "Recipe"
    return RecipeDifference(source=_name(recipe, said), column=column, lines=lines)


def _name(recipe: str, said: dict[str, Any]) -> str:
    parts = f"{name_method(said['method'])} on {name_model(said['model'])}"
    if recipe == "none":
        return f"the defaults of `conf/`: there is no recipe for {parts}"
    now = f" (it ran with `{said['recipe']}`)" if said.get("recipe") not in (recipe, None) else ""
    return f"the recipe `{recipe}` for {parts}{now}"


def _place(key: str) -> tuple[int, str]:
    sections = ("method", "train", "task", "model")
    section = key.partition(".")[0]
    return sections.index(section) if section in sections else -1, key


def _format(values: dict[str, Any], key: str) -> str:
    if key not in values:
        return "–"
    value = values[key]
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list):
        text = ", ".join(map(str, value))
    else:
        text = f"{value:g}" if isinstance(value, float) else " ".join(str(value).split())
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"
