"""What was typed: every mistake in it at once, before Hydra stops at the first."""

from __future__ import annotations

import difflib
import shutil
import typing
from collections.abc import Iterable
from enum import Enum
from importlib import metadata

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from experiments.config import CONF, composed
from experiments.methods import METHODS
from experiments.models import MODELS
from experiments.recipe import Train

_CHOSEN = {"recipe": "source", "sizes": "experiment"}  # groups that follow from another choice

_PLUGINS = {  # options of hydra/launcher and hydra/sweeper, and the package that each needs
    "processes": "hydra-joblib-launcher",
    "joblib": "hydra-joblib-launcher",
    "slurm": "hydra-submitit-launcher",
    "slurm_gpu": "hydra-submitit-launcher",
    "submitit_slurm": "hydra-submitit-launcher",
    "submitit_local": "hydra-submitit-launcher",
    "optuna": "hydra-optuna-sweeper",
    "tpe": "hydra-optuna-sweeper",
}

_BARE = {"-m", "--multirun", "-r", "--run", "--resolve", "--hydra-help"}  # flags without a value

HELP = """\
Fine-tune a base model on a task with a method, evaluate it and record the result.

  python train.py                                              the toy of Figure 7, in seconds
  python train.py model=roberta_base task=cola method=fourierft
  python train.py model=minilm task=sst2 method=lora task.path=FOLDER train.epochs=3
  python train.py experiment=table1                            a whole table

Choices (group=option):
{groups}
Values that are one of a few:
{values}
Any value (key=value), several (key=a,b with -m), one run in full (--cfg job --resolve).
README.md tells the rest.
"""


def help_page() -> str:
    """What `--help` shows, read off conf/: Hydra would take seconds to compose it."""
    lines = []
    folders = [item for item in CONF.iterdir() if item.is_dir()] + list((CONF / "hydra").iterdir())
    for folder in sorted(folders):
        name = folder.relative_to(CONF).as_posix()
        if name not in (*_CHOSEN, "train", "hydra", "rehearsal"):
            options = sorted(path.stem for path in folder.glob("*.yaml"))
            lines.append(f"  {name:<15}{', '.join(options)}")
    parts = [("method", kind) for kind in METHODS] + [("train", Train)]
    parts += [("model", kind) for kind in MODELS]
    values = {
        f"{section}.{name}": [one.name for one in choices]
        for section, kind in parts
        for name, hint in typing.get_type_hints(kind).items()
        for choices in (hint, *typing.get_args(hint))  # X | None holds X
        if isinstance(choices, type) and issubclass(choices, Enum)
    }
    listed = [f"  {key:<17}{', '.join(options)}" for key, options in values.items()]
    return HELP.format(groups="\n".join(lines), values="\n".join(listed))


def problems(arguments: list[str]) -> list[str]:
    """Checks the overrides among command-line arguments.

    Returns:
        One line for each wrong one, with key, given value and what is allowed; empty if they fit.
    """
    single, found = _parse(arguments)
    choices = [override for override in single if (CONF / override.key_or_group).is_dir()]
    values = [override for override in single if override not in choices]
    swept = len(single) > len({override.key_or_group for override in single})
    # Hydra takes any key behind a plus, and a choice that follows from another.
    lenient = any(
        one.is_add() or one.key_or_group in _CHOSEN or one.key_or_group.endswith(".name")
        for one in single
    )
    whole = None
    if not (found or swept or lenient):
        try:
            composed([override.input_line for override in single])
            return []
        except (HydraException, OmegaConfBaseException) as error:
            whole = error
    wrong = {override.input_line: _wrong_option(override) for override in choices}
    valid = {one.key_or_group: one.input_line for one in choices if not wrong[one.input_line]}
    cfg = composed(list(valid.values()))
    found += [line for lines in wrong.values() for line in lines]
    found += [line for override in values for line in _wrong_value(override, cfg)]
    if not found and whole is not None:
        found = [" ".join(f"{whole} {whole.__cause__ or ''}".split())]
    return found


def searched_choices(arguments: list[str]) -> list[str]:
    """One line for each choice of what is run that Hydra's own search would take for a parameter.

    A method would then be searched over, not each method be searched.
    """
    parsed = [OverridesParser.create().parse_override(one) for one in arguments if "=" in one[1:]]
    sweepers = [one.value() for one in parsed if one.key_or_group == "hydra/sweeper"]
    if not any(one.key_or_group == "search" for one in parsed) and not (
        {"tpe", "optuna"} & set(map(str, sweepers))
    ):
        return []
    return [
        f"{one.input_line}: one search would run over all of them; "
        "python -m experiments.search gives each its own"
        for one in parsed
        if one.is_sweep_override()
        and (one.key_or_group == "seed" or (CONF / one.key_or_group).is_dir())
    ]


def _parse(arguments: list[str]) -> tuple[list[Override], list[str]]:
    """Overrides (sweeps: one per value, Hydra's own: none), and a line for each that is none."""
    parser, found, problems = OverridesParser.create(), [], []
    for before, text in zip(["", *arguments], arguments, strict=False):
        value = before.startswith("-") and before not in _BARE and "=" not in text
        if text.startswith("-") or value:
            continue  # a flag, or its value as in `--cfg job`
        try:
            override = parser.parse_override(text)
        except HydraException:
            problems.append(f"{text}: not an override, write key=value")
            continue
        if override.key_or_group in ("hydra/launcher", "hydra/sweeper", "search"):
            problems += _missing_plugin(override)
        if not override.key_or_group.startswith("hydra"):
            found += _expand(override)
    return found, problems


def _missing_plugin(override: Override) -> list[str]:
    search = override.key_or_group == "search"
    package = _PLUGINS["tpe"] if search else _PLUGINS.get(str(override.value()))
    if "slurm" in str(override.value()) and shutil.which("sbatch") is None:
        return [f"{override.input_line}: there is no sbatch here; start it on a login node"]
    try:
        if package is not None:
            metadata.version(package)
    except metadata.PackageNotFoundError:
        return [f"{override.input_line}: needs {package} (pip install -e '.[sweep]')"]
    return []


def _expand(override: Override) -> list[Override]:
    """A sweep as one override per value; ranges and searches list none and are left to Hydra."""
    if not override.is_sweep_override():
        return [override]
    if not override.is_choice_sweep():
        return []
    key = override.input_line.partition("=")[0]
    texts = [f"{key}={value}" for value in override.sweep_string_iterator()]
    return [OverridesParser.create().parse_override(text) for text in texts]


def _wrong_option(override: Override) -> list[str]:
    group, option = override.key_or_group, override.value()
    if override.is_delete() or option is None:
        return []
    if group in _CHOSEN:
        return [f"{group}={option}: follows from {_CHOSEN[group]}=…, choose that"]
    options = sorted(path.stem for path in (CONF / group).glob("*.yaml"))
    if str(option) in options or (CONF / group / f"{option}.yaml").exists():
        return []
    return [
        f"{group}={option}: unknown (allowed: {', '.join(options)}){_nearest(str(option), options)}"
    ]


def _wrong_value(override: Override, cfg: DictConfig) -> list[str]:
    node, parent, shown = cfg, "the configuration", override.input_line
    if override.key_or_group.endswith(".name"):
        group = override.key_or_group.removesuffix(".name")
        return [f"{shown}: a name follows from {group}=…, choose that"]
    *path, last = override.key_or_group.split(".")
    for part in [*path, last]:
        if not isinstance(node, DictConfig):
            return [f"{shown}: {parent} has no keys of its own"]
        free = issubclass(OmegaConf.get_type(node) or dict, dict)  # a plain mapping takes any key
        if part not in node.keys():  # `in` alone is false for what has no value yet
            if free:
                return []
            allowed = sorted(map(str, node))
            groups = (
                sorted(item.name for item in CONF.iterdir() if item.is_dir()) if node is cfg else []
            )
            names = sorted({*allowed, *groups} - {"variant", "hydra", *_CHOSEN})
            return [
                f"{shown}: unknown key {part!r} in {parent} "
                f"(allowed: {', '.join(names)}){_nearest(part, names)}"
            ]
        parent, owner = part, node
        if OmegaConf.is_missing(node, part) or OmegaConf.is_interpolation(node, part):
            break
        node = node[part]
    if override.is_delete():
        return []
    trial = owner.copy()
    try:
        trial[last] = override.value()
    except (OmegaConfBaseException, ValueError) as error:
        return [f"{shown}: {str(error).splitlines()[0]}"]
    return []


def _nearest(word: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""
