"""The cells of a sweep, as Hydra's sweeper would run them, without running any."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from contextlib import nullcontext

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from experiments.config import CONF, Config, composed, load, register
from experiments.errors import ConfigError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cell:
    """One configuration of a sweep over its seeds."""

    overrides: list[str]
    """What differs from cell to cell, the seed left out."""
    complete: list[str]
    """All that it is composed of, the seed left out."""
    config: Config | None
    """With the first seed; None if it cannot be composed."""
    seeds: list[int]
    problem: str = ""
    """Why it cannot be composed."""


def names() -> list[str]:
    """Every experiment of conf/."""
    return sorted(path.stem for path in (CONF / "experiment").glob("[!_]*.yaml"))


def cells(experiment: str | None, given: Sequence[str] = ()) -> Iterator[Cell]:
    """Composes every cell of a sweep, one after the other.

    Args:
        experiment: name of the one that says what is swept; None for what is typed alone.
        given: overrides from the command line, which win over the experiment's own.

    Raises:
        ConfigError: no such experiment, an override that does not fit, or a search, whose cells
            nobody knows beforehand.
    """
    register()
    if experiment is not None and experiment not in names():
        allowed = ", ".join(names())
        raise ConfigError(f"experiment={experiment}: unknown (allowed: {allowed})")
    start = [f"experiment={experiment}"] if experiment is not None else []
    where = start[0] if start else "overrides"
    try:
        own = swept(start)
        typed = {one.key_or_group: one for one in _parsed(given)}
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(f"{where}: {str(error).splitlines()[0]}") from error
    axes = {one.key_or_group: one for one in _parsed(own)} | typed
    choices = {key: _choices(where, axis) for key, axis in axes.items()}
    seeds = [int(text.partition("=")[2]) for text in choices.pop("seed", ["seed=0"])]
    for chosen in itertools.product(*choices.values()):
        overrides = [*start, *chosen]
        varied = [text for text in chosen if len(choices[text.partition("=")[0].lstrip("+~")]) > 1]
        try:
            config = load(composed([*overrides, f"seed={seeds[0]}"]))
            yield Cell(overrides=varied, complete=overrides, config=config, seeds=seeds)
        except (ConfigError, HydraException, OmegaConfBaseException) as error:
            problem = " ".join(str(error).split())
            yield Cell(
                overrides=varied, complete=overrides, config=None, seeds=seeds, problem=problem
            )


def swept(start: list[str]) -> list[str]:
    """What the chosen options of conf/ make Hydra's sweeper vary, as overrides."""
    return [f"{key}={value}" for key, value in (_sweeper(start).get("params") or {}).items()]


def trials(start: list[str]) -> int | None:
    """How many trials the chosen options of conf/ ask for; None if they say nothing of it."""
    return _sweeper(start).get("n_trials")


def _sweeper(start: list[str]) -> DictConfig:
    running = GlobalHydra.instance().is_initialized()
    with nullcontext() if running else initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("train", start, return_hydra_config=True).hydra.sweeper


def _parsed(texts: Sequence[str]) -> list[Override]:
    return OverridesParser.create().parse_overrides(list(texts))


def _choices(where: str, axis: Override) -> list[str]:
    """One override per value of an axis."""
    key = axis.input_line.partition("=")[0]
    if not axis.is_sweep_override():
        return [axis.input_line]
    if axis.is_choice_sweep() or axis.is_range_sweep():
        return [f"{key}={value}" for value in axis.sweep_string_iterator()]
    raise ConfigError(f"{where}: {axis.input_line} is a search, its cells are not known before")
