"""Turn a composed configuration into a checked Config."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import cast

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from experiments.config import bounds, gaps
from experiments.config.changes import find_changes
from experiments.config.restore import restore_task
from experiments.config.run_config import Config, Mode
from experiments.errors import ConfigError, DataMissing
from experiments.results.identity import get_run_dir, name_variant
from experiments.results.record import RECORD, read_record

log = logging.getLogger(__name__)


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
    problems = list(bounds.find_mistyped(config))
    if not problems:
        resolve_task(config)
        problems = list(config.problems())
    said = {line.partition("=")[0] for line in problems}
    problems += [
        line for line in bounds.find_violations(config, "") if line.partition("=")[0] not in said
    ]
    if problems:
        raise ConfigError("invalid configuration", problems)
    return config


def resolve_task(config: Config) -> None:
    """Fill in what a task leaves to its data; if they are gone, from the record of this run.

    Raises:
        DataMissing: the data are gone, and the run is not finished or to be repeated.
    """
    try:
        config.task.resolve()
    except DataMissing as missing:
        run_dir = get_run_dir(config)
        if config.force or not (run_dir / RECORD).exists():
            raise
        config.task.resolve_as(restore_task(read_record(run_dir).config.get("task")))
        log.warning("%s; the finished run is shown without a comparison of its data", missing)
