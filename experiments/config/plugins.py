"""Private modules: methods, models and tasks from outside the checkout, by `plugin=MODULE`."""

from __future__ import annotations

import importlib
import inspect
import os
import sys
from collections.abc import Sequence
from dataclasses import is_dataclass
from pathlib import Path

from experiments.config import compose
from experiments.errors import ConfigError
from experiments.methods import Method
from experiments.models import Model
from experiments.tasks import Task

KEY = "plugin="
VARIABLE = "FOURIERFT_PLUGINS"
"""Variable that names the modules to the processes of a launcher."""
BASES = {"method": Method, "model": Model, "task": Task}


def take_plugins(arguments: Sequence[str]) -> list[str]:
    """Load the modules that `plugin=MODULE` names, and return the other arguments.

    Every dataclass of a method, model or task in a module becomes a schema, and a folder `conf`
    beside it is searched for options. Modules are looked for in the current folder too.

    Raises:
        ConfigError: a module cannot be imported, or has nothing to add.
    """
    given = [word for word in arguments if word.startswith(KEY)]
    if not given:
        return list(arguments)
    names = [name for word in given for name in word.removeprefix(KEY).split(",")]
    here = os.getcwd()
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [here, os.environ.get("PYTHONPATH")]))
    os.environ[VARIABLE] = ",".join(names)
    if here not in sys.path:
        sys.path.append(here)  # behind all else: a file there must not hide a library
    load_named()
    rest = [word for word in arguments if word not in given]
    if compose.FOLDERS and not any(word.startswith("hydra.searchpath=") for word in rest):
        rest.append(compose.format_search_path(compose.FOLDERS))
    return rest


def load_named() -> None:
    """Load the modules that the environment names; those loaded before stay as they are."""
    for name in filter(None, os.environ.get(VARIABLE, "").split(",")):
        _load(name)


def _load(name: str) -> None:
    try:
        module = importlib.import_module(name)
    except Exception as error:  # whatever a private module raises
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ConfigError(f"{KEY}{name}: cannot be imported ({reason})") from error
    found = [
        (group, kind)
        for kind in vars(module).values()
        for group, base in BASES.items()
        if inspect.isclass(kind)
        and issubclass(kind, base)
        and is_dataclass(kind)
        # What the module imports from this project is no class of its own.
        and kind.__module__.partition(".")[0] == name.partition(".")[0]
    ]
    folder = Path(module.__file__ or "").absolute().parent / "conf"
    has_options = folder.is_dir() and folder != compose.CONF
    if not found and not has_options:
        raise ConfigError(
            f"{KEY}{name}: no dataclass of Method, Model or Task, and no folder conf beside it"
        )
    for group, kind in found:
        known = {one.__name__.lower(): one for one in compose.CLASSES[group]}
        if known.get(kind.__name__.lower(), kind) is not kind:
            raise ConfigError(f"{KEY}{name}: there is a {group} class {kind.__name__} already")
        compose.add_class(group, kind)
    if has_options and folder not in compose.FOLDERS:
        compose.FOLDERS.append(folder)
