"""Groups of runs that differ in their seed only, and reasons not to compare them with the paper."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from experiments.report.comparison import reference
from experiments.report.comparison.run_index import Run, number
from experiments.report.comparison.subsets import find_cuts
from experiments.results import inputs as provenance

PLAIN: dict[str, dict[str, Any]] = {
    "fourierft": {
        "method.basis": "fourier",
        "method.frequency_bias.center": None,
        "method.scaling": (None, "plain"),
        "method.orientation": (None, "eq4", "algorithm1"),  # the paper has both
    },
    "dylora": {"method.evaluated": None},
    "houlsby": {"method.train_norms": False},
}
"""Fields that the paper's tables leave at their defaults (a tuple: several values mean the same),
unless `fields` of a row says otherwise."""
ATTENTION = ("fourierft", "lora", "adalora", "dylora")
"""Methods whose rows are about query and value, unless `fields` says otherwise."""
SPLITS = ("train", "validation", "test")
RECIPES = ("paper", "printed", "authors", "ours")
"""Recipes in the order of preference, for cells that were run in several ways."""


@dataclass
class Setting:
    """All seeds of one configuration."""

    runs: dict[Any, Run]
    """By seed, or by seed and part."""
    pooled: str | None = None
    """Key in which its runs differ too: a score is the mean over its values."""

    @property
    def parts(self) -> list[str]:
        """Values of `pooled` that every seed has; without it, none."""
        found: dict[Any, set[str]] = {}
        for run in self.runs.values() if self.pooled else ():
            found.setdefault(run.seed, set()).add(str(run.values.get(self.pooled)))
        return sorted(set.intersection(*found.values())) if found else []

    @property
    def first(self) -> Run:
        """Any of the runs."""
        return next(iter(self.runs.values()))

    @property
    def run(self) -> dict[str, Any]:
        """Description that all its runs share; the seed is the first one's."""
        return self.first.record.run

    @property
    def fallback(self) -> str | None:
        """Recipe that was used where the requested source has none."""
        return find_fallback(self.run)

    @property
    def label(self) -> str:
        """Recipe, and the differences from it."""
        asked = f" (source={self.run['source']} has none)" if self.fallback else ""
        parts = [f"recipe {self.run.get('recipe')}{asked}"]
        if self.run.get("profile"):
            parts.append(f"profile {self.run['profile']}")
        variant = _variant(self.first, self.pooled)
        parts += [variant] if variant else []
        if self.pooled:
            name = self.pooled.rpartition(".")[2]
            parts.append(f"mean of {len(self.parts)} {name}s ({', '.join(self.parts)})")
        return ", ".join(parts)


def find_fallback(said: dict[str, Any]) -> str | None:
    """Return the recipe of a run whose requested source has none; None where it has one.

    Args:
        said: `Record.run`; records of mode=count take no values from a recipe.
    """
    recipe, source = said.get("recipe"), said.get("source")
    same = source in (None, "none", recipe) or (source, recipe) == ("printed", "paper")
    return None if same or said.get("mode") == "count" else recipe


def group_seeds(runs: Iterable[Run], pooled: str | None = None) -> list[Setting]:
    """Group runs by everything that identifies them except the seed, and by weights and data.

    Args:
        runs: finished runs.
        pooled: key in which the runs of a group may differ too, and their data with it.
    """
    groups: dict[str, dict[Any, Run]] = {}
    for run in runs:
        key = {name: value for name, value in run.identity.items() if name not in ("seed", pooled)}
        # Seeds of other weights or data are another setting, though each has a folder of its own.
        made_of = ["weights"] if pooled else ["weights", "data"]
        marks = [run.record.environment.get(part) for part in made_of]
        named = [run.record.run.get(part) for part in ("model", "task", "method", "profile")]
        named.append(_variant(run, pooled))
        text = json.dumps([key, named, marks], sort_keys=True, default=str)
        part = run.seed if pooled is None else f"{run.values.get(pooled)}, seed {run.seed}"
        groups.setdefault(text, {})[part] = run
    return [
        Setting(dict(sorted(found.items(), key=lambda item: order_naturally(item[0]))), pooled)
        for found in groups.values()
    ]


def order_naturally(part: Any) -> list[str | int]:
    """Return a key that sorts by the text, with the numbers in it by value: seed 9 before 10."""
    words = re.split(r"(\d+)", str(part))
    return [int(word) if place % 2 else word for place, word in enumerate(words)]


def _variant(run: Run, pooled: str | None) -> str:
    """Return the differences from the recipe, except in the pooled key."""
    said = str(run.record.run.get("variant") or "")
    start = f"{pooled.rpartition('.')[2]}=" if pooled else None
    kept = (part for part in said.split(",") if start is None or not part.startswith(start))
    return ",".join(kept)


def answers(run: Run, wanted: dict[str, Any]) -> bool:
    """Return True if a run belongs to a cell.

    Args:
        run: a finished run.
        wanted: `model`, `task`, `method`, and fields of the configuration with dotted keys.
    """
    said, values = run.record.run, run.values
    named = ("model", "task", "method")
    if any(key in wanted and said.get(key) != wanted[key] for key in named):
        return False
    fields = {key: value for key, value in wanted.items() if key not in named}
    fields = PLAIN.get(said.get("method"), {}) | fields
    if any(
        values.get(key) not in (value if isinstance(value, tuple) else (value,))
        for key, value in fields.items()
    ):
        return False
    targets = "method.targets"
    elsewhere = targets in values and values[targets] != values.get("model.attention")
    return not elsewhere or targets in fields or said["method"] not in ATTENTION


def best(
    settings: list[Setting],
    reasons_by_id: dict[int, list[str]],
    deviations_by_id: dict[int, list[str]] | None = None,
) -> list[Setting]:
    """Sort settings by how well they can be compared; a cell shows the first.

    Args:
        settings: of one cell.
        reasons_by_id: `incomparable_reasons` of each, by its id().
        deviations_by_id: deviations from the paper's recipe, likewise; any number of them weighs
            less than one reason, such as a subset or random weights.
    """
    deviations = deviations_by_id or {}
    return sorted(
        settings,
        key=lambda one: (
            *_rank(one, reasons_by_id[id(one)], deviations.get(id(one), [])).values(),
            len(one.run.get("variant") or ""),
        ),
    )


def why_first(
    first: Setting,
    second: Setting,
    reasons_by_id: dict[int, list[str]],
    deviations_by_id: dict[int, list[str]],
) -> str:
    """Say why a cell shows the first of two settings that `best` has sorted."""
    ranks = [
        _rank(one, reasons_by_id[id(one)], deviations_by_id[id(one)]) for one in (first, second)
    ]
    for words, value in ranks[0].items():
        if value != ranks[1][words]:
            return words
    return "as comparable as the others"


def _rank(setting: Setting, reasons: list[str], deviations: list[str]) -> dict[str, int]:
    """Return what the order of settings follows, the weightiest first, each with its wording."""
    recipe = setting.run.get("recipe")
    return {
        "fewest reasons not to compare it": len(reasons),
        "fewest deviations from the paper's recipe": len(deviations),
        "its recipe": RECIPES.index(recipe) if recipe in RECIPES else len(RECIPES),
        "most seeds": -len(setting.runs),
    }


def incomparable_reasons(
    setting: Setting,
    sizes: dict[str, Any] | None,
    known: dict[str, Any],
    seen: dict[str, set[str]],
    fields: Collection[str] = (),
) -> list[str]:
    """Return the reasons not to judge by these runs; empty if there are none.

    Args:
        setting: the runs.
        sizes: rows of each split of the task as the paper prints them.
        known: repository and fingerprint of the paper's base models.
        seen: `fingerprints` of all runs there are.
        fields: dotted keys that the cell itself asks for.
    """
    found = [*_rehearsal(setting, fields), *_weights(setting, known, seen), *_others(setting, seen)]
    found += _splits(setting, sizes or {})
    return list(dict.fromkeys(found))


def _rehearsal(setting: Setting, fields: Collection[str]) -> Iterator[str]:
    if setting.run.get("profile"):
        yield f"a smoke test (profile {setting.run['profile']})"
    for key, value in find_cuts(setting.first).items():
        if key not in fields:
            yield f"a subset ({key.partition('.')[2]}={value})"


def _weights(setting: Setting, known: dict[str, Any], seen: dict[str, set[str]]) -> Iterator[str]:
    model = setting.run.get("model")
    values = setting.first.values
    marks = {run.record.environment.get("weights") for run in setting.runs.values()}
    if values.get("model.pretrained") is False or marks == {None}:
        yield "random weights"
        return
    if model not in known:
        yield f"another base model ({model})"
        return
    repository = values.get("model.repo")
    if repository not in (None, known[model]["repo"]):
        yield f"weights of {repository}"
    wanted = known[model]["fingerprint"]
    if wanted is not None and marks != {wanted}:
        yield "weights with another fingerprint than the paper's"
    elif wanted is None and len(seen.get(model, ())) > 1:
        yield "runs of this model started from different weights"


def _others(setting: Setting, seen: dict[str, set[str]]) -> Iterator[str]:
    """Yield inputs that differ between runs of one model, task or method.

    It is unknown which of them are the paper's.
    """
    for run in setting.runs.values():
        for name, key in _keys(run).items():
            if len(seen.get(key, ())) > 1:
                yield f"runs of this {provenance.get_part(name)} differ in their {name}"


def _keys(run: Run) -> dict[str, str]:
    """Return the key in `fingerprints` of each input of a run, weights excepted."""
    said = run.record.run
    return {
        name: f"{said.get(provenance.get_part(name))}: {name}"
        for name in provenance.get_inputs(run.record)
        if name != "weights"
    }


def _splits(setting: Setting, sizes: dict[str, Any]) -> Iterator[str]:
    """Yield splits that are not as large as the paper says: files can be truncated."""
    rows = setting.first.record.environment.get("rows")
    for split in SPLITS:
        printed = sizes.get(split)
        if not isinstance(rows, dict) or printed is None:
            continue
        there = number(rows.get("train" if split == "train" else f"scored {split}"))
        if there is not None and not reference.agrees(*reference.count(str(printed)), there):
            yield f"{there:,} rows of {split} where the paper has {printed}"


def fingerprints(runs: Iterable[Run]) -> dict[str, set[str]]:
    """Collect all fingerprints of runs.

    Those of pretrained weights are by model, those of other inputs by model, task or method and
    the input's name.
    """
    found: dict[str, set[str]] = {}
    for run in runs:
        inputs = provenance.get_inputs(run.record)
        for name, key in _keys(run).items():
            found.setdefault(key, set()).add(inputs[name]["fingerprint"])
        mark = run.record.environment.get("weights")
        if mark is not None:
            found.setdefault(run.record.run["model"], set()).add(str(mark))
    return found
