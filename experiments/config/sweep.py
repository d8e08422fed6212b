"""The cells of a sweep, as Hydra's sweeper would run them, without running any."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator, Sequence

from hydra.core.override_parser.types import Override

from experiments.config import words
from experiments.config.compose import CONF, compose_config, register
from experiments.config.load import load
from experiments.config.run_config import Config
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
    except ConfigError as error:
        raise ConfigError(f"{where}: {'; '.join([error.summary, *error.problems])}") from error
    axes = {one.key_or_group: one for one in _parsed(own)} | typed
    choices = {key: _choices(where, axis) for key, axis in axes.items()}
    try:
        seeds = [int(text.partition("=")[2]) for text in choices.pop("seed", ["seed=0"])]
    except ValueError:
        raise ConfigError(f"{words.shown(axes['seed'].input_line)}: a seed is an integer") from None
    number = math.prod(map(len, choices.values())) * len(seeds)
    if number > words.CELLS:
        raise ConfigError(f"{where}: {number:,} runs in one sweep (allowed: {words.CELLS:,})")
    for chosen in itertools.product(*choices.values()):
        overrides = [*start, *chosen]
        varied = [text for text in chosen if len(choices[text.partition("=")[0].lstrip("+~")]) > 1]
        try:
            config = load(compose_config([*overrides, f"seed={seeds[0]}"]))
            yield Cell(overrides=varied, complete=overrides, config=config, seeds=seeds)
        except ConfigError as error:
            problem = " ".join(str(error).split())
            yield Cell(
                overrides=varied, complete=overrides, config=None, seeds=seeds, problem=problem
            )


def swept(start: list[str]) -> list[str]:
    """What the chosen options of conf/ make Hydra's sweeper vary, as overrides."""
    sweeper = compose_config(start, with_hydra=True).hydra.sweeper
    return [f"{key}={value}" for key, value in (sweeper.params or {}).items()]


def _parsed(texts: Sequence[str]) -> list[Override]:
    return [words.parse(text) for text in texts]


def _choices(where: str, axis: Override) -> list[str]:
    """One override per value of an axis."""
    if axis.is_interval_sweep() or axis.key_or_group == "search":
        text = words.shown(axis.input_line)
        raise ConfigError(f"{where}: {text} is a search, its cells are not known before")
    return words.spelled(axis)
