"""Restore the objects that a record's configuration describes."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from dataclasses import fields
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from experiments.config.bounds import find_mistyped
from experiments.config.compose import compose_config, find_option_files, register
from experiments.config.run_config import Config
from experiments.errors import ConfigError
from experiments.tasks import Task

LONGEST = 300
"""Characters of a reason, which may quote the record."""
PARTS = ("model", "task", "method", "tracking")


def restore_config(found: dict[str, Any], changes: list[str]) -> Config:
    """Restore the Config of a finished run.

    Args:
        found: `Record.config`.
        changes: `key=value` of changed settings, for example folders; values are literal, null
            stands for none.

    Raises:
        ConfigError: the record is of a version with other options or keys, it names code, or a
            change is invalid.
    """
    options = [_find_option(part, found.get(part)) for part in PARTS if part in found]
    given = dict(change.partition("=")[::2] for change in changes)
    try:
        schema = _compose_schema(*options)
        imported = list(_find_foreign_code(schema, found)) if "model.path" not in given else []
        if imported:
            raise ConfigError("a record names code, which is never imported", imported)
        cfg = cast(DictConfig, OmegaConf.merge(schema, escape_interpolations(found)))
        for key, value in given.items():
            OmegaConf.update(cfg, key, None if value == "null" else escape_interpolations(value))
        for part, name, own in _list_code_fields(schema):
            cfg[part][name] = own
        config = cast(Config, OmegaConf.to_object(cfg))
    except (OmegaConfBaseException, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(
            "the record's configuration does not fit this version", [_format_error(error)]
        ) from error
    problems = list(find_mistyped(config)) or list(config.problems())
    if problems:
        raise ConfigError("the record's configuration is invalid in this version", problems)
    return config


def restore_task(found: Any) -> Task:
    """Restore the task that a record's configuration describes.

    Raises:
        ConfigError: this version has no such task, or the record does not fit it.
    """
    option = _find_option("task", found)
    node = _compose_schema(option).copy().task
    known = {entry.name for entry in fields(cast(type, OmegaConf.get_type(node)))}
    try:
        for key in known & found.keys():  # a field that is gone since then had its old meaning
            node[key] = escape_interpolations(found[key])
        task = cast(Task, OmegaConf.to_object(node))
    except (OmegaConfBaseException, TypeError, ValueError, AttributeError) as error:
        raise ConfigError(f"{option}: {_format_error(error)}") from error
    wrong = list(find_mistyped(task, "task."))
    if wrong:
        raise ConfigError(f"{option}: not the task that a record describes", wrong)
    return task


def escape_interpolations(value: Any) -> Any:
    """Escape `${` in a plain value, so that OmegaConf finds no interpolations."""
    if isinstance(value, dict):
        return {key: escape_interpolations(item) for key, item in value.items()}
    if isinstance(value, list):
        return [escape_interpolations(item) for item in value]
    return re.sub(r"(\\*)\$\{", r"\1\1\\${", value) if isinstance(value, str) else value


def _find_option(part: str, found: Any) -> str:
    """Return `part=name` of a part of the configuration, if conf/ has that option."""
    name = found.get("name") if isinstance(found, dict) else None
    # Compared, never joined to a path: the name may lead anywhere.
    if not isinstance(name, str) or name not in {path.stem for path in find_option_files(part)}:
        raise ConfigError(
            f"{part}={name!s:.100}: unknown to this version (plugin=MODULE, if it is your own)"
        )
    return f"{part}={name}"


@functools.cache
def _compose_schema(*options: str) -> DictConfig:
    """Return a configuration of these options, its interpolations still open."""
    register()
    schema = compose_config([*options, "source=none"])
    for key in ("model.sizes", "method.fields"):  # plain mappings, which a profile may add to
        node = OmegaConf.select(schema, key)
        if OmegaConf.is_dict(node):
            OmegaConf.set_struct(node, False)
    return schema


def _list_code_fields(schema: DictConfig) -> Iterator[tuple[str, str, Any]]:
    """Yield part, name and value in conf/ of every field that names code."""
    for part in PARTS:
        for entry in fields(cast(type, OmegaConf.get_type(schema[part]))):
            if entry.metadata.get("code"):
                yield part, entry.name, schema[part][entry.name]


def _find_foreign_code(schema: DictConfig, found: dict[str, Any]) -> Iterator[str]:
    """Yield fields of a record that name other code than conf/ does."""
    for part, name, own in _list_code_fields(schema):
        said = found[part].get(name, own)
        if said != own:
            yield f"{part}.{name}={said!r:.100} (allowed: {own}, or override model.path=FOLDER)"


def _format_error(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:LONGEST]
