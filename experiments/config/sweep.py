"""Cells of a sweep, as Hydra's sweeper would run them, without running any."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator, Sequence

import yaml
from hydra.core.override_parser.types import Override

from experiments.config import flags, override_parser
from experiments.config.compose import CONF, compose_config, register
from experiments.config.load import load_config
from experiments.config.run_config import Config
from experiments.errors import ConfigError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cell:
    """One configuration of a sweep over its seeds."""

    overrides: list[str]
    """Overrides that differ from cell to cell, except the seed."""
    complete: list[str]
    """All overrides, except the seed."""
    config: Config | None
    """Configuration with the first seed; None if it cannot be composed."""
    seeds: list[int]
    problem: str = ""
    """Reason that it cannot be composed."""


def list_experiments() -> list[str]:
    """Return every experiment of conf/."""
    return sorted(path.stem for path in (CONF / "experiment").glob("[!_]*.yaml"))


def compose_cells(experiment: str | None, given: Sequence[str] = ()) -> Iterator[Cell]:
    """Compose every cell of a sweep, one after the other.

    Args:
        experiment: name of the experiment with the sweep; None for overrides alone.
        given: overrides from the command line, which take precedence over the experiment's.

    Raises:
        ConfigError: unknown experiment, invalid override, or a search, whose cells are not known
            in advance.
    """
    choices = list_choices(experiment, given)
    where = f"experiment={experiment}" if experiment is not None else "overrides"
    start = [where] if experiment is not None else []
    texts = [text.partition("=")[2] for text in choices.pop("seed", ["seed=0"])]
    try:
        seeds = [int(text) for text in texts]
    except ValueError:
        given_seeds = override_parser.shorten(f"seed={','.join(texts)}")
        raise ConfigError(f"{where}: {given_seeds}: a seed is an integer") from None
    number = math.prod(map(len, choices.values())) * len(seeds)
    if number > override_parser.MAX_CELLS:
        raise ConfigError(
            f"{where}: {number:,} runs in one sweep (allowed: {override_parser.MAX_CELLS:,})"
        )
    for chosen in itertools.product(*choices.values()):
        overrides = [*start, *chosen]
        varied = [text for text in chosen if len(choices[text.partition("=")[0].lstrip("+~")]) > 1]
        try:
            config = load_config(compose_config([*overrides, f"seed={seeds[0]}"]))
            yield Cell(overrides=varied, complete=overrides, config=config, seeds=seeds)
        except ConfigError as error:
            problem = " ".join(str(error).split())
            yield Cell(
                overrides=varied, complete=overrides, config=None, seeds=seeds, problem=problem
            )


def list_choices(experiment: str | None, given: Sequence[str] = ()) -> dict[str, list[str]]:
    """Return the overrides of every key that a sweep sets, one per value.

    Args:
        experiment: see `compose_cells`.
        given: likewise.

    Raises:
        ConfigError: see `compose_cells`.
    """
    register()
    if experiment is not None and experiment not in list_experiments():
        allowed = ", ".join(list_experiments())
        raise ConfigError(f"experiment={experiment}: unknown (allowed: {allowed})")
    start = [f"experiment={experiment}"] if experiment is not None else []
    where = start[0] if start else "overrides"
    try:
        own = get_sweep_overrides(start) if start else []
        typed = {one.key_or_group: one for one in _parse_all(given)}
    except ConfigError as error:
        raise ConfigError(f"{where}: {'; '.join([error.summary, *error.problems])}") from error
    axes = {one.key_or_group: one for one in _parse_all(own)} | typed
    return {key: _list_choices(where, axis) for key, axis in axes.items()}


def find_choices(arguments: list[str]) -> dict[str, list[str]] | None:
    """Return `list_choices` of a command line that asks for a sweep; None for one run."""
    typed = flags.parse_arguments(arguments)
    experiment: str | None = None
    given = []
    for text in typed.overrides:
        key, _, value = text.partition("=")
        if key == "experiment":
            experiment = value
        else:
            given.append(text)
    try:
        choices = list_choices(experiment, given)
    except ConfigError:  # Hydra refuses it too
        return None
    return choices if experiment is not None or "--multirun" in typed.flags else None


def read_search(experiment: str | None) -> tuple[list[str], int]:
    """Return the keys that the search of an experiment chooses, and the trials of each cell.

    Args:
        experiment: the field `experiment` of a run, after which a search in conf/search/ is named;
            without one there are no keys and 1 trial.
    """
    path = CONF / "search" / f"{experiment}.yaml"
    if not path.is_file():
        return [], 1
    found = yaml.safe_load(path.read_text(encoding="utf-8"))
    return list(found["space"]), found["trials"]


def get_sweep_overrides(start: list[str]) -> list[str]:
    """Return the sweep overrides that the chosen options of conf/ set."""
    sweeper = compose_config(start, with_hydra=True).hydra.sweeper
    return [f"{key}={value}" for key, value in (sweeper.params or {}).items()]


def _parse_all(texts: Sequence[str]) -> list[Override]:
    return [override_parser.parse(text) for text in texts]


def _list_choices(where: str, axis: Override) -> list[str]:
    """Return one override per value of an axis."""
    if axis.is_interval_sweep() or axis.key_or_group == "search":
        text = override_parser.shorten(axis.input_line)
        raise ConfigError(f"{where}: {text} is a search; its cells are not known in advance")
    return override_parser.expand_sweep(axis)
