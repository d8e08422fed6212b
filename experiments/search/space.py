"""Search spaces: what `key=interval(…)` and `key=choice(…)` mean, read as Hydra's sweepers do."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import yaml
from hydra.core.override_parser.types import IntervalSweep

from experiments.config import override_parser
from experiments.config.compose import CONF
from experiments.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Axis:
    """One number or option that a search chooses."""

    key: str
    """Configuration key."""
    low: float | int | None = None
    high: float | int | None = None
    """Bounds, both included; None where there are `choices`."""
    log: bool = False
    """Even in the logarithm."""
    choices: tuple[str, ...] = ()
    """Values to choose from, as they are written."""

    @property
    def example(self) -> str:
        """An override with a value of the axis."""
        return f"{self.key}={self.choices[0] if self.choices else self.low}"


def is_search(text: str) -> bool:
    """Return True for an override whose value is an interval."""
    return isinstance(override_parser.parse(text).value(), IntervalSweep)


def list_spaces() -> list[str]:
    """Every space of conf/search/."""
    return sorted(path.stem for path in (CONF / "search").glob("*.yaml"))


def load_space(name: str) -> tuple[list[str], int]:
    """Return the overrides and the number of trials of conf/search/<name>.yaml.

    Raises:
        ConfigError: no such space.
    """
    if name not in list_spaces():
        raise ConfigError(f"search={name}: unknown (allowed: {', '.join(list_spaces())})")
    chosen = yaml.safe_load((CONF / "search" / f"{name}.yaml").read_text())
    return [f"{key}={value}" for key, value in chosen["space"].items()], chosen["trials"]


def parse_axes(texts: Sequence[str]) -> list[Axis]:
    """Return the space that overrides describe, in their order.

    Raises:
        ConfigError: with every override that gives nothing to choose from, and every key that says
            what is searched for rather than how: each of its values is a search of its own.
    """
    found, problems = [], []
    for text in texts:
        override = override_parser.parse(text)
        key, value = override.key_or_group, override.value()
        if (CONF / key).is_dir() or key in ("seed", "row", "mode"):
            problems.append(f"{text}: no search chooses {key}, each has a search of its own")
        elif isinstance(value, IntervalSweep):
            log = "log" in value.tags
            found.append(Axis(key=key, low=value.start, high=value.end, log=log))
            problems += _find_invalid_bounds(text, found[-1])
        elif override.is_choice_sweep():
            found.append(
                Axis(
                    key=key,
                    choices=tuple(
                        text.partition("=")[2] for text in override_parser.expand_sweep(override)
                    ),
                )
            )
        else:
            problems.append(
                f"{text}: not a range to search (allowed: interval, choice, tag(log, …))"
            )
    if problems:
        raise ConfigError("not a search space", problems)
    return found


def _find_invalid_bounds(text: str, axis: Axis) -> Iterator[str]:
    if not axis.low < axis.high:
        yield f"{text}: the first bound must be below the second"
    if axis.log and not axis.low > 0:
        yield f"{text}: a logarithm needs bounds above 0"
