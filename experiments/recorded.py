"""What a record's configuration describes, as objects again."""

from __future__ import annotations

import functools
from dataclasses import fields
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from experiments.config import CONF, composed, register
from experiments.errors import ConfigError
from experiments.tasks import Task


def task_of(recorded: Any) -> Task:
    """The task that a record's configuration describes.

    Raises:
        ConfigError: this version has no such task, or it cannot be what the record says.
    """
    register()
    name = recorded.get("name") if isinstance(recorded, dict) else None
    if not isinstance(name, str) or not (CONF / "task" / f"{name}.yaml").exists():
        raise ConfigError(f"task={name}: unknown to this version")
    node = _tasks(name).copy()
    known = {entry.name for entry in fields(OmegaConf.get_type(node))}
    try:
        for key in known & recorded.keys():  # a field that is gone since then had its old meaning
            node[key] = recorded[key]
        return OmegaConf.to_object(node)
    except OmegaConfBaseException as error:
        raise ConfigError(f"task={name}: {str(error).splitlines()[0]}") from error


@functools.cache
def _tasks(name: str) -> DictConfig:
    """A task's node, its interpolations still open."""
    return composed([f"task={name}"]).task
