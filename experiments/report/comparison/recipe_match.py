"""Settings in which runs deviate from the paper's recipe of their cell."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from experiments.report.comparison.seed_groups import PLAIN, Setting
from experiments.report.comparison.subsets import CUTS

SAID_ELSEWHERE = {
    *("seed", "recipe", "source", "profile", "model.repo", "model.pretrained", *CUTS),
    *("model.weights_file", "model.package"),  # the weights' fingerprint decides
    *("train.select", "task.metrics"),  # the report shows every rule, and picks its metric
}
"""Keys that have reasons of their own, or do not change the number."""
NO_RECIPE = "the paper gives none"
"""End of the deviation of runs whose recipe is not the paper's for want of one."""
UNVERIFIED = "weights unverified"
"""Words of every verdict on a model whose weights' fingerprint is not known."""


def deviations(setting: Setting, fields: Collection[Any]) -> list[str]:
    """Return every scientific setting that is not the paper's, as "epochs 1, paper 100".

    Args:
        setting: runs that answer a cell.
        fields: dotted keys in which the cell itself may differ from the recipe.
    """
    if setting.run.get("profile"):
        return []  # a smoke test, which has a reason of its own
    found = _find_recipe(setting)
    if found is None:
        return [f"no recipe in conf/: {NO_RECIPE}"]
    recipe, wanted = found
    if recipe != "paper":
        return [f"recipe {recipe}: {NO_RECIPE}"]
    # To the letter of a misprinted table: the other value is not the one that is printed.
    named = "corrected" if setting.run.get("recipe") == "printed" else "paper"
    return [
        f"{name} {told}, {named} {said}"
        for name, told, said in _list_differences(setting, wanted, fields)
    ]


def changes(setting: Setting, fields: Collection[Any]) -> list[str]:
    """Return every setting of a run that its network's recipe has otherwise, whoever made it.

    Args:
        setting: runs of a network that the paper may lack.
        fields: dotted keys that are not looked at, beside those of base model and task.
    """
    found = _find_recipe(setting)
    if found is None:
        return []
    wanted = {
        key: value for key, value in found[1].items() if not key.startswith(("model.", "task."))
    }
    return [
        f"{name} {told} (recipe: {said})"
        for name, told, said in _list_differences(setting, wanted, fields)
    ]


def _find_recipe(setting: Setting) -> tuple[str, dict[str, Any]] | None:
    from experiments.config.changes import find_recipe  # late: with all models and tasks

    return find_recipe(*(setting.run[part] for part in ("model", "task", "method")))


def _list_differences(
    setting: Setting, wanted: Mapping[str, Any], fields: Collection[Any]
) -> Iterator[tuple[str, str, str]]:
    """Yield every setting in which runs differ from a recipe: name, value here, value there."""
    from experiments.config.run_config import LATER

    here, same = LATER | setting.first.identity, PLAIN.get(setting.run["method"], {})
    for key, value in wanted.items():
        told = _deviating(here, key, value, same.get(key))
        if told is not None and key not in SAID_ELSEWHERE.union(fields):
            yield key.rpartition(".")[2], told, _shown(value)


def lacks_recipe(deviation: str) -> bool:
    """Return True for the deviation of runs whose recipe the paper does not give."""
    return deviation.endswith(NO_RECIPE)


def _deviating(here: dict[str, Any], key: str, value: Any, same: Any) -> str | None:
    """Return the words for a setting that is not the paper's value; None if it is."""
    if key not in here:  # other sections have gained fields that older records lack
        return "not recorded" if key.startswith("train.") or key == "method.alpha" else None
    if here[key] == value or (isinstance(same, tuple) and {here[key], value} <= {*same}):
        return None
    return _shown(here[key])


def _shown(value: Any) -> str:
    text = f"{value:g}" if isinstance(value, float) else " ".join(str(value).split())
    return text if len(text) <= 40 else f"{text[:39]}…"
