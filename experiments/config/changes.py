"""Fields in which a run differs from the plain one of its recipe."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from experiments.config import gaps, override_parser
from experiments.config.compose import compose_config, register
from experiments.config.run_config import IDENTITY, LATER, Mode
from experiments.errors import UserError
from experiments.results.identity import to_plain

NEUTRAL = {
    *("model", "task", "method", "tracking", "profile"),
    *("seed", "output", "force", "retry_failed", "offline"),
    *(f"{section}.{name}" for section, local in IDENTITY.items() for name in local),
} - {"model.path"}  # conf/model/causal_lm.yaml names its weights after it
"""Keys of overrides that choose a plain run, or say no more than where and how it is computed."""


def find_changes(cfg: DictConfig, overrides: Iterable[str] | None = None) -> dict[str, Any]:
    """Scientific fields that differ from the plain run of this model, task, method and source.

    Args:
        cfg: the composed run.
        overrides: all that it was composed of, if that is known: the plain run, which takes as
            long to compose, is needed only where one of them is about something else.
    """
    named_by_path = "data" in cfg.task  # of the user's own: runs are named after the file
    if overrides is not None and all(map(_is_neutral, overrides)) and not named_by_path:
        return {} if cfg.profile is None else {"profile": cfg.profile}
    parts = [f"{part}={cfg[part].name}" for part in ("model", "task", "method")]
    changes: dict[str, Any] = {}
    if cfg.profile is not None:  # what it sets goes without saying
        parts.append(f"profile={cfg.profile}")
        changes["profile"] = cfg.profile
    if cfg.mode is Mode.count:
        _, there = find_plain(*parts, "source=none")  # of a recipe only the sizes count
    else:
        recipe, there = find_plain(*parts)
        if recipe != cfg.recipe:
            changes["source"] = cfg.recipe
            # What a recipe sets of later fields shows: its earlier runs keep their folders.
            earlier = {key: value for key, value in LATER.items() if there.get(key) == value}
            there = find_plain(*parts, f"source={cfg.source}")[1] | earlier
    here = _flatten_scientific(cfg)
    if cfg.mode is Mode.count:
        there = {key: value for key, value in there.items() if not key.startswith("train.")} | {
            "train": None
        }
    return changes | {
        key: value
        for key, value in here.items()
        if key not in ("seed", "recipe") and (key not in there or there[key] != value)
    }


def _is_neutral(text: str) -> bool:
    override = override_parser.parse(text)
    added = override.is_add() or override.is_force_add() or override.is_delete()
    whole = override.package is None and not added and not isinstance(override.value(), dict)
    key = override.key_or_group
    return whole and (key in NEUTRAL or key.startswith("tracking."))


@cache
def find_plain(*parts: str) -> tuple[str, dict[str, Any]]:
    """Recipe and scientific fields of the plain run of these parts."""
    cfg = compose_config(list(parts))
    return cfg.recipe, _flatten_scientific(cfg)


@cache
def find_recipe(
    model: str, task: str, method: str, source: str | None = None
) -> tuple[str, dict[str, Any]] | None:
    """Return name and scientific fields of the recipe of these parts; None if conf/ has none.

    Args:
        model, task, method: names of the parts.
        source: requested source of the recipe; None: the default.
    """
    register()
    asked = [] if source is None else [f"source={source}"]
    try:
        return find_plain(f"model={model}", f"task={task}", f"method={method}", *asked)
    except (UserError, OmegaConfBaseException):
        return None


def read_recipe(
    model: str, method: str, tasks: Sequence[str], keys: Sequence[str], source: str = "paper"
) -> dict[str, dict[str, Any]]:
    """Return settings of a source's recipe by task, each with its dotted key.

    Composed once: a recipe finds its values by the name of the task.
    """
    register()
    cfg = compose_config(
        [f"model={model}", f"method={method}", f"task={tasks[0]}", f"source={source}"]
    )
    found = {}
    for task in tasks:
        cfg.task.name = task
        found[task] = {key: to_plain(OmegaConf.select(cfg, key)) for key in keys}
    return found


def _flatten_scientific(cfg: DictConfig) -> dict[str, Any]:
    """Scientific fields of a composed configuration; what has no value is left out."""
    found: dict[str, Any] = {}
    for key in gaps.list_leaves(cfg):
        try:
            value = OmegaConf.select(cfg, key, throw_on_missing=True)
        except OmegaConfBaseException:
            continue
        found[key] = to_plain(
            OmegaConf.to_container(value) if OmegaConf.is_config(value) else value
        )
    return {
        key: value
        for section, local in IDENTITY.items()
        for key, value in found.items()
        if key.partition(".")[0] == section and local.isdisjoint(key.split(".")[1:2])
    }
