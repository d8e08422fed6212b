"""Checks of overrides: every mistake at once, before Hydra stops at the first."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import Override
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from experiments.config import flags, help_page, override_parser
from experiments.config.compose import CONF, compose_config, format_search_path
from experiments.config.override_parser import shorten
from experiments.errors import ConfigError, suggest

_LAUNCHERS = {  # options of hydra/launcher, and the package that each needs
    "processes": "hydra-joblib-launcher",
    "joblib": "hydra-joblib-launcher",
    "slurm": "hydra-submitit-launcher",
    "slurm_gpu": "hydra-submitit-launcher",
    "submitit_slurm": "hydra-submitit-launcher",
    "submitit_local": "hydra-submitit-launcher",
}
_REQUIRED = {"model", "task", "method", "source", "tracking", "train"}
_MAX_CHECKED = 100
"""Values of a sweep that are checked one by one; Hydra composes all of them."""


def find_problems(arguments: list[str], *, searching: bool = False) -> list[str]:
    """Check the overrides among command-line arguments.

    Args:
        arguments: command line.
        searching: skip what `experiments.search` reads: search=… and intervals.

    Returns:
        One line per wrong override, with key, given value and what is allowed; empty if they fit.
    """
    return compose_checked(arguments, searching=searching, sweeping=True)[0]


def compose_checked(
    arguments: list[str], *, searching: bool = False, sweeping: bool = False
) -> tuple[list[str], DictConfig | None]:
    """Check the overrides as `find_problems` does, and compose what they ask for.

    Unless `sweeping`, several values need -m.

    Returns:
        The problems; the configuration of the one run that is asked for, None where Hydra itself
        has to compose: for a sweep, a flag, or settings of its own.
    """
    typed = flags.parse_arguments(arguments)
    if typed.asks or (typed.problems and not typed.overrides):
        return typed.problems, None
    if sum(map(len, typed.overrides)) > 4 * override_parser.MAX_LENGTH:
        too_long = f"overrides of more than {4 * override_parser.MAX_LENGTH:,} characters in all"
        return [*typed.problems, too_long], None
    given, found = _parse_all(typed.overrides)
    folders = _list_folders(given, typed.folder)
    of_search = [one for one in given if _is_search(one)]
    given = [one for one in given if one not in of_search]
    found = typed.problems + found + _find_large_sweeps(given)
    if of_search and not searching:
        texts = " ".join(shorten(one.input_line) for one in of_search)
        found.append(f"{texts}: only python -m experiments.search reads search=… and intervals")
    for one in given:
        if one.key_or_group == "hydra/launcher":
            found += _find_missing_plugin(one)
        elif one.key_or_group == "hydra/sweeper" and str(one.value()) in ("tpe", "optuna"):
            text = shorten(one.input_line)
            found.append(f"{text}: searches are python -m experiments.search (docs/cluster.md)")
    found += [] if sweeping else _find_unasked_sweeps(given, typed.flags)
    single = [each for one in given if not _is_hydra(one) for each in _expand(one)]
    first = [one.input_line or "" for each in given for one in _expand(each)[:1]]
    swept = len(single) > len({one.key_or_group for one in single})
    # Hydra takes any key behind a plus, and a choice that follows from another.
    lenient = any(one.is_add() or one.key_or_group == "variant" or _is_name(one) for one in single)
    whole, cfg = ([], None) if found else _try_compose(first, folders)
    if found or whole or swept or lenient or _find_invalid_options(single, folders):
        found = list(dict.fromkeys(found + _find_invalid(single, folders))) or whole
    alone = not (found or swept or of_search or folders[1:] or set(typed.flags) - {"--run"})
    of_hydra = any(_is_hydra(one) or "${hydra:" in (one.input_line or "") for one in given)
    if cfg is None or not alone or of_hydra or cfg.hydra.mode is RunMode.MULTIRUN:
        return found, None
    with open_dict(cfg):
        del cfg["hydra"]
    return found, cfg


def _parse_all(texts: Iterable[str]) -> tuple[list[Override], list[str]]:
    """Return the overrides, and a line for each text that is not one."""
    found, wrong = [], []
    for text in texts:
        try:
            found.append(override_parser.parse(text))
        except ConfigError as error:
            wrong.append(error.summary)
    return found, wrong


def _list_folders(given: list[Override], added: str | None) -> list[Path]:
    """Return the folders of options: conf/, and those of --config-dir and hydra.searchpath."""
    paths = [added] if added is not None else []
    for one in given:
        value = one.value()
        if one.key_or_group == "hydra.searchpath" and isinstance(value, list):
            paths += [str(path).removeprefix("file://") for path in value]
    return [CONF, *(Path(path).absolute() for path in paths)]


def _find_large_sweeps(given: list[Override]) -> list[str]:
    """Return lines about sweeps that are empty or have too many runs."""
    found, sizes = [], {}
    for one in given:
        try:
            if one.is_discrete_sweep():
                override_parser.expand_sweep(one, 1)
                sizes[one.get_key_element()] = override_parser.count_values(one)
        except ConfigError as error:
            found.append(error.summary)
    number = math.prod(sizes.values())
    if not found and number > override_parser.MAX_CELLS:
        found.append(
            f"{' '.join(sizes)}: {number:,} runs in one sweep "
            f"(allowed: {override_parser.MAX_CELLS:,})"
        )
    return found


def _find_unasked_sweeps(given: list[Override], flagged: list[str]) -> list[str]:
    """Return lines about several values where one run is asked for."""
    keys = {one.key_or_group for one in given}
    asked = "--multirun" in flagged or keys & {"hydra.mode", "experiment"}
    swept = [shorten(one.input_line) for one in given if one.is_sweep_override() and not asked]
    return [f"{text}: several values, add -m for a run with each" for text in swept]


def _expand(override: Override) -> list[Override]:
    """Return a sweep as one override per value."""
    try:
        return [
            override_parser.parse(text)
            for text in override_parser.expand_sweep(override, _MAX_CHECKED)
        ]
    except ConfigError:
        return []  # said by _find_large_sweeps


def _try_compose(texts: list[str], folders: list[Path]) -> tuple[list[str], DictConfig | None]:
    """Return what Hydra composes of these, or its reason for not doing so, as one line."""
    try:
        return [], compose_config(_add_search_path(texts, folders), with_hydra=True)
    except ConfigError as error:
        return error.problems, None


def _add_search_path(texts: list[str], folders: list[Path]) -> list[str]:
    """Return overrides by which Hydra finds the options of all folders."""
    if not folders[1:] or any(text.startswith("hydra.searchpath=") for text in texts):
        return texts
    return [*texts, format_search_path(folders[1:])]


def _find_invalid(single: list[Override], folders: list[Path]) -> list[str]:
    """Return a line for each override that does not fit by itself."""
    found = _find_invalid_options(single, folders)
    choices = [one for one in single if _is_group(one, folders)]
    valid = [one for one in choices if not _check_option(one, folders)]
    values = [one for one in single if not _is_group(one, folders)]
    if not values:
        return found
    by_group = {one.key_or_group: one.input_line or "" for one in valid}
    try:
        cfg = compose_config(_add_search_path(list(by_group.values()), folders))
    except ConfigError as error:
        return found or error.problems
    return found + [line for one in values for line in _check_value(one, cfg)]


def _find_invalid_options(single: list[Override], folders: list[Path]) -> list[str]:
    choices = [one for one in single if _is_group(one, folders)]
    return [line for one in choices for line in _check_option(one, folders)]


def _is_hydra(override: Override) -> bool:
    return override.is_hydra_override() or override.key_or_group == "hydra"


def _is_group(override: Override, folders: list[Path]) -> bool:
    """Return True for a choice among files, False for a value."""
    parts = override.key_or_group.split("/")
    if isinstance(override.value(), dict) or not all(part.isidentifier() for part in parts):
        return False
    return parts[0] == "schema" or any(folder.joinpath(*parts).is_dir() for folder in folders)


def _is_search(override: Override) -> bool:
    return override.key_or_group == "search" or override.is_interval_sweep()


def _is_name(override: Override) -> bool:
    return override.key_or_group.endswith(".name")


def _find_missing_plugin(override: Override) -> list[str]:
    package, text = _LAUNCHERS.get(str(override.value())), shorten(override.input_line)
    if "slurm" in str(override.value()) and shutil.which("sbatch") is None:
        return [f"{text}: sbatch not found; start it on a login node"]
    try:
        if package is not None:
            metadata.version(package)
    except metadata.PackageNotFoundError:
        return [f"{text}: needs {package} (pip install -e '.[sweep]')"]
    return []


def _check_option(override: Override, folders: list[Path]) -> list[str]:
    group, option, text = override.key_or_group, override.value(), shorten(override.input_line)
    followed = help_page.FOLLOWING.get(group.partition("/")[0])
    if followed is not None:
        return [f"{text}: follows from {followed}=…, choose that"]
    if override.package is not None:
        return [f"{text}: a choice takes no package, write {group}={option}"]
    options = sorted({path.stem for one in folders for path in (one / group).glob("*.yaml")})
    allowed = f"(allowed: {', '.join(options)})"
    if override.is_delete() or option is None:
        instead = "a run needs one" if group in _REQUIRED else "omit it for none"
        return [f"{text}: a choice cannot be deleted, {instead} {allowed}"]
    if override.is_force_add():
        return [f"{text}: write {group}={option}"]
    if isinstance(option, list):
        return [f"{text}: one option, or several with {group}=a,b and -m {allowed}"]
    if str(option) in options:
        return []
    return [f"{text}: unknown {allowed}{suggest(Path(str(option)).stem, options)}"]


def _check_value(override: Override, cfg: DictConfig) -> list[str]:
    node, parent, text = cfg, "the configuration", shorten(override.input_line)
    if override.package is not None:
        return [f"{text}: a value takes no package, write {override.key_or_group}=…"]
    if override.key_or_group == "variant":
        return [f"{text}: is computed from the others"]
    if _is_name(override):
        group = override.key_or_group.removesuffix(".name")
        return [f"{text}: a name follows from {group}=…, choose that"]
    *path, last = override.key_or_group.split(".")
    for part in [*path, last]:
        if not isinstance(node, DictConfig) or node._is_none():
            return [f"{text}: {parent} has no keys of its own"]
        if part not in node.keys():  # noqa: SIM118  `in` alone is false for what has no value yet
            if _is_mapping(node):
                return []
            allowed = sorted(map(str, node))
            groups = (
                sorted(item.name for item in CONF.iterdir() if item.is_dir()) if node is cfg else []
            )
            names = sorted({*allowed, *groups} - {"variant", "hydra", *help_page.FOLLOWING})
            return [
                f"{text}: unknown key {part!r} in {parent} "
                f"(allowed: {', '.join(names)}){suggest(part, names)}"
            ]
        parent, owner = part, node
        if OmegaConf.is_missing(node, part) or OmegaConf.is_interpolation(node, part):
            break
        node = node[part]
    if override.is_delete():
        return []
    trial = owner.copy()
    try:
        if isinstance(override.value(), dict):  # Hydra merges what it holds
            _allow_new_keys(trial._get_node(last))
            trial.merge_with({last: override.value()})
        else:
            trial[last] = override.value()
    except (OmegaConfBaseException, ValueError, TypeError) as error:
        if "is not a ListConfig" in str(error):
            return [f"{text}: must be a list, write {override.key_or_group}=[{override.value()}]"]
        return [f"{text}: {shorten(str(error).splitlines()[0], 600)}"]
    return []


def _is_mapping(node: Any) -> bool:
    """Return True for a plain mapping, which takes any key."""
    return isinstance(node, DictConfig) and issubclass(OmegaConf.get_type(node) or dict, dict)


def _allow_new_keys(node: Any) -> None:
    if _is_mapping(node):
        OmegaConf.set_struct(node, False)
