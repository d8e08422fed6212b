"""Command line of `train.py`: Hydra's flags, separated from overrides."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from hydra._internal.utils import get_args_parser

from experiments.errors import ConfigError

_COMMANDS = ("run", "multirun", "cfg", "info", "shell_completion")  # one at a time
_VALUED = ("cfg", "package", "info", "config_dir")
_BARE = ("hydra_help", "resolve", "run", "multirun", "shell_completion")


@dataclass(frozen=True, kw_only=True)
class CommandLine:
    """Parsed command line."""

    overrides: list[str]
    flags: list[str]
    """As Hydra takes them."""
    asks: bool
    """True if only help or the shell's completion is wanted."""
    folder: str | None
    """Further options beside those of conf/ (--config-dir)."""
    problems: list[str]

    @property
    def arguments(self) -> list[str]:
        """For Hydra, whose own parser takes overrides in one piece only."""
        return [*self.flags, *self.overrides]


def parse_arguments(arguments: list[str]) -> CommandLine:
    """Parse a command line; everything that does not fit goes into `problems`."""
    parser = get_args_parser()
    parser.error = _raise_parser_error  # type: ignore[method-assign]  # else it ends the process with its usage
    try:
        found, rest = parser.parse_known_intermixed_args(arguments)
    except ConfigError as error:
        return CommandLine(
            overrides=[], flags=[], asks=False, folder=None, problems=[error.summary]
        )
    words = [*found.overrides, *(text for text in rest if not text.startswith("-"))]
    words.sort(key=arguments.index)  # as they were typed: the last one of a key wins
    problems = []
    for text in rest:
        if text.startswith("-"):
            problems.append(_describe_unknown(text, arguments, words))
    problems += _find_misused(found)
    values = {name: getattr(found, name) for name in _VALUED}
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in values.items() if value]
    flags += [f"--{name.replace('_', '-')}" for name in _BARE if getattr(found, name)]
    return CommandLine(
        overrides=words,
        flags=flags,
        asks=found.help or found.hydra_help or found.shell_completion,
        folder=found.config_dir,
        problems=problems,
    )


def _raise_parser_error(message: str) -> NoReturn:
    raise ConfigError(message)


def _describe_unknown(text: str, arguments: list[str], words: list[str]) -> str:
    """Return a line about an unknown flag, and take the flag's value out of `words`."""
    key, given, value = text.lstrip("-").partition("=")
    after = arguments[arguments.index(text) + 1 :][:1]
    if not given and after and after[0] in words and "=" not in after[0]:
        words.remove(after[0])
        text, given, value = f"{text} {after[0]}", "=", after[0]
    if given and key:
        return f"{text}: write {key}={value}"
    return f"{text}: not a flag (values are written key=value; --hydra-help lists the flags)"


def _find_misused(found: argparse.Namespace) -> list[str]:
    problems = []
    given = [name for name in _COMMANDS if getattr(found, name)]
    if len(given) > 1:
        several = " and ".join(f"--{name.replace('_', '-')}" for name in given)
        problems.append(f"{several}: only one at a time")
    if found.resolve and not (found.cfg or found.help):
        problems.append("--resolve: only with --cfg")
    if found.config_path is not None:
        problems.append(
            f"--config-path={found.config_path}: the configuration is conf/; "
            "--config-dir=FOLDER adds options of your own"
        )
    if found.config_name not in (None, "train", "train.yaml"):
        problems.append(f"--config-name={found.config_name}: unknown (allowed: train)")
    if found.config_dir is not None and not Path(found.config_dir).is_dir():
        problems.append(f"--config-dir={found.config_dir}: no such folder")
    if found.experimental_rerun is not None:
        problems.append(
            f"--experimental-rerun={found.experimental_rerun}: runs keep no pickles; "
            "to repeat a run, add force=true to its command"
        )
    return problems
