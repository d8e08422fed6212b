"""Config: one run as typed objects, composed by Hydra from conf/, checked without torch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field, fields, is_dataclass
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from experiments import bounds, gaps, naming, results
from experiments.errors import ConfigError
from experiments.methods import METHODS, Method
from experiments.models import MODELS, Model
from experiments.recipe import Train
from experiments.tasks import TASKS, Task
from experiments.tracking import TRACKINGS, Tracking

LISTED: dict[type, tuple[type, ...]] = {float: (float, int), int: (int,), str: (str,)}
"""What an entry of a list may be, by the type that its field says."""
CONF = Path(__file__).resolve().parent.parent / "conf"


class Mode(Enum):
    """What is done with the composed run."""

    train = "train"
    count = "count"

    @property
    def trains(self) -> bool:
        """False if nothing but shapes are needed."""
        return self is Mode.train


@dataclass(kw_only=True)
class Config:
    """One run."""

    mode: Mode = Mode.train
    """train, or count: build, wrap, count and record without weights, data or training."""
    model: Model = MISSING
    """The base model."""
    task: Task = MISSING
    """Data and metrics."""
    method: Method = MISSING
    """What is trained."""
    train: Train | None = MISSING
    """Optimisation; None for mode=count."""
    tracking: Tracking = MISSING
    """Where numbers go while the run goes on (local)."""
    source: str = MISSING
    """Whose hyperparameters are asked for: paper, authors, ours or none."""
    recipe: str = "none"
    """Whose hyperparameters were found: the folder of conf/recipe that the values come from."""
    experiment: str | None = None
    """Table or figure that the run belongs to (local)."""
    profile: str | None = None
    """smoke: a rehearsal on tiny sizes."""
    seed: int = 0
    """Seed of head, adapter, data order and dropout."""
    row: int = 0
    """Row of a table whose sizes differ per model (Table 1 counts two per model)."""
    force: bool = False
    """Repeat a finished run in place; the old one is kept beside (local)."""
    retry_failed: bool = False
    """Run the failed cells of a sweep again; one run alone always starts again (local)."""
    offline: bool = False
    """Never use the network (local)."""
    output: str = "outputs"
    """Folder of all runs (local)."""
    variant: str = field(default="", metadata={"computed": True})
    """What differs from the recipe, as the run folder is called; computed."""

    def problems(self) -> Iterator[str]:
        """Yields every reason why this is no run, each with key, value and what is allowed."""
        for key in ("seed", "row"):
            if getattr(self, key) < 0:
                yield f"{key}={getattr(self, key)}: must not be negative"
        if not self.output:
            yield "output=: must name a folder"
        for part in (self.task, self.method, self.tracking, self.train):
            if part is not None:
                yield from part.problems()
        yield from self.model.problems(self.task)
        fits = self.task.head.kind in self.model.heads and self.task.head.kind != "none"
        if fits and self.train is not None:
            yield from self.train.problems_with(self.task)
        if self.model.quantization is not None and self.method.trains_base:
            yield (
                f"method={self.method.name}: trains the base weights themselves, which "
                f"model.quantization={self.model.quantization.value} freezes (allowed: adapters)"
            )
        if self.mode.trains and self.task.head.kind == "none":
            yield f"task={self.task.name}: has nothing to train on (allowed with mode=count only)"
        if self.mode.trains and self.method.trains_head_only and not self.model.head:
            yield (
                f"method={self.method.name}: trains the head alone, "
                f"and model={self.model.name} has none"
            )


def register() -> None:
    """Makes schemas of the dataclasses, and the resolvers that conf/ uses."""
    store = ConfigStore.instance()
    store.store(name="schema", node=Config)
    store.store(group="schema/train", name="train", node=Train)
    for group, classes in (
        ("model", MODELS),
        ("task", TASKS),
        ("method", METHODS),
        ("tracking", TRACKINGS),
    ):
        for kind in classes:
            store.store(group=f"schema/{group}", name=kind.__name__.lower(), node=kind)
    for part in ("task", "model"):
        OmegaConf.register_new_resolver(f"by_{part}", _picker(part), replace=True)
    OmegaConf.register_new_resolver(
        "where_pretrained",  # of what random weights cannot have
        lambda value, *, _root_: value if _root_.model.pretrained else None,
        replace=True,
    )
    OmegaConf.register_new_resolver(
        "folder_name", lambda path: None if path is None else Path(path).name, replace=True
    )


def _picker(part: str) -> Any:
    def pick(table: DictConfig, column: int | None = None, *, _root_: DictConfig) -> Any:
        name = _root_[part].name
        if name not in table:
            raise KeyError(
                f"the recipe has no entry for {part} {name!r} (has: {', '.join(map(str, table))}); "
                "with source=none every number comes from the command line"
            )
        return table[name] if column is None else table[name][column]

    return pick


def composed(overrides: list[str], *, with_hydra: bool = False) -> DictConfig:
    """Composes conf/train.yaml with overrides, inside or outside a running Hydra application.

    Args:
        overrides: as on the command line.
        with_hydra: keeps Hydra's own settings, below the key `hydra`.

    Raises:
        ConfigError: they do not fit.
    """
    running = GlobalHydra.instance().is_initialized()
    try:
        with nullcontext() if running else initialize_config_dir(str(CONF), version_base="1.3"):
            return compose("train", overrides, return_hydra_config=with_hydra)
    except Exception as error:  # Hydra's, OmegaConf's, and what they let through of Python's own
        raise ConfigError("this cannot be composed", [_reason(error)]) from error


def _reason(error: Exception) -> str:
    """A library's error on one line."""
    if isinstance(error, RecursionError):
        return "a value refers to itself, or is nested too deeply"
    if isinstance(error, ConfigError):
        return "; ".join([error.summary, *error.problems])
    words = " ".join(f"{error} {error.__cause__ or ''}".split()) or type(error).__name__
    return words if len(words) <= 600 else f"{words[:599]}…"


def load(cfg: DictConfig) -> Config:
    """Composed configuration -> checked Config.

    Raises:
        ConfigError: with every problem at once.
    """
    cfg = cfg.copy()
    OmegaConf.set_struct(cfg, False)
    if cfg.mode is Mode.count:
        cfg.train = None
    problems = list(gaps.find(cfg))
    if problems:
        raise ConfigError("this is not a complete run", problems)
    changes = _changes(cfg)
    cfg.variant = naming.variant(changes)
    try:
        config: Config = OmegaConf.to_object(cfg)
    except OmegaConfBaseException as error:
        raise ConfigError("this is not a run", [str(error).splitlines()[0]]) from error
    problems = list(mistyped(config)) or list(config.problems())
    said = {line.partition("=")[0] for line in problems}
    problems += [line for line in bounds.find(config, "") if line.partition("=")[0] not in said]
    if problems:
        raise ConfigError("this run cannot be done", problems)
    return config


def mistyped(part: Any, prefix: str = "") -> Iterator[str]:
    """Yields every list with entries of another type than its field says, which OmegaConf lets
    pass where a whole list is replaced."""
    hints = get_type_hints(type(part))
    for entry in fields(part):
        value, key = getattr(part, entry.name), f"{prefix}{entry.name}"
        if is_dataclass(value):
            yield from mistyped(value, f"{key}.")
        elif isinstance(value, list):
            for hint in (hints[entry.name], *get_args(hints[entry.name])):
                kind = (get_args(hint) or (None,))[0] if get_origin(hint) is list else None
                if kind in LISTED and not all(type(one) in LISTED[kind] for one in value):
                    yield f"{key}={value!r:.200}: must be a list of {kind.__name__}"


def _changes(cfg: DictConfig) -> dict[str, Any]:
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
    cfg = composed(list(parts))
    return cfg.recipe, _values(cfg)


def _values(cfg: DictConfig) -> dict[str, Any]:
    """Scientific fields of a composed configuration; what has no value is left out."""
    found: dict[str, Any] = {}
    for key in gaps.leaves(cfg):
        try:
            value = OmegaConf.select(cfg, key, throw_on_missing=True)
        except OmegaConfBaseException:
            continue
        found[key] = results.plain(
            OmegaConf.to_container(value) if OmegaConf.is_config(value) else value
        )
    return {
        key: value
        for section, local in results.IDENTITY.items()
        for key, value in found.items()
        if key.partition(".")[0] == section and key.partition(".")[2] not in local
    }
