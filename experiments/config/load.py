"""Turn a composed configuration into a checked Config."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import fields, is_dataclass
from typing import Any, cast, get_args, get_origin, get_type_hints

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from experiments.config import bounds, gaps
from experiments.config.changes import find_changes
from experiments.config.run_config import Config, Mode
from experiments.errors import ConfigError
from experiments.results.identity import name_variant

LISTED: dict[type, tuple[type, ...]] = {float: (float, int), int: (int,), str: (str,)}
"""Types that an entry of a list may have, by the type of its field."""


def load_config(cfg: DictConfig, overrides: Sequence[str] | None = None) -> Config:
    """Turn a composed configuration into a checked Config.

    Args:
        cfg: as Hydra composes it.
        overrides: all that it was composed of, if that is known; spares a composition.

    Raises:
        ConfigError: with every problem at once.
        DataError: the task's own data do not say what the run needs to know.
    """
    cfg = cfg.copy()
    OmegaConf.set_struct(cfg, False)
    if cfg.mode is Mode.count:
        cfg.train = None
    problems = list(gaps.find_gaps(cfg))
    if problems:
        raise ConfigError("not a complete run", problems)
    changes = find_changes(cfg, overrides)
    cfg.variant = name_variant(changes)
    try:
        config = cast(Config, OmegaConf.to_object(cfg))
    except OmegaConfBaseException as error:
        raise ConfigError("not a run", [str(error).splitlines()[0]]) from error
    problems = list(find_mistyped(config))
    if not problems:
        config.task.resolve()
        problems = list(config.problems())
    said = {line.partition("=")[0] for line in problems}
    problems += [
        line for line in bounds.find_violations(config, "") if line.partition("=")[0] not in said
    ]
    if problems:
        raise ConfigError("invalid configuration", problems)
    return config


def find_mistyped(part: Any, prefix: str = "") -> Iterator[str]:
    """Yield every list with entries of the wrong type.

    OmegaConf lets them pass where a whole list is replaced.
    """
    hints = get_type_hints(type(part))
    for entry in fields(part):
        value, key = getattr(part, entry.name), f"{prefix}{entry.name}"
        if is_dataclass(value):
            yield from find_mistyped(value, f"{key}.")
        elif isinstance(value, list):
            for hint in (hints[entry.name], *get_args(hints[entry.name])):
                kind = (get_args(hint) or (None,))[0] if get_origin(hint) is list else None
                if kind in LISTED and not all(type(one) in LISTED[kind] for one in value):
                    yield f"{key}={value!r:.200}: must be a list of {kind.__name__}"
