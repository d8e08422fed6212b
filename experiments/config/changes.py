"""Fields in which a run differs from the plain one of its recipe."""

from __future__ import annotations

from functools import cache
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from experiments.config import gaps
from experiments.config.compose import compose_config
from experiments.config.run_config import IDENTITY, Mode
from experiments.results.identity import to_plain


def find_changes(cfg: DictConfig) -> dict[str, Any]:
    """Scientific fields that differ from the plain run of this model, task, method and source."""
    parts = [f"{part}={cfg[part].name}" for part in ("model", "task", "method")]
    changes: dict[str, Any] = {}
    if cfg.profile is not None:  # what it sets goes without saying
        parts.append(f"profile={cfg.profile}")
        changes["profile"] = cfg.profile
    if cfg.mode is Mode.count:
        _, there = _plain(*parts, "source=none")  # of a recipe only the sizes count
    else:
        recipe, there = _plain(*parts)
        if recipe != cfg.recipe:
            changes["source"] = cfg.recipe
            _, there = _plain(*parts, f"source={cfg.source}")
    here = _values(cfg)
    if cfg.mode is Mode.count:
        there = {key: value for key, value in there.items() if not key.startswith("train.")} | {
            "train": None
        }
    return changes | {
        key: value
        for key, value in here.items()
        if key not in ("seed", "recipe") and (key not in there or there[key] != value)
    }


@cache
def _plain(*parts: str) -> tuple[str, dict[str, Any]]:
    """Recipe and scientific fields of the plain run of these parts."""
    cfg = compose_config(list(parts))
    return cfg.recipe, _values(cfg)


def _values(cfg: DictConfig) -> dict[str, Any]:
    """Scientific fields of a composed configuration; what has no value is left out."""
    found: dict[str, Any] = {}
    for key in gaps.leaves(cfg):
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
        if key.partition(".")[0] == section and key.partition(".")[2] not in local
    }
