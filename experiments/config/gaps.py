"""Gaps of a composed configuration: unknown keys and missing values."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from experiments.config.help_page import CONF
from experiments.results.identity import flatten

GENERAL = {"Encoder": "encoder", "CausalLM": "decoder"}
"""Options of conf/model for any network in a folder, by the class of a base model."""
_RESOLVING = "KeyError raised while resolving interpolation: "


def find_gaps(cfg: DictConfig) -> Iterator[str]:
    """Yield unknown keys, missing values and failing interpolations."""
    yield from (f"{key}: unknown key" for key in _find_unknown(cfg))
    missing = sorted(
        key for key, value in flatten(OmegaConf.to_container(cfg)).items() if value == "???"
    )
    if missing:
        where = f"conf/recipe/{cfg.source}/{cfg.method.name}_{cfg.model.name}.yaml"
        general = _find_general_recipe(cfg)
        values = f" (values for any network: defaults: [{general}])" if general else ""
        hint = (
            f"recipe {cfg.recipe!r} does not give them"
            if cfg.recipe != "none"
            else f"{where} does not exist; add it{values}, choose another source, "
            "or set them on the command line"
        )
        yield f"no value for {', '.join(missing)}: {hint}"
    failing: dict[str, list[str]] = {}
    for key in list_leaves(cfg):
        try:
            OmegaConf.select(cfg, key, throw_on_missing=False)
        except OmegaConfBaseException as error:
            text = str(error).splitlines()[0].removeprefix(_RESOLVING).strip("\"'")
            failing.setdefault(text, []).append(key)
    for text, keys in failing.items():
        yield f"{', '.join(keys)}: {text}"


def _find_general_recipe(cfg: DictConfig) -> str | None:
    """Return the recipe of ours for any network of this kind, None if there is none."""
    kind = OmegaConf.get_type(cfg.model)
    general = GENERAL.get(kind.__name__) if kind is not None else None
    name = f"recipe/ours/{cfg.method.name}_{general}"
    return f"/{name}" if (CONF / f"{name}.yaml").is_file() else None


def _find_unknown(node: Any, prefix: str = "") -> Iterator[str]:
    """Yield dotted keys that `+key=value` added where the schema has no such field."""
    kind = OmegaConf.get_type(node)
    known = {entry.name for entry in fields(kind)} if is_dataclass(kind) else None
    for key in node:
        if known is not None and key not in known:
            yield f"{prefix}{key}"
        elif not OmegaConf.is_missing(node, key) and not OmegaConf.is_interpolation(node, key):
            child = node._get_node(key)
            if isinstance(child, DictConfig) and not child._is_none():
                yield from _find_unknown(child, f"{prefix}{key}.")


def list_leaves(node: Any, prefix: str = "") -> Iterator[str]:
    """Yield the dotted key of every value, interpolations unresolved."""
    for key in node:
        dotted = f"{prefix}{key}"
        child = (
            None
            if OmegaConf.is_missing(node, key) or OmegaConf.is_interpolation(node, key)
            else node._get_node(key)
        )
        if isinstance(child, DictConfig) and not child._is_none():
            yield from list_leaves(child, f"{dotted}.")
        else:
            yield dotted
