"""Compose conf/ by Hydra, with schemas made of the dataclasses."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf, open_dict

from experiments.config.help_page import CONF
from experiments.config.run_config import Config, identify_by
from experiments.errors import ConfigError
from experiments.methods import METHODS
from experiments.models import MODELS
from experiments.tasks import TASKS
from experiments.training.tracking import TRACKINGS
from experiments.training.train_config import Train

CLASSES: dict[str, tuple[type, ...]] = {
    "model": MODELS,
    "task": TASKS,
    "method": METHODS,
    "tracking": TRACKINGS,
}
"""By the folder of conf/ whose files fill them."""
FOLDERS: list[Path] = []
"""Folders of options beside conf/, of plugins."""


def register() -> None:
    """Register schemas of the dataclasses, and the resolvers that conf/ uses."""
    store = ConfigStore.instance()
    store.store(name="schema", node=Config)
    store.store(group="schema/train", name="train", node=Train)
    for group, classes in CLASSES.items():
        for kind in classes:
            store.store(group=f"schema/{group}", name=kind.__name__.lower(), node=kind)
    OmegaConf.register_new_resolver("recipe_file", _find_recipe_file, replace=True)
    for part in ("task", "model"):
        OmegaConf.register_new_resolver(f"by_{part}", _make_picker(part), replace=True)
    OmegaConf.register_new_resolver(
        "where_pretrained",  # of what random weights cannot have
        lambda value, *, _root_: value if _root_.model.pretrained else None,
        replace=True,
    )
    OmegaConf.register_new_resolver(
        "folder_name",
        lambda path: None if path is None else Path(os.path.abspath(path)).name,
        replace=True,
    )


def add_class(group: str, kind: type) -> None:
    """Add a class to those that files of conf/ may name."""
    if kind not in CLASSES[group]:
        CLASSES[group] += (kind,)
        identify_by(group, kind)
    ConfigStore.instance().store(group=f"schema/{group}", name=kind.__name__.lower(), node=kind)


def format_search_path(folders: Sequence[Path]) -> str:
    """Return the override by which Hydra finds options in further folders."""
    places = ",".join(f'"file://{folder}"' for folder in folders)
    return f"hydra.searchpath=[{places}]"


def find_option_files(group: str) -> list[Path]:
    """Return the files of a group's options, those of plugins included."""
    return [path for folder in (CONF, *FOLDERS) for path in (folder / group).glob("*.yaml")]


def _find_recipe_file(source: str, name: str, task: str) -> str:
    """Return the recipe of a source, or that of `other` for a task which the source has not.

    Of a source without this method and model, the paper's tasks decide.

    Args:
        source: as `source=…` names it.
        name: `method_model`.
        task: name of the task.
    """
    paths = [CONF / "recipe" / one / f"{name}.yaml" for one in (source, "paper")]
    found = next((path for path in paths if path.is_file()), None)
    fits = found is not None and _has_task(found.read_text(encoding="utf-8"), task)
    other = f"other/{name}"
    if source == "none" or fits or not (CONF / "recipe" / f"{other}.yaml").is_file():
        return f"{source}/{name}"
    return other


def _has_task(recipe: str, task: str) -> bool:
    """Return True if the tables of a recipe, or those of the one it begins with, have a task."""
    tables = re.findall(r"by_task:\{(.*?)\}", recipe, re.S)
    begun = re.search(r"^defaults: \[/recipe/([\w/]+)", recipe, re.M)
    if begun and not tables:
        return _has_task((CONF / "recipe" / f"{begun[1]}.yaml").read_text(encoding="utf-8"), task)
    return all(re.search(rf"\b{re.escape(task)}:", table) for table in tables)


def _make_picker(part: str) -> Any:
    def pick(table: DictConfig, column: int | None = None, *, _root_: DictConfig) -> Any:
        name = _root_[part].name
        if name not in table and "other" in table:
            name = "other"
        if name not in table:
            raise KeyError(
                f"the recipe has no entry for {part} {name!r} (has: {', '.join(map(str, table))}); "
                "with source=none every number comes from the command line"
            )
        return table[name] if column is None else table[name][column]

    return pick


def compose_config(overrides: list[str], *, with_hydra: bool = False) -> DictConfig:
    """Compose conf/train.yaml with overrides, inside or outside a running Hydra application.

    Args:
        overrides: as on the command line.
        with_hydra: keeps Hydra's own settings, below the key `hydra`.

    Raises:
        ConfigError: they do not fit.
    """
    running = GlobalHydra.instance().is_initialized()
    if FOLDERS and not any("hydra.searchpath" in word for word in overrides):
        overrides = [*overrides, format_search_path(FOLDERS)]
    try:
        with nullcontext() if running else initialize_config_dir(str(CONF), version_base="1.3"):
            cfg = compose("train", overrides, return_hydra_config=True)
    except Exception as error:  # Hydra's, OmegaConf's, and what they let through of Python's own
        raise ConfigError("this cannot be composed", [_format_error(error)]) from error
    check_names(cfg, cfg.hydra.runtime.choices)
    if not with_hydra:
        with open_dict(cfg):
            del cfg["hydra"]
    return cfg


def check_names(cfg: DictConfig, choices: Mapping[str, Any]) -> None:
    """Raise ConfigError for every option whose name is not that of its file.

    Recipes, folders and records find an option by its name. A name that cannot be read is left to
    the checks of the overrides.

    Args:
        cfg: the composed run.
        choices: options that Hydra chose, by group (`hydra.runtime.choices`).
    """
    wrong = []
    for group in ("model", "task", "method"):
        option = str(choices.get(group)).rpartition("/")[2].removesuffix(".yaml")
        name = OmegaConf.select(cfg, f"{group}.name", throw_on_resolution_failure=False)
        if name is not None and name != option:
            wrong.append(f"{group}/{option}.yaml: name={name!r}: must be {option!r}")
    if wrong:
        raise ConfigError("an option's name must be that of its file", wrong)


def _format_error(error: Exception) -> str:
    """Return a library's error on one line."""
    if isinstance(error, RecursionError):
        return "a value refers to itself, or is nested too deeply"
    if isinstance(error, ConfigError):
        return "; ".join([error.summary, *error.problems])
    words = " ".join(f"{error} {error.__cause__ or ''}".split()) or type(error).__name__
    schema = re.search(r"Could not load 'schema/(\w+)/(\w+)'", words)
    if schema and schema[1] in CLASSES:
        group, name = schema.groups()
        known = ", ".join(sorted(kind.__name__.lower() for kind in CLASSES[group]))
        where = re.match(r"In '([^']+)'", words)
        return (
            f"{f'conf/{where[1]}.yaml: ' if where else ''}/schema/{group}/{name}: unknown class "
            f"(allowed: {known}; a new one is listed in experiments/{group}s/__init__.py, "
            "or stands in a module of your own: plugin=MODULE)"
        )
    return words if len(words) <= 600 else f"{words[:599]}…"
